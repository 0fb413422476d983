"""Sums: the result of a problem, after worked steps (after GSM8K, Cobbe et al. 2021)."""

from __future__ import annotations

from collections.abc import Iterator

from replication.data.sums import PROBLEM
from replication.evaluate.tasks.at_hand.held_out import Document
from replication.evaluate.tasks.at_hand.item import Item

SHOWN = 1  # solved problems of the document in front, of those before it


def sums(document: Document) -> Iterator[Item]:
    """The problems of a document of `sums:<n>` or written like them; no other text has any."""
    found = list(PROBLEM.finditer(document.text))
    new = {line.start for line in document.lines if line.new}
    for place in range(SHOWN, len(found)):
        asked, shown = found[place], found[place - SHOWN]
        if asked.start() in new:
            yield Item(document.text[shown.start() : asked.end(1)] + " = ?\n", (asked.group(3),))
