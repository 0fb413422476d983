"""An exhibit drawn: SVG and PNG, the same bytes for the same records."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from analysis.curves import curve, reliability, zipf
from analysis.load import Record, comparable
from analysis.panels import dots, heatmap, power_law
from analysis.sheet import OURS, provenance
from paper_tables.spec import Exhibit, file_stem

STYLE = Path(__file__).with_name("style.mplstyle")


def draw(
    exhibit: Exhibit, frames: dict[str, pd.DataFrame], records: dict[str, list[Record]], folder: Path
) -> list[Path]:
    """Write <stem>.svg and <stem>.png for the exhibit's plot and return the paths.

    frames, records: by voice, "logged" and "yours". Where nothing can be drawn the figure says so in words.
    Raises ValueError for an unknown kind of plot.
    """
    kind = exhibit.plot.get("kind", "dots")
    if kind not in KINDS:
        raise ValueError(f"{exhibit.name}: unknown plot kind {kind!r}. Known: {', '.join(KINDS)}.")
    chosen = {voice: comparable(exhibit, records[voice])[0] for voice in OURS}
    with plt.style.context(STYLE):
        figure = KINDS[kind](exhibit, frames, chosen) or in_words(exhibit)
        title = exhibit.heading
        figure.suptitle(title, fontsize=11, x=0.01, ha="left")
        figure.supxlabel("\n".join(sources(chosen)), fontsize=6, color="0.4", x=0.01, ha="left")
        if layout := figure.get_layout_engine():
            layout.execute(figure)
        figure.set_layout_engine("none")  # laid out once, not again for each file
        paths = save(figure, title, folder / file_stem(exhibit.kind, exhibit.number))
        plt.close(figure)
    return paths


def save(figure: Figure, title: str, stem: Path) -> list[Path]:
    stem.parent.mkdir(parents=True, exist_ok=True)
    svg, png = stem.with_suffix(".svg"), stem.with_suffix(".png")
    figure.savefig(svg, metadata={"Date": None, "Title": title, "Creator": None})
    figure.savefig(png, metadata={"Software": None, "Title": title})
    return [svg, png]


def sources(chosen: dict[str, list[Record]]) -> list[str]:
    return [f"{voice}: {provenance(records)}" for voice, records in chosen.items() if records] or ["no records"]


def in_words(exhibit: Exhibit) -> Figure:
    """What is missing, where there is nothing to draw."""
    figure, axes = plt.subplots(figsize=(7, 2.2))
    axes.axis("off")
    axes.text(0.5, 0.5, f"No finished run of {exhibit.name}\nholds what this figure shows.", ha="center", va="center")
    return figure


Draw = Callable[[Exhibit, dict[str, pd.DataFrame], dict[str, list[Record]]], Figure | None]
KINDS: dict[str, Draw] = {
    "dots": dots,
    "reliability": reliability,
    "power_law": power_law,
    "curve": curve,
    "heatmap": heatmap,
    "zipf": zipf,
}
