"""Pictures of recorded curves: reliability, a quantity along another, targets by class.

Each has a line of panels per voice and returns None where no run recorded its curve.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from analysis.plots.curves import Columns, Curves, by_voice, common, deviations, pooled
from analysis.plots.lines import axis_name, name_ends
from analysis.plots.marks import COLOURS, INK, LINES, PALETTE, PUBLISHED, one_two_five, ticks, titled
from analysis.plots.page import Given, Grid, Mark, folded, page, title, width_of
from analysis.plots.panel import STRETCHED, Panel, panels
from analysis.plots.panel import draw as draw_panel
from analysis.plots.panel import frame as frame_panel
from paper_tables.spec import Exhibit

CLASSES = 50  # shown singly of a target
ACROSS = 4  # panels of targets in a line
TARGET = 2.2  # inches of such a panel
LABEL = 8.0


def styles(exhibit: Exhibit) -> dict[str, tuple[str, str]]:
    """Row label -> colour and marker, the same in every panel."""
    return {row.label: (PALETTE[i % len(PALETTE)], LINES[i % len(LINES)]) for i, row in enumerate(exhibit.rows)}


def widest(exhibit: Exhibit) -> float:
    return max(width_of(row.label, LABEL) for row in exhibit.rows)


def heard(voice: str, exhibit: Exhibit, curves: Curves, told: str) -> Mark:
    """The key's entry for a voice: what is drawn, and which rows are not."""
    absent = [row.label for row in exhibit.rows if row.label not in curves]
    lacking = f"; without {', '.join(absent)}" if absent else ""
    return Mark(f"{voice}: {told}{lacking}")


def reliability(given: Given) -> Figure | None:
    """Accuracy against confidence, bins pooled over seeds; and what is missing to the diagonal, with its spread."""
    exhibit = given.exhibit
    voices = by_voice(exhibit, given.records, "reliability")
    if not voices:
        return None
    told = "bins pooled over seeds; bands from the lowest to the highest seed"
    size = {"left": 0.6, "gap": 0.75, "right": widest(exhibit) + 0.35, "above": 0.3, "below": 0.5}
    marks = [heard(voice, exhibit, curves, told) for voice, curves in voices.items()]
    figure, grid = page(given, Grid(2, len(voices), 3.3, 3.3, **size), marks)
    look = styles(exhibit)
    for (left, right), (voice, curves) in zip(grid, voices.items(), strict=True):
        left.plot([0, 1], [0, 1], color="0.6", linewidth=0.9, linestyle="--")
        left.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy")
        left.text(0.97, 0.05, "below the diagonal:\nover-confident", ha="right", color=INK, fontsize=7.5)
        right.axhline(0, color="0.6", linewidth=0.9, linestyle="--")
        ends = {}
        for label, seeds in curves.items():
            colour, marker = look[label]
            left.plot(*pooled(seeds), color=colour, marker=marker, markersize=3.2, linewidth=1.3, clip_on=False)
            ends[label] = gaps(right, seeds, colour, marker)
        right.set(xlim=(0, 1), xlabel="confidence", ylabel="accuracy − confidence, percentage points")
        right.yaxis.labelpad = 1
        for axis in (left.xaxis, left.yaxis, right.xaxis):
            axis.set_ticks(np.linspace(0, 1, 6))
        ticks(right.yaxis, log=False, most=8)
        name_ends(right, ends, look)
        title(left, "Reliability" + f", {voice}" * (len(voices) > 1))
        title(right, "Distance to the diagonal")
    return figure


def gaps(axes: Axes, seeds: list[Columns], colour: str, marker: str) -> tuple[float, float]:
    """Draw accuracy less confidence with its band, in points; return the end of the line."""
    x, gap_SB = deviations(seeds)
    confidence, accuracy = pooled(seeds)
    distance = 100 * (np.array(accuracy) - np.array(confidence))
    if len(seeds) > 1 and len(x):
        axes.fill_between(x, 100 * gap_SB.min(0), 100 * gap_SB.max(0), color=colour, alpha=0.12, linewidth=0)
    axes.plot(confidence, distance, color=colour, marker=marker, markersize=3.2, linewidth=1.3)
    return confidence[-1], float(distance[-1])


def curve(given: Given) -> Figure | None:
    """A recorded quantity along another, the mean over seeds in a band; beside it the columns that the paper prints."""
    exhibit, plot = given.exhibit, given.exhibit.plot
    voices = by_voice(exhibit, given.records, plot["curve"])
    if not voices:
        return None
    beside = [panel for panel in panels(given, exhibit.columns) if panel.theirs][:2]
    room, look = widest(exhibit), styles(exhibit)
    upper = any(panel.apart for panel in beside)
    gap = (2 * room + 0.6, 0.3)[: len(beside)]
    size = {"left": 0.6, "right": 0.12 if beside else room + 0.35, "above": 0.3 + 0.2 * upper, "below": 0.5}
    told = "mean over seeds, bands from the lowest to the highest, bars 95 %"
    marks = [heard(voice, exhibit, curves, told) for voice, curves in voices.items()]
    marks += [Mark("published" + STRETCHED * upper, PUBLISHED)] if beside else []
    width = 2.3 if beside else 4.6
    figure, grid = page(given, Grid(1 + len(beside), len(voices), width, 2.6, gap=gap, **size), marks)
    for line, (voice, curves) in zip(grid, voices.items(), strict=True):
        axes, ends = line[0], {}
        of_voice = f", {voice}" * (len(voices) > 1)
        for label, seeds in curves.items():
            ends[label] = banded(axes, seeds, plot["x"], plot["y"], *look[label])
        axes.set(xscale="log", xlabel=axis_name(exhibit, plot["x"]), ylabel=axis_name(exhibit, plot["y"]))
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        one_two_five(axes.xaxis, *axes.get_xlim())
        axes.tick_params(axis="x", labelrotation=0)
        name_ends(axes, ends, look)
        title(
            axes, f"{axis_name(exhibit, plot['y'])} along {axis_name(exhibit, plot['x'])}{of_voice}", 18 if upper else 4
        )
        for panel_axes, panel in zip(line[1:], beside, strict=True):
            column_beside(
                panel_axes, only(panel, voice), exhibit, {} if panel_axes is line[-1] is not line[1] else look
            )
            title(panel_axes, titled(panel.column), 18 if upper else 4)
    return figure


def only(panel: Panel, voice: str) -> Panel:
    return Panel(panel.column, {v: ours for v, ours in panel.ours.items() if v == voice}, panel.theirs)


def banded(axes: Axes, seeds: list[Columns], x: str, y: str, colour: str, marker: str) -> tuple[float, float]:
    at, y_SX = common(seeds, x, y)
    axes.plot(at, y_SX.mean(0), color=colour, marker=marker, markersize=4)
    axes.fill_between(at, y_SX.min(0), y_SX.max(0), color=colour, alpha=0.2, linewidth=0)
    return float(at[-1]), float(y_SX.mean(0)[-1])


def column_beside(axes: Axes, panel: Panel, exhibit: Exhibit, look: dict[str, tuple[str, str]]) -> None:
    """One column as dots, its rows named in the colours of their lines."""
    frame_panel(axes, len(exhibit.rows))
    draw_panel(axes, panel, bool(panel.ours))
    if look:
        axes.set_yticks(range(len(exhibit.rows)), [row.label for row in exhibit.rows], fontsize=LABEL)
        for label, row in zip(axes.get_yticklabels(), exhibit.rows, strict=True):
            label.set_color(look[row.label][0])


def zipf(given: Given) -> Figure | None:
    """A panel per row: the teacher, and what the mean target makes of it: class by class, then by octaves of rank."""
    exhibit = given.exhibit
    voices = by_voice(exhibit, given.records, "targets")
    if not voices:
        return None
    beyond = by_voice(exhibit, given.records, "octaves")
    across = min(ACROSS, max(map(len, voices.values())))
    down = sum(-(-len(found) // across) for found in voices.values())
    told = f"the mean target over seeds, the {CLASSES} most probable classes" + (
        ", and a class of each octave of rank beyond" if beyond else ""
    )
    marks = [
        Mark(heard(voice, exhibit, curves, told).text, {"linestyle": "none", "marker": "o", "color": COLOURS[voice]})
        for voice, curves in voices.items()
    ]
    marks.append(Mark("teacher", {"linestyle": "-", "marker": "_", "markersize": 12, "color": "0.45"}))
    titles = {row.label: folded(row.label, 9, TARGET, bold=True) for row in exhibit.rows}
    above = 0.13 + 0.17 * max(map(len, titles.values()))
    size = {"left": 0.65, "gap": 0.15, "above": above, "below": 0.5}
    figure, grid = page(given, Grid(across, down, TARGET, 2.0 if down > 1 else 2.4, **size), marks)
    lines = iter(grid)
    for voice, curves in voices.items():
        labels = list(curves)
        panels: dict[str, Axes] = {}
        for start in range(0, len(labels), across):
            line = next(lines)
            panels |= dict(zip(labels[start : start + across], line, strict=False))
            line[0].set_ylabel("probability")
            for axes in line[len(labels[start:]) :]:
                axes.set_visible(False)
        reach = [
            targets(axes, by_rank(curves, beyond.get(voice, {}), label), COLOURS[voice])
            for label, axes in panels.items()
        ]
        low, high = min(bottom for bottom, _ in reach), max(top for _, top in reach)
        for place, (label, axes) in enumerate(panels.items()):
            axes.set(yscale="log", ylim=(low / 1.6, high * 1.8), xlabel="class, by probability")
            one_two_five(axes.yaxis, low, high)
            axes.minorticks_off()  # half of the drawing time, and nothing to read
            title(axes, "\n".join(titles[label]))
            if place % across:
                axes.tick_params(axis="y", labelleft=False)
    return figure


def by_rank(curves: Curves, beyond: Curves, label: str) -> list[NDArray[np.float64]]:
    """Rank, teacher and mean target of a row: each of the most probable classes, then one class of each octave."""
    x, teacher_SX = common(curves[label], "class", "teacher")
    _, target_SX = common(curves[label], "class", "mean_target")
    found = [values[:CLASSES] for values in (x, teacher_SX.mean(0), target_SX.mean(0))]
    if label not in beyond:
        return found
    first, last_SX = common(beyond[label], "first", "last")
    last = last_SX[0]
    sums = [common(beyond[label], "first", name)[1].mean(0) for name in ("teacher", "mean_target")]
    octaves = [np.sqrt(first * last), *(each / (last - first + 1) for each in sums)]
    return [np.concatenate(pair) for pair in zip(found, octaves, strict=True)]


def targets(axes: Axes, ranked: list[NDArray[np.float64]], colour: str) -> tuple[float, float]:
    """Draw one row's panel; return the lowest and the highest probability shown."""
    x, teacher, target = ranked
    axes.plot(x, teacher, color="0.45", linewidth=1.4)
    kept = target > 0
    look: dict[str, Any] = {"linestyle": "none", "color": colour, "markersize": 3}
    axes.plot(x[kept], target[kept], marker="o", **look)
    low = float(min([teacher.min(), *target[kept]]))
    if not kept.all():
        low /= 2.5  # a logarithm has no zero: these stand at the foot
        axes.plot(x[~kept], np.full((~kept).sum(), low), marker="v", **look)
        axes.text(np.exp(np.log(x[~kept]).mean()), low * 1.6, "zero", color=colour, ha="center", fontsize=7.5)
    if x[-1] > CLASSES:
        axes.set_xscale("log")
        one_two_five(axes.xaxis, 1, x[-1])
    return low, float(max(teacher.max(), target.max()))
