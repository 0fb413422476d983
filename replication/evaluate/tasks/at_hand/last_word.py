"""Last word: the last name of a line, which stands in what comes before (after LAMBADA, Paperno et al. 2016)."""

from __future__ import annotations

from collections.abc import Iterator

from replication.evaluate.tasks.at_hand.held_out import Document
from replication.evaluate.tasks.at_hand.item import Item
from replication.evaluate.tasks.at_hand.names import NAME, names_in

CONTEXT = 160  # characters before the line
SHORTEST = 4  # characters of the word


def last_word(document: Document) -> Iterator[Item]:
    for line in document.lines:
        words = document.words(line)
        named = list(NAME.finditer(words))
        if not line.new or not named:
            continue
        word, before = named[-1].group(), document.before(line.start, CONTEXT) + words[: named[-1].start()]
        if len(word) >= SHORTEST and word in names_in(before):
            context = before.rstrip(" ")
            if context.strip():
                yield Item(context, (before[len(context) :] + word,))
