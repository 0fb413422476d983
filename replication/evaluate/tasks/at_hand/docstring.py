"""Docstring: which of four docstrings is this function's (after ARC, Clark et al. 2018)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from replication.evaluate.tasks.at_hand.held_out import Document
from replication.evaluate.tasks.at_hand.item import Item, chance, choice

CONTEXT = 160  # characters, the heading included
HEADING = re.compile(r" *(?:async )?(?:def|class) ([A-Za-z0-9_]+).*:$")
OPENS = re.compile(r"( *[rRuU]?(?:\"\"\"|'''))([A-Z].{11,79}?)(?:\"\"\"|'''|$)")
WRONG = 3


def docstring(document: Document) -> Iterator[Item]:
    """A docstring's first line, among those of other functions and classes of the document; none in prose."""
    found = []
    for heading, line in pairwise(document.lines):
        said = OPENS.match(document.words(line))
        if said is not None and line.new and HEADING.fullmatch(document.words(heading)):
            found.append((document.before(line.start, CONTEXT) + said.group(1), said.group(2).rstrip()))
    for context, right in found:
        others = sorted({text for _, text in found} - {right}, key=lambda text: chance("docstring", context, text))
        if len(others) >= WRONG:
            yield choice("docstring", context, right, others[:WRONG])
