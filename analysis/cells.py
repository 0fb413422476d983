"""A cell: one voice's values at one row and column, by seed, and how it is written."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

import pandas as pd

from analysis.statistics import Estimate, mean_interval
from paper_tables.printed import Printed
from paper_tables.spec import Column, Row


@dataclass(frozen=True)
class Cell:
    values: dict[int, float]  # seed -> value; infinite where the run diverged

    @property
    def estimate(self) -> Estimate:
        return mean_interval(list(self.values.values()))

    @property
    def diverged(self) -> int:
        """How many of the runs diverged."""
        return sum(map(math.isinf, self.values.values()))


def cells(frame: pd.DataFrame) -> dict[tuple[str, str], Cell]:
    """(row label, column key) -> cell; an unknown cell has no entry."""
    values: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for row, column, seed, value in zip(frame["row"], frame["column"], frame["seed"], frame["value"], strict=True):
        values[row, column][int(seed)] = float(value)
    return {place: Cell(dict(sorted(by_seed.items()))) for place, by_seed in values.items()}


def own_text(cell: Cell | None, column: Column, expected: int) -> str:
    """'3.467 ± 0.012 (3)': mean, half-width of the 95 % interval, seeds; '(2 of 3)' where some are missing.

    A deviation over seeds is one number: '0.021 (of 3)'.
    """
    if cell is None:
        return ""
    found, diverged = cell.estimate, cell.diverged
    count = f"{found.n}" if found.n == expected else f"{found.n} of {expected}"
    if diverged:
        word = "∞" if column.better == "lower" else "diverged"
        return f"{word} ({count})" if diverged == found.n else f"{word} in {diverged} ({count})"
    places = column.decimals + 1  # one more than the paper prints: seeds differ in it
    text = f"{found.value:.{places}f}"
    if column.deviation:
        return f"{text} (of {count})"
    return f"{text} ({count})" if found.n == 1 else f"{text} ± {found.half_width:.{places}f} ({count})"


def published_text(row: Row, column: Column) -> str:
    """The cell as printed: its own digits, or its words."""
    value = row.published.get(column.key)
    if value is None:
        return ""
    text = value.text if isinstance(value, Printed) else "∞" if value == "inf" else value
    spread = row.published_sd.get(column.key)
    return text if spread is None else f"{text} (sd {spread.text})"
