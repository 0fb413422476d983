"""The law of a loss over budgets: planted ones come back, outliers are not followed, what is not identified is seen."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.optimize import least_squares

from replication.evaluate.scaling_law import HUBER, Law, fitted
from replication.experiment.measurements import BEYOND, BUDGETS
from replication.experiment.recipe import parse
from replication.experiment.run import Run, students
from replication.experiment.scale import load_scale
from replication.probes import scaling as probe

TOKENS = [25_600.0 * 2**power for power in range(5)]
TRUE = Law(3.5, 60.0, 0.3)


def noisy(tokens: list[float], seed: int, off: float = 1e-3) -> list[float]:
    return [TRUE.at(each) * np.exp(off * z) for each, z in zip(tokens, normal(seed, len(tokens)), strict=True)]


def normal(seed: int, count: int) -> Any:
    return np.random.default_rng(seed).normal(size=count)


@pytest.mark.parametrize("law", [TRUE, Law(2.5, 400.0, 0.6), Law(1.0, 2e6, 1.3)], ids=str)
def test_a_planted_law_comes_back_and_foretells_what_is_far_beyond(law: Law) -> None:
    found = fitted(TOKENS, [law.at(each) for each in TOKENS])
    assert found.floor == pytest.approx(law.floor, rel=1e-5) and found.exponent == pytest.approx(law.exponent, rel=1e-5)
    assert found.at(500 * TOKENS[-1]) == pytest.approx(law.at(500 * TOKENS[-1]), rel=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_it_minimises_the_huber_loss_of_the_logarithms(seed: int) -> None:
    """Another search over other constants, begun where it ended, finds nothing lower."""
    loss = np.log(noisy(TOKENS, seed))
    found = fitted(TOKENS, np.exp(loss).tolist())

    def off(constants: Any) -> Any:
        return np.log(constants[0] + constants[1] * (np.array(TOKENS) / TOKENS[2]) ** -constants[2]) - loss

    def cost(residuals: Any) -> float:
        far = np.abs(residuals) > HUBER
        return float(np.where(far, HUBER * (np.abs(residuals) - HUBER / 2), residuals**2 / 2).sum())

    begin = [found.floor, found.fall * TOKENS[2] ** -found.exponent, found.exponent]
    other = least_squares(off, begin, loss="huber", f_scale=HUBER, bounds=([1e-9, 1e-9, 1e-3], np.inf), xtol=1e-15)
    assert cost(off(begin)) <= cost(off(other.x)) * (1 + 1e-6)


def test_one_budget_that_went_wrong_is_not_followed() -> None:
    tokens = [25_600.0 * 2**power for power in range(8)]
    loss = [TRUE.at(each) for each in tokens]
    loss[3] *= 1.05
    assert fitted(tokens, loss).at(tokens[-1] * 5) == pytest.approx(TRUE.at(tokens[-1] * 5), rel=1e-3)


def test_less_than_a_decade_tells_the_next_budget_and_not_the_floor() -> None:
    """A thousandth of noise on each loss: what the twelve fits say of the next budget agrees, their floors do not."""
    spread = {}
    for span in (8, 1024):
        tokens = [25_600.0 * span ** (part / 4) for part in range(5)]
        laws = [fitted(tokens, noisy(tokens, seed), like=TRUE) for seed in range(12)]
        spread[span] = [np.std([law.at(tokens[-1] * 2) for law in laws]), np.std([law.floor for law in laws])]
    assert spread[8][0] < 0.02 and spread[8][1] > 5 * spread[8][0]
    assert spread[1024][1] < 0.25 * spread[8][1]


@pytest.mark.parametrize(
    ("tokens", "loss"),
    [(TOKENS[:2], [5.0, 4.0]), (TOKENS[:3], [5.0, float("inf"), 4.0]), (TOKENS[:3], [1.0, 0.5, 0.0])],
)
def test_what_no_law_can_be_fitted_to_is_said_in_one_line(tokens: list[float], loss: list[float]) -> None:
    with pytest.raises(ValueError, match="needs losses above 0 at three budgets or more") as error:
        fitted(tokens, loss)
    assert "\n" not in str(error.value)


# The probe


def test_it_reads_a_student_of_each_budget_and_foretells_one_that_was_not_fitted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Half of the planted loss is cross-entropy, half divergence; the larger budget is 0.1 worse than the law."""
    run = Run(parse({"probe": "scaling", "tokens": "2B"}), load_scale("laptop"), 0)
    assert [each.recipe.tokens for each in students(run)] == [*BUDGETS, BEYOND]
    assert all(each.recipe.probe == "train" for each in students(run))
    off_S = 0.3 * normal(0, 64)

    def half(student: Run, *_: Any) -> Any:
        tokens = student.steps * student.role.optimiser.batch * student.length
        loss_S = TRUE.at(tokens) + off_S - off_S.mean() + (0.1 if student.recipe.tokens == BEYOND else 0)
        part = SimpleNamespace(values=lambda: (loss_S / 2).tolist())
        return SimpleNamespace(nats=part, kl=part)

    monkeypatch.setattr(probe, "teacher_for", lambda *_: None)
    monkeypatch.setattr(probe, "trained", lambda student, _: student)
    monkeypatch.setattr(probe, "tallied", half)
    data: Any = SimpleNamespace(validation=None, tokenizer=SimpleNamespace(vocabulary=0))
    metrics, curves = probe.scaling(run, data, None)  # type: ignore[arg-type]
    assert curves["law"]["tokens"] == [25_600, 51_200, 102_400, 204_800, 409_600, 819_200]
    for times in (5, 50, 500):
        assert metrics[f"loss_times_{times}"] == pytest.approx(TRUE.at(times * 409_600), rel=1e-6)
        assert metrics[f"loss_times_{times}_low"] < metrics[f"loss_times_{times}"] < metrics[f"loss_times_{times}_high"]
    assert metrics["foretold_off"] == pytest.approx(-0.1, rel=1e-4)
    assert metrics["loss_foretold"] == pytest.approx(TRUE.at(819_200), rel=1e-6)
    with pytest.raises(ValueError, match="has no teacher"):
        probe.ready(Run(parse({"probe": "scaling", "teacher": "none", "target": "OneHot"}), load_scale("laptop"), 0))
