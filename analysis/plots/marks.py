"""Marks: how each voice looks in every figure, and what the paper printed as numbers."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from analysis.plots.page import Given, Mark
from analysis.sheet import OURS
from paper_tables.spec import TEXT, Column, Exhibit

COLOUR_BLIND = sns.color_palette("colorblind").as_hex()
PALETTE = [COLOUR_BLIND[i] for i in (0, 1, 2, 3, 4, 5, 9, 7, 6, 8)]  # its pink and yellow last: too pale for a label
COLOURS = dict(zip(OURS, (PALETTE[0], PALETTE[3]), strict=True))
MARKERS = dict(zip(OURS, ("o", "s"), strict=True))
INK = "0.35"  # the paper's
PUBLISHED: dict[str, Any] = {"linestyle": "none", "marker": "D", "color": INK, "markerfacecolor": "white"}
LINES = ("o", "s", "^", "v", "D", "P", "X", "<", ">", "h")  # beside the colour, for eyes that see few of them
WIDE = 300  # above this ratio of the largest to the smallest value an axis is logarithmic


@dataclass(frozen=True)
class Said:
    """A printed number: its value (infinite where the paper prints infinity), its digits and its spread."""

    value: float
    text: str
    sd: float | None
    best: bool


def said(exhibit: Exhibit) -> dict[tuple[str, str], Said]:
    """(row label, column key) -> what the paper prints there. Columns of words are left out."""
    numeric = {column.key: column for column in exhibit.columns if column.unit != TEXT}
    found: dict[tuple[str, str], Said] = {}
    for row in exhibit.rows:
        for key, cell in row.published.items():
            if key in numeric:
                value = float(cell)
                text = "∞" if math.isinf(value) else getattr(cell, "text", f"{value:.{numeric[key].decimals}f}")
                spread = row.published_sd.get(key)
                found[row.label, key] = Said(value, text, None if spread is None else float(spread), key in row.best)
    return found


def named(column: Column) -> str:
    """The column's label with its unit, unless the label says it: 'Size (B)' needs no 'B parameters'."""
    said_in_brackets = re.findall(r"\(([^)]+)\)", column.label)
    known = not column.unit or column.unit in column.label or any(part in column.unit for part in said_in_brackets)
    return column.label if known else f"{column.label} ({column.unit})"


def titled(column: Column) -> str:
    """The same and which way is better."""
    return named(column) + {"lower": "\u00a0↓", "higher": "\u00a0↑", "none": ""}[column.better]


def voices(given: Given) -> list[str]:
    """Ours that have something to say."""
    return [voice for voice in OURS if len(given.frames[voice])]


def voice_look(voice: str) -> dict[str, Any]:
    return {"linestyle": "none", "marker": MARKERS[voice], "color": COLOURS[voice]}


def voice_keys(given: Given, interval: str = "mean and 95 % interval over seeds (no bar: one seed)") -> list[Mark]:
    spoken = voices(given)
    return [
        Mark(f"{voice}: {interval}" if i == 0 else f"{voice}: the same", voice_look(voice))
        for i, voice in enumerate(spoken)
    ]


def logarithmic(values: list[float]) -> bool:
    finite = [value for value in values if math.isfinite(value)]
    return bool(finite) and min(finite) > 0 and max(finite) / min(finite) > WIDE


def ticks(axis: Any, log: bool, most: int = 5) -> None:
    """A few round numbers, written out rather than as powers of ten."""
    axis.set_minor_formatter(NullFormatter())
    if log:
        axis.set_major_locator(LogLocator(numticks=most + 1))
        axis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
    else:
        axis.set_major_locator(MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]))


def one_two_five(axis: Any, low: float, high: float) -> None:
    """1, 2, 5, 10, ... of a logarithmic axis; only powers of ten, or of a hundred, where those would be many."""
    decades = math.log10(high / low)
    steps = (1, 2, 5) if decades < 3.2 else (1,)
    every = 1 if decades < 8 else 2
    places = [m * 10.0**e for e in range(-12, 16, every) for m in steps]
    axis.set_major_locator(FixedLocator([place for place in places if low / 1.2 <= place <= high * 1.2]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
    axis.set_minor_formatter(NullFormatter())


def plain(value: float, short_from: float = 1e4) -> str:
    """'0.01', '500', '20k', '3M', '10B'."""
    if value == 0 or abs(value) < short_from:
        return f"{value:g}" if value == 0 or abs(value) >= 1e-4 else f"{value:.0e}"
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    raise AssertionError


def at_the_edge(axes: Axes, text: str, place: float, colour: str, left: bool = False) -> None:
    """Words at the row of a value that no axis reaches."""
    look: dict[str, Any] = {"color": colour, "ha": "left" if left else "right", "va": "center", "fontsize": 7}
    axes.text(0.02 if left else 0.98, place, text, transform=axes.get_yaxis_transform(), **look)
