"""Terms of a relation: where they stand in the record, and the interval of values that would be printed so."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from paper_tables.printed import Printed
from paper_tables.spec import Exhibit, Quantity, Row, Term, load, said

SLACK = 1e-9  # relative: floats are not decimals
CORNERS = 10  # with more arguments every corner of the box is too many; monotonicity finds the two that matter


@dataclass(frozen=True)
class Interval:
    """Every value that would be printed as this one."""

    low: float
    high: float
    text: str  # as printed
    middle: float

    def overlaps(self, other: Interval, tolerance: float = 0.0) -> bool:
        slack = tolerance + SLACK * max(1.0, abs(self.middle), abs(other.middle))
        return self.low <= other.high + slack and other.low <= self.high + slack


class EmptyCell(Exception):  # noqa: N818 (no error: the relation does not apply there)
    """A term that the row does not print: the relation does not apply there."""


@dataclass(frozen=True)
class Place:
    """Where a relation stands, and so what its terms may be short for."""

    paper: str
    exhibit: Exhibit | None

    @property
    def name(self) -> str:
        return self.exhibit.name if self.exhibit else f"{self.paper}/said"

    def interval(self, term: Term, row: Row | None) -> Interval:
        """What a term prints. Raises EmptyCell for an empty cell, ValueError for a term that cannot be."""
        if isinstance(term, str) and term.startswith("@"):
            return of_quantity(self.quantity(term[1:]))
        if isinstance(term, float | int):
            return Interval(term, term, f"{term:g}", term)
        exhibit, label, key = self.address(term, row)
        cells = next((row.published for row in exhibit.rows if row.label == label), None)
        if cells is None:
            raise ValueError(f"{self.name}: a relation names row {label!r} of {exhibit.name}, which has no such row.")
        column = next((column for column in exhibit.columns if column.key == key), None)
        if column is None:
            raise ValueError(
                f"{self.name}: a relation names column {key!r} of {exhibit.name}, which has no such column."
            )
        value = cells.get(key)
        if not isinstance(value, Printed):
            raise EmptyCell
        return of_number(value, 0.0 if column.exact else 1.0)

    def quantity(self, id: str) -> Quantity:
        known = {quantity.id: quantity for quantity in said(self.paper).quantities}
        if id not in known:
            raise ValueError(f"{self.name}: a relation names quantity '@{id}'. Known in said.toml: {', '.join(known)}.")
        return known[id]

    def address(self, term: str | list[str], row: Row | None) -> tuple[Exhibit, str, str]:
        parts = [term] if isinstance(term, str) else term
        if len(parts) == 3:
            name = parts[0] if "/" in parts[0] else f"{self.paper}/{parts[0]}"
            return load_once(name), parts[1], parts[2]
        if self.exhibit is None or len(parts) not in (1, 2) or (len(parts) == 1 and row is None):
            raise ValueError(f"{self.name}: {term!r} is no term here. Terms: number, column, [row, column], "
                             "[exhibit, row, column], '@quantity'.")  # fmt: skip
        return self.exhibit, parts[0] if len(parts) == 2 else row.label, parts[-1]  # type: ignore[union-attr]

    def words(self, term: Term, row: Row | None) -> str:
        if isinstance(term, list):
            return " / ".join(term)
        return term if isinstance(term, str) else f"{term:g}"


load_once = cache(load)


def of_number(value: Printed, units: float = 1.0) -> Interval:
    half = value.half_unit * units
    return Interval(value - half, value + half, value.text, float(value))


def of_quantity(quantity: Quantity) -> Interval:
    units = 2.0 if quantity.about else 1.0
    mark = "about " if quantity.about else ""
    if quantity.value is not None:
        one = of_number(quantity.value, units)
        return Interval(one.low, one.high, mark + one.text, one.middle)
    assert quantity.low is not None and quantity.high is not None
    low, high = of_number(quantity.low, units), of_number(quantity.high, units)
    return Interval(low.low, high.high, f"{mark}{low.text} to {high.text}", (low.middle + high.middle) / 2)


def follows(function: Callable[..., float], arguments: list[Interval]) -> tuple[float, float]:
    """The least and the greatest value of a function that is monotone in each argument, over a box.

    Evaluated at the box's corners; with many arguments at the two that the direction of each argument points to.
    """
    boxes = [(argument.low, argument.high) for argument in arguments]
    open_boxes = [box for box in boxes if box[0] < box[1]]
    if len(open_boxes) <= CORNERS:
        values = [function(*corner) for corner in itertools.product(*(sorted(set(box)) for box in boxes))]
        return min(values), max(values)
    middle = [argument.middle for argument in arguments]
    down, up = list(middle), list(middle)
    for place, (low, high) in enumerate(boxes):
        at_low, at_high = (function(*middle[:place], end, *middle[place + 1 :]) for end in (low, high))
        rising = at_high >= at_low
        down[place], up[place] = (low, high) if rising else (high, low)
    return function(*down), function(*up)
