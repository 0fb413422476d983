"""Training as it goes: the held-out loss, accuracy and calibration of mid-run evaluations, a line per row."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.plots.curves import Columns, by_voice, common
from analysis.plots.lines import name_ends
from analysis.plots.marks import one_two_five, ticks
from analysis.plots.page import Given, Grid, page, title
from analysis.plots.traces import heard, styles, widest

CURVE = "by_step"  # of summary.json: columns step, tokens and what was measured there
# column of the curve -> how its axis is called, and the unit's size in the record's own
QUANTITIES = {
    "lm_loss": ("LM loss (nats)\u00a0↓", 1.0),
    "accuracy": ("Next-token accuracy %\u00a0↑", 100.0),
    "ece": ("ECE %\u00a0↓", 100.0),
    "kl": ("KL from the teacher (nats)\u00a0↓", 1.0),
}
USUAL = ["lm_loss", "accuracy", "ece"]  # of every run that was evaluated on the way
ALONG = {"step": "optimiser steps", "tokens": "tokens of training"}


def training(given: Given) -> Figure | None:
    """A panel for each quantity along steps or tokens, a line of panels per voice; None where no run was so evaluated.

    plot.x: "tokens" (the default) or "step"; plot.y: some of QUANTITIES (the default is USUAL). ValueError for others.
    """
    exhibit, plot = given.exhibit, given.exhibit.plot
    x, wanted = plot.get("x", "tokens"), plot.get("y", USUAL)
    if x not in ALONG or not wanted or not set(wanted) <= set(QUANTITIES):
        raise ValueError(
            f"{exhibit.name}: a plot of training has x = {x!r} and y = {wanted!r}. Known x: {', '.join(ALONG)}; "
            f"known y: {', '.join(QUANTITIES)}."
        )
    voices = by_voice(exhibit, given.records, CURVE)
    if not voices:
        return None
    told = "mean over seeds, bands from the lowest to the highest"
    marks = [heard(voice, exhibit, curves, told) for voice, curves in voices.items()]
    room, look = widest(exhibit) + 0.35, styles(exhibit)
    size = {"left": 0.6, "gap": room + 0.55, "right": room, "above": 0.3, "below": 0.5}
    figure, grid = page(given, Grid(len(wanted), len(voices), 2.3, 2.3, **size), marks)
    for line, (voice, curves) in zip(grid, voices.items(), strict=True):
        for axes, quantity in zip(line, wanted, strict=True):
            name, unit = QUANTITIES[quantity]
            ends = {}
            for label, seeds in curves.items():
                if end := course(axes, seeds, x, quantity, unit, *look[label]):
                    ends[label] = end
            if ends:
                axes.set_xscale("log")
                one_two_five(axes.xaxis, *axes.get_xlim())
                ticks(axes.yaxis, log=False)
                name_ends(axes, ends, look)
            axes.set_xlabel(ALONG[x])
            title(axes, name + f", {voice}" * (len(voices) > 1))
    return figure


def course(
    axes: Axes, seeds: list[Columns], x: str, y: str, unit: float, colour: str, marker: str
) -> tuple[float, float] | None:
    """Draw a row where all its seeds were evaluated and none diverged; its last point, or None where there is none.

    The axis is logarithmic: an evaluation before the first step has no place on it.
    """
    at, y_SX = common(seeds, x, y)
    shown = (at > 0) & np.isfinite(y_SX).all(0)
    if not shown.any():
        return None
    at, y_SX = at[shown], unit * y_SX[:, shown]
    axes.plot(at, y_SX.mean(0), color=colour, marker=marker, markersize=3.2, linewidth=1.3)
    axes.fill_between(at, y_SX.min(0), y_SX.max(0), color=colour, alpha=0.2, linewidth=0)
    return float(at[-1]), float(y_SX.mean(0)[-1])
