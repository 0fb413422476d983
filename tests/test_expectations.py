"""The closed forms of Figure 2a against enumerations of every outcome, written from the papers (oracle.py)."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import oracle
import pytest
import torch
from scipy.stats import binom
from torch import Generator, Tensor

from replication.axes.divergences import ForwardKL, GhostToken
from replication.axes.targets.base import SparseTarget, Target
from replication.axes.targets.kept import Full, NaiveFix, OneHot, SmoothedTopK, TopK, TopP
from replication.axes.targets.sampled import HeadAndSampledTail, RandomSampling, Stratified, Systematic
from replication.axes.targets.water_filling import AdaptiveWaterFilling, WaterFilling
from tests.cases import EXAMPLES
from toy import zipf
from toy.expectations import Law, law, mean_deviation
from toy.scatter import scatter
from toy.zipf import Setting

TEACHER = np.array([0.4, 0.3, 0.15, 0.1, 0.05])


def of(target: Target, teacher: np.ndarray = TEACHER) -> Law:
    found = law(target, ForwardKL(), torch.from_numpy(teacher))
    assert found is not None
    return found


def single(values: torch.Tensor) -> torch.Tensor:
    return values


@pytest.mark.parametrize("n", (1, 2, 7, 22, 1000))
def test_mean_deviation_of_a_binomial_count(n: int) -> None:
    p = np.array([0.0, 1e-7, 0.01, 1 / 3, 0.5, 0.9, 1 - 1e-9, 1.0])
    counts = np.arange(n + 1)[:, None]
    wanted = (binom.pmf(counts, n, p) * np.abs(counts / n - p)).sum(0)
    assert np.allclose(mean_deviation(torch.from_numpy(p), n), wanted, rtol=1e-9, atol=1e-14)


def test_mean_deviation_of_many_draws_is_the_normal_one() -> None:
    p, n = torch.tensor([0.083, 0.5], dtype=torch.float64), 22_000_000
    wanted = (2 / math.pi * p * (1 - p) / n).sqrt()
    assert np.allclose(mean_deviation(p, n), wanted, rtol=1e-5)


FIXED = {
    Full(): TEACHER,
    Full(2.0): oracle.powered(TEACHER, 2.0),
    TopK(2): oracle.top_k(TEACHER, 2) / 0.7,
    TopK(5): TEACHER,
    TopP(0.8, 5): oracle.top_p(TEACHER, 0.8, 5) / 0.85,
    TopP(0.8, 2): oracle.top_p(TEACHER, 0.8, 2) / 0.7,
    TopP(0.5, 5, 0.5): oracle.top_p(oracle.powered(TEACHER, 0.5), 0.5, 5),
    SmoothedTopK(2): oracle.smoothed_top_k(TEACHER, 2),
}


@pytest.mark.parametrize("target", FIXED, ids=str)
def test_what_is_the_same_in_every_round(target: Target) -> None:
    wanted = FIXED[target] / FIXED[target].sum()
    found = of(target)
    assert np.allclose(found.mean_V, wanted, rtol=1e-12)
    error = np.abs(wanted - TEACHER).sum()
    assert found.error == pytest.approx(error, abs=1e-15) and found.bias(single) == pytest.approx(error, abs=1e-15)
    assert found.squared_error() == pytest.approx(((wanted - TEACHER) ** 2).sum(), abs=1e-15)
    assert found.variance() == 0 and found.noise(10, single) == 0


def test_the_error_of_top_k_is_that_of_appendix_a3_and_the_least_of_its_size() -> None:
    sets = itertools.combinations(range(5), 2)
    errors = {ids: oracle.l1_error_of_normalised(TEACHER, ids) for ids in sets}
    assert of(TopK(2)).error == pytest.approx(min(errors.values())) == pytest.approx(2 * (1 - 0.7))


def test_naive_fix_over_every_label() -> None:
    targets = [oracle.naive_fix(TEACHER, 2, label) for label in range(5)]
    against(of(NaiveFix(2)), targets, list(TEACHER))
    assert of(NaiveFix(2)).unique == pytest.approx(2 + 0.3)


def test_one_hot_over_every_label() -> None:
    against(of(OneHot()), [oracle.one_hot(label, 5) for label in range(5)], list(TEACHER))


@pytest.mark.parametrize("draws", (1, 3, 6))
def test_draws_over_every_outcome(draws: int) -> None:
    found = of(RandomSampling(draws))
    outcomes = list(oracle.outcomes(5, draws))
    targets = [oracle.sampled(TEACHER, counts, 1.0, True) for counts in outcomes]
    against(found, targets, chances(TEACHER, outcomes, draws))
    assert np.allclose(found.mean_V, oracle.expected_random_sampling(TEACHER, 1.0, draws), rtol=1e-12)
    assert found.variance() == pytest.approx(oracle.variance_of_sampled(TEACHER, draws, 1.0, True), rel=1e-12)
    assert found.unique == pytest.approx(sum(1 - (1 - p) ** draws for p in TEACHER), rel=1e-12)


def chances(teacher: np.ndarray, outcomes: list[tuple[int, ...]], draws: int) -> list[float]:
    ways = [math.factorial(draws) // math.prod(math.factorial(c) for c in counts) for counts in outcomes]
    return [way * math.prod(teacher**counts) for way, counts in zip(ways, np.array(outcomes), strict=True)]


def against(found: Law, targets: list[np.ndarray], weights: list[float]) -> None:
    """Mean, variance and errors of a target with these outcomes."""
    table, chance = np.array(targets), np.array(weights)
    assert chance.sum() == pytest.approx(1, abs=1e-12)
    mean = chance @ table
    assert np.allclose(found.mean_V, mean, rtol=1e-12)
    assert np.allclose(found.variance_G(single), chance @ (table - mean) ** 2, rtol=1e-12, atol=1e-16)
    assert found.error == pytest.approx(chance @ np.abs(table - TEACHER).sum(1), rel=1e-12)
    assert found.squared_error() == pytest.approx(chance @ ((table - TEACHER) ** 2).sum(1), rel=1e-12)
    # the deviation of a group's sum, which is a sum over the same outcomes
    pair = np.array([[1.0, 1.0, 0, 0, 0], [0, 0, 1.0, 1.0, 1.0]]).T
    in_pairs = lambda values: values @ torch.from_numpy(pair)  # noqa: E731
    assert np.allclose(found.variance_G(in_pairs), chance @ (table @ pair - mean @ pair) ** 2, rtol=1e-12)
    assert found.noise(1, in_pairs) == pytest.approx(chance @ np.abs(table @ pair - mean @ pair).sum(1), rel=1e-12)


@pytest.mark.parametrize("exponent", (0.5, 0.8, 1.2))
def test_normalised_ratios_are_of_leading_order(exponent: float) -> None:
    """What the delta method leaves out falls with the square of the draws, the bias itself with the draws."""
    teacher, gaps, scatter = np.array([0.5, 0.3, 0.2]), [], []
    for draws in (8, 16, 32):
        found = of(RandomSampling(draws, exponent), teacher)
        exact = oracle.expected_random_sampling(teacher, exponent, draws)
        bias = np.abs(exact - teacher).sum()
        gaps.append(np.abs(found.mean_V.numpy() - exact).sum())
        scatter.append(abs(found.variance() / oracle.variance_of_sampled(teacher, draws, exponent, True) - 1))
        assert gaps[-1] < 2 / draws * bias
        assert found.bias(single) > 0 and found.error is None
    assert gaps[1] / gaps[0] < 0.32 and gaps[2] / gaps[1] < 0.29
    assert scatter[2] < 0.6 * scatter[1] < 0.36 * scatter[0] < 0.04


def test_ghost_token_shares_the_rest_equally() -> None:
    for k, wanted in ((2, [0.4, 0.3, 0.1, 0.1, 0.1]), (5, TEACHER)):
        found = law(TopK(k), GhostToken(), torch.from_numpy(TEACHER))
        assert found is not None and np.allclose(found.mean_V, wanted, rtol=1e-12)


@pytest.mark.parametrize("target", EXAMPLES.values(), ids=EXAMPLES)
def test_every_target_is_measured_as_expected(target: Target) -> None:
    metrics, _ = zipf.run(Setting(target, vocabulary=30, rounds=16_000), 0)
    assert all(math.isfinite(value) for value in metrics.values())
    # both biases are of 30 single classes, so the measured one has the noise of the rounds
    near = {"l1_bias": {"abs": 0.05}, "variance": {"rel": 0.02}}
    for name, value in metrics.items():
        measured = name.removeprefix("expected_")
        if name != measured and measured in metrics:
            assert metrics[measured] == pytest.approx(value, **near.get(measured, {"rel": 0.02, "abs": 1e-6})), measured


OURS = [Systematic(7), Stratified(7), HeadAndSampledTail(2, 4), WaterFilling(4), AdaptiveWaterFilling(0.15)]


@pytest.mark.parametrize("name", ["given", "zipf"])
@pytest.mark.parametrize("target", OURS, ids=str)
def test_the_better_draws_scatter_as_expected(target: Target, name: str) -> None:
    """Single classes, groups of neighbours, and what is kept, over many draws."""
    teacher_V = torch.from_numpy(TEACHER) if name == "given" else (1 / torch.arange(1.0, 13.0, dtype=torch.float64))
    teacher_V, rounds = teacher_V / teacher_V.sum(), 60_000
    found = scatter(target, teacher_V)
    assert found is not None
    drawn = target(
        teacher_V.log().expand(rounds, -1), torch.zeros(rounds, dtype=torch.long), Generator().manual_seed(1)
    )
    assert isinstance(drawn, SparseTarget)
    off_NV = drawn.dense(len(teacher_V)).double() - teacher_V
    assert found.error == pytest.approx(float(off_NV.abs().sum(1).mean()), rel=0.02)
    assert found.unique == pytest.approx(float((drawn.weights_NK > 0).sum(1).double().mean()), rel=0.01)
    group_V = (torch.arange(len(teacher_V)) + 1).clamp_max(6) // 2
    for group in (single, lambda values_V: torch.bincount(group_V, values_V)):
        wanted = torch.stack([group(row_V) for row_V in off_NV[:20_000]]).square().mean(0)
        assert np.allclose(found.variance_G(group), wanted, rtol=0.08, atol=2e-5)


def test_a_target_without_closed_forms_is_measured_alone() -> None:
    @dataclass(frozen=True)
    class AnyClass(Target):
        """Nobody's method: one class, whatever the teacher."""

        def __call__(self, teacher_logits_NV: Tensor, labels_N: Tensor, generator: Generator) -> SparseTarget:
            ids_NK = torch.randint(teacher_logits_NV.shape[1], (len(labels_N), 1), generator=generator)
            return SparseTarget(ids_NK, torch.ones(ids_NK.shape))

    assert law(AnyClass(), ForwardKL(), torch.from_numpy(TEACHER)) is None
    metrics, _ = zipf.run(Setting(AnyClass(), vocabulary=5, rounds=50), 0)
    assert metrics["variance"] > 0 and not [name for name in metrics if "expected" in name or "over" in name]
