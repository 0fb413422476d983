"""Grids: numbers in cells, darker where they are better. A whole table, or the two settings of a row's label.

Shades are ranks: one method far behind would leave all others one colour. How far stands in the cell.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.figure import Figure

from analysis.cells import Cell, cells
from analysis.plots.marks import COLOURS, named, said, voices
from analysis.plots.page import Given, Grid, Mark, folded, page, title, width_of
from analysis.statistics import ranks
from paper_tables.spec import TEXT, Column

VALUE, LABEL = 7.2, 8.0  # font sizes
MOST_LABEL, MOST_HEAD = 2.9, 1.0  # inches
DARKEST = 0.5  # of the full colour, at the best cell: black digits stay readable on it


@dataclass(frozen=True)
class Shown:
    """A cell of a grid: its value (infinite where a run diverged) and how it is written."""

    value: float
    text: str
    best: bool = False


Cells = dict[tuple[str, str], Shown]


def printed(given: Given) -> Cells:
    found: Cells = {}
    for place, cell in said(given.exhibit).items():
        text = cell.text if cell.sd is None else f"{cell.text} ±{cell.sd:g}"
        found[place] = Shown(cell.value, text, cell.best)
    return found


def measured(given: Given, voice: str) -> Cells:
    decimals = {column.key: column.decimals + 1 for column in given.exhibit.columns}
    return {place: Shown(*value(cell, decimals[place[1]])) for place, cell in cells(given.frames[voice]).items()}


def value(cell: Cell, decimals: int) -> tuple[float, str]:
    found = cell.estimate
    if not math.isfinite(found.value):
        return found.value, "diverged"
    half = f" ±{found.half_width:.{decimals}f}" if found.n > 1 else ""
    return found.value, f"{found.value:.{decimals}f}{half}"


def blocks(given: Given) -> dict[str, Cells]:
    """By voice, published first; voices that say nothing are left out."""
    found = {"published": printed(given), **{voice: measured(given, voice) for voice in voices(given)}}
    return {voice: shown for voice, shown in found.items() if shown}


def heat(given: Given) -> Figure | None:
    """The whole table: a cell per number, columns down where there are many, as the papers print those."""
    exhibit, found = given.exhibit, blocks(given)
    keys = exhibit.plot.get("columns") or [column.key for column in exhibit.columns if column.unit != TEXT]
    filled = {key for shown in found.values() for _, key in shown}
    columns = [exhibit.column(key) for key in keys if key in filled]
    if not columns:
        return None
    names = [named(column) for column in columns]
    rows = [row.label for row in exhibit.rows]
    turned = exhibit.layout == "transposed" or len(columns) > 14
    strong = [bool(column.average_of) for column in columns]
    sizes = groups(rows)
    tables = {}
    for voice, shown in found.items():
        table = [[shown.get((row, column.key)) for column in columns] for row in rows]
        colour = shaded(table, columns, sizes)
        tables[voice] = (table, colour) if not turned else (list(map(list, zip(*table, strict=True))), colour.T)
    told = ("line" if turned else "column") + " of its group" * (len(sizes) > 1)
    coloured = any(np.isfinite(colour).any() for _, colour in tables.values())
    words = [Mark(f"Shade: rank in its {told}, the darkest is the best.")] if coloured else []
    down, across = (names, rows) if turned else (rows, names)
    figure = drawn(given, tables, down, across, words, strong if turned else None, None if turned else strong)
    for axes in figure.axes:
        for place in np.cumsum(sizes)[:-1]:
            (axes.axvline if turned else axes.axhline)(place, color="0.3", linewidth=0.8)
    return figure


def heatmap(given: Given) -> Figure | None:
    """Rows labelled 'down / across' as a grid, the published values and ours side by side."""
    exhibit = given.exhibit
    separator = exhibit.plot.get("separator", " / ")
    pairs = [tuple(row.label.split(separator)) for row in exhibit.rows if row.label.count(separator) == 1]
    down, across = (list(dict.fromkeys(pair[i] for pair in pairs)) for i in (0, 1))
    found = blocks(given)
    keys = [column.key for column in exhibit.columns if any(key == column.key for s in found.values() for _, key in s)]
    if not pairs or not keys:
        return None
    column = exhibit.column(exhibit.plot.get("value", keys[0]))
    tables = {}
    for voice, shown in found.items():
        table = [[shown.get((f"{y}{separator}{x}", column.key)) for x in across] for y in down]
        flat = shades([cell for line in table for cell in line], column)
        if any(cell for line in table for cell in line):
            tables[voice] = (table, np.array(flat).reshape(len(down), len(across)))
    headers = exhibit.row_header.split(separator) if exhibit.row_header.count(separator) == 1 else ["", ""]
    y, x = (exhibit.plot.get(axis, header) for axis, header in zip("yx", headers, strict=True))
    way = "Shade: rank, the darkest is the best. " if column.better != "none" else ""
    axes_of = f"{y} down, {x} across." if x and y else ""
    return drawn(given, tables, down, across, [Mark(f"{named(column)}. {way}{axes_of}")])


def shades(line: list[Shown | None], column: Column) -> list[float]:
    """0 for the worst and 1 for the best of these cells, by rank; nan where there is no number or nothing is better."""
    finite = [cell.value for cell in line if cell and math.isfinite(cell.value)]
    if len(set(finite)) < 2 or column.better == "none":
        return [math.nan] * len(line)
    rank = (ranks(np.array(finite)) - 1) / (len(finite) - 1)
    shade = dict(zip(finite, 1 - rank if column.better == "lower" else rank, strict=True))
    return [shade[cell.value] if cell and math.isfinite(cell.value) else math.nan for cell in line]


def shaded(table: list[list[Shown | None]], columns: list[Column], sizes: list[int]) -> Any:
    """Each column's shades, within each group of consecutive rows."""
    starts = np.cumsum([0, *sizes])
    parts = [table[start : start + size] for start, size in zip(starts, sizes, strict=False)]
    return np.vstack(
        [np.array([shades([line[j] for line in part], c) for j, c in enumerate(columns)]).T for part in parts]
    )


def groups(labels: list[str]) -> list[int]:
    """The sizes of groups of consecutive rows that share their label's first part, or one group of all."""
    for separator in (", ", " / "):
        firsts = [label.split(separator)[0] if separator in label else "" for label in labels]
        runs = [len(list(members)) for _, members in itertools.groupby(firsts)]
        if "" not in firsts and 1 < len(runs) == len(set(firsts)) and min(runs) > 2:
            return runs
    return [len(labels)]


Table = tuple[list[list[Shown | None]], Any]


def drawn(
    given: Given,
    tables: dict[str, Table],
    down: list[str],
    across: list[str],
    words: list[Mark],
    strong_down: list[bool] | None = None,
    strong_across: list[bool] | None = None,
) -> Figure:
    """A block per voice, beside each other where the page is wide enough."""
    labels = ["\n".join(folded(label, LABEL, MOST_LABEL)) for label in down]
    heads = ["\n".join(folded(label, LABEL, MOST_HEAD)) for label in across]
    texts = [cell.text for table, _ in tables.values() for line in table for cell in line if cell]
    wide = max([width_of(text, VALUE, bold=True) for text in texts] + [width_of(head, LABEL, True) for head in heads])
    step = 0.1 + 0.125 * max(label.count("\n") + 1 for label in labels)
    left = max(width_of(label, LABEL, bold=True) for label in labels) + 0.14
    width, height = (wide + 0.14) * len(across), max(step, 0.225) * len(down)
    beside = len(tables) * (width + 0.3) + left < 11
    above = 0.1 + 0.13 * max(head.count("\n") + 1 for head in heads) + 0.3 * (len(tables) > 1)
    shape = (len(tables), 1) if beside else (1, len(tables))
    size = Grid(*shape, width, height, left=left, above=above, below=0.15, gap=0.3)
    figure, grid = page(given, size, [*key(tables), *words])
    for place, (axes, (voice, (table, colour))) in enumerate(zip(grid.flat, tables.items(), strict=True)):
        block(axes, table, colour, shading(voice))
        axes.set_xticks(np.arange(len(heads)) + 0.5, heads)
        axes.set_yticks(np.arange(len(labels)) + 0.5, labels if place == 0 or not beside else [""] * len(labels))
        embolden(axes.get_xticklabels(), strong_across)
        embolden(axes.get_yticklabels(), strong_down)
        if len(tables) > 1:
            title(axes, voice, 72 * above - 20, color=COLOURS.get(voice, "0.35"))
    return figure


def key(tables: dict[str, Table]) -> list[Mark]:
    ours = [voice for voice in tables if voice != "published"]
    look = {"linestyle": "none", "marker": "s", "markersize": 7}
    told = "mean ± half of the 95 % interval over seeds (alone: one seed)"
    marks = [Mark("published", {**look, "color": "0.45"})] if "published" in tables else []
    return marks + [Mark(f"{voice}: {told}", {**look, "color": COLOURS[voice]}) for voice in ours]


def shading(voice: str) -> Colormap:
    """The paper's cells are grey, ours in the colour of their voice."""
    full = sns.light_palette(COLOURS[voice] if voice in COLOURS else "#404040", n_colors=256)
    return ListedColormap(full[: int(256 * DARKEST)])


def block(axes: Axes, table: list[list[Shown | None]], colour: Any, shading: Colormap) -> None:
    axes.set(xlim=(0, len(table[0])), ylim=(len(table), 0))
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False, pad=3, labelsize=LABEL)
    axes.pcolormesh(np.ma.masked_invalid(colour), cmap=shading, vmin=0, vmax=1, edgecolors="white", linewidth=1.2)
    for i, line in enumerate(table):
        for j, cell in enumerate(line):
            if cell:
                weight = "bold" if cell.best else "normal"
                look: dict[str, Any] = {
                    "ha": "center",
                    "va": "center_baseline",
                    "fontsize": VALUE,
                    "fontweight": weight,
                }
                axes.text(j + 0.5, i + 0.5, cell.text, color="0.1", **look)


def embolden(labels: list[Any], strong: list[bool] | None) -> None:
    for label, bold in zip(labels, strong or [], strict=False):
        label.set_fontweight("bold" if bold else "normal")
