"""Phase portraits: how every method moves a student of three classes, a triangle per row.

The triangle is the simplex: class 1 on top, class 2 on the left, class 3 on the right.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from matplotlib.tri import LinearTriInterpolator, Triangulation
from numpy.typing import NDArray

from analysis.plots.curves import Columns, Curves, by_voice
from analysis.plots.marks import INK, PALETTE
from analysis.plots.page import Given, Grid, Mark, page, title

Points = NDArray[np.float64]
ACROSS, WIDTH = 5, 1.9  # panels in a line, and inches of each
CORNERS = np.array([[0.5, math.sqrt(3) / 2], [0.0, 0.0], [1.0, 0.0]])  # of classes 1, 2, 3
ROUND = 0.09  # white round the triangle, in its sides
LATTICE = 8  # streams along an edge, less one
SHORT, LONG, PIECES = 0.015, 0.085, 3  # length of a stream where the field is still and fastest; half its pieces
HEAD = 0.03  # length of an arrow's head
ALIKE = 0.02  # ends that are no farther apart (L1) are one
STREAM, PATH, DRAWN, END = "0.7", PALETTE[0], PALETTE[1], PALETTE[3]
TEACHER: dict[str, Any] = {"linestyle": "none", "marker": "D", "color": "0.1", "markerfacecolor": "none"}


def phase(given: Given) -> Figure | None:
    """The field as streams, the paths of the first seed, where they end, and the teacher."""
    voices = by_voice(given.exhibit, given.records, "field")
    if not voices:
        return None
    lines = {voice: math.ceil(len(fields) / ACROSS) for voice, fields in voices.items()}
    tall = WIDTH * (CORNERS[0, 1] + 2 * ROUND) / (1 + 2 * ROUND)
    size = {"left": 0.0, "right": 0.0, "gap": 0.17, "above": 0.52, "below": 0.08}
    marks = key(bool(by_voice(given.exhibit, given.records, "sampled")))
    figure, grid = page(given, Grid(ACROSS, sum(lines.values()), WIDTH, tall, **size), marks)
    free = iter(grid.flat)
    for voice, fields in voices.items():
        own = {name: of_voice(given, voice, name) for name in ("paths", "sampled", "ends")}
        panels = [next(free) for _ in range(lines[voice] * ACROSS)]
        for axes, label in zip(panels, fields, strict=False):
            curves = {name: found[label][0] for name, found in own.items() if label in found}
            triangle(axes, first=axes is panels[0])
            streams(axes, fields[label][0])
            words, colour = portrait(axes, curves)
            said = given.exhibit.plot.get("says", {}).get(label, "")
            leftmost = axes in panels[::ACROSS]
            title(axes, label + f", {voice}" * (leftmost and len(voices) > 1), 23)
            title(axes, said, 13, fontweight="normal", fontsize=7.5, color=INK)
            title(axes, words, 3, fontweight="normal", fontsize=7.5, color=colour)
        for axes in panels[len(fields) :]:
            axes.set_visible(False)
    return figure


def of_voice(given: Given, voice: str, name: str) -> Curves:
    return by_voice(given.exhibit, {voice: given.records[voice]}, name).get(voice, {})


def key(drawn: bool) -> list[Mark]:
    line = {"linestyle": "none", "marker": "_", "markersize": 12, "markeredgewidth": 1.8}
    marks = [Mark("descent from eight starts", {**line, "color": PATH})]
    marks += [Mark("the first of them with targets drawn at every step", {**line, "color": DRAWN})] * drawn
    marks += [Mark("where it ends", {"linestyle": "none", "marker": "o", "color": END}), Mark("the teacher", TEACHER)]
    return [*marks, Mark("grey: the mean field")]


def plane(p1: Points, p2: Points) -> tuple[Points, Points]:
    """Where a student stands in the plane of the triangle."""
    places = np.stack([p1, p2, 1 - p1 - p2], -1) @ CORNERS
    return places[:, 0], places[:, 1]


def triangle(axes: Axes, first: bool) -> None:
    axes.set(xlim=(-ROUND, 1 + ROUND), ylim=(-ROUND, CORNERS[0, 1] + ROUND), aspect="equal")
    axes.set_axis_off()
    axes.add_patch(Polygon(CORNERS, closed=True, fill=False, edgecolor="0.45", linewidth=0.8, zorder=1.5))
    names = ("class 1", "class 2", "class 3") if first else ("1", "2", "3")
    look: dict[str, Any] = {"fontsize": 7, "color": INK, "ha": "center"}
    axes.text(0.5, CORNERS[0, 1] + 0.015, names[0], va="bottom", **look)
    axes.text(0.0, -0.02, names[1], va="top", **look)
    axes.text(1.0, -0.02, names[2], va="top", **look)


def streams(axes: Axes, curve: Columns) -> None:
    """Short pieces of streams from an even lattice, the longer the faster; none leaves the recorded states."""
    x, y = plane(curve["p1"], curve["p2"])
    moving = np.stack([curve["v1"], curve["v2"], -curve["v1"] - curve["v2"]], -1) @ CORNERS
    mesh = Triangulation(x, y)
    along = [LinearTriInterpolator(mesh, moving[:, i]) for i in range(2)]

    def at(places: Points) -> Points:
        return np.stack([part(places[:, 0], places[:, 1]).filled(np.nan) for part in along], -1)

    places = lattice() @ CORNERS
    speed = np.hypot(*at(places).T)
    step = (SHORT + (LONG - SHORT) * np.sqrt(speed / speed.max()))[:, None] / (2 * PIECES)
    back = walked(at, places, -step)[::-1]
    whole = np.concatenate([back, walked(at, places, step)[1:]])
    axes.add_collection(
        LineCollection(list(whole.swapaxes(0, 1)), color=STREAM, linewidth=0.9, zorder=1, capstyle="round")
    )
    ahead = unit(whole[-1] - whole[-2])
    aside = ahead[:, ::-1] * (1, -1)
    heads = np.stack(
        [whole[-1] + HEAD * arm for arm in (ahead, 0.45 * aside - 0.3 * ahead, -0.45 * aside - 0.3 * ahead)]
    )
    axes.add_collection(PolyCollection(list(heads.swapaxes(0, 1)), facecolor=STREAM, linewidth=0, zorder=1))


def lattice() -> Points:
    """Evenly spread distributions, none on an edge."""
    each = [(i, j, LATTICE - i - j) for i in range(LATTICE + 1) for j in range(LATTICE + 1 - i)]
    return (np.array(each) + 0.5) / (LATTICE + 1.5)


def walked(at: Callable[[Points], Points], places: Points, step: Points) -> Points:
    """Places along the field, step by step, by the midpoint rule; at the brink of what is known they stand still."""
    path = [places]
    for _ in range(PIECES):
        here = path[-1]
        halfway = here + step / 2 * unit(at(here))
        path.append(here + step * unit(at(halfway)))
    return np.stack(path)


def unit(moving: Points) -> Points:
    size = np.hypot(*moving.T)[:, None]
    known = np.isfinite(size) & (size > 0)
    return np.where(known, moving / np.where(known, size, 1.0), 0.0)


def portrait(axes: Axes, curves: dict[str, Columns]) -> tuple[str, str]:
    """Draw what moves; return the words for where it ends and their colour."""
    if "sampled" in curves:
        axes.plot(*plane(curves["sampled"]["p1"], curves["sampled"]["p2"]), color=DRAWN, linewidth=0.6, zorder=2)
    ends = []
    for start in np.unique(curves["paths"]["start"]):
        here = curves["paths"]["start"] == start
        p1, p2 = curves["paths"]["p1"][here], curves["paths"]["p2"][here]
        x, y = plane(p1, p2)
        axes.plot(x, y, color=PATH, linewidth=1.2, zorder=3, solid_capstyle="round")
        axes.plot(x[:1], y[:1], color=PATH, marker="o", markersize=2.2, zorder=3)
        ends.append((p1[-1], p2[-1], 1 - p1[-1] - p2[-1]))
    reached, teacher = np.array(ends), curves["ends"]["teacher"]
    axes.plot(*plane(reached[:, 0], reached[:, 1]), linestyle="none", marker="o", markersize=4, color=END, zorder=4)
    axes.plot(*plane(teacher[:1], teacher[1:2]), **{**TEACHER, "markersize": 7.5, "zorder": 5})
    return in_words(reached, teacher)


def in_words(ends_SV: Points, teacher_V: Points) -> tuple[str, str]:
    """Where the paths end, and in which colour it is said."""
    settled_V = np.ptp(ends_SV, axis=0) < ALIKE
    if not settled_V.all():
        known = [f"class {i + 1} at {ends_SV[:, i].mean():.2f}" for i in np.flatnonzero(settled_V)]
        return ", ".join([*known, "the others anywhere"]), END
    if np.abs(ends_SV - teacher_V).sum(1).max() < ALIKE:
        return "ends at the teacher", INK
    return "ends at " + ", ".join(f"{p:.2f}" for p in ends_SV.mean(0)), END
