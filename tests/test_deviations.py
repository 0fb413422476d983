"""Tables of deviations: each cell is the deviation of its runs over seeds."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

from analysis.load import frame, records
from analysis.sheet import sheet
from paper_tables import spec
from tests.planted import plant


def test_a_column_of_deviations_is_that_of_the_seeds(tmp_path: Path) -> None:
    exhibit = spec.load("sekd/table12")
    accuracies = {0: 0.51, 1: 0.53, 2: 0.52}
    for row, seeds in ((exhibit.rows[0], (0, 1, 2)), (exhibit.rows[1], (0,))):
        stated = exhibit.recipe_of_cell(row, exhibit.column("accuracy_sd"))
        assert stated is not None
        for seed in seeds:
            metrics: dict[str, float | None] = {"average": accuracies[seed], "average_low": 0.4, "average_high": 0.6}
            plant(tmp_path, row.label, stated, seed, {**metrics, "average_chance": 0.2})
    found = records(tmp_path)
    table = frame(exhibit, found, "logged")
    meant = 100 * statistics.stdev(accuracies.values())
    assert table["row"].unique().tolist() == [exhibit.rows[0].label]  # of one run there is none
    assert table["value"].tolist() == pytest.approx([meant] * 3)
    shown = sheet(exhibit, "laptop", {"logged": found, "yours": []})
    assert shown.text(exhibit.rows[0], exhibit.column("accuracy_sd"), "logged") == "1.000 (of 3)"
