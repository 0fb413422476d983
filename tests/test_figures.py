"""Figures: what they draw, that the same records give the same bytes, and that missing data is said in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted import LOSSES, exhibit, plant_all, plant_exhibit

from analysis import figures
from analysis.curves import common, pooled
from analysis.load import frame, records
from paper_tables.spec import Column, Exhibit, Row, load, names

PLOTS: dict[str, dict[str, Any]] = {
    "dots": {},
    "reliability": {"kind": "reliability"},
    "curve": {"kind": "curve", "curve": "by_tokens", "x": "tokens", "y": "angle"},
    "zipf": {"kind": "zipf"},
    "power_law": {"kind": "power_law", "x": "draws", "y": "lm_loss"},
    "heatmap": {"kind": "heatmap", "separator": " / ", "x": "alpha", "y": "ratio", "value": "lm_loss"},
}


def world(kind: str) -> Exhibit:
    """An exhibit that suits the kind of plot."""
    labels = {"power_law": ["1", "2", "5", "10"], "heatmap": ["1.0 / 0.1", "1.0 / 0.2", "2.0 / 0.1", "2.0 / 0.2"]}
    if kind not in labels:
        return exhibit(plot=PLOTS[kind])
    rows = [
        Row(label=label, recipe={"student": f"role{i}"}, published={"lm_loss": 2.0})
        for i, label in enumerate(labels[kind])
    ]
    columns = [Column(key="lm_loss", label="LM loss", unit="nats", better="lower")]
    return exhibit(rows=rows, columns=columns, plot=PLOTS[kind])


def drawn(given: Exhibit, logged: Path, folder: Path) -> tuple[str, bytes]:
    found = {"logged": records(logged), "yours": []}
    svg, png = figures.draw(given, {voice: frame(given, own, voice) for voice, own in found.items()}, found, folder)
    return svg.read_text(), png.read_bytes()


@pytest.mark.parametrize("kind", PLOTS)
def test_the_same_records_give_the_same_bytes(tmp_path: Path, kind: str) -> None:
    plant_exhibit(tmp_path / "r", world(kind))
    first, second = (drawn(world(kind), tmp_path / "r", tmp_path / name) for name in "ab")
    assert first == second
    svg, png = first
    assert "<title>" in svg or "<dc:title>" in svg
    assert "2 seeds" not in svg and "3 seeds" in svg and png.startswith(b"\x89PNG")


def test_other_records_give_other_bytes(tmp_path: Path) -> None:
    plant_all(tmp_path / "a")
    plant_all(tmp_path / "b", {**LOSSES, "CE": (3.0, 3.1, 3.2)})
    assert drawn(exhibit(), tmp_path / "a", tmp_path)[0] != drawn(exhibit(), tmp_path / "b", tmp_path)[0]


@pytest.mark.parametrize("kind", ["reliability", "curve", "zipf"])
def test_nothing_to_draw_is_said_in_words(tmp_path: Path, kind: str) -> None:
    plant_all(tmp_path / "r")  # metrics, no curves
    assert "No finished run" in drawn(world(kind), tmp_path / "r", tmp_path)[0]


@pytest.mark.parametrize("kind", PLOTS)
def test_no_records_are_said_in_words(tmp_path: Path, kind: str) -> None:
    svg = drawn(world(kind), tmp_path / "none", tmp_path)[0].lower()
    assert "no finished run" in svg or "no records" in svg


def test_the_fitted_exponent_is_written(tmp_path: Path) -> None:
    given = world("power_law")
    plant_exhibit(tmp_path / "r", given)
    assert "logged: exponent 0.1" in drawn(given, tmp_path / "r", tmp_path)[0]


def test_divergence_is_written_in_the_figure(tmp_path: Path) -> None:
    plant_all(tmp_path / "r", {**LOSSES, "Top-K 12": (float("nan"),) * 3})
    assert "logged: diverged" in drawn(exhibit(), tmp_path / "r", tmp_path)[0]


def test_rows_without_a_curve_are_named(tmp_path: Path) -> None:
    given = world("reliability")
    plant_exhibit(tmp_path / "r", given)
    more = given.model_copy(update={"rows": [*given.rows, Row(label="Absent", recipe={"student": "x"})]})
    assert "no run of Absent" in drawn(more, tmp_path / "r", tmp_path)[0]


def test_unknown_plot_names_the_known(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="dots, reliability"):
        drawn(exhibit(plot={"kind": "pie"}), tmp_path, tmp_path)


def test_reliability_pools_tokens_not_seeds() -> None:
    one = {"confidence": np.array([0.5]), "accuracy": np.array([0.4]), "count": np.array([300.0])}
    two = {"confidence": np.array([0.5, 0.99]), "accuracy": np.array([0.8, 1.0]), "count": np.array([100.0, 5.0])}
    confidence, accuracy = pooled([one, two])
    assert confidence == pytest.approx([0.5, 0.99]) and accuracy == pytest.approx([0.5, 1.0])


def test_curves_meet_where_all_seeds_have_them() -> None:
    one = {"x": np.array([1.0, 2.0, 4.0]), "y": np.array([5.0, 6.0, 7.0])}
    two = {"x": np.array([2.0, 4.0]), "y": np.array([8.0, 9.0])}
    x, y = common([one, two], "x", "y")
    assert list(x) == [2, 4] and y.tolist() == [[6, 7], [8, 9]]
    with pytest.raises(ValueError, match="It has: x, y"):
        common([one], "x", "z")


DRAWN = [name for name in names() if load(name).plot.get("kind", "dots") != "dots"] + ["rskd/table06"]


@pytest.mark.parametrize("name", DRAWN)
def test_every_exhibit_on_file_draws(tmp_path: Path, name: str) -> None:
    plant_exhibit(tmp_path / "r", load(name))
    svg = drawn(load(name), tmp_path / "r", tmp_path)[0]
    assert "No finished run" not in svg and "3 seeds" in svg
