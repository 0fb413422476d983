"""Figures: what they draw, that the same records give the same bytes, and that missing data is said in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from planted import CHANGED, LOSSES, exhibit, plant, plant_all, plant_exhibit

from analysis import figures
from analysis.load import frame, records
from analysis.plots.curves import common, deviations, pooled
from analysis.plots.grids import Shown, groups, shades
from analysis.plots.lines import number
from analysis.plots.panel import Panel, panels
from paper_tables.printed import Printed
from paper_tables.spec import Column, Exhibit, Row, load, names

PLOTS: dict[str, dict[str, Any]] = {
    "dots": {},
    "heat": {"kind": "heat"},
    "lines": {"kind": "lines"},
    "reliability": {"kind": "reliability"},
    "curve": {"kind": "curve", "curve": "by_tokens", "x": "tokens", "y": "angle"},
    "zipf": {"kind": "zipf"},
    "training": {"kind": "training"},
    "frontier": {"kind": "frontier", "columns": ["lm_loss"]},
    "power_law": {"kind": "power_law", "x": "draws", "y": "lm_loss"},
    "heatmap": {"kind": "heatmap", "separator": " / ", "x": "alpha", "y": "ratio", "value": "lm_loss"},
}


def world(kind: str) -> Exhibit:
    """An exhibit that suits the kind of plot."""
    labels = {"power_law": ["1", "2", "5", "10"], "heatmap": ["1.0 / 0.1", "1.0 / 0.2", "2.0 / 0.1", "2.0 / 0.2"],
              "frontier": ["Few, 1", "Few, 2", "Many, 1", "Many, 2"]}  # fmt: skip
    if kind == "lines":
        return numbered(PLOTS[kind])
    if kind not in labels:
        return exhibit(plot=PLOTS[kind])
    rows = [
        Row(label=label, recipe={"student": f"role{i}"}, published={"lm_loss": 2.0 + i})
        for i, label in enumerate(labels[kind])
    ]
    columns = [Column(key="lm_loss", label="LM loss", unit="nats", better="lower")]
    if kind == "frontier":
        columns.append(Column(key="bytes", label="Bytes a token", better="lower"))
    return exhibit(rows=rows, columns=columns, plot=PLOTS[kind])


def numbered(plot: dict[str, Any] | None = None) -> Exhibit:
    """Losses at four budgets, for two methods."""
    columns = [Column(key=f"at{n}", label=f"Loss at {n}B", better="lower", decimals=1) for n in (1, 10, 100, 1000)]
    rows = [
        Row(label=label, recipe={"student": label}, published={c.key: Printed(f"{3.5 - i}") for c in columns})
        for i, label in enumerate(("TAD", "KD"))
    ]
    return exhibit(rows=rows, columns=columns, plot=plot or {})


def wide(columns: int, words: bool = False) -> Exhibit:
    """A published table of many tasks; with words, one more column, of text."""
    tasks = [Column(key=f"task{i}", label=f"Task {chr(65 + i)}", better="higher", decimals=1) for i in range(columns)]
    cells = {c.key: Printed(f"{30 + i}.5") for i, c in enumerate(tasks)}
    extra = [Column(key="cost", label="Cost", unit="text")] if words else []
    said = {"cost": "cheap"} if words else {}
    rows = [Row(label=label, published={**cells, **said}) for label in ("CE", "KD")]
    return exhibit(status="published", why="no tasks here", rows=rows, columns=[*tasks, *extra])


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
    assert "2 seeds" not in svg and "3 seeds" in svg and png.startswith(b"\x89PNG")


def test_other_records_give_other_bytes(tmp_path: Path) -> None:
    plant_all(tmp_path / "a")
    plant_all(tmp_path / "b", {**LOSSES, "CE": (3.0, 3.1, 3.2)})
    assert drawn(exhibit(), tmp_path / "a", tmp_path)[0] != drawn(exhibit(), tmp_path / "b", tmp_path)[0]


def test_a_screen_reader_hears_what_is_drawn(tmp_path: Path) -> None:
    plant_all(tmp_path / "r")
    svg = drawn(exhibit(), tmp_path / "r", tmp_path)[0]
    assert '<svg role="img"' in svg and "Top-K &amp; 100 % planted_numbers</title>" in svg
    assert "<desc>Values (published, logged) of LM loss" in svg and "Top-K 12" in svg.split("</desc>")[0]


def test_inline_is_the_element_alone(tmp_path: Path) -> None:
    found: dict[str, Any] = {"logged": records(tmp_path), "yours": []}
    frames = {voice: frame(exhibit(), [], voice) for voice in found}
    svg = figures.inline(exhibit(), frames, found)
    assert svg is not None and svg.startswith("<svg role=") and "<?xml" not in svg
    bare = exhibit(rows=[Row(label="CE"), Row(label="FullKD")])
    assert figures.inline(bare, frames, found) is None


@pytest.mark.parametrize("kind", PLOTS)
def test_no_records_are_said_in_words(tmp_path: Path, kind: str) -> None:
    svg = drawn(world(kind), tmp_path / "none", tmp_path)[0].lower()
    assert "no finished run" in svg or "no records" in svg


def test_what_is_not_run_is_said_once_and_the_digits_are_the_papers(tmp_path: Path) -> None:
    svg = drawn(wide(5), tmp_path, tmp_path)[0].split("</desc>")[1]
    assert svg.count("no records of ours: no tasks here") == 1 and "not measured" not in svg
    assert svg.count("30.5") == 2 and svg.count("34.5") == 2


def test_a_large_table_is_a_grid_and_columns_of_words_are_not_drawn(tmp_path: Path) -> None:
    svg = drawn(wide(20, words=True), tmp_path, tmp_path)[0].split("</desc>")[1]
    assert "Shade: rank" not in svg  # both rows are alike: there is nothing to rank
    assert svg.count("49.5") == 2 and "Task T" in svg and "cheap" not in svg and "Cost" not in svg


def test_numbered_columns_are_lines(tmp_path: Path) -> None:
    svg = drawn(numbered(), tmp_path, tmp_path)[0].split("</desc>")[1]
    assert all(word in svg for word in ("Loss at …", "1B", "1T", "TAD", "Lower is better."))
    assert number("Loss at 10B") == 1e10 and number("t = 640") == 640 and number("8,000") == 8000
    assert np.isnan(number("Top-K")) and np.isnan(number("3B to 300M"))


def test_unknown_cells_are_left_out_and_infinite_ones_named(tmp_path: Path) -> None:
    plant_all(tmp_path / "r", {**LOSSES, "Top-K 12": (float("nan"),) * 3})
    svg = drawn(exhibit(), tmp_path / "r", tmp_path)[0]
    assert "logged: diverged" in svg and "published: ∞" in svg
    assert "Not measured: 0-shot score (comes with a later issue)." in svg and svg.count("published only") == 1


def test_printed_deviations_are_intervals(tmp_path: Path) -> None:
    rows = [Row(label="CE", published={"ece": Printed("1.5")}, published_sd={"ece": Printed("0.3")})]
    rows += [Row(label="FullKD", published={"ece": Printed("2.5")})]
    assert "± its standard deviation" in drawn(exhibit(rows=rows), tmp_path, tmp_path)[0]
    given = figures.gathered(exhibit(rows=rows), nothing(exhibit(rows=rows)), {"logged": [], "yours": []})
    (panel,) = panels(given, given.exhibit.columns)
    assert sorted(panel.printed_reach) == pytest.approx([1.2, 1.5, 1.8, 2.5])


def nothing(given: Exhibit) -> dict[str, Any]:
    return {voice: frame(given, [], voice) for voice in ("logged", "yours")}


def test_another_scale_gets_its_own_axis_and_a_percentage_of_the_gap_does_not(tmp_path: Path) -> None:
    plant_all(tmp_path)
    found = {"logged": records(tmp_path), "yours": []}
    frames = {voice: frame(exhibit(), own, voice) for voice, own in found.items()}
    made: list[Panel] = panels(figures.gathered(exhibit(), frames, found), exhibit().columns)
    assert {panel.column.key: panel.apart for panel in made} == {
        "lm_loss": True,
        "gap_closed": False,
        "ece": True,
        "zero_shot": False,
    }


def test_the_fitted_exponent_is_written(tmp_path: Path) -> None:
    given = world("power_law")
    plant_exhibit(tmp_path / "r", given)
    assert "logged: exponent 0.1" in drawn(given, tmp_path / "r", tmp_path)[0]


def test_rows_without_a_curve_are_named(tmp_path: Path) -> None:
    given = world("reliability")
    plant_exhibit(tmp_path / "r", given)
    more = given.model_copy(update={"rows": [*given.rows, Row(label="Absent", recipe={"student": "x"})]})
    assert "without Absent" in drawn(more, tmp_path / "r", tmp_path)[0]


def trained(tmp_path: Path, plot: dict[str, Any], **columns: list[float | None]) -> Figure | None:
    """CE at two seeds, the second worse by 1; no other row has a curve."""
    given = exhibit(plot={"kind": "training", **plot})
    for seed in (0, 1):
        by_step = {"step": [0, 10, 20], "tokens": [0, 1000, 2000], **columns}
        by_step["lm_loss"] = [None if value is None else value + seed for value in by_step.get("lm_loss", [9, 5, 4])]
        plant(tmp_path, "ce", CHANGED["CE"], seed, {"lm_loss": 4.0}, curves={"by_step": by_step})
    found = {"logged": records(tmp_path), "yours": []}
    frames = {voice: frame(given, own, voice) for voice, own in found.items()}
    return figures.drawn(figures.gathered(given, frames, found))


@pytest.mark.parametrize(("x", "places"), [("step", [10, 20]), ("tokens", [1000, 2000])])
def test_training_is_drawn_along_steps_or_tokens(tmp_path: Path, x: str, places: list[float]) -> None:
    """What was evaluated before the first step has no place on a logarithmic axis; an accuracy is in per cent."""
    figure = trained(tmp_path, {"x": x, "y": ["lm_loss", "accuracy"]}, accuracy=[0.0, 0.25, 0.5])
    assert figure is not None
    loss, accuracy = figure.axes
    assert loss.lines[0].get_xydata().tolist() == [[place, y] for place, y in zip(places, (5.5, 4.5), strict=True)]
    assert accuracy.lines[0].get_xydata().tolist() == [[place, y] for place, y in zip(places, (25, 50), strict=True)]
    band = loss.collections[0].get_datalim(loss.transData)
    assert (band.ymin, band.ymax) == (4, 6) and len(loss.lines) == 1


def test_training_stops_being_drawn_where_a_seed_diverged(tmp_path: Path) -> None:
    figure = trained(tmp_path, {"y": ["lm_loss"]}, lm_loss=[9, 5, None])
    assert figure is not None and figure.axes[0].lines[0].get_xydata().tolist() == [[1000, 5.5]]
    nothing_left = trained(tmp_path / "b", {"y": ["lm_loss"]}, lm_loss=[None, None, None])
    assert nothing_left is not None and not nothing_left.axes[0].lines


@pytest.mark.parametrize("plot", [{"x": "seconds"}, {"y": ["angle"]}, {"y": []}])
def test_training_names_what_it_can_draw(tmp_path: Path, plot: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"Known x: step, tokens; known y: lm_loss, accuracy, ece"):
        trained(tmp_path, plot)


def test_unknown_plot_names_the_known(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Known: dots, heat, lines"):
        drawn(exhibit(plot={"kind": "pie"}), tmp_path, tmp_path)


def test_shades_are_ranks_toward_the_better() -> None:
    line = [Shown(value, "") for value in (1.0, 9.0, 2.0, float("inf"))] + [None]
    assert shades(line, Column(key="x", label="", better="higher"))[:3] == [0, 1, 0.5]
    assert shades(line, Column(key="x", label="", better="lower"))[:3] == [1, 0, 0.5]
    assert np.isnan(shades(line, Column(key="x", label="", better="lower"))[3:]).all()
    assert np.isnan(shades(line, Column(key="x", label=""))).all()


def test_rows_are_grouped_by_the_first_part_of_their_labels() -> None:
    assert groups(["A, 1", "A, 2", "A, 3", "B, 1", "B, 2", "B, 3"]) == [3, 3]
    assert groups(["A, 1", "A, 2", "A, 3", "CE"]) == [4] and groups(["A, 1", "B, 1", "A, 2"]) == [3]


def test_reliability_pools_tokens_not_seeds() -> None:
    one = {"confidence": np.array([0.5]), "accuracy": np.array([0.4]), "count": np.array([300.0])}
    two = {"confidence": np.array([0.5, 0.99]), "accuracy": np.array([0.8, 1.0]), "count": np.array([100.0, 5.0])}
    confidence, accuracy = pooled([one, two])
    assert confidence == pytest.approx([0.5, 0.99]) and accuracy == pytest.approx([0.5, 1.0])
    x, gap_SB = deviations([one, two])
    assert x == pytest.approx([0.5]) and gap_SB == pytest.approx(np.array([[-0.1], [0.3]]))


def test_curves_meet_where_all_seeds_have_them() -> None:
    one = {"x": np.array([1.0, 2.0, 4.0]), "y": np.array([5.0, 6.0, 7.0])}
    two = {"x": np.array([2.0, 4.0]), "y": np.array([8.0, 9.0])}
    x, y = common([one, two], "x", "y")
    assert list(x) == [2, 4] and y.tolist() == [[6, 7], [8, 9]]
    with pytest.raises(ValueError, match="It has: x, y"):
        common([one], "x", "z")


ON_FILE = {name: kind for name in names() if (kind := load(name).plot.get("kind", "dots")) in PLOTS}


@pytest.mark.parametrize("name", [name for name, kind in ON_FILE.items() if kind != "dots"])
def test_every_exhibit_of_runs_draws(tmp_path: Path, name: str) -> None:
    plant_exhibit(tmp_path / "r", load(name))
    svg = drawn(load(name), tmp_path / "r", tmp_path)[0]
    assert "No finished run" not in svg and "3 seeds" in svg
