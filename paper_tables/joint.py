"""Percentages of one way, taken together: is there one start and one end that give all of them?

Each row alone may be explained by rounding where all rows together are not: every row's value is start + share x way,
with the same start and way. That is linear in (start, way): a small linear programme in two unknowns.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

SLACK = 1e-9
Box = tuple[float, float]
Half = tuple[float, float, float]  # (a, b, c): a * start + b * way <= c
Row = tuple[Box, Box]  # value, percentage


def conflict(start: Box, end: Box, rows: Sequence[Row]) -> list[int] | None:
    """The fewest rows (one to three) that no start and end within their boxes give together; None if there are none.

    By Helly's theorem three rows suffice in the plane. A way that may be zero or go either direction is left alone.
    """
    if start[0] <= end[1] and end[0] <= start[1]:
        return None
    falling = end[1] < start[0]
    ends = ends_of(start, end)
    given = [halves(row, falling) for row in rows]
    if feasible([*ends, *itertools.chain.from_iterable(given)]):
        return None
    for size in (1, 2, 3):
        for chosen in itertools.combinations(range(len(rows)), size):
            if not feasible([*ends, *itertools.chain.from_iterable(given[place] for place in chosen)]):
                return list(chosen)
    raise AssertionError("the ends alone are always possible, and three rows suffice")


def ends_of(start: Box, end: Box) -> list[Half]:
    return [(1.0, 0.0, start[1]), (-1.0, 0.0, -start[0]), (1.0, 1.0, end[1]), (-1.0, -1.0, -end[0])]


def halves(row: Row, falling: bool) -> list[Half]:
    """start + share * way meets the value's box for some share of the percentage's; `way` is negative if falling."""
    (low, high), (least, most) = row
    steep, flat = (most, least) if falling else (least, most)  # the shares that give the least and the greatest value
    return [(1.0, steep / 100, high), (-1.0, -flat / 100, -low)]


def feasible(constraints: Sequence[Half]) -> bool:
    """Whether some point satisfies all; the region is bounded, so one of its corners does if any point does."""
    for (a, b, c), (d, e, f) in itertools.combinations(constraints, 2):
        determinant = a * e - b * d
        if abs(determinant) < 1e-12:
            continue
        x, y = (c * e - b * f) / determinant, (a * f - c * d) / determinant
        if all(p * x + q * y <= r + SLACK * max(1.0, abs(r)) for p, q, r in constraints):
            return True
    return False
