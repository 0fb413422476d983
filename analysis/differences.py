"""All differences between the rows of an exhibit, and which of them survive Holm's correction for having looked at all.

Claims are the differences that a paper speaks of; here is what its numbers say of every pair, in every column.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.answers import Answered
from analysis.relations import LEVEL, Sample
from analysis.statistics import holm, welch_greater
from analysis.values import value_of
from paper_tables.spec import Column, Exhibit


@dataclass(frozen=True)
class Difference:
    """Of two rows in a column, in printed units: first minus second, with its two-sided p."""

    column: str
    first: str
    second: str
    value: float
    p: float

    def told(self, adjusted: float) -> str:
        return f"{self.column}: {self.first} - {self.second} = {self.value:+.3g}, p = {self.p:.2g}, Holm {adjusted:.2g}"


def printed(exhibit: Exhibit, against: str = "") -> list[Difference]:
    """By Welch's test, of the rows with printed deviations."""
    found = []
    for column, first, second in pairs(exhibit, against):
        a, b = value_of(exhibit, first, column.key), value_of(exhibit, second, column.key)
        if a is not None and b is not None and a.tested and b.tested:
            assert a.sd is not None and b.sd is not None
            p = welch_greater(a.mean, a.sd, a.n, b.mean, b.sd, b.n)
            found.append(Difference(column.label, first, second, a.mean - b.mean, 2 * min(p, 1 - p)))
    return found


def measured(exhibit: Exhibit, table: pd.DataFrame, against: str = "") -> list[Difference]:
    """Of one voice's frame, paired over common seeds, and over items where they are known; two seeds or more."""
    found = []
    for column, first, second in pairs(exhibit, against):
        here = table[table["column"] == column.key].pivot_table(index="row", columns="seed", values="value")
        if not {first, second} <= set(here.index):
            continue
        both = here.loc[[first, second]].replace([np.inf, -np.inf], np.nan).dropna(axis=1)
        if both.shape[1] < 2:
            continue
        answers: Answered = table.attrs["answers"]
        seeds = [int(seed) for seed in both.columns]
        paired = answers.paired(column.key, [first, second], seeds, column.times) if answers.has(column.key) else ""
        values = {label: both.loc[label].to_numpy() for label in (first, second)}
        ahead = Sample(values, None if isinstance(paired, str) else paired).contrast((first, 1.0), (second, -1.0))
        p = ahead.p_greater()
        if not math.isnan(p):
            found.append(Difference(column.label, first, second, ahead.value, 2 * min(p, 1 - p)))
    return found


def pairs(exhibit: Exhibit, against: str = "") -> list[tuple[Column, str, str]]:
    """Of all rows, or of all with one of them, in columns where more or less is better and that follow from no other.

    ValueError, one line, where there is no such row.
    """
    labels = [row.label for row in exhibit.rows]
    if against and against not in labels:
        raise ValueError(f"{exhibit.name} has no row {against!r}. Rows: {', '.join(labels)}.")
    columns = [column for column in exhibit.columns if column.better != "none" and column.derive is None]
    chosen = [pair for pair in itertools.combinations(labels, 2) if not against or against in pair]
    return [(column, *pair) for column in columns for pair in chosen]


def surviving(found: list[Difference]) -> list[tuple[Difference, float]]:
    """Those below 5 % after Holm's correction over all of them, the surest first, each with its adjusted p."""
    adjusted = zip(found, holm([each.p for each in found]), strict=True)
    return sorted((pair for pair in adjusted if pair[1] < LEVEL), key=lambda pair: pair[1])


def briefly(voice: str, found: list[Difference]) -> str:
    """How many there are, and how many survive."""
    if not found:
        return f"{voice}: no difference can be tested."
    alone, kept = sum(each.p < LEVEL for each in found), len(surviving(found))
    return (
        f"{voice}: of {len(found)} differences between rows {alone} are below 5 % taken alone, {kept} by Holm over all."
    )


def told(voice: str, found: list[Difference]) -> list[str]:
    return [briefly(voice, found), *(f"  {each.told(adjusted)}" for each, adjusted in surviving(found))]


def noted(exhibit: Exhibit, frames: dict[str, pd.DataFrame]) -> list[str]:
    """The same as notes of an exhibit that prints deviations, in which every pair of rows may thus be asked about."""
    if not any(row.published_sd for row in exhibit.rows):
        return []
    ours = [briefly(voice, measured(exhibit, table)) for voice, table in frames.items() if len(table)]
    return [briefly("published", printed(exhibit)), *ours]
