"""Lines: numbers along a setting that is itself a number, and the power law through a cloud of points."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.cells import cells
from analysis.plots.marks import (
    COLOURS,
    INK,
    LINES,
    PALETTE,
    PUBLISHED,
    one_two_five,
    plain,
    said,
    ticks,
    titled,
    voice_keys,
    voice_look,
    voices,
)
from analysis.plots.page import Given, Grid, Mark, apart, page, title, width_of
from analysis.statistics import Estimate
from analysis.statistics import power_law as fit_power_law
from paper_tables.spec import TEXT, Column, Exhibit

NUMBER = re.compile(r"(?<![\w.])([0-9][0-9,]*(?:\.[0-9]+)?)\s?([KkMBT]?)\b")
SIZES = {"": 1.0, "K": 1e3, "k": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
FEWEST = 3  # columns that make a line
MOST_LINES = 6  # in one panel; more are split by the first part of their label
LABEL = 7.8
Styles = dict[str, tuple[str, str]]  # line -> its colour and marker


def number(label: str) -> float:
    """The one number that a label holds ('Loss at 10B' is 1e10), or nan."""
    found = NUMBER.findall(label)
    return float(found[0][0].replace(",", "")) * SIZES[found[0][1]] if len(found) == 1 else math.nan


def along(given: Given) -> list[Column]:
    """The columns that are points along a number: filled, of one quantity, rising or falling; else none."""
    filled = {key for _, key in said(given.exhibit)}
    filled |= {key for voice in voices(given) for _, key in cells(given.frames[voice])}
    columns = [column for column in given.exhibit.columns if column.key in filled and column.unit != TEXT]
    places = [number(column.label) for column in columns]
    alike = len({(column.unit, column.better) for column in columns}) == 1
    if len(columns) < FEWEST or not alike or any(map(math.isnan, places)):
        return []
    steps = np.diff(places)
    return columns if np.all(steps > 0) or np.all(steps < 0) else []


@dataclass(frozen=True)
class Line:
    label: str
    x: list[float]
    y: list[Estimate]


def lines(given: Given) -> Figure | None:
    """A line per row along the numbers in the columns' labels: a panel per group of rows and voice."""
    columns = along(given)
    if not columns:
        return None
    groups = grouped([row.label for row in given.exhibit.rows])
    by_voice = {voice: found for voice in ("published", *voices(given)) if (found := series(given, voice, columns))}
    labels = list(dict.fromkeys(short for members in groups.values() for short in members.values()))
    room = (
        max(width_of(label, LABEL) for label in [*labels, *([given.exhibit.row_header] if "" in groups else [])]) + 0.35
    )
    width = max(1.9, min(4.2, (10.2 - 0.6) / len(groups) - room))
    named = len(groups) > 1 or len(by_voice) > 1
    size = {"left": 0.55, "gap": room + 0.1, "right": room, "above": 0.28 if named else 0.12, "below": 0.5}
    figure, grid = page(given, Grid(len(groups), len(by_voice), width, 2.6, **size), key(given, by_voice, columns))
    styles = {label: (PALETTE[i % len(PALETTE)], LINES[i % len(LINES)]) for i, label in enumerate(labels)}
    for panels, (voice, found) in zip(grid, by_voice.items(), strict=True):
        reach = [v for line in found.values() for e in line.y for v in (e.value, e.low, e.high) if math.isfinite(v)]
        pad = 0.07 * ((max(reach) - min(reach)) or 1.0)
        for axes, (group, members) in zip(panels, groups.items(), strict=True):
            axes.set_ylim(min(reach) - pad, max(reach) + pad)
            horizontal(axes, [number(column.label) for column in columns])
            ticks(axes.yaxis, log=False)
            own = {short: found[row] for row, short in members.items() if row in found}
            for label, line in own.items():
                draw(axes, line, *styles[label], filled=voice != "published")
            ends = {label: (line.x[-1], line.y[-1].value) for label, line in own.items()}
            name_ends(axes, ends, styles, "" if group else given.exhibit.row_header)
            axes.set_xlabel(stem(columns))
            if named:
                title(axes, ": ".join(part for part in (voice if len(by_voice) > 1 else "", group) if part))
    return figure


def series(given: Given, voice: str, columns: list[Column]) -> dict[str, Line]:
    """Row label -> its values along the columns, from low to high."""
    ordered = sorted(columns, key=lambda column: number(column.label))
    if voice == "published":
        printed = {p: s for p, s in said(given.exhibit).items() if math.isfinite(s.value)}
        spread = {p: s.sd if s.sd is not None else math.inf for p, s in printed.items()}
        found = {p: Estimate(s.value, s.value - spread[p], s.value + spread[p], 1) for p, s in printed.items()}
    else:
        measured = {p: cell.estimate for p, cell in cells(given.frames[voice]).items()}
        found = {p: estimate for p, estimate in measured.items() if math.isfinite(estimate.value)}
    drawn = {}
    for row in given.exhibit.rows:
        points = [(number(c.label), found[row.label, c.key]) for c in ordered if (row.label, c.key) in found]
        if points:
            drawn[row.label] = Line(row.label, [x for x, _ in points], [y for _, y in points])
    return drawn


def grouped(labels: list[str]) -> dict[str, dict[str, str]]:
    """Group -> row label -> what names it there: by the labels' first part where the lines are many, else one group."""
    for separator in (", ", " / "):
        parts = [label.split(separator, 1) for label in labels]
        if len(labels) > MOST_LINES - 1 and all(len(part) == 2 for part in parts):
            groups: dict[str, dict[str, str]] = {}
            for label, (first, rest) in zip(labels, parts, strict=True):
                groups.setdefault(first, {})[label] = rest
            if 1 < len(groups) < 7 and all(1 < len(members) <= MOST_LINES + 2 for members in groups.values()):
                return groups
    return {"": {label: label for label in labels}}


def key(given: Given, by_voice: dict[str, Any], columns: list[Column]) -> list[Mark]:
    arrow = {"lower": "Lower is better.", "higher": "Higher is better.", "none": ""}[columns[0].better]
    unit = f"In {columns[0].unit}." if columns[0].unit else ""
    marks = [Mark("published", PUBLISHED)] if "published" in by_voice else []
    return [*marks, *voice_keys(given), *([Mark(f"{unit} {arrow}".strip())] if unit or arrow else [])]


def stem(columns: list[Column]) -> str:
    """What the columns' labels say besides their numbers: 'Loss at'."""
    words = {NUMBER.sub("", column.label).strip(" =,@") for column in columns}
    if len(words) > 1:
        return ""
    word = words.pop()
    return f"{word} …" if " " in word else word


def horizontal(axes: Axes, places: list[float]) -> None:
    """The numbers themselves as ticks, on a logarithmic axis where they grow by factors."""
    if min(places) > 0 and max(places) / min(places) >= 16:
        axes.set_xscale("log")
    short_from = 1e3 if max(places) >= 1e4 and all(place % 1e3 == 0 for place in places) else 1e4
    axes.set_xticks(places, [plain(place, short_from) for place in places])
    axes.tick_params(axis="x", which="minor", length=0)


def draw(axes: Axes, line: Line, colour: str, marker: str, filled: bool) -> None:
    face = colour if filled else "white"
    for x, y in zip(line.x, line.y, strict=True):
        if math.isfinite(y.low):
            axes.plot([x, x], [y.low, y.high], color=colour, linewidth=1.1, alpha=0.7)
    values = [y.value for y in line.y]
    axes.plot(line.x, values, color=colour, marker=marker, markerfacecolor=face, linewidth=1.3, clip_on=False)


def name_ends(axes: Axes, ends: dict[str, tuple[float, float]], styles: Styles, header: str = "") -> None:
    """Each line's name beside its end, moved apart where they would overlap; above them what they are."""
    if not ends:
        return
    low, high = axes.get_ylim()
    gap = (LABEL + 2.5) / axes.bbox.height
    places = apart([(y - low) / (high - low) for _, y in ends.values()], gap, 0.02, 0.98)
    beside = 1 + 14 / axes.bbox.width
    for (label, (x, y)), place in zip(ends.items(), places, strict=True):
        colour = styles[label][0]
        arrow = {"arrowstyle": "-", "color": colour, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 4}
        look: dict[str, Any] = {"color": colour, "fontsize": LABEL, "va": "center_baseline", "annotation_clip": False}
        axes.annotate(label, (x, y), xytext=(beside, place), textcoords="axes fraction", arrowprops=arrow, **look)
    if header:
        place = max(places) + 1.2 * gap
        axes.text(beside, place, header, transform=axes.transAxes, color=INK, fontsize=7, va="center_baseline")


def power_law(given: Given) -> Figure | None:
    """Log-log points with their fitted line. x is a column, or the number in the row's label."""
    exhibit = given.exhibit
    y = exhibit.column(exhibit.plot["y"])
    clouds = {voice: points(given, voice, y) for voice in ("published", *voices(given))}
    clouds = {voice: cloud for voice, cloud in clouds.items() if cloud[0]}
    if not clouds:
        return None
    keys = voice_keys(given, "each seed, and the fitted power law")
    marks = [*keys, *([Mark("published", PUBLISHED)] if "published" in clouds else [])]
    figure, grid = page(given, Grid(1, 1, 5.6, 3.6, left=0.6, right=0.4, above=0.12, below=0.5), marks)
    axes = grid[0, 0]
    axes.set(xscale="log", yscale="log", xlabel=axis_name(exhibit, exhibit.plot["x"]), ylabel=titled(y))
    for axis, values in ((axes.xaxis, 0), (axes.yaxis, 1)):
        every = [value for cloud in clouds.values() for value in cloud[values]]
        one_two_five(axis, min(every), max(every))
    told = []
    for voice, (xs, ys) in clouds.items():
        if voice == "published":
            axes.plot(xs, ys, zorder=4, **PUBLISHED)
        else:
            axes.plot(xs, ys, **voice_look(voice), alpha=0.75)
            if len(set(xs)) > 2:
                told.append((voice, fitted(axes, voice, xs, ys)))
    for place, (voice, words) in enumerate(told):
        look: dict[str, Any] = {"transform": axes.transAxes, "color": COLOURS[voice], "va": "top", "fontsize": 8.5}
        axes.text(0.03, 0.96 - 0.07 * place, words, **look)
    if not told:
        axes.text(0.03, 0.96, "ours: nothing run here yet", transform=axes.transAxes, color=INK, va="top")
    return figure


def fitted(axes: Axes, voice: str, xs: list[float], ys: list[float]) -> str:
    """Draw the law and say it."""
    law = fit_power_law(xs, ys)
    e = law.exponent
    ends = np.array([min(xs), max(xs)])
    axes.plot(ends, law.factor * ends**e.value, color=COLOURS[voice], linewidth=1.2)
    return f"{voice}: exponent {e.value:.2f} [{e.low:.2f}, {e.high:.2f}], R² {law.r_squared:.3f}"


def axis_name(exhibit: Exhibit, key: str) -> str:
    named = [titled(column) for column in exhibit.columns if column.key == key]
    return named[0] if named else key.replace("_", " ")


def points(given: Given, voice: str, y: Column) -> tuple[list[float], list[float]]:
    """Every seed's point with x and y above 0; where x is a column, paired by seed."""
    if voice == "published":
        found = {place: {-1: cell.value} for place, cell in said(given.exhibit).items()}
    else:
        found = {place: cell.values for place, cell in cells(given.frames[voice]).items()}
    x = given.exhibit.plot["x"]
    by_column = x in [column.key for column in given.exhibit.columns]
    pairs = []
    for row in given.exhibit.rows:
        for seed, b in found.get((row.label, y.key), {}).items():
            a = found.get((row.label, x), {}).get(seed, math.nan) if by_column else number(row.label)
            if 0 < a < math.inf and 0 < b < math.inf:
                pairs.append((a, b))
    return [a for a, _ in pairs], [b for _, b in pairs]
