"""What a byte buys: quantities against bytes a token, a line for each family of rows through its budgets.

Rows are called 'family, budget'. A row without a budget is a level to compare with, such as full distillation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.cells import cells
from analysis.claims import judge
from analysis.plots.curves import common, recorded
from analysis.plots.marks import INK, LINES, PALETTE, one_two_five, ticks, titled, voices
from analysis.plots.page import Given, Grid, Mark, page, title
from analysis.statistics import Estimate, mean_interval
from paper_tables.spec import Claim, Exhibit

BYTES = "bytes"  # the column that everything is drawn against
ACROSS, WIDTH, HEIGHT = 3, 2.9, 2.6  # panels in a line; inches of each
STEEP = 8  # above this ratio of the largest to the smallest value an axis is logarithmic
Values = dict[str, Estimate]  # by row


@dataclass(frozen=True)
class Panel:
    title: str
    values: Values
    closed: Values  # what the values should be; empty where no closed form is known


def frontier(given: Given) -> Figure | None:
    """A panel per column of the plot, or three where it is the end of a curve; a group of panels per voice."""
    drawn = {voice: found for voice in voices(given) if (found := list(panels(given, voice)))}
    if not drawn:
        return None
    lines = {voice: math.ceil(len(found) / ACROSS) for voice, found in drawn.items()}
    size = {"left": 0.5, "gap": 0.5, "above": 0.3, "below": 0.5}
    across = min(ACROSS, max(map(len, drawn.values())))
    figure, grid = page(given, Grid(across, sum(lines.values()), WIDTH, HEIGHT, **size), key(given, drawn))
    free = iter(grid.flat)
    for voice, found in drawn.items():
        here = [next(free) for _ in range(lines[voice] * across)]
        for axes, panel in zip(here, found, strict=False):
            draw(axes, panel, bytes_of(given, voice), given.exhibit)
            title(axes, panel.title + f", {voice}" * (len(drawn) > 1))
        for axes in here[len(found) :]:
            axes.set_visible(False)
    return figure


def families(exhibit: Exhibit) -> dict[str, dict[str, str]]:
    """Family -> row label -> its budget; rows without one are no family's."""
    found: dict[str, dict[str, str]] = {}
    for row in exhibit.rows:
        family, comma, budget = row.label.partition(", ")
        if comma:
            found.setdefault(family, {})[row.label] = budget
    return found


def bytes_of(given: Given, voice: str) -> dict[str, float]:
    """Of the rows with a budget, where they are known."""
    found = {row: cell.estimate.value for (row, key), cell in cells(given.frames[voice]).items() if key == BYTES}
    return {row: found[row] for members in families(given.exhibit).values() for row in members if row in found}


def panels(given: Given, voice: str) -> Iterator[Panel]:
    """Those in which some row with a budget has a value."""
    exhibit, plot = given.exhibit, given.exhibit.plot
    known, at = cells(given.frames[voice]), bytes_of(given, voice)

    def of(key: str) -> Values:
        found = {row: cell.estimate for (row, column), cell in known.items() if column == key}
        return {row: estimate for row, estimate in found.items() if math.isfinite(estimate.value)}

    curves = recorded(exhibit, given.records[voice], plot["curve"]) if "curve" in plot else {}
    curves = {row: seeds for row, seeds in curves.items() if row in at}
    for column in map(exhibit.column, plot["columns"]):
        if "curve" not in plot:
            values = of(column.key)
            if at.keys() & values.keys():
                yield Panel(titled(column), values, of(plot.get("closed", {}).get(column.key, "")))
            continue
        along = {row: common(seeds, plot["x"], column.key) for row, seeds in curves.items()}
        if not along:
            continue
        shared = sorted(set.intersection(*(set(at) for at, _ in along.values())))
        for place in dict.fromkeys((shared[0], shared[len(shared) // 2], shared[-1])):
            here = {row: mean_interval(y_SX[:, list(at).index(place)]) for row, (at, y_SX) in along.items()}
            yield Panel(f"{titled(column)}, {place:,.0f} {plot['x']}", here, {})


def key(given: Given, drawn: dict[str, list[Panel]]) -> list[Mark]:
    closed = any(panel.closed for found in drawn.values() for panel in found)
    lines = "; lines are closed forms, dotted ones join measurements" if closed else ""
    marks = [Mark(family, look) for family, look in looks(given.exhibit).items()]
    marks.append(Mark(f"mean and 95 % interval over seeds at each budget{lines}"))
    if "equivalent" in given.exhibit.plot:
        marks += [Mark(f"{voice}: {equivalent(given, voice)}") for voice in drawn]
    return marks


def looks(exhibit: Exhibit) -> dict[str, dict[str, Any]]:
    styles = zip(families(exhibit), PALETTE, LINES, strict=False)
    return {family: {"color": colour, "marker": marker, "linestyle": "none"} for family, colour, marker in styles}


def equivalent(given: Given, voice: str) -> str:
    """Each family's smallest budget that is equivalent to the row that the plot names, by the claims' own test."""
    wanted = given.exhibit.plot["equivalent"]
    column, ends = wanted["column"], [wanted["start"], wanted["to"]]
    bytes_at = bytes_of(given, voice)
    said = []
    for family, budgets in families(given.exhibit).items():
        for row in sorted(bytes_at.keys() & budgets.keys(), key=bytes_at.__getitem__):
            rows = [row, wanted["to"], *ends]
            claim = Claim(id=row, text=row, where="", relation="equivalent", column=column, rows=rows,
                          margin=wanted["margin"])  # fmt: skip
            if judge(claim, given.exhibit, given.frames[voice]).state == "holds":
                said.append(f"{family} {budgets[row]} ({bytes_at[row]:.1f})")
                break
        else:
            said.append(f"{family} none")
    label = given.exhibit.column(column).label
    within = f"within {wanted['margin']:.0%} of the way from {ends[0]}"
    return f"smallest budgets (bytes) with the {label} of {wanted['to']}, {within}: {', '.join(said)}"


def draw(axes: Axes, panel: Panel, at: dict[str, float], exhibit: Exhibit) -> None:
    grown = families(exhibit)
    for family, look in looks(exhibit).items():
        rows = sorted((row for row in grown[family] if row in at and row in panel.values), key=at.__getitem__)
        line = panel.closed if all(row in panel.closed for row in rows) else panel.values
        where = [at[row] for row in rows]
        style = {"color": look["color"], "linewidth": 1.1, "linestyle": "-" if line is panel.closed else ":"}
        axes.plot(where, [line[row].value for row in rows], **style)
        axes.plot(where, [panel.values[row].value for row in rows], **look, markersize=4)
        for row in rows:
            found = panel.values[row]
            if found.n > 1:
                axes.plot([at[row]] * 2, [found.low, found.high], color=look["color"], linewidth=1.1, alpha=0.7)
    known = at.keys() & panel.values.keys()
    scale(axes, [at[row] for row in known], [panel.values[row].value for row in known])
    others = [row.label for row in exhibit.rows if ", " not in row.label and row.label in panel.values]
    for place, row in enumerate(others):  # named on either side, since they may lie close
        axes.axhline(panel.values[row].value, color=INK, linewidth=0.8, linestyle="--")
        words: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "color": INK, "va": "bottom", "fontsize": 7}
        words |= {"ha": ("left", "right")[place % 2]}
        axes.text((0.01, 0.99)[place % 2], panel.values[row].value, row, **words)
    axes.set_xlabel(exhibit.column(BYTES).label)


def scale(axes: Axes, where: list[float], values: list[float]) -> None:
    """Bytes on a logarithmic axis; the values too, where they range wide."""
    axes.set_xscale("log")
    one_two_five(axes.xaxis, min(where), max(where))
    if min(values) > 0 and max(values) / min(values) > STEEP:
        axes.set_yscale("log")
        one_two_five(axes.yaxis, min(values), max(values))
    else:
        ticks(axes.yaxis, log=False)
