"""Every sampled target: unbiased class by class, its error the closed form, its weights what they claim to be."""

from __future__ import annotations

import math
from dataclasses import asdict

import oracle
import pytest
import torch
from torch import Generator, Tensor

from replication.axes.targets import arrivals, drawing
from replication.axes.targets.arrivals import first_arrivals
from replication.axes.targets.base import SparseTarget, Target
from replication.axes.targets.drawing import Randomness
from replication.axes.targets.sampled import (
    HeadAndCountedTail,
    HeadAndSampledTail,
    RandomSampling,
    Stratified,
    Systematic,
    WithoutReplacement,
)
from replication.axes.targets.water_filling import FILLINGS, AdaptiveWaterFilling, WaterFilling, drawn_error, levelled
from tests.cases import and_others

METHODS = and_others([
    RandomSampling(12), Stratified(12), Systematic(12), HeadAndSampledTail(3, 8), HeadAndCountedTail(3, 8),
    WaterFilling(8), AdaptiveWaterFilling(0.05), WithoutReplacement(8),
])  # fmt: skip
CLOSED = [method for method in METHODS if method.squared_error(torch.ones(1, 60) / 60) is not None]
# a closed form of other sums has one of the gradient, too
SUM_TO_ONE = [method for method in CLOSED if type(method).gradient_error is Target.gradient_error]
REPETITIONS = 40_000
LAWS = ("zipf", "flat", "sharp", "short")


def law(name: str, classes: int = 60) -> Tensor:
    """Probabilities, [V] float64, in no order."""
    rank = torch.arange(1, classes + 1, dtype=torch.float64)
    probs = {
        "zipf": 1 / rank,
        "flat": torch.ones(classes, dtype=torch.float64),
        "sharp": torch.cat([torch.tensor([100.0], dtype=torch.float64), 1 / rank[1:]]),
        "short": torch.where(rank <= 5, 1 / rank, 0.0),
    }[name]
    return (probs / probs.sum())[torch.randperm(classes, generator=Generator().manual_seed(4))]


def drawn(method: Target, probs_V: Tensor, repetitions: int, seed: int = 0) -> SparseTarget:
    """The same position many times, each with its own draw."""
    logits_NV = probs_V.log().float().expand(repetitions, -1)
    target = method(logits_NV, torch.zeros(repetitions, dtype=torch.long), Generator().manual_seed(seed))
    assert isinstance(target, SparseTarget)
    return target


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_the_mean_weight_of_every_class_is_its_probability(method: Target, name: str) -> None:
    probs_V = law(name)
    weights_NV = drawn(method, probs_V, REPETITIONS).dense(len(probs_V)).double()
    error_V = weights_NV.std(0) / math.sqrt(REPETITIONS)
    # classes without any spread may differ by float32 rounding
    z_V = (weights_NV.mean(0) - probs_V).abs() / (error_V + 1e-7)
    assert float(z_V.max()) < 4.5


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("method", CLOSED, ids=str)
def test_the_squared_error_is_the_closed_form(method: Target, name: str) -> None:
    probs_V = law(name)
    weights_NV = drawn(method, probs_V, REPETITIONS, seed=1).dense(len(probs_V)).double()
    squared_N = (weights_NV - probs_V).square().sum(1)
    meant = float(method.squared_error(probs_V[None]))  # type: ignore[arg-type]
    error = float(squared_N.std()) / math.sqrt(REPETITIONS)
    assert abs(float(squared_N.mean()) - meant) < 4.5 * error + 1e-6 * meant + 1e-12


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("method", [method for method in CLOSED if not isinstance(method, FILLINGS)], ids=str)
def test_the_closed_form_is_the_oracle_s(method: Target, name: str) -> None:
    """Not of water-filling: its own tests below compare it with any other chances of being kept."""
    kind, probs_V = type(method).__name__, law(name)
    assert kind in oracle.SQUARED_ERRORS, f"draw {kind} has no oracle: write its squared error in tests/oracle.py"
    meant = oracle.SQUARED_ERRORS[kind](probs_V.numpy(), **asdict(method))  # type: ignore[call-overload]
    assert float(method.squared_error(probs_V[None])) == pytest.approx(meant, rel=1e-9, abs=1e-15)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("method", SUM_TO_ONE, ids=str)
def test_the_weights_of_a_position_sum_to_one(method: Target, name: str) -> None:
    sums_N = drawn(method, law(name), 500).weights_NK.double().sum(1)
    assert float((sums_N - 1).abs().max()) < 1e-6


@pytest.mark.parametrize("name", ["zipf", "flat"])
@pytest.mark.parametrize("method", [WaterFilling(8), WithoutReplacement(8)], ids=str)
def test_exactly_the_wanted_number_of_different_classes(method: Target, name: str) -> None:
    target = drawn(method, law(name), 500)
    assert target.ids_NK.shape == (500, 8)
    assert bool((target.weights_NK > 0).all())
    assert all(len(set(row)) == 8 for row in target.ids_NK.tolist())


def test_fewer_classes_than_wanted_are_kept_as_they_are() -> None:
    probs_V = law("short")
    for method in (WaterFilling(8), WithoutReplacement(8), AdaptiveWaterFilling(1e-4)):
        weights_NV = drawn(method, probs_V, 20).dense(len(probs_V)).double()
        rounding = 1 / method.parts if hasattr(method, "parts") else 0
        assert float((weights_NV - probs_V).abs().max()) < 1e-6 + rounding


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("method", [WaterFilling(8), AdaptiveWaterFilling(0.05)], ids=str)
def test_the_head_has_whole_parts_and_the_tail_one_weight(method: Target, name: str) -> None:
    probs_V = law(name)
    target = drawn(method, probs_V, 500)
    for ids, weights in zip(target.ids_NK, target.weights_NK.double() * method.parts, strict=True):  # type: ignore[attr-defined]
        broken = weights[(weights - weights.round()).abs() > 1e-4]
        assert len(broken) == 0 or float(broken.max() - broken.min()) < 1e-4
        kept = weights > 0
        whole = kept & ((weights - weights.round()).abs() <= 1e-4)
        exact = probs_V[ids] * method.parts  # type: ignore[attr-defined]
        assert len(broken) == 0 or bool((weights[whole] - exact[whole]).abs().lt(1).all())


@pytest.mark.parametrize("name", LAWS)
def test_the_order_of_the_errors(name: str) -> None:
    """At equal draws: systematic <= stratified <= with replacement; water-filling is the best of its number."""
    probs_NV = law(name)[None]
    errors = [float(method(20).squared_error(probs_NV)) for method in (Systematic, Stratified, RandomSampling)]
    assert errors[1] <= errors[2] + 1e-12
    rival = HeadAndSampledTail(4, 4)
    assert filling(probs_NV, 8)[1] <= float(rival.squared_error(probs_NV)) + 1e-12


def filling(probs_NV: Tensor, number: int) -> tuple[float, float]:
    """The level of water-filling to so many classes, and its error without that of the rounding."""
    _, _, level_N1 = levelled(probs_NV.topk(number, dim=1).values, torch.tensor([number]))
    return float(level_N1), float(drawn_error(probs_NV, level_N1))


@pytest.mark.parametrize("number", [4, 20, 80])
def test_the_rounding_is_a_small_part_of_the_error(number: int) -> None:
    probs_NV = law("zipf", 20_000)[None]
    whole = float(WaterFilling(number).squared_error(probs_NV))
    assert filling(probs_NV, number)[1] <= whole < 1.02 * filling(probs_NV, number)[1]


def test_water_filling_beats_any_other_chances_of_being_kept() -> None:
    """Sum of t^2 (1 / pi - 1) over pi with sum 8, pi <= 1: random other chances are never better."""
    probs_V = law("zipf")
    best = filling(probs_V[None], 8)[1]
    random = Generator().manual_seed(2)
    for _ in range(500):
        chances_V = (probs_V * torch.rand(len(probs_V), generator=random, dtype=torch.float64).mul(2).exp()).clamp_max(
            1
        )
        for _ in range(100):
            chances_V = (chances_V * 8 / chances_V.sum()).clamp_max(1)
        assert float(chances_V.sum()) == pytest.approx(8, abs=1e-3)
        assert float((probs_V.square() * (1 / chances_V - 1)).sum()) > best


def test_an_adaptive_budget_beats_a_fixed_one_of_the_same_mean() -> None:
    probs_NV = torch.stack([law(name) for name in LAWS])
    adaptive = AdaptiveWaterFilling(0.03)
    mean = float(adaptive.wanted(probs_NV).double().mean())
    fixed = [float(WaterFilling(k).squared_error(probs_NV).mean()) for k in (math.floor(mean), math.ceil(mean))]
    assert float(adaptive.squared_error(probs_NV).mean()) < min(fixed)


@pytest.mark.parametrize("method", [*METHODS, WaterFilling(300), AdaptiveWaterFilling(0.004)], ids=str)
def test_no_class_stands_twice_whatever_the_positions_beside_it(method: Target) -> None:
    """From flat to almost one-hot in one batch: heads of every length."""
    logits_NV = torch.randn(64, 500, generator=Generator().manual_seed(0)) * torch.linspace(0, 9, 64)[:, None]
    target = method(logits_NV, torch.zeros(64, dtype=torch.long), Generator().manual_seed(1))
    assert isinstance(target, SparseTarget)
    for ids_K, weights_K in zip(target.ids_NK, target.weights_NK, strict=True):
        kept = ids_K[weights_K > 0].tolist()
        assert len(set(kept)) == len(kept) >= 1


def test_one_more_class_lowers_the_error_by_the_level_squared() -> None:
    """What makes equal levels the best: d error / d classes = -level^2, here by differences on a fine-grained law."""
    probs_NV = law("zipf", 20_000)[None]
    error = {number: filling(probs_NV, number)[1] for number in (199, 201)}
    assert (error[199] - error[201]) / 2 == pytest.approx(filling(probs_NV, 200)[0] ** 2, rel=0.02)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_large_vocabularies_head_and_tail(method: Target) -> None:
    """V = 100,000: head classes one by one, the tail in groups; float32 logits."""
    probs_V, repetitions = law("zipf", 100_000), 1_000
    target = drawn(method, probs_V, repetitions, seed=3)
    order_V = probs_V.argsort(descending=True)
    group_V = torch.empty_like(order_V)
    group_V[order_V] = torch.cat([torch.arange(10), 10 + torch.arange(99_990) * 20 // 99_990])
    mass_G = torch.zeros(30, dtype=torch.float64).index_add_(0, group_V, probs_V)
    weight_NG = torch.zeros(repetitions, 30, dtype=torch.float64)
    weight_NG.scatter_add_(1, group_V[target.ids_NK], target.weights_NK.double())
    z_G = (weight_NG.mean(0) - mass_G).abs() / (weight_NG.std(0) / math.sqrt(repetitions) + 1e-7)
    assert float(z_G.max()) < 4.5


def test_who_has_a_late_time_waits_until_no_other_can_come_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest class comes last of all; each round the same one of the others arrives, over and over."""
    late, early = 1 - math.exp(-20), 1 - math.exp(-0.01)

    def scripted(generator: Randomness, rows: int, draws: int, device: torch.device) -> Tensor:
        return torch.full((rows, draws), next(script), dtype=torch.float64)

    script = iter([late, *(0.5, early) * 4])  # the head's waits; then points and waits, round by round
    for module in (drawing, arrivals):
        monkeypatch.setattr(module, "uniform", scripted)
    probs_NV = torch.tensor([[0.2, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.2001]])
    ids_NK, probs_NK, times_NK = first_arrivals(probs_NV.log(), 4, torch.Generator())
    assert 7 not in ids_NK[0].tolist() and len(set(ids_NK[0].tolist())) == 4
    assert times_NK[0].diff().min() > 0
    assert list(script) == []
    torch.testing.assert_close(probs_NK, (probs_NV / probs_NV.sum()).gather(1, ids_NK).double())
