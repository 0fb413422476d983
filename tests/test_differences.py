"""All differences of an exhibit: their p-values against scipy's, and what is left of them after looking at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from analysis.__main__ import main
from analysis.differences import measured, pairs, printed, surviving
from analysis.load import frame, records
from paper_tables import spec
from tests.planted import plant


def test_printed_differences_are_welch_s_tests() -> None:
    exhibit = spec.load("sekd/table02")
    found = printed(exhibit)
    assert len(found) == 4 * 12 * 11 / 2  # the two off-the-shelf models have no deviations
    rows = {row.label: row for row in exhibit.rows}
    for each in found[:: len(found) // 7]:
        key = next(column.key for column in exhibit.columns if column.label == each.column)
        sides = [
            (float(rows[of].published[key]), float(rows[of].published_sd[key])) for of in (each.first, each.second)
        ]
        meant = stats.ttest_ind_from_stats(*sides[0], 3, *sides[1], 3, equal_var=False)
        assert each.p == pytest.approx(meant.pvalue, rel=1e-9)
        assert each.value == pytest.approx(sides[0][0] - sides[1][0])
    ranked = sorted(found, key=lambda each: each.p)
    kept = surviving(found)
    assert [pair[0] for pair in kept] == ranked[: len(kept)] and 0 < len(kept) < 20
    assert kept[0][1] == pytest.approx(len(found) * ranked[0].p)
    assert ranked[len(kept)].p * (len(found) - len(kept)) >= 0.05


def test_measured_differences_are_paired_over_common_seeds(tmp_path: Path) -> None:
    exhibit = spec.load("sekd/table12").model_copy(update={"columns": spec.load("sekd/table02").columns})
    values = {0: [0.50, 0.53, 0.51, 0.55], 1: [0.52, 0.56, 0.54], 2: [0.6]}
    for number, accuracies in values.items():
        stated = exhibit.recipe_of_cell(exhibit.rows[number], exhibit.column("accuracy"))
        assert stated is not None
        for seed, accuracy in enumerate(accuracies):
            plant(tmp_path, f"run {number}", stated, seed, {"average": accuracy})
    (found,) = measured(exhibit, frame(exhibit, records(tmp_path), "logged"))  # one pair has two common seeds
    apart = 100 * (np.array(values[0][:3]) - values[1])
    assert found.value == pytest.approx(apart.mean())
    assert found.p == pytest.approx(stats.ttest_1samp(apart, 0).pvalue, rel=1e-9)


def test_the_command_says_which_survive(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    given = ["differences", "sekd/table02", "--results", str(tmp_path)]
    assert main(given) == 0
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith("published: of 264 differences between rows ") and len(rest) == int(first.split()[-5])
    assert main([*given, "--against", "Full KD"]) == 0
    assert "of 44 differences" in capsys.readouterr().out
    assert main([*given, "--against", "FullKD"]) == 2
    assert "has no row 'FullKD'. Rows: Qwen3 1.7B" in capsys.readouterr().err
    assert len(pairs(spec.load("sekd/table02"), "Full KD")) == 4 * 13
