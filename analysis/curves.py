"""Figures of the curves that runs recorded: reliability, a quantity along another, targets by class.

Each has a panel per voice and returns None where no run recorded its curve.
"""

from __future__ import annotations

import math
from collections import defaultdict

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from analysis.load import Record
from analysis.matching import by_cell
from paper_tables.spec import Exhibit

BINS = 15  # of the recorded reliability curves
CLASSES = 50  # shown of a target
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
    """A column that the row fills by its own recipe, not by a companion's run."""
    companions = exhibit.row(label).companions
    return next((column.key for column in exhibit.columns if column.key not in companions), exhibit.columns[0].key)


def arrays(record: Record, name: str) -> Columns:
    columns = {key: np.array(values, dtype=float) for key, values in record.summary.curves[name].items()}
    if len({len(values) for values in columns.values()}) > 1:
        raise ValueError(f"{record.run_id}: the columns of curve {name!r} differ in length.")
    return columns


def by_voice(exhibit: Exhibit, records: dict[str, list[Record]], name: str) -> dict[str, Curves]:
    found = {voice: recorded(exhibit, own, name) for voice, own in records.items()}
    return {voice: curves for voice, curves in found.items() if curves}


def colours(exhibit: Exhibit) -> dict[str, tuple[float, float, float]]:
    palette = sns.color_palette("colorblind", len(exhibit.rows))
    return {row.label: colour for row, colour in zip(exhibit.rows, palette, strict=True)}


def reliability(exhibit: Exhibit, frames: dict[str, pd.DataFrame], records: dict[str, list[Record]]) -> Figure | None:
    """Accuracy against confidence, bins pooled over seeds; below the diagonal the student is over-confident."""
    voices = by_voice(exhibit, records, "reliability")
    if not voices:
        return None
    figure, grid = plt.subplots(1, len(voices), figsize=(1 + 5.2 * len(voices), 4.6), squeeze=False)
    for axes, (voice, curves) in zip(grid.flat, voices.items(), strict=True):
        axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--")
        ends = {}
        for label, seeds in curves.items():
            confidence, accuracy = pooled(seeds)
            axes.plot(confidence, accuracy, marker="o", markersize=3, color=colours(exhibit)[label])
            ends[label] = (confidence[-1], accuracy[-1])
        axes.set(
            title=voice + lacking(exhibit, curves), xlabel="confidence", ylabel="accuracy", ylim=(0, 1), xlim=(0, 1.4)
        )
        axes.set_xticks(np.linspace(0, 1, 6))
        axes.set_aspect("equal", adjustable="box")
        name_lines(axes, ends, exhibit, 1.03)
    return figure


def pooled(seeds: list[Columns]) -> tuple[list[float], list[float]]:
    """Mean confidence and accuracy per bin over all tokens of all seeds; empty bins left out."""
    sums: dict[int, NDArray[np.float64]] = defaultdict(lambda: np.zeros(3))
    for curve in seeds:
        for confidence, accuracy, count in zip(curve["confidence"], curve["accuracy"], curve["count"], strict=True):
            if count > 0:
                bin = min(max(math.ceil(confidence * BINS), 1), BINS)
                sums[bin] += count * np.array([confidence, accuracy, 1.0])
    return [float(sums[b][0] / sums[b][2]) for b in sorted(sums)], [
        float(sums[b][1] / sums[b][2]) for b in sorted(sums)
    ]


def name_lines(axes: Axes, ends: dict[str, tuple[float, float]], exhibit: Exhibit, x: float) -> None:
    """Labels beside the lines' ends, moved apart where they would overlap (y in axes units from 0 to 1)."""
    step, last = 0.055, -1.0
    for label, (end_x, end_y) in sorted(ends.items(), key=lambda item: item[1][1]):
        y = last = max(end_y, last + step)
        colour = colours(exhibit)[label]
        axes.plot([end_x, x], [end_y, y], color=colour, linewidth=0.5)
        axes.text(x + 0.01, y, label, color=colour, va="center", fontsize=8)


def lacking(exhibit: Exhibit, curves: Curves) -> str:
    absent = [row.label for row in exhibit.rows if row.label not in curves]
    return f" (no run of {', '.join(absent)})" if absent else ""


def curve(exhibit: Exhibit, frames: dict[str, pd.DataFrame], records: dict[str, list[Record]]) -> Figure | None:
    """A recorded quantity along another: the mean over seeds, with a band from the lowest to the highest seed."""
    plot = exhibit.plot
    voices = by_voice(exhibit, records, plot["curve"])
    if not voices:
        return None
    figure, grid = plt.subplots(1, len(voices), figsize=(1 + 5.2 * len(voices), 4), squeeze=False)
    for axes, (voice, curves) in zip(grid.flat, voices.items(), strict=True):
        for label, seeds in curves.items():
            x, y_SX = common(seeds, plot["x"], plot["y"])
            colour = colours(exhibit)[label]
            axes.plot(x, y_SX.mean(0), marker="o", markersize=3, color=colour, label=label)
            axes.fill_between(x, y_SX.min(0), y_SX.max(0), color=colour, alpha=0.2, linewidth=0)
        title = f"{voice}: mean, lowest and highest seed{lacking(exhibit, curves)}"
        axes.set(xscale="log", xlabel=words(exhibit, plot["x"]), ylabel=words(exhibit, plot["y"]), title=title)
        axes.legend(fontsize=8)
    return figure


def words(exhibit: Exhibit, key: str) -> str:
    named = [
        f"{column.label} ({column.unit})" if column.unit else column.label
        for column in exhibit.columns
        if column.key == key
    ]
    return named[0] if named else key.replace("_", " ")


def common(seeds: list[Columns], x: str, y: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The x that all seeds share, and y there for each seed."""
    for curve in seeds:
        if x not in curve or y not in curve:
            raise ValueError(f"The recorded curve has no {x!r} or {y!r}. It has: {', '.join(curve)}.")
    shared = sorted(set.intersection(*(set(curve[x]) for curve in seeds)))
    at = [dict(zip(curve[x], curve[y], strict=True)) for curve in seeds]
    return np.array(shared), np.array([[one[value] for value in shared] for one in at]).reshape(len(seeds), len(shared))


def zipf(exhibit: Exhibit, frames: dict[str, pd.DataFrame], records: dict[str, list[Record]]) -> Figure | None:
    """A panel per row: the teacher, and what the mean target makes of it, over the most probable classes."""
    voices = by_voice(exhibit, records, "targets")
    if not voices:
        return None
    across = max(map(len, voices.values()))
    size = (1 + 2.8 * across, 0.8 + 2.6 * len(voices))
    figure, grid = plt.subplots(len(voices), across, figsize=size, sharey=True, squeeze=False)
    for line, (voice, curves) in zip(grid, voices.items(), strict=True):
        line[0].set_ylabel(f"probability ({voice}{lacking(exhibit, curves)})")
        for axes in line[len(curves) :]:
            axes.axis("off")
        for axes, (label, seeds) in zip(line, curves.items(), strict=False):
            targets(axes, label, seeds, colours(exhibit)[label])
    return figure


def targets(axes: Axes, label: str, seeds: list[Columns], colour: tuple[float, float, float]) -> None:
    x, teacher_SX = common(seeds, "class", "teacher")
    _, target_SX = common(seeds, "class", "mean_target")
    x, teacher, target = x[:CLASSES], teacher_SX.mean(0)[:CLASSES], target_SX.mean(0)[:CLASSES]
    axes.plot(x, teacher, color="0.5", label="teacher")
    kept = target > 0
    axes.plot(x[kept], target[kept], "o", markersize=3, color=colour, label="mean target")
    if not kept.all():
        floor = teacher.min() / 2  # a logarithm has no zero: these stand at the foot
        axes.plot(x[~kept], np.full((~kept).sum(), floor), "v", markersize=3, color="0.3", label="zero")
    axes.set(title=label, xlabel="class", yscale="log")
    axes.legend(fontsize=7)
