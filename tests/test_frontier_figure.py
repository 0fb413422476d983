"""The figure of what a byte buys: its families, its panels, and the smallest budgets that it names."""

from __future__ import annotations

from pathlib import Path

import pytest
from planted import all_curves, exhibit, plant

from analysis import figures
from analysis.figures import gathered
from analysis.load import frame, records
from analysis.plots.frontier import equivalent, families, panels
from analysis.plots.page import Given
from paper_tables.spec import Column, Exhibit, Row

# label -> bytes, and the loss less the seed's own
ROWS = {"CE": (2, 4.0), "FullKD": (2048, 3.0), "Few, 1": (4, 3.5), "Few, 2": (8, 3.02), "Few, 3": (16, 3.01),
        "None, 9": (9, 3.9), "None, 3": (3, 3.3)}  # fmt: skip
PLOT = {
    "kind": "frontier",
    "columns": ["lm_loss", "ece"],
    "closed": {"lm_loss": "expected"},
    "equivalent": {"column": "lm_loss", "to": "FullKD", "start": "CE", "margin": 0.1},
}


def small(**plot: object) -> Exhibit:
    columns = [
        Column(key="bytes", label="Bytes a token", better="lower"),
        Column(key="lm_loss", label="LM loss", unit="nats", better="lower"),
        Column(key="expected", label="Expected", better="lower"),
        Column(key="ece", label="ECE %", unit="%", better="lower"),
    ]
    rows = [Row(label=label, recipe={"student": label}) for label in ROWS]
    return exhibit(paper="ours", kind="figure", columns=columns, rows=rows, plot={**PLOT, **plot})


def given(folder: Path, shown: Exhibit, without: str = "") -> Given:
    for label, (size, loss) in ROWS.items():
        for seed in range(3):
            metrics: dict[str, float | None] = {"bytes": size, "lm_loss": loss + 0.1 * seed, "expected": loss}
            metrics |= {"ece": 0.01 * size}
            metrics.pop(without, None)
            plant(folder, label, {"student": label}, seed, metrics, curves=all_curves(0, seed))
    found = {"logged": records(folder), "yours": []}
    return gathered(shown, {voice: frame(shown, own, voice) for voice, own in found.items()}, found)


def test_a_row_belongs_to_the_family_before_its_comma() -> None:
    found = families(small())
    assert found == {"Few": {"Few, 1": "1", "Few, 2": "2", "Few, 3": "3"}, "None": {"None, 9": "9", "None, 3": "3"}}


def test_the_smallest_budget_is_the_cheapest_that_is_equivalent(tmp_path: Path) -> None:
    said = equivalent(given(tmp_path, small()), "logged")
    # the first is 0.5 of a gap of 1 off
    assert said.endswith("with the LM loss of FullKD, within 10% of the way from CE: Few 2 (8.0), None none")


def test_columns_are_panels_in_printed_units_with_closed_forms_beside(tmp_path: Path) -> None:
    loss, error = panels(given(tmp_path, small()), "logged")
    assert loss.title == "LM loss (nats)\u00a0↓" and error.title == "ECE %\u00a0↓"
    assert loss.values["Few, 2"].value == pytest.approx(3.12) and loss.closed["Few, 2"].value == pytest.approx(3.02)
    assert error.values["Few, 1"].value == pytest.approx(4) and error.closed == {}


def test_a_curve_is_a_panel_at_its_first_middle_and_last_place(tmp_path: Path) -> None:
    shown = small(columns=["angle"], curve="by_tokens", x="tokens")
    shown.columns.append(Column(key="angle", label="Angle", unit="degrees", better="lower"))
    found = list(panels(given(tmp_path, shown), "logged"))
    assert [panel.title for panel in found] == [
        f"Angle (degrees)\u00a0↓, {n} tokens" for n in ("1,024", "8,192", "32,768")
    ]
    assert found[0].values["Few, 1"].value == pytest.approx(61)
    assert found[-1].values["None, 9"].value == pytest.approx(11)


def test_it_draws_what_is_there(tmp_path: Path) -> None:
    whole = figures.drawn(given(tmp_path / "a", small()))
    assert whole is not None and [axes.get_xscale() for axes in whole.axes] == ["log", "log"]
    assert [axes.get_yscale() for axes in whole.axes] == ["linear", "linear"]
    without = figures.drawn(given(tmp_path / "b", small(), without="ece"))
    assert without is not None and len(without.axes) == 1
    # as where only another exhibit's runs are there
    assert figures.drawn(given(tmp_path / "c", small(), without="bytes")) is None
    assert figures.drawn(given(tmp_path / "d", small(curve="by_tokens"), without="bytes")) is None
    nothing: figures.Voices = {"logged": [], "yours": []}
    empty = {voice: frame(small(), [], voice) for voice in nothing}
    assert figures.drawn(gathered(small(), empty, nothing)) is None
