"""Figures of a frame's numbers: dots, heat map, power law. Each returns None where there is nothing to draw."""

from __future__ import annotations

import math
from textwrap import fill
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullFormatter, ScalarFormatter

from analysis.cells import Cell, cells
from analysis.load import Record, published
from analysis.sheet import OURS
from analysis.statistics import Estimate
from analysis.statistics import power_law as fit_power_law
from paper_tables.spec import Column, Exhibit

COLOURS = dict(zip(("logged", "yours"), sns.color_palette("colorblind"), strict=False))
MARKERS = {"logged": "o", "yours": "s"}
PUBLISHED: dict[str, Any] = {"linestyle": "none", "marker": "D", "color": "0.35", "markerfacecolor": "none"}
WIDE = 300  # above this ratio of the largest to the smallest value an axis is logarithmic


def dots(exhibit: Exhibit, frames: dict[str, pd.DataFrame], records: dict[str, list[Record]]) -> Figure | None:
    """A panel per column: our mean and interval on the lower axis, the published value on its own axis above.

    Values at another scale have no common axis with the paper's; what can be compared is the pattern.
    """
    stated = published(exhibit)
    columns = [c for c in exhibit.columns if any(c.key in set(t["column"]) for t in (stated, *frames.values()))]
    if not columns:
        return None
    across = min(3, len(columns))
    down = math.ceil(len(columns) / across)
    size = (2 + 2.6 * across, down * (1.6 + 0.24 * len(exhibit.rows)))
    figure, grid = plt.subplots(down, across, figsize=size, sharey=True, squeeze=False)
    for axes, column in zip(grid.flat, columns, strict=False):
        panel(axes, exhibit, column, frames, stated)
    for axes in grid.flat[len(columns) :]:
        axes.axis("off")
    name_voices(figure, frames, stated)
    grid[0, 0].set_ylim(len(exhibit.rows) - 0.5, -0.5)
    grid[0, 0].set_yticks(range(len(exhibit.rows)), [row.label for row in exhibit.rows])
    return figure


def name_voices(figure: Figure, frames: dict[str, pd.DataFrame], stated: pd.DataFrame) -> None:
    """One legend for all panels, of the voices that have something to say."""
    keys = [
        Line2D([], [], linestyle="none", marker=MARKERS[voice], color=COLOURS[voice], label=voice)
        for voice in OURS
        if len(frames[voice])
    ]
    keys += [Line2D([], [], label="published (upper axis)", **PUBLISHED)] if len(stated) else []
    figure.legend(handles=keys, loc="outside upper right", ncols=len(keys), fontsize=8)


def panel(axes: Axes, exhibit: Exhibit, column: Column, frames: dict[str, pd.DataFrame], stated: pd.DataFrame) -> None:
    values: list[float] = []
    for voice, shift in zip(OURS, (-0.12, 0.12), strict=True):
        found = cells(frames[voice])
        for place, row in enumerate(exhibit.rows):
            if (row.label, column.key) in found:
                cell = found[row.label, column.key]
                values += cell.values.values()
                dot(axes, cell.estimate, place + shift, voice)
    drawn = len(values) > 0
    scale(axes, values)
    unit = f" ({column.unit})" if column.unit and column.unit not in column.label else ""
    axes.set_title(f"{column.label}{unit}")
    absent = f"not measured: {column.why}" if column.why else "no finished run"
    axes.set_xlabel(fill(f"ours: {'mean, 95 % interval' if drawn else absent}", 36), color=COLOURS["logged"])
    here = stated[stated["column"] == column.key]
    theirs = [(place, v) for place, row in enumerate(exhibit.rows) for v in here[here["row"] == row.label]["value"]]
    if not theirs:
        return
    shared = column.derive is not None and drawn  # normalised already, so one axis serves both
    above = axes if shared else axes.twiny()
    if not shared:
        above.grid(visible=False)
        above.spines["top"].set_visible(True)
        above.set_xlabel("published", color="0.35")
        scale(above, [v for _, v in theirs])
    finite = [(place, v) for place, v in theirs if math.isfinite(v)]
    above.plot([v for _, v in finite], [place for place, _ in finite], label="published", **PUBLISHED)
    for place, value in theirs:
        if not math.isfinite(value):
            at_the_edge(above, "published: ∞", place, "0.35")
    if not drawn:
        axes.set_xticks([])


def dot(axes: Axes, found: Estimate, place: float, voice: str) -> None:
    colour, marker = COLOURS[voice], MARKERS[voice]
    if not math.isfinite(found.value):
        at_the_edge(axes, f"{voice}: diverged", place, colour)
        return
    half = found.half_width if found.n > 1 else 0.0
    axes.errorbar(found.value, place, xerr=half, color=colour, marker=marker, capsize=2, linestyle="none")


def at_the_edge(axes: Axes, text: str, place: float, colour: Any) -> None:
    where = ("axes fraction", "data")
    axes.annotate(text, (0.98, place), xycoords=where, color=colour, ha="right", va="center", fontsize=7)


def scale(axes: Axes, values: list[float]) -> None:
    finite = [value for value in values if math.isfinite(value)]
    if finite and min(finite) > 0 and max(finite) / min(finite) > WIDE:
        axes.set_xscale("log")


def heatmap(exhibit: Exhibit, frames: dict[str, pd.DataFrame], records: dict[str, list[Record]]) -> Figure | None:
    """Rows labelled 'down / across' as a grid, the published values and ours side by side."""
    column = exhibit.column(exhibit.plot.get("value", exhibit.columns[0].key))
    separator = exhibit.plot.get("separator", " / ")
    pairs = [row.label.split(separator) for row in exhibit.rows if separator in row.label]
    down, across = (list(dict.fromkeys(pair[i] for pair in pairs)) for i in (0, 1))
    grids = {}
    for voice, table in {"published": published(exhibit), **frames}.items():
        found = cells(table)
        if any((separator.join(pair), column.key) in found for pair in pairs):
            grids[voice] = [[mean(found.get((f"{y}{separator}{x}", column.key))) for x in across] for y in down]
    if not grids:
        return None
    figure, axes = plt.subplots(1, len(grids), figsize=(1 + 3.2 * len(grids), 1.6 + 0.5 * len(down)), squeeze=False)
    for here, (voice, grid) in zip(axes.flat, grids.items(), strict=True):
        values = np.array(grid)
        words = [
            ["" if np.isnan(v) else "div." if np.isinf(v) else f"{v:.{column.decimals}f}" for v in r] for r in grid
        ]
        finite = np.where(np.isfinite(values), values, np.nan)
        look = {"cmap": "cividis", "cbar": False, "fmt": "", "xticklabels": across, "yticklabels": down}
        sns.heatmap(finite, annot=np.array(words), ax=here, **look)
        here.set(title=f"{voice}: {column.label}", xlabel=exhibit.plot.get("x", ""), ylabel=exhibit.plot.get("y", ""))
    return figure


def mean(cell: Cell | None) -> float:
    return cell.estimate.value if cell else math.nan


def power_law(exhibit: Exhibit, frames: dict[str, pd.DataFrame], records: dict[str, list[Record]]) -> Figure | None:
    """Log-log points and their fitted line. x is a column, or the number in the row's label."""
    y = exhibit.column(exhibit.plot["y"])
    figure, axes = plt.subplots(figsize=(5.5, 4))
    drawn = False
    for voice in OURS:
        x_all, y_all = points(exhibit, frames[voice], y)
        if len(set(x_all)) == 0:
            continue
        drawn = True
        axes.plot(x_all, y_all, MARKERS[voice], color=COLOURS[voice], label=voice)
        if len(set(x_all)) > 2:
            law = fit_power_law(x_all, y_all)
            e = law.exponent
            label = f"{voice}: exponent {e.value:.2f} [{e.low:.2f}, {e.high:.2f}], R² {law.r_squared:.3f}"
            ends = np.array([min(x_all), max(x_all)])
            axes.plot(ends, law.factor * ends**e.value, color=COLOURS[voice], label=label)
    x_paper, y_paper = points(exhibit, published(exhibit), y)
    if x_paper:
        axes.plot(x_paper, y_paper, label="published", **PUBLISHED)
    if not (drawn or x_paper):
        plt.close(figure)
        return None
    axes.set(xscale="log", yscale="log", xlabel=exhibit.plot["x"].replace("_", " "), ylabel=y.label)
    plain_ticks(axes)
    if not drawn:
        axes.set_title("ours: no finished run", fontsize=9)
    axes.legend(fontsize=8)
    return figure


def plain_ticks(axes: Axes) -> None:
    """1, 2, 5, 10, ... written out, rather than powers of ten."""
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(FixedLocator([m * 10**e for e in range(-6, 9) for m in (1, 2, 5)]))
        axis.set_major_formatter(ScalarFormatter())
        axis.set_minor_formatter(NullFormatter())


def points(exhibit: Exhibit, table: pd.DataFrame, y: Column) -> tuple[list[float], list[float]]:
    """Every seed's point with x and y above 0; where x is a column, paired by seed."""
    found = cells(table)
    xs: list[float] = []
    ys: list[float] = []
    by_column = exhibit.plot["x"] in [column.key for column in exhibit.columns]
    for row in exhibit.rows:
        x_cell, y_cell = found.get((row.label, exhibit.plot["x"])), found.get((row.label, y.key))
        for seed, b in y_cell.values.items() if y_cell else ():
            a = number(row.label) if not by_column else x_cell.values.get(seed, math.nan) if x_cell else math.nan
            if 0 < a < math.inf and 0 < b < math.inf:
                xs.append(a)
                ys.append(b)
    return xs, ys


def number(label: str) -> float:
    try:
        return float(label.replace(",", "").split()[0])
    except ValueError:
        return math.nan
