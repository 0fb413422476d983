"""An exhibit drawn: SVG and PNG, the same bytes for the same records."""

from __future__ import annotations

import io
from collections.abc import Callable
from html import escape
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from analysis.load import Record, choose
from analysis.plots.frontier import frontier
from analysis.plots.grids import heat, heatmap
from analysis.plots.histograms import histograms
from analysis.plots.lines import along, lines, power_law
from analysis.plots.marks import said, voices
from analysis.plots.martingale import martingale, omega
from analysis.plots.page import Given, Grid, page
from analysis.plots.panel import panels
from analysis.plots.panels import dots
from analysis.plots.phase import phase
from analysis.plots.traces import curve, reliability, zipf
from analysis.plots.training import training
from analysis.sheet import OURS, provenance
from paper_tables.spec import Exhibit, file_stem

STYLE = Path(__file__).with_name("style.mplstyle")
# More than these make a grid of numbers instead of panels of dots. Ours have intervals, which a panel shows better.
PANELS, PANELS_OF_OURS, DOTS = 6, 9, 75
Voices = dict[str, list[Record]]


def draw(exhibit: Exhibit, frames: dict[str, pd.DataFrame], records: Voices, folder: Path) -> list[Path]:
    """Write <stem>.svg and <stem>.png for the exhibit's plot and return the paths.

    frames, records: by voice, "logged" and "yours". Where nothing can be drawn the figure says so in words.
    Raises ValueError for an unknown kind of plot.
    """
    given = gathered(exhibit, frames, records)
    stem = folder / file_stem(exhibit.kind, exhibit.number)
    stem.parent.mkdir(parents=True, exist_ok=True)
    svg, png = stem.with_suffix(".svg"), stem.with_suffix(".png")
    with plt.style.context(STYLE):
        figure = drawn(given) or in_words(given)
        svg.write_text(as_svg(figure, given), encoding="utf-8")
        figure.set_dpi(float(plt.rcParams["savefig.dpi"]))
        # print_png draws once, where savefig lays out first and draws twice
        FigureCanvasAgg(figure).print_png(png, metadata={"Software": None, "Title": exhibit.heading})
        plt.close(figure)
    return [svg, png]


def inline(exhibit: Exhibit, frames: dict[str, pd.DataFrame], records: Voices) -> str | None:
    """The figure as an <svg> element for a page of HTML, or None where there is nothing to draw."""
    given = gathered(exhibit, frames, records)
    with plt.style.context(STYLE):
        figure = drawn(given)
        if figure is None:
            return None
        text = as_svg(figure, given)
        plt.close(figure)
    return text[text.index("<svg") :]


def gathered(exhibit: Exhibit, frames: dict[str, pd.DataFrame], records: Voices) -> Given:
    chosen = {voice: choose(exhibit, records[voice]).kept for voice in OURS}
    return Given(exhibit, frames, chosen, sources(exhibit, chosen))


def drawn(given: Given) -> Figure | None:
    """The figure of the exhibit's kind of plot; None where no number fills it."""
    kind = given.exhibit.plot.get("kind", "dots")
    if kind not in KINDS:
        raise ValueError(f"{given.exhibit.name}: unknown plot kind {kind!r}. Known: {', '.join(KINDS)}.")
    return KINDS[kind](given)


def table(given: Given) -> Figure | None:
    """What suits a table's shape: lines along numbered columns, a grid where it is large, else a panel per column."""
    if given.exhibit.layout == "grid":
        return heatmap(given)
    if "columns" in given.exhibit.plot:
        return dots(given)
    if along(given):
        return lines(given)
    filled = panels(given, given.exhibit.columns)
    most = PANELS_OF_OURS if voices(given) else PANELS
    printed = sum(len(panel.theirs) for panel in filled)
    many = len(filled) > most or (printed > DOTS and not voices(given))
    return heat(given) if many or len(given.exhibit.rows) == 1 else dots(given)


def as_svg(figure: Figure, given: Given) -> str:
    """The drawing with what a screen reader says in its place."""
    out = io.StringIO()
    FigureCanvasSVG(figure).print_svg(out, metadata={"Date": None, "Title": given.exhibit.heading, "Creator": None})
    start, rest = out.getvalue().split("<svg", 1)
    tag, body = rest.split(">", 1)
    words = f"<title>{escape(given.exhibit.heading)}</title>\n <desc>{escape(described(given))}</desc>"
    return f'{start}<svg role="img"{tag}>\n {words}{body}'


def described(given: Given) -> str:
    columns = ", ".join(column.label for column in given.exhibit.columns)
    rows = ", ".join(row.label for row in given.exhibit.rows)
    told = ["published"] if said(given.exhibit) else []
    return f"Values ({', '.join([*told, *voices(given)])}) of {columns}, for {rows}. {' '.join(given.foot)}"


def sources(exhibit: Exhibit, chosen: Voices) -> list[str]:
    """What the figure rests on; why columns or the whole exhibit stay without our numbers, said once."""
    lines = [f"{voice}: {provenance(records)}" for voice, records in chosen.items() if records]
    if not lines:
        why = f": {exhibit.why}" if exhibit.status == "published" and exhibit.why else ""
        return [f"The paper's numbers only; no records of ours{why}."] if said(exhibit) else [f"No records{why}."]
    absent: dict[str, list[str]] = {}
    for column in exhibit.columns:
        if column.why:
            absent.setdefault(column.why, []).append(column.label)
    return lines + [f"Not measured: {', '.join(labels)} ({why})." for why, labels in absent.items()]


def in_words(given: Given) -> Figure:
    """What is missing, where there is nothing to draw."""
    figure, grid = page(given, Grid(1, 1, 6.0, 0.7, left=0.1, above=0.1, below=0.1), [])
    axes = grid[0, 0]
    axes.set_axis_off()
    name = given.exhibit.name
    ran = any(row.recipe is not None for row in given.exhibit.rows)
    words = f"No finished run of {name} holds what it shows.\n" if ran else ""
    words += (
        "" if given.exhibit.plot.get("kind", "dots") != "dots" else "The paper's text gives no numbers of it to draw."
    )
    axes.text(0, 0.5, words, va="center")
    return figure


Draw = Callable[[Given], Figure | None]
KINDS: dict[str, Draw] = {
    "dots": table,
    "heat": heat,
    "lines": lines,
    "heatmap": heatmap,
    "power_law": power_law,
    "reliability": reliability,
    "curve": curve,
    "zipf": zipf,
    "training": training,
    "histograms": histograms,
    "phase": phase,
    "martingale": martingale,
    "omega": omega,
    "frontier": frontier,
}
