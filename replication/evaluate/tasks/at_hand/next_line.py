"""Next line: which of four lines of a document comes next (after HellaSwag, Zellers et al. 2019)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from replication.evaluate.tasks.at_hand.held_out import Document, Line
from replication.evaluate.tasks.at_hand.item import Item, chance, choice

CONTEXT = 96  # characters
SHORTEST, LONGEST = 10, 32  # of a line that is a choice, without its indentation
WRONG = 3
POOL = 64  # lines of a document from which the wrong ones are taken: what is asked twice is computed once
TRIES = 40  # before a line is given up for want of others that are about as long


def next_line(document: Document) -> Iterator[Item]:
    """The other lines are from anywhere else in the document, about as long, and new like the right one."""
    fitting = [line for line in document.lines if line.new and SHORTEST <= length(document, line) <= LONGEST]
    pool = sorted(fitting, key=lambda line: chance("pool", document.words(line)))[:POOL]
    for last, line in pairwise(document.lines):
        if not (line.new and SHORTEST <= length(document, line) <= LONGEST):
            continue
        context = document.before(last.end, CONTEXT)
        wrong = others(document, line, pool, context)
        if len(wrong) == WRONG:
            gap = document.text[last.end : line.start]
            yield choice(
                "next_line", context, gap + document.words(line), [gap + document.words(other) for other in wrong]
            )


def others(document: Document, line: Line, pool: list[Line], context: str) -> list[Line]:
    """Three lines of the pool, none of which the context shows."""
    found: dict[str, Line] = {}
    size, own = length(document, line), document.words(line).strip()
    for number in range(TRIES):
        other = pool[chance("other line", context, own, number) % len(pool)]
        words = document.words(other).strip()
        if words != own and words not in context and 4 * abs(len(words) - size) <= size:
            found.setdefault(words, other)
        if len(found) == WRONG:
            break
    return list(found.values())


def length(document: Document, line: Line) -> int:
    return len(document.words(line).strip())
