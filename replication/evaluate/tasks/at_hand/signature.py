"""Signature: which of four lists of arguments follows this name, of a call or of a definition (after PIQA, Bisk et al.
2020)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from replication.evaluate.tasks.at_hand.held_out import Document
from replication.evaluate.tasks.at_hand.item import Item, chance, choice

CONTEXT = 96  # characters before the line
CALL = re.compile(r"(?<![A-Za-z0-9_.])(?:[A-Za-z_][A-Za-z0-9_]*\.)*[A-Za-z0-9_]*[A-Za-z0-9](\([^()\"']{3,40}\))")
WRONG, TRIES = 3, 40
POOL = 64  # calls of a document whose lists are the wrong ones: what is asked twice is computed once


@dataclass(frozen=True)
class Call:
    context: str  # up to the name
    arguments: str  # in brackets


def signature(document: Document) -> Iterator[Item]:
    """The wrong lists belong to other names of the document and have as many arguments; none in prose."""
    found = list(calls(document))
    pool = sorted(found, key=lambda call: chance("pool", call.arguments))[:POOL]
    for call in found:
        wrong: list[str] = []
        for number in range(TRIES):
            other = pool[chance("signature", call.context, number) % len(pool)].arguments
            if other not in (call.arguments, *wrong) and other.count(",") == call.arguments.count(","):
                wrong.append(other)
            if len(wrong) == WRONG:
                yield choice("signature", call.context, call.arguments, wrong)
                break


def calls(document: Document) -> Iterator[Call]:
    """The first call of each new line."""
    for line in document.lines:
        place = CALL.search(document.words(line)) if line.new else None
        if place is not None and re.search(r"[A-Za-z_]", place.group(1)):
            before = document.before(line.start, CONTEXT)
            yield Call(before + document.words(line)[: place.start(1)], place.group(1))
