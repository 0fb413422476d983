"""The figures of the pages: drawn over the machine's cores, with words for readers who do not see them."""

from __future__ import annotations

import multiprocessing
import os
import re
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from analysis.load import Record
from analysis.sheet import VOICES, Sheet
from paper_tables.spec import Exhibit, file_stem

PIXELS = 96 / 72  # of an SVG's point
OF_CURVES = ("reliability", "curve", "zipf")  # kinds that show what runs recorded, nothing that a paper prints
KINDS = {
    "dots": "A mark per row and column",
    "heat": "A shaded grid of numbers",
    "lines": "Lines along the columns",
    "heatmap": "Shaded grids of numbers, one per voice",
    "power_law": "Points and a fitted line on logarithmic axes",
    "reliability": "Accuracy against confidence",
    "curve": "Curves",
    "zipf": "The teacher and the mean target by class",
}
NAMED = 14  # rows that the words for a figure name one by one


@dataclass(frozen=True)
class Picture:
    href: str  # from the site's root
    width: int
    height: int
    alt: str


def drawn(sheets: list[Sheet], records: dict[str, list[Record]], root: Path) -> dict[str, Picture]:
    """Exhibit name -> its figure, written under figures/. Exhibits without a plot, or with nothing in it, have none."""
    chosen = [sheet for sheet in sheets if has_numbers(sheet)]
    if not chosen:
        return {}
    (root / "figures").mkdir(exist_ok=True)
    found = {}
    for sheet, svg in zip(chosen, in_parallel(chosen, records), strict=True):
        if svg is not None:
            path = root / address(sheet.exhibit)
            path.write_text(svg, encoding="utf-8")
            found[sheet.exhibit.name] = Picture(address(sheet.exhibit), *size(svg), seen(sheet))
    return found


def has_numbers(sheet: Sheet) -> bool:
    """Whether the exhibit says how it is plotted, and anyone has a number for it."""
    printed = any(row.published for row in sheet.exhibit.rows)
    return bool(sheet.exhibit.plot) and (printed or any(map(len, sheet.frames.values())))


def address(exhibit: Exhibit) -> str:
    return f"figures/{exhibit.paper}-{file_stem(exhibit.kind, exhibit.number)}.svg"


_sheets: list[Sheet] = []  # what forked workers inherit; only places in it travel
_records: dict[str, list[Record]] = {}


def in_parallel(sheets: list[Sheet], records: dict[str, list[Record]]) -> list[str | None]:
    """Forked, not spawned: importing matplotlib again costs a worker as much as several figures."""
    from analysis import figures  # matplotlib takes a second to import, and only here it is needed

    if sys.platform != "linux" or len(sheets) == 1:
        return [figures.inline(sheet.exhibit, sheet.frames, records) for sheet in sheets]
    _sheets[:] = sheets
    _records.update(records)
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=context) as pool:
        return list(pool.map(at_place, range(len(sheets))))


def at_place(place: int) -> str | None:
    from analysis.figures import inline

    sheet = _sheets[place]
    return inline(sheet.exhibit, sheet.frames, _records)


def size(svg: str) -> tuple[int, int]:
    found = re.search(r'<svg [^>]*?width="([\d.]+)pt" height="([\d.]+)pt"', svg)
    assert found, "matplotlib writes its size in points"
    return round(float(found[1]) * PIXELS), round(float(found[2]) * PIXELS)


def seen(sheet: Sheet) -> str:
    """The alternative text: what is drawn, of which rows, by which voices."""
    exhibit = sheet.exhibit
    labels = [row.label for row in exhibit.rows]
    rows = ", ".join(labels) if len(labels) <= NAMED else f"{len(labels)} from {labels[0]} to {labels[-1]}"
    printed = any(row.published for row in exhibit.rows) and exhibit.plot.get("kind") not in OF_CURVES
    voices = [voice for voice in VOICES if (printed if voice == "published" else len(sheet.frames[voice]))]
    columns = ", ".join(column.label for column in exhibit.columns)
    kind = KINDS.get(exhibit.plot.get("kind", "dots"), "Plot")
    return f"{exhibit.heading}. {kind}. Columns: {columns}. Rows: {rows}. Voices: {', '.join(voices)}."
