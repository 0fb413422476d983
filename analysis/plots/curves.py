"""The curves that runs recorded, as arrays: by voice, row and seed."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from analysis.load import Record
from analysis.matching import by_cell
from paper_tables.spec import Exhibit

BINS = 15  # of the recorded reliability curves
Columns = dict[str, NDArray[np.float64]]
Curves = dict[str, list[Columns]]  # row label -> one curve per seed


def recorded(exhibit: Exhibit, records: list[Record], name: str) -> Curves:
    """Row label -> that curve of each of its runs, rows without one left out.

    Raises ValueError where a curve's columns differ in length.
    """
    cells = by_cell(exhibit, records)
    found: Curves = {}
    for row in exhibit.rows:
        of_row = {r.seed: r for column in exhibit.columns for r in cells[row.label, column.key]}
        own = {r.seed: r for r in cells[row.label, main_column(exhibit, row.label)]}
        curves = [
            arrays(record, name) for _, record in sorted({**of_row, **own}.items()) if name in record.summary.curves
        ]
        if curves:
            found[row.label] = curves
    return found


def main_column(exhibit: Exhibit, label: str) -> str:
    """A column that the row fills by its own recipe, not by a companion's or a probe's run."""
    companions = exhibit.row(label).companions
    own = (column.key for column in exhibit.columns if column.key not in companions and not column.probe)
    return next(own, exhibit.columns[0].key)


def arrays(record: Record, name: str) -> Columns:
    columns = {key: np.array(values, dtype=float) for key, values in record.summary.curves[name].items()}
    if len({len(values) for values in columns.values()}) > 1:
        raise ValueError(f"{record.run_id}: the columns of curve {name!r} differ in length.")
    return columns


def by_voice(exhibit: Exhibit, records: dict[str, list[Record]], name: str) -> dict[str, Curves]:
    found = {voice: recorded(exhibit, own, name) for voice, own in records.items()}
    return {voice: curves for voice, curves in found.items() if curves}


def pooled(seeds: list[Columns]) -> tuple[list[float], list[float]]:
    """Mean confidence and accuracy per bin over all tokens of all seeds; empty bins left out."""
    sums: dict[int, NDArray[np.float64]] = defaultdict(lambda: np.zeros(3))
    for curve in seeds:
        for confidence, accuracy, count in zip(curve["confidence"], curve["accuracy"], curve["count"], strict=True):
            if count > 0:
                sums[bin_of(confidence)] += count * np.array([confidence, accuracy, 1.0])
    return [float(sums[b][0] / sums[b][2]) for b in sorted(sums)], [
        float(sums[b][1] / sums[b][2]) for b in sorted(sums)
    ]


def bin_of(confidence: float) -> int:
    return min(max(math.ceil(confidence * BINS), 1), BINS)


def deviations(seeds: list[Columns]) -> tuple[list[float], NDArray[np.float64]]:
    """Mean confidence, and accuracy less confidence for each seed, of the bins that no seed left empty."""
    by_bin: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for curve in seeds:
        for confidence, accuracy, count in zip(curve["confidence"], curve["accuracy"], curve["count"], strict=True):
            if count > 0:
                by_bin[bin_of(confidence)].append((confidence, accuracy - confidence))
    full = [by_bin[b] for b in sorted(by_bin) if len(by_bin[b]) == len(seeds)]
    x = [float(np.mean([confidence for confidence, _ in pairs])) for pairs in full]
    return x, np.array([[gap for _, gap in pairs] for pairs in full]).reshape(len(full), len(seeds)).T


def common(seeds: list[Columns], x: str, y: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The x that all seeds share, and y there for each seed."""
    for curve in seeds:
        if x not in curve or y not in curve:
            raise ValueError(f"The recorded curve has no {x!r} or {y!r}. It has: {', '.join(curve)}.")
    shared = sorted(set.intersection(*(set(curve[x]) for curve in seeds)))
    at = [dict(zip(curve[x], curve[y], strict=True)) for curve in seeds]
    return np.array(shared), np.array([[one[value] for value in shared] for one in at]).reshape(len(seeds), len(shared))
