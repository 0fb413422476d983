"""Pictures of SALT's theory where the truth is known: xi_t and V_t along t and T, and the bound along omega."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from analysis.cells import cells
from analysis.plots.curves import Curves, by_voice, common
from analysis.plots.lines import number
from analysis.plots.marks import LINES, PALETTE, one_two_five
from analysis.plots.page import Given, Grid, Mark, apart, folded, page, title, width_of
from analysis.plots.traces import heard
from paper_tables.spec import Exhibit

EXACT: dict[str, Any] = {"linestyle": "-", "marker": "_", "color": "0.15"}
PLUGIN: dict[str, Any] = {"linestyle": "none", "marker": "o", "color": PALETTE[0]}
DEBIASED: dict[str, Any] = {"linestyle": "none", "marker": "D", "color": PALETTE[3], "markerfacecolor": "white"}
FLOOR: dict[str, Any] = {"linestyle": "--", "marker": "_", "color": PALETTE[0]}
RING: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 9, "markerfacecolor": "none", "color": "0.2"}
QUANTITIES = (("xi", "mean |ξ$_t$|"), ("v", "mean V$_t$"))
RISK: dict[str, Any] = {"linestyle": "none", "marker": "o", "color": "0.15", "markersize": 4}
BOUND: dict[str, Any] = {"linestyle": "none", "marker": "s", "color": "0.55", "markersize": 4}
LABEL = 8.0
Points = tuple[NDArray[np.float64], NDArray[np.float64]]


def martingale(given: Given) -> Figure | None:
    """Mean |xi_t| above, V_t below: a panel along t per row that the plot names, and one along T for a few t."""
    exhibit, plot = given.exhibit, given.exhibit.plot
    exact, seen = (by_voice(exhibit, given.records, name) for name in ("course", "prefixes"))
    if not exact or not seen:
        return None
    marks = [heard(voice, exhibit, curves, "means over seeds") for voice, curves in seen.items()]
    marks += [
        Mark("exact", EXACT),
        Mark("plug-in (Eq. 66)", PLUGIN),
        Mark("debiased (at the foot: none left)", DEBIASED),
    ]
    marks.append(Mark("what the plug-in's noise alone would show", FLOOR))
    room = width_of("t = 300", LABEL) + 0.15
    across = len(plot["rows"]) + 1
    size = {"left": 0.62, "gap": 0.16, "right": room, "above": 0.45, "below": 0.42}
    figure, grid = page(given, Grid(across, 2 * len(seen), 1.72, 2.0, **size), marks)
    for i, voice in enumerate(seen):
        for j, (name, label) in enumerate(QUANTITIES):
            line = grid[2 * i + j]
            drawn = []
            for axes, row in zip(line, plot["rows"], strict=False):
                head = row + (f", {voice}" if len(seen) > 1 else "")
                title(axes, "\n".join(folded(head, 9, 1.6, bold=True)) if j == 0 else "")
                if row in seen[voice] and row in exact[voice]:
                    drawn += along_t(axes, exact[voice], seen[voice], row, name)
            title(line[-1], "along T: exact (line),\nplug-in (dots)" if j == 0 else "")
            ends = along_length(line[-1], exhibit, seen[voice], name)
            low, high = limits([*drawn, *(y for _, y in ends.values())])
            for axes in line:
                axes.set(xscale="log", yscale="log", ylim=(low, high), xlabel="T" if axes is line[-1] else "t")
                one_two_five(axes.xaxis, *axes.get_xlim())
                thin(axes)
                one_two_five(axes.yaxis, low, high)
                if axes is not line[0]:
                    axes.tick_params(axis="y", labelleft=False)
            at_the_foot(line, low)
            line[0].set_ylabel(label)
            name_ends(line[-1], ends, {f"t = {t}": PALETTE[k + 1] for k, t in enumerate(plot["prefixes"])})
    return figure


def along_t(axes: Axes, exact: Curves, seen: Curves, row: str, name: str) -> list[float]:
    """Draw one row; return the values above zero. Those at or below are left to the foot."""
    x, y = mean(exact, row, "t", name)
    axes.plot(x, y, color=EXACT["color"], linewidth=1.4)
    drawn = list(y)
    for column, look in ((f"{name}_floor", FLOOR), (f"{name}_plugin", PLUGIN), (f"{name}_debiased", DEBIASED)):
        x, y = mean(seen, row, "t", column)
        some = y > 0
        line = {**look, "marker": ""} if look is FLOOR else {**look, "markersize": 4}
        axes.plot(x[some], y[some], linewidth=1.1, zorder=3, **line)
        axes.plot(x[~some], np.full((~some).sum(), np.nan), gid="foot", **line)
        drawn += [value for value in y[some] if look is not DEBIASED]
    return drawn


def at_the_foot(line: NDArray[Any], low: float) -> None:
    """Values at or below zero, which a logarithm does not have, stand on the axis."""
    for axes in line:
        for points in axes.get_lines():
            if points.get_gid() == "foot":
                points.set_ydata(np.full(len(points.get_xdata()), low))
                points.set_clip_on(False)


def along_length(axes: Axes, exhibit: Exhibit, seen: Curves, name: str) -> dict[str, tuple[float, float]]:
    """The exact value and the plug-in at a few t, over the rows' T; return the ends of the exact lines."""
    ends = {}
    for k, t in enumerate(exhibit.plot["prefixes"]):
        points: list[tuple[float, float, float]] = []
        for row in exhibit.plot["along"]:
            if row in seen:
                x, y = mean(seen, row, "t", f"{name}_exact")
                _, plugin = mean(seen, row, "t", f"{name}_plugin")
                points += [(number(row), float(y[x == t][0]), float(plugin[x == t][0]))] if (x == t).any() else []
        if points:
            lengths, true, shown = map(list, zip(*points, strict=True))
            axes.plot(lengths, true, color=PALETTE[k + 1], linewidth=1.4)
            look: dict[str, Any] = {"linestyle": ":", "linewidth": 0.9, "markersize": 4, "marker": LINES[k]}
            axes.plot(lengths, shown, color=PALETTE[k + 1], **look)
            ends[f"t = {t}"] = (lengths[-1], true[-1])
    return ends


def name_ends(axes: Axes, ends: dict[str, tuple[float, float]], colours: dict[str, str]) -> None:
    """Each line's name to the right of its end on a logarithmic axis, moved apart where they would overlap."""
    low, high = map(math.log, axes.get_ylim())
    places = apart([(math.log(y) - low) / (high - low) for _, y in ends.values()], 11 / axes.bbox.height, 0.02, 0.98)
    for (words, _), place in zip(ends.items(), places, strict=True):
        look: dict[str, Any] = {"color": colours[words], "fontsize": LABEL, "va": "center_baseline"}
        axes.text(1.04, place, words, transform=axes.transAxes, **look)


def mean(curves: Curves, row: str, x: str, y: str) -> Points:
    """Over seeds, where all of them have the x."""
    places, values_SX = common(curves[row], x, y)
    return places, values_SX.mean(0)


def limits(values: list[float]) -> tuple[float, float]:
    return min(values) / 1.5, max(values) * 1.6


def thin(axes: Axes) -> None:
    """Powers of ten only: a narrow panel has no room for more."""
    low, high = axes.get_xlim()
    places = [10.0**e for e in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]
    axes.set_xticks(places)


def omega(given: Given) -> Figure | None:
    """V_T, the bound's terms and sum, and the excess risk along omega, a line per teacher; where the least stand."""
    exhibit, rows = given.exhibit, given.exhibit.plot["rows"]
    voices = by_voice(exhibit, given.records, "omega")
    if not voices:
        return None
    looks = {row: (PALETTE[i], LINES[i]) for i, row in enumerate(rows)}
    marks = [heard(voice, exhibit, curves, "means over seeds") for voice, curves in voices.items()]
    marks += [
        Mark(row, {"linestyle": "-", "marker": marker, "color": colour}) for row, (colour, marker) in looks.items()
    ]
    marks += [Mark("the least (zero stands at the foot)", RING)]
    marks += [Mark("best ω of the risk", RISK), Mark("of the bound", BOUND)]
    size = {"left": 0.62, "gap": 0.8, "right": 0.15, "above": 0.32, "below": 0.46}
    figure, grid = page(given, Grid(3, 2 * len(voices), 2.4, 2.1, **size), marks)
    for i, (voice, curves) in enumerate(voices.items()):
        of_voice = f", {voice}" * (len(voices) > 1)
        last, bias, variance, bound, excess, where = grid[2 * i : 2 * i + 2].flat
        shown = {row: curves[row] for row in rows if row in curves}
        last_token(last, shown or curves)
        for axes, name, words in ((bias, "bias", "bias"), (variance, "variance", "variance term")):
            along_omega(axes, shown, name, looks, log=name == "bias", least=False)
            axes.set_ylabel(words)
        for axes, name, words in ((bound, "bound", "sum of the terms"), (excess, "excess", "excess risk, nats")):
            along_omega(axes, shown, name, looks, log=True, least=True)
            axes.set_ylabel(words)
        best_against_distance(where, given, voice)
        heads = ("V$_T$, share of that at ω = 0", "Bias", "Variance", "The bound", "What it bounds", "The best ω")
        for axes, head in zip((last, bias, variance, bound, excess, where), heads, strict=True):
            title(axes, head + of_voice)
            if axes is not where:
                axes.set(xlim=(0, 1), xlabel="ω")
    return figure


def last_token(axes: Axes, curves: Curves) -> None:
    """The same for every teacher: the first row's."""
    row = next(iter(curves))
    for name, look, words in (
        ("v_last", {"color": "0.15"}, "exact: (1 − ω)²"),
        ("v_last_printed", {"color": PALETTE[3], "linestyle": "--"}, "as printed: 1 − ω"),
    ):
        x, y = mean(curves, row, "omega", name)
        axes.plot(x, y / y[0], **look)
        at = int(0.4 * len(x))
        offset = (6, 6) if name.endswith("printed") else (-6, -6)
        side = "left" if name.endswith("printed") else "right"
        upright = "bottom" if name.endswith("printed") else "top"
        axes.annotate(
            words, (x[at], y[at] / y[0]), xytext=offset, textcoords="offset points", ha=side, va=upright,
            color=look["color"], fontsize=7.5,
        )  # fmt: skip
    axes.set_ylim(0, 1.02)


def along_omega(
    axes: Axes, curves: Curves, name: str, looks: dict[str, tuple[str, str]], log: bool, least: bool
) -> None:
    """A line per teacher with its least value ringed. Zeros stand at the foot of a logarithmic axis."""
    drawn = {row: mean(curves, row, "omega", name) for row in curves}
    positive = [value for _, y in drawn.values() for value in y if value > 0]
    low, high = limits(positive or [1.0])
    for row, (x, y) in drawn.items():
        colour, marker = looks[row]
        height = np.where(y > 0, y, low) if log else y
        # at omega = 0 the bias is 0 by definition: its line begins at the next omega
        some = slice(1, None) if name == "bias" else slice(None)
        axes.plot(x[some], height[some], color=colour, marker=marker, markevery=4, markersize=3.5, clip_on=False)
        if least:
            place = int(np.flatnonzero(y == y.min())[-1])
            axes.plot([x[place]], [height[place]], clip_on=False, zorder=4, **{**RING, "color": colour})
    if log:
        axes.set(yscale="log", ylim=(low, high))
        one_two_five(axes.yaxis, low, high)
    else:
        axes.set_ylim(0, high)


def best_against_distance(axes: Axes, given: Given, voice: str) -> None:
    """The omega of least risk and of least bound over the teachers' distance from the truth, bars 95 %."""
    found = cells(given.frames[voice])
    for key, look in (("best_omega", RISK), ("best_omega_bound", BOUND)):
        rows = [row for row in given.exhibit.plot["along"] if (row, key) in found and (row, "distance") in found]
        points = sorted((found[row, "distance"].estimate.value, found[row, key].estimate) for row in rows)
        for at, estimate in points:
            if math.isfinite(estimate.low):
                ends = [max(estimate.low, 0), min(estimate.high, 1)]
                axes.plot([at, at], ends, color=look["color"], linewidth=1.1, alpha=0.7)
        axes.plot([at for at, _ in points], [one.value for _, one in points], **{**look, "linestyle": "-"})
    axes.set(xscale="log", ylim=(-0.05, 1.05), xlabel="teacher's distance from the truth", ylabel="ω")
    one_two_five(axes.xaxis, *axes.get_xlim())
    thin(axes)
