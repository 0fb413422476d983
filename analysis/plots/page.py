"""A page: heading, key, a grid of panels and a foot, measured in inches before anything is drawn.

A layout engine draws a figure three times to find where things fit; here every text is measured once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from textwrap import wrap
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import text_to_path
from numpy.typing import NDArray

from analysis.load import Record
from paper_tables.spec import Exhibit

WIDEST, NARROWEST = 10.5, 6.5  # inches; a page may be wider only where a single panel is
EDGE = 0.12  # white round the page
POINT = 1 / 72
HEADING, KEY, FOOT = 11.0, 8.5, 6.5  # font sizes
SPARE = 1.02  # a renderer rounds each letter to its pixels
GREY = "0.4"


@dataclass(frozen=True)
class Given:
    """What there is to draw: the exhibit, the frames and the records of each voice, and what stands at the foot."""

    exhibit: Exhibit
    frames: dict[str, pd.DataFrame]
    records: dict[str, list[Record]]
    foot: list[str] = field(default_factory=list)

    @property
    def measured(self) -> bool:
        """Whether any run of ours fills any cell."""
        return any(len(table) for table in self.frames.values())


@dataclass(frozen=True)
class Mark:
    """An entry of the key: a sample of the marker and what it stands for. Words alone where there is no marker."""

    text: str
    look: dict[str, Any] = field(default_factory=dict)


@cache
def width_of(text: str, size: float, bold: bool = False) -> float:
    """The printed width of the longest line, in inches, with a little to spare."""
    font = FontProperties(weight="bold" if bold else "normal", size=size)
    lines = text.split("\n")
    return max(text_to_path.get_text_width_height_descent(line, font, False)[0] for line in lines) * POINT * SPARE


def folded(text: str, size: float, inches: float, bold: bool = False) -> list[str]:
    """The text in lines no wider than that, as far as its words allow."""
    if width_of(text, size, bold) <= inches:
        return [text]
    letters = int(len(text) * inches / width_of(text, size, bold))
    while letters > 8:
        lines = wrap(text, letters, break_long_words=False, break_on_hyphens=False)
        if all(width_of(line, size, bold) <= inches for line in lines):
            return lines
        letters -= 1
    return wrap(text, 8, break_long_words=False)


@dataclass(frozen=True)
class Grid:
    """Panels of one size, in inches, and the room that their labels need."""

    across: int
    down: int
    width: float
    height: float
    left: float = 0.5  # of the first panel in a line, for the labels of its rows
    right: float = 0.1  # of the last panel in a line
    gap: float | tuple[float, ...] = 0.25  # between panels of a line, or after each but the last
    above: float = 0.3  # of every panel
    below: float = 0.3

    def filling(self, inches: float) -> Grid:
        """The same with panels wide enough to fill a page of that width."""
        return replace(self, width=max(self.width, self.width + (inches - self.page_width) / self.across))

    @property
    def gaps(self) -> tuple[float, ...]:
        return self.gap if isinstance(self.gap, tuple) else (self.gap,) * (self.across - 1)

    @property
    def page_width(self) -> float:
        return 2 * EDGE + self.left + self.across * self.width + sum(self.gaps) + self.right


def page(given: Given, grid: Grid, key: Sequence[Mark]) -> tuple[Figure, NDArray[Any]]:
    """A figure with heading, key and foot, and its panels (down x across)."""
    grid = grid.filling(NARROWEST)
    inner = grid.page_width - 2 * EDGE
    heading = folded(given.exhibit.heading, HEADING, inner, bold=True)
    keys = flowed(key, inner)
    foot = [line for text in given.foot for line in folded(text, FOOT, inner)]
    top = EDGE + 0.2 * len(heading) + 0.2 * len(keys) + 0.06
    bottom = EDGE + 0.13 * len(foot) + 0.05 * bool(foot)
    height = top + grid.down * (grid.above + grid.height + grid.below) + bottom
    figure = plt.figure(figsize=(grid.page_width, height))
    across, up = 1 / grid.page_width, 1 / height
    for i, line in enumerate(heading):
        y = 1 - (EDGE + 0.2 * i) * up
        figure.text(EDGE * across, y, line, size=HEADING, weight="bold", va="top")
    for i, entries in enumerate(keys):
        write_key(figure, entries, EDGE, height - EDGE - 0.2 * len(heading) - 0.2 * i - 0.12)
    for i, line in enumerate(reversed(foot)):
        figure.text(EDGE * across, (EDGE + 0.13 * i) * up, line, size=FOOT, color=GREY, va="bottom")
    panels = np.empty((grid.down, grid.across), dtype=object)
    for i in range(grid.down):
        for j in range(grid.across):
            x = EDGE + grid.left + j * grid.width + sum(grid.gaps[:j])
            y = height - top - i * (grid.above + grid.height + grid.below) - grid.above - grid.height
            box = (x * across, y * up, grid.width * across, grid.height * up)
            panels[i, j] = figure.add_axes(box)
    return figure, panels


def flowed(key: Sequence[Mark], inches: float) -> list[list[Mark]]:
    """The entries in lines that fit; words that are wider than the page alone are folded."""
    lines: list[list[Mark]] = []
    used = inches
    for mark in key:
        for i, text in enumerate(folded(mark.text, KEY, inches - 0.2)):
            width = room(text, mark.look)
            if used + width > inches or i:
                lines.append([])
                used = 0.0
            lines[-1].append(Mark(text, mark.look if i == 0 else {}))
            used += width
    return lines


def room(text: str, look: dict[str, Any]) -> float:
    return width_of(text, KEY) + (0.18 if look else 0.0) + 0.25


def write_key(figure: Figure, entries: list[Mark], x: float, y: float) -> None:
    width, height = figure.get_size_inches()
    for mark in entries:
        here = x
        if mark.look:
            point = Line2D([(here + 0.06) / width], [y / height], transform=figure.transFigure, **mark.look)
            figure.add_artist(point)
            here += 0.18
        colour = mark.look.get("color", GREY)
        figure.text(here / width, y / height, mark.text, size=KEY, color=colour, va="center_baseline")
        x += room(mark.text, mark.look)


def title(axes: Axes, text: str, up: float = 3.0, **look: Any) -> None:
    """A panel's title, left, `up` points above it."""
    look = {"fontsize": 9, "fontweight": "bold", "va": "bottom", **look}
    axes.annotate(text, (0, 1), xytext=(0, up), xycoords="axes fraction", textcoords="offset points", **look)


def apart(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """The places moved as little as needed to stand `gap` apart within low and high, in the order given.

    Least squares by pooling: neighbours that would overlap become a block about their common mean.
    """
    order = np.argsort(places, kind="stable")
    blocks: list[list[float]] = []  # [sum of the members' wished starts, members]
    for place in np.asarray(places, dtype=float)[order]:
        blocks.append([place, 1])
        while len(blocks) > 1 and end(blocks[-2], gap) > start(blocks[-1]):
            total, members = blocks.pop()
            blocks[-1][0] += total - members * blocks[-1][1] * gap
            blocks[-1][1] += members
    moved = np.concatenate([start(block) + gap * np.arange(block[1]) for block in blocks] or [np.empty(0)])
    if len(moved):
        moved += max(0.0, low - moved[0])
        moved -= max(0.0, moved[-1] - high)
    found = np.empty_like(moved)
    found[order] = moved
    return [float(place) for place in found]


def start(block: list[float]) -> float:
    """Where a block's first member stands: its members' wishes, each less what stands before it, on average."""
    return block[0] / block[1]


def end(block: list[float], gap: float) -> float:
    """Where the next block may begin."""
    return start(block) + block[1] * gap
