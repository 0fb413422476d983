"""How finely water-filling rounds its head: what the draw and the codec, which loads no torch, both go by."""

from __future__ import annotations


def parts_for_classes(classes: int) -> int:
    """Four to the highest level that so many classes may have: the rounding adds under 2 % to the mean error.

    At a sharp position, whose error is tiny, it may be most of it (docs/theory.md, 17).
    """
    return 4 * classes


def parts_for_level(level: float) -> int:
    """Two to the level: finer ones cost more bits than the draws that they save."""
    return round(2 / level)


def most_at_level(level: float) -> int:
    """The classes that a position keeps at most: the sum of min(1, probability / level) is not above 1 / level."""
    return max(1, round(1 / level))
