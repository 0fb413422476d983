"""A printed cell as a value, wherever the exhibit says that it stands."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from paper_tables.printed import Printed
from paper_tables.spec import Exhibit, load


@dataclass(frozen=True)
class Value:
    """A printed cell: its value, how far rounding may have moved it, and its standard deviation over n seeds."""

    mean: float
    half: float
    sd: float | None
    n: int

    @property
    def tested(self) -> bool:
        return self.sd is not None and self.n > 1


def value_of(exhibit: Exhibit, label: str, key: str) -> Value | None:
    """The cell as a value; where a row of ours stands for one that another exhibit prints, that one's cell."""
    row = exhibit.row(label)
    if key not in row.published and key in row.printed_in:
        name, there, column = row.printed_in[key]
        return value_of(load(name if "/" in name else f"{exhibit.paper}/{name}"), there, column)
    cell = row.published.get(key)
    tasks, weights = exhibit.column(key).average_of, exhibit.column(key).weights
    if cell is None and tasks and not weights:  # an average that the extracted text has lost: its tasks are there
        values = [value_of(exhibit, label, task) for task in tasks]
        kept = [value for value in values if value is not None]
        if len(kept) == len(tasks):
            return Value(float(np.mean([value.mean for value in kept])), kept[0].half, None, 1)
    if isinstance(cell, Printed):
        sd = row.published_sd.get(key)
        spread = None if sd is None else max(sd, sd.half_unit)  # 0.00 is printed for anything up to half a unit
        return Value(float(cell), cell.half_unit, spread, exhibit.seeds or 1)
    return Value(math.inf, 0.0, None, 1) if cell == "inf" else None
