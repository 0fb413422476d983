"""Histograms that runs recorded beside what noise alone would give, and along the right their means (SALT App. C)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from analysis.cells import cells
from analysis.plots.curves import Columns, by_voice
from analysis.plots.lines import number
from analysis.plots.marks import COLOURS, INK, PALETTE, one_two_five, plain, ticks
from analysis.plots.page import Given, Grid, Mark, page, title
from paper_tables.spec import Column

BARS = 30  # in a panel
ACROSS = 3  # panels in a line, as the paper lays them out; a line shares its axis
NOISE: dict[str, Any] = {"linestyle": "-", "marker": "_", "color": "0.15"}
LINES: dict[str, dict[str, Any]] = {
    "": {"linestyle": "-", "marker": "o", "color": INK},
    "noise_floor": {"linestyle": "--", "marker": "_", "color": "0.15"},
    "debiased": {"linestyle": "none", "marker": "D", "markerfacecolor": "white", "color": PALETTE[2]},
}


def histograms(given: Given) -> Figure | None:
    """A panel per row that `plot.curves` names (row label -> curve), and the columns against the rows' numbers."""
    exhibit, wanted = given.exhibit, given.exhibit.plot["curves"]
    voices: dict[str, dict[str, list[Columns]]] = {}
    for label, name in wanted.items():
        for voice, curves in by_voice(exhibit, given.records, name).items():
            if label in curves:
                voices.setdefault(voice, {})[label] = curves[label]
    if not voices:
        return None
    down = math.ceil(len(wanted) / ACROSS)
    marks = [
        Mark(f"{voice}: sequences, counted over seeds", {"linestyle": "none", "marker": "s", "color": COLOURS[voice]})
        for voice in voices
    ]
    marks.append(Mark("what the noise of the completions alone would show", NOISE))
    marks += [Mark(told(key, column), LINES[key]) for key, column in of_lines(given).items() if key != "noise_floor"]
    size: dict[str, Any] = {"left": 0.5, "gap": (0.3,) * (ACROSS - 1) + (0.65,), "above": 0.3, "below": 0.48}
    figure, grid = page(given, Grid(ACROSS + 1, down * len(voices), 2.0, 1.7, **size), marks)
    for i, (voice, curves) in enumerate(voices.items()):
        lines = grid[down * i : down * (i + 1)]
        for j, line in enumerate(lines):
            labels = list(wanted)[ACROSS * j : ACROSS * (j + 1)]
            low, high = reach([curve for label in labels for curve in curves.get(label, [])])
            for axes, label in zip(line, labels, strict=False):
                counted(axes, curves.get(label, []), np.linspace(low, high, BARS + 1), COLOURS[voice])
                title(axes, label + (f", {voice}" if len(voices) > 1 else ""))
                axes.set_xlabel(exhibit.plot["x"])
            for axes in line[len(labels) : ACROSS]:
                axes.set_visible(False)
            line[0].set_ylabel("sequences")
        means(lines[0, -1], given, voice)
        for axes in lines[1:, -1]:
            axes.set_visible(False)
    return figure


def of_lines(given: Given) -> dict[str, Column]:
    """What is drawn against the rows' numbers: the first column, and the two that say what noise does to it."""
    return {key: column for column in given.exhibit.columns if (key := key_of(given, column)) in LINES}


def told(key: str, column: Column) -> str:
    return f"{column.label} (not drawn where none is left)" if key else f"{column.label}, over seeds"


def key_of(given: Given, column: Column) -> str:
    return "" if column is given.exhibit.columns[0] else column.key


def reach(curves: list[Columns]) -> tuple[float, float]:
    return min(float(c["low"][0]) for c in curves), max(float(c["high"][-1]) for c in curves)


def counted(axes: Axes, seeds: list[Columns], edges: NDArray[np.float64], colour: str) -> None:
    """The seeds' histograms in one, and their noise."""
    count, noise = (sum(rebinned(curve, name, edges) for curve in seeds) for name in ("count", "noise"))
    if not seeds:
        return
    axes.stairs(count, edges, fill=True, color=colour, alpha=0.75, linewidth=0)
    axes.stairs(noise, edges, color=NOISE["color"], linewidth=1.2)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(0, 1.1 * float(np.max([count, noise])))
    ticks(axes.xaxis, log=False, most=4)
    ticks(axes.yaxis, log=False, most=4)


def rebinned(curve: Columns, name: str, edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Counts in other bins: each is spread evenly over the bin that it was counted in."""
    own = np.append(curve["low"], curve["high"][-1])
    below = np.concatenate([[0.0], np.cumsum(curve[name])])
    return np.diff(np.interp(edges, own, below))


def means(axes: Axes, given: Given, voice: str) -> None:
    """The columns' means over seeds against the number in each row's label, both logarithmic."""
    found = cells(given.frames[voice])
    drawn = []
    for key, column in of_lines(given).items():
        points = [
            (number(row.label), cell.estimate.value)
            for row in given.exhibit.rows
            if (cell := found.get((row.label, column.key))) is not None and cell.estimate.value > 0
        ]
        look = {**LINES[key], "color": COLOURS[voice]} if not key else LINES[key]
        axes.plot([x for x, _ in points], [y for _, y in points], **look)
        drawn += [y for _, y in points]
    axes.set(xscale="log", yscale="log", xlabel=given.exhibit.row_header)
    places = [number(row.label) for row in given.exhibit.rows]
    axes.set_xticks(places, [plain(place) for place in places])
    axes.tick_params(axis="x", which="minor", length=0, labelbottom=False)
    if drawn:
        axes.set_ylim(min(drawn) / 1.5, max(drawn) * 1.5)
        one_two_five(axes.yaxis, *axes.get_ylim())
    title(axes, "Means")
