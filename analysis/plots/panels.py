"""Dots: a panel per column, a line per row."""

from __future__ import annotations

import math

from matplotlib.figure import Figure

from analysis.plots.marks import PUBLISHED, titled, voice_keys
from analysis.plots.page import WIDEST, Given, Grid, Mark, folded, page, title, width_of
from analysis.plots.panel import STRETCHED, Panel, draw, frame, panels

PANEL, NARROW = 2.15, 1.8  # inches
GAP = 0.25
LABEL = 8.5  # font size
MOST_LABEL = 2.6  # inches; a longer row label is folded


def dots(given: Given) -> Figure | None:
    """Each column's values down the rows, ours on the axis below, the paper's on a grey one where scales differ.

    The grey axis is laid so that its lowest and highest value stand where ours do: the pattern can be compared.
    """
    keys = given.exhibit.plot.get("columns")
    chosen = [given.exhibit.column(key) for key in keys] if keys else given.exhibit.columns
    drawn = panels(given, chosen)
    if not drawn:
        return None
    labels = [folded(row.label, LABEL, MOST_LABEL) for row in given.exhibit.rows]
    step = 0.1 + 0.15 * max(map(len, labels))
    speakers = max(len(panel.ours) + bool(panel.theirs) for panel in drawn)
    step = max(step, {1: 0.22, 2: 0.3}.get(speakers, 0.42))
    left = max(width_of("\n".join(lines), LABEL) for lines in labels) + 0.12
    left = max(left, width_of(given.exhibit.row_header, 7.5) + 0.12)
    most = max(1, min(4, int((WIDEST - left) / (NARROW + GAP))))
    down = math.ceil(len(drawn) / most)
    across = math.ceil(len(drawn) / down)
    width = max(NARROW, min(PANEL, (WIDEST - left) / across - GAP))
    titles = [folded(titled(panel.column), 9, width, bold=True) for panel in drawn]
    upper = any(panel.apart for panel in drawn)
    above = 0.18 + 0.17 * max(map(len, titles)) + 0.2 * upper
    size = {"height": step * len(labels), "left": left, "above": above, "below": 0.36, "right": 0.12, "gap": GAP}
    figure, grid = page(given, Grid(across, down, width, **size), key(given, drawn))
    for axes, panel, words in zip(grid.flat, drawn, titles, strict=False):
        frame(axes, len(labels))
        draw(axes, panel, given.measured)
        title(axes, "\n".join(words), 18 if upper else 4)
    for axes in grid.flat[len(drawn) :]:
        axes.set_visible(False)
    for axes in grid[:, 0]:
        axes.set_yticks(range(len(labels)), ["\n".join(lines) for lines in labels], fontsize=LABEL)
        header = {"xycoords": "axes fraction", "textcoords": "offset points", "va": "bottom", "ha": "right"}
        axes.annotate(given.exhibit.row_header, (0, 1), xytext=(-6, 4), fontsize=7.5, color="0.4", **header)
    return figure


def key(given: Given, drawn: list[Panel]) -> list[Mark]:
    marks = voice_keys(given)
    if any(panel.theirs for panel in drawn):
        words = "published"
        if any(cell.sd is not None for panel in drawn for cell in panel.theirs.values()):
            words += ", ± its standard deviation"
        if any(panel.apart for panel in drawn):
            words += STRETCHED
        marks.append(Mark(words, PUBLISHED))
    return marks
