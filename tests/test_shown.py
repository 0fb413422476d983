"""A run's last lines: units, rounding, intervals, meanings; and no line of what was not measured."""

from __future__ import annotations

import pytest

from replication.records.shown import number, shown

SETTINGS = {"evaluation_sequences": 16, "length": 32}


def lines(metrics: dict[str, float | None], **intervals: list[float]) -> dict[str, str]:
    found = shown({"metrics": metrics, "curves": {"intervals": intervals} if intervals else {}}, SETTINGS)
    return {line.split()[0]: " ".join(line.split()) for line in found}


def test_a_number_has_its_unit_its_interval_and_its_meaning() -> None:
    measured = {"lm_loss": 5.4897312345, "ece": 0.0286, "agreement": 0.0}
    found = lines(measured, lm_loss=[5.41, 5.57], ece=[0.02, 0.04], agreement=[0, 0])
    assert found["on"] == "on held-out text, up to 16 rows of 32 tokens; in brackets 95 % intervals over rows"
    assert found["lm_loss"].startswith("lm_loss 5.490 nats a token [5.410, 5.570] loss on held-out text; lower is")
    assert found["lm_loss"].endswith("as if among 242.2 equally likely tokens")
    assert found["ece"].startswith("ece 2.86 % [2.00, 4.00] between its confidence and its accuracy")
    assert found["agreement"].startswith("agreement 0.00 % [0.00, 0.00] of its first guesses are the teacher's")


def test_what_was_not_measured_has_no_line_and_what_diverged_says_so() -> None:
    assert set(lines({"accuracy": 0.1})) == {"accuracy"}
    assert lines({"lm_loss": None})["lm_loss"].startswith("lm_loss not finite nats a token the loss diverged")


def test_ends_of_an_interval_that_are_metrics_stand_in_its_line() -> None:
    found = lines({"arc_easy": 0.41, "arc_easy_low": 0.4, "arc_easy_high": 0.42, "arc_easy_chance": 0.25})
    assert found == {"arc_easy": "arc_easy 0.4100 [0.4000, 0.4200]", "arc_easy_chance": "arc_easy_chance 0.2500"}


@pytest.mark.parametrize(
    ("value", "unit", "wanted"),
    [(0.123456, "%", "12.35"), (2.4e-5, "%", "0.002"), (14.098765, "", "14.10"), (700_512.0, "", "700,512"),
     (12345.6, "", "12,346"), (3.2e-7, "", "3.2e-07"), (1234.5, "", "1,234"), (None, "%", "not finite"),
     (0.0, "", "0")],
)  # fmt: skip
def test_numbers_are_rounded(value: float | None, unit: str, wanted: str) -> None:
    assert number(value, unit) == wanted
