"""The page: no label is cut off by its edge or written over another one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from planted import plant_exhibit

from analysis import figures
from analysis.load import frame, records
from analysis.plots.page import Mark, apart, flowed, folded, width_of
from paper_tables.spec import load, names


def test_labels_move_apart_no_further_than_needed() -> None:
    assert apart([0.5, 0.1], 0.2, 0, 1) == pytest.approx([0.5, 0.1])
    assert apart([0.5, 0.5, 0.5], 0.1, 0, 1) == pytest.approx([0.4, 0.5, 0.6])
    assert apart([0.0, 0.0, 0.9], 0.2, 0, 1) == pytest.approx([0.0, 0.2, 1.0], abs=0.1001)
    moved = apart([0.98, 0.97, 0.2, 0.99], 0.05, 0, 1)
    assert max(moved) <= 1 + 1e-9 and np.diff(sorted(moved)).min() > 0.05 - 1e-9 and apart([], 0.1, 0, 1) == []


def test_long_texts_are_folded_to_the_width() -> None:
    text = "Random sampling with a weight of cross-entropy and a higher learning rate for hard tokens"
    lines = folded(text, 11, 3.0, bold=True)
    assert " ".join(lines) == text and max(width_of(line, 11, True) for line in lines) <= 3.0 and len(lines) > 1
    assert folded("unbreakable" * 9, 8, 1.0) == ["unbreakable" * 9]


def test_a_key_flows_over_lines() -> None:
    marks = [Mark("logged: mean and interval", {"marker": "o"}), Mark("published", {"marker": "D"})]
    assert [[mark.text for mark in line] for line in flowed(marks, 10)] == [[mark.text for mark in marks]]
    narrow = flowed(marks, 1.5)
    assert [line[0].text for line in narrow] == ["logged: mean and", "interval", "published"]
    assert narrow[0][0].look and not narrow[1][0].look and narrow[2][0].look


def slips(figure: Figure) -> list[str]:
    """Texts that the page cuts off, and pairs that overlap."""
    figure.set_dpi(150)
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    boxes = [(text.get_text(), Text.get_window_extent(text, renderer)) for text in seen(figure)]
    width, height = figure.bbox.width, figure.bbox.height
    found = [t for t, b in boxes if b.x0 < -1 or b.y0 < -1 or b.x1 > width + 1 or b.y1 > height + 1]
    for i, (one, a) in enumerate(boxes):
        for other, b in boxes[:i]:
            if min(a.x1, b.x1) - max(a.x0, b.x0) > 2 and min(a.y1, b.y1) - max(a.y0, b.y0) > 3:
                found.append(f"{other} | {one}")
    return found


def seen(figure: Figure) -> list[Text]:
    hidden = set()
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
            if not low <= tick.get_loc() <= high:
                hidden |= {id(tick.label1), id(tick.label2)}
    return [
        text
        for text in figure.findobj(Text)
        if isinstance(text, Text) and text.get_visible() and text.get_text().strip() and id(text) not in hidden
        if text.axes is None or text.axes.get_visible()
    ]


ONE_OF_EACH = {load(name).plot.get("kind", "dots"): name for name in names()}
CHECKED = sorted({*ONE_OF_EACH.values(), "rskd/table02", "rskd/table06", "sekd/table03", "tad/table05"})


@pytest.mark.parametrize("name", CHECKED)
def test_nothing_is_cut_off_and_no_words_overlap(tmp_path: Path, name: str) -> None:
    given = load(name)
    plant_exhibit(tmp_path, given)
    for logged in (records(tmp_path), []):
        found: dict[str, Any] = {"logged": logged, "yours": []}
        frames = {voice: frame(given, own, voice) for voice, own in found.items()}
        with plt.style.context(figures.STYLE):
            figure = figures.drawn(figures.gathered(given, frames, found))
            if figure is not None:
                assert slips(figure) == []
                plt.close(figure)


def test_slips_are_seen() -> None:
    figure = plt.figure(figsize=(3, 1))
    figure.text(0.9, 0.5, "this leaves the page")
    figure.text(0.1, 0.2, "one upon")
    figure.text(0.12, 0.2, "another")
    assert slips(figure) == ["this leaves the page", "one upon | another"]
    plt.close(figure)
