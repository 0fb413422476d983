"""One panel of dots: a column down the rows, our mean and interval beside the published value."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from analysis.cells import cells
from analysis.plots.marks import (
    COLOURS,
    INK,
    PUBLISHED,
    Said,
    at_the_edge,
    logarithmic,
    said,
    ticks,
    voice_look,
    voices,
)
from analysis.plots.page import Given
from analysis.statistics import Estimate
from paper_tables.spec import Column

VALUE = 7.0  # font size of a printed number beside its marker
STRETCHED = " (grey axis above, stretched to our range)"
ALIKE = 1.5  # ranges whose union is at most this many times the larger one share an axis


@dataclass
class Panel:
    """What one column shows: by row, our estimates of each voice and the printed value."""

    column: Column
    ours: dict[str, dict[int, Estimate]] = field(default_factory=dict)
    theirs: dict[int, Said] = field(default_factory=dict)

    @property
    def means(self) -> list[float]:
        return [found.value for by_row in self.ours.values() for found in by_row.values() if math.isfinite(found.value)]

    @property
    def reach(self) -> list[float]:
        """The finite ends of our intervals, and the means."""
        ends = [end for by_row in self.ours.values() for e in by_row.values() for end in (e.low, e.high)]
        return self.means + [end for end in ends if math.isfinite(end)]

    @property
    def printed(self) -> list[float]:
        return [cell.value for cell in self.theirs.values() if math.isfinite(cell.value)]

    @property
    def printed_reach(self) -> list[float]:
        spread = [c.value + s * c.sd for c in self.theirs.values() if c.sd and math.isfinite(c.value) for s in (-1, 1)]
        return self.printed + spread

    @property
    def logarithmic(self) -> bool:
        return any(map(logarithmic, (self.means, self.printed))) and min(self.reach + self.printed_reach) > 0

    @property
    def apart(self) -> bool:
        """Whether ours and theirs need an axis each: another scale than the paper's gives other numbers."""
        if self.column.derive is not None or not self.means or not self.printed:
            return False
        spans = [max(values) - min(values) for values in (self.reach, self.printed_reach)]
        both = self.reach + self.printed_reach
        return max(both) - min(both) > ALIKE * max(spans)


def panels(given: Given, columns: list[Column]) -> list[Panel]:
    """A panel for each of the columns that holds a number."""
    printed = said(given.exhibit)
    ours = {voice: cells(given.frames[voice]) for voice in voices(given)}
    found = []
    for column in columns:
        panel = Panel(column)
        for place, row in enumerate(given.exhibit.rows):
            at = (row.label, column.key)
            for voice in ours:
                if at in ours[voice]:
                    panel.ours.setdefault(voice, {})[place] = ours[voice][at].estimate
            if at in printed:
                panel.theirs[place] = printed[at]
        setting = (
            column.better == "none" and len(panel.theirs) > 1 and len({c.value for c in panel.theirs.values()}) == 1
        )
        if panel.ours or panel.theirs and not setting:  # what is the same for all rows is no result
            found.append(panel)
    return found


def frame(axes: Axes, rows: int) -> None:
    """Banded rows, a grid of values, and no box."""
    axes.set_ylim(rows - 0.5, -0.5)
    axes.set_yticks([])
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    for place in range(0, rows, 2):
        axes.axhspan(place - 0.5, place + 0.5, color="0.965", linewidth=0, zorder=0)


def draw(axes: Axes, panel: Panel, measured: bool) -> None:
    speakers = [*panel.ours, *(["published"] if panel.theirs else [])]
    reach = {1: 0.0, 2: 0.2}.get(len(speakers), 0.28)  # of a row's height, either way
    shifts = dict(zip(speakers, np.linspace(-reach, reach, len(speakers)), strict=True))
    above = axes
    if panel.apart:
        above = axes.twiny()
        above.grid(visible=False)
        above.spines[["left", "bottom"]].set_visible(False)
        above.spines["top"].set_visible(True)
        above.tick_params(axis="x", colors="0.5", labelcolor="0.45", pad=1.5)
    limits(axes, above, panel)
    if panel.column.derive is not None and panel.column.derive["function"] == "gap_closed":
        for end in (0, 100):
            axes.axvline(end, color="0.6", linewidth=0.8, linestyle=(0, (4, 3)), zorder=0.5)
    for voice, by_row in panel.ours.items():
        measured_dots(axes, by_row, shifts[voice], voice)
    if panel.theirs:
        printed(above, panel, shifts["published"], not measured)
    if measured and not panel.ours:
        axes.set_xlabel("published only", color=INK, fontsize=7.5, labelpad=1)


def limits(axes: Axes, above: Axes, panel: Panel) -> None:
    """One axis for all, or the paper's stretched so that the lowest and highest of the shared rows coincide."""
    log = panel.logarithmic
    to = np.log10 if log else np.asarray
    back = (lambda x: 10.0**x) if log else (lambda x: x)
    ours, theirs = to(np.array(panel.reach)), to(np.array(panel.printed_reach))
    shift, stretch = 0.0, 1.0
    if above is not axes:
        u, p = shared(panel)
        a, b = (to(np.array(u)), to(np.array(p))) if len(u) > 1 else (ours, theirs)
        stretch = (np.ptp(a) or 1.0) / (np.ptp(b) or 1.0)
        shift = a.min() - stretch * b.min()
    everything = np.concatenate([ours, shift + stretch * theirs])
    if not len(everything):
        axes.set_xticks([])
        return
    low, high = everything.min(), everything.max()
    wide = (high - low) or abs(high) * 0.1 or 1.0
    low, high = low - 0.09 * wide, high + 0.09 * wide
    for one, (start, end) in {axes: (low, high), above: ((low - shift) / stretch, (high - shift) / stretch)}.items():
        if log:
            one.set_xscale("log")
        one.set_xlim(float(back(start)), float(back(end)))
        ticks(one.xaxis, log)


def shared(panel: Panel) -> tuple[list[float], list[float]]:
    """Our means and the printed values of the rows that have both."""
    pairs = [
        (found.value, panel.theirs[place].value)
        for by_row in panel.ours.values()
        for place, found in by_row.items()
        if place in panel.theirs and math.isfinite(found.value) and math.isfinite(panel.theirs[place].value)
    ]
    return [a for a, _ in pairs], [b for _, b in pairs]


def measured_dots(axes: Axes, by_row: dict[int, Estimate], shift: float, voice: str) -> None:
    colour = COLOURS[voice]
    for place, found in by_row.items():
        if not math.isfinite(found.value):
            at_the_edge(axes, f"{voice}: diverged", place + shift, colour, left=found.value < 0)
    finite = {place: found for place, found in by_row.items() if math.isfinite(found.value)}
    spread = {place: found for place, found in finite.items() if found.n > 1}
    low, high = [e.low for e in spread.values()], [e.high for e in spread.values()]
    axes.hlines([place + shift for place in spread], low, high, color=colour, linewidth=1.6)
    axes.plot([e.value for e in finite.values()], [place + shift for place in finite], **voice_look(voice))


def printed(axes: Axes, panel: Panel, shift: float, written: bool) -> None:
    """The paper's values; with their digits beside them where nothing of ours stands there."""
    for place, cell in panel.theirs.items():
        if not math.isfinite(cell.value):
            at_the_edge(axes, "published: ∞", place + shift, INK)
    finite = {place: cell for place, cell in panel.theirs.items() if math.isfinite(cell.value)}
    spread = {place + shift: (cell.value, cell.sd) for place, cell in finite.items() if cell.sd}
    low, high = ([value + side * sd for value, sd in spread.values()] for side in (-1, 1))
    axes.hlines(list(spread), low, high, color=INK, linewidth=1.2)
    axes.plot([cell.value for cell in finite.values()], [place + shift for place in finite], **PUBLISHED)
    for place, cell in finite.items() if written else ():
        beside(axes, cell, place + shift, axes.get_xlim())


def beside(axes: Axes, cell: Said, place: float, span: tuple[float, float]) -> None:
    share = math.log if axes.get_xscale() == "log" else float
    right = (share(cell.value) - share(span[0])) / (share(span[1]) - share(span[0])) > 0.6
    end = cell.value + (cell.sd or 0.0) * (-1 if right else 1)
    look: dict[str, Any] = {"fontsize": VALUE, "va": "center_baseline", "ha": "right" if right else "left"}
    look |= {"fontweight": "bold" if cell.best else "normal", "color": "0.3", "textcoords": "offset points"}
    bar = abs(share(end) - share(cell.value)) / (share(span[1]) - share(span[0])) * axes.bbox.width
    away = max(5.5 - bar, 2.5)  # points: clear of the marker, or of the end of the bar
    axes.annotate(cell.text, (end, place), xytext=(-away if right else away, 0), **look)
