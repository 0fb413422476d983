"""Last word: the last word of a line, which stands in what comes before (after LAMBADA, Paperno et al. 2016)."""

from __future__ import annotations

from collections.abc import Iterator

from replication.evaluate.tasks.at_hand.held_out import WORD, Document
from replication.evaluate.tasks.at_hand.item import Item
from replication.evaluate.tasks.at_hand.names import SYNTAX

CONTEXT = 160  # characters before the line


def last_word(document: Document) -> Iterator[Item]:
    """Of the words that training text has most often, without those that only syntax decides: small models copy no
    rare one."""
    for line in document.lines:
        words = document.words(line)
        found = list(WORD.finditer(words))
        if not line.new or not found:
            continue
        word, before = found[-1].group(), document.before(line.start, CONTEXT) + words[: found[-1].start()]
        if len(word) > 1 and word in document.common and word not in SYNTAX and word in WORD.findall(before):
            context = before.rstrip(" ")
            if context.strip():
                yield Item(context, (before[len(context) :] + word,))
