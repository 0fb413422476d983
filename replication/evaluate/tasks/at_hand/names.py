"""Names in a text: words of prose, identifiers of code, without the words that every program has."""

from __future__ import annotations

import re

# of Python, written out: the list grows from version to version
SYNTAX = frozenset(
    "and as assert async await break class continue def del elif else except finally for from global "
    "if import in is lambda nonlocal not or pass raise return try while with yield".split()
)
KEYWORDS = SYNTAX | {"self", "None", "True", "False"}
NAME = re.compile(r"(?<![A-Za-z0-9_])(?!(?:" + "|".join(sorted(KEYWORDS)) + r")(?![A-Za-z0-9_]))[A-Za-z][A-Za-z0-9_]*")


def names_in(text: str) -> list[str]:
    """In the order of their first appearance."""
    return list(dict.fromkeys(found.group() for found in NAME.finditer(text)))
