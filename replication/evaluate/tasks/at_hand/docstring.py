"""Docstring: what is said of this code, or which code is it said of (after ARC, Clark et al. 2018)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from replication.evaluate.tasks.at_hand.held_out import Document
from replication.evaluate.tasks.at_hand.item import Item, chance, choice

CONTEXT = 160  # characters
HEADING = re.compile(r" *(?:async )?(?:def|class) [A-Za-z0-9_]+.*:$")
OPENS = re.compile(r"( *[rRuU]?(?:\"\"\"|'''))([A-Z].{11,59}?)(?:\"\"\"|'''|$)")
COMMENT = re.compile(r" *#+ [A-Za-z].{11,}")
CODE = re.compile(r" *[A-Za-z_@].{11,59}")
WRONG = 3


def docstring(document: Document) -> Iterator[Item]:
    """A docstring's first line behind its heading, or the line of code behind its comment, among others of the same
    kind in the document; prose has none."""
    found: dict[str, list[tuple[str, str]]] = {"docstring": [], "comment": []}
    for last, line in pairwise(document.lines):
        words, before = document.words(line), document.words(last)
        said = OPENS.match(words)
        if not line.new:
            continue
        if said is not None and HEADING.fullmatch(before):
            found["docstring"].append((document.before(line.start, CONTEXT) + said.group(1), said.group(2).rstrip()))
        elif COMMENT.fullmatch(before) and CODE.fullmatch(words):
            found["comment"].append((document.before(last.end, CONTEXT), document.text[last.end : line.end]))
    for kind, each in found.items():
        for context, right in each:
            others = {text for _, text in each} - {right}
            mixed = sorted(others, key=lambda text: chance("docstring", context, text))
            if len(mixed) >= WRONG:
                yield choice("docstring", context, right, mixed[:WRONG], kind)
