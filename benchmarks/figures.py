"""Plots of a result, as SVG."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from benchmarks import words
from benchmarks.draws import OURS as OUR_DRAWS
from benchmarks.draws import TARGETS
from benchmarks.losses import OURS as OUR_LOSSES
from benchmarks.race import Spread
from benchmarks.result import Group
from benchmarks.stores import CACHE, CACHE_ZSTD
from benchmarks.training import CACHING, READING, RSKD, SECOND

STYLE = Path(__file__).resolve().parent.parent / "analysis" / "style.mplstyle"
OURS = {*OUR_LOSSES, OUR_DRAWS, *TARGETS, CACHE, CACHE_ZSTD, CACHING, READING, RSKD, SECOND}
OURS_COLOUR = "#1b5a99"
GREYS = ("#6b6b6b", "#c05a00", "#7d8f1c", "#8c5a96", "#3f8f8f")


def svg(figure: Figure) -> str:
    text = StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None}, bbox_inches="tight")
    plt.close(figure)
    return text.getvalue()[text.getvalue().index("<svg") :]


@dataclass(frozen=True)
class Panel:
    title: str
    label: str  # of the numbers
    numbers: dict[str, Spread]  # by contender
    one: bool = False  # a line at 1


def of_part(groups: Sequence[Group]) -> Iterator[tuple[str, str]]:
    """(what it shows, its SVG), each figure of a part."""
    single = [group for group in groups if not group.varied]
    with plt.style.context(STYLE):
        if timed := [
            Panel(titled(group), f"time / {group.against}", group.ratios, True) for group in single if group.ratios
        ]:
            yield "Time", svg(dots(timed))
        for quantity in dict.fromkeys(name for group in single for name in group.values):
            label = words.QUANTITIES[quantity]
            having = [group for group in single if quantity in group.values]
            yield label, svg(dots([Panel(titled(group), *exact(group, quantity)) for group in having]))
        if varying := [group for group in groups if group.varied]:
            yield "growth", svg(growth(varying))


def titled(group: Group) -> str:
    return f"{group.name}: {words.case(group)}"


def exact(group: Group, quantity: str) -> tuple[str, dict[str, Spread]]:
    """A quantity's label and its numbers, in GiB where it is bytes."""
    size, unit = (2**30, ", GiB") if quantity.endswith("_bytes") else (1, "")
    numbers = {name: Spread(*[number / size] * 3) for name, number in group.values[quantity].items()}
    return words.QUANTITIES[quantity] + unit, numbers


def dots(panels: Sequence[Panel]) -> Figure:
    """Contenders one below the other, median and 10th to 90th percentile."""
    heights = [0.22 * len(panel.numbers) + 0.2 for panel in panels]
    size = (7.5, sum(heights) + 0.9 * len(panels))
    figure, places = plt.subplots(len(panels), 1, squeeze=False, figsize=size, height_ratios=heights)
    for axes, panel in zip(places[:, 0], panels, strict=True):
        for place, (name, number) in enumerate(panel.numbers.items()):
            colour = OURS_COLOUR if name in OURS else GREYS[0]
            axes.plot([number.low, number.high], [place, place], color=colour, linewidth=2.5, alpha=0.45)
            axes.plot(number.median, place, "o", color=colour)
            where = {"textcoords": "offset points", "ha": "center", "fontsize": 7}
            axes.annotate(f"{number.median:.3g}", (number.median, place), (0, 5), color=colour, **where)
        axes.set_yticks(range(len(panel.numbers)), list(panel.numbers))
        for text, name in zip(axes.get_yticklabels(), panel.numbers, strict=True):
            text.set_color(OURS_COLOUR if name in OURS else "0.2")
        axes.invert_yaxis()
        axes.margins(y=0.6 / len(panel.numbers))
        axes.set_xlabel(panel.label)
        axes.set_title(panel.title, loc="left")
        scaled(axes, list(panel.numbers.values()))
        if panel.one:
            axes.axvline(1, color="0.6", linewidth=0.8)
    figure.tight_layout()
    return figure


def scaled(axes: Axes, numbers: Sequence[Spread]) -> None:
    """Logarithmic where the numbers differ much, else from zero."""
    least, most = min(each.low for each in numbers), max(each.high for each in numbers)
    if 0 < 8 * least < most:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(lambda number, _: f"{number:g}")
        axes.minorticks_off()
        axes.set_xlim(least / 1.3, most * 1.3)
    else:
        axes.set_xlim(min(0, 1.1 * least), 1.1 * most)


def growth(groups: Sequence[Group]) -> Figure:
    """A column per size that varies; time above, memory below where it was measured."""
    series: dict[str, list[Group]] = {}
    for group in groups:
        series.setdefault(group.varied, []).append(group)
    quantities = ["seconds", *(["peak_bytes"] if any(group.values for group in groups) else [])]
    down, across = len(quantities), len(series)
    figure, panels = plt.subplots(down, across, squeeze=False, figsize=(max(4.0, 3.0 * across), 2.7 * down))
    greys, names = iter(GREYS * 3), dict.fromkeys(name for group in groups for name in group.seconds)
    colours = {name: OURS_COLOUR if name in OURS else next(greys) for name in names}
    for column, (varied, members) in enumerate(series.items()):
        for row, quantity in enumerate(quantities):
            axes = panels[row, column]
            if quantity != "seconds" and not any(map(peaks, members)):
                axes.set_axis_off()
                continue
            lines(axes, varied, members, quantity, colours)
            axes.set_xlabel(words.SIZES.get(varied, varied))
            if column == 0:
                axes.set_ylabel("seconds" if quantity == "seconds" else "extra peak memory, GiB")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
    figure.tight_layout()
    return figure


def lines(axes: Axes, varied: str, members: Sequence[Group], quantity: str, colours: Mapping[str, str]) -> None:
    for name, colour in colours.items():
        having = [group for group in members if name in (group.seconds if quantity == "seconds" else peaks(group))]
        if not having:
            continue
        x = [int(group.case[varied]) for group in having]
        look: dict[str, Any] = {"color": colour, "label": name, "marker": "o", "markersize": 4}
        if quantity == "seconds":
            spreads = [group.times[name] for group in having]
            axes.fill_between(
                x, [each.low for each in spreads], [each.high for each in spreads], color=colour, alpha=0.2
            )
            axes.plot(x, [each.median for each in spreads], **look)
        else:
            axes.plot(x, [peaks(group)[name] / 2**30 for group in having], **look)
    if varied != "workers":
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    ticks = sorted({int(group.case[varied]) for group in members})
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()


def peaks(group: Group) -> dict[str, float]:
    return group.values.get("peak_bytes", {})
