"""The known word that is nearest to one that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def suggestion(word: str, known: Iterable[str]) -> str:
    """' (did you mean ...?)', whatever the case of the letters; "" where none is near."""
    by_letters = {each.lower(): each for each in known}
    near = difflib.get_close_matches(word.lower(), by_letters, n=1)
    return f" (did you mean {by_letters[near[0]]!r}?)" if near else ""


def one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    """ValueError, one line, for a word that is none of these."""
    if value not in known:
        raise ValueError(f"Unknown {name} {value!r}{suggestion(value, known)}. Known: {', '.join(known)}.")
