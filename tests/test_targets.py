"""What each target keeps, against the oracle; draws at the end of the distribution; positions, schedules; bad input."""

from __future__ import annotations

import math
from dataclasses import asdict
from functools import partial

import numpy as np
import oracle
import pytest
import torch
from torch import Generator, Tensor

from replication.axes.divergences import ReverseKL, TailAware
from replication.axes.positions import HardTokens, TopFraction
from replication.axes.schedules import SCHEDULES, Constant, TwoStage, WarmupStableDecay
from replication.axes.targets.base import DenseTarget, SparseTarget, Target
from replication.axes.targets.drawing import Randomness
from replication.axes.targets.kept import SAMPLED, TARGETS, Full, NaiveFix, OneHot, SmoothedTopK, TopK, TopP
from replication.axes.targets.sampled import RandomSampling
from replication.experiment.recipe import AXES
from replication.experiment.recipe import method as stated_method
from tests.cases import EXAMPLES, and_others

CLASSES, ROWS = 12, 5
FLOAT32 = 5e-7


def teacher_logits(rows: int = ROWS, classes: int = CLASSES, seed: int = 3) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(0, 2, (rows, classes)).astype(np.float32))


LABELS = torch.tensor([0, 3, 11, 5, 0])


def teachers() -> list[np.ndarray]:
    return [oracle.softmax(row) for row in teacher_logits().double().numpy()]


def of(method: object, seed: int = 0) -> SparseTarget | DenseTarget:
    return method(teacher_logits(), LABELS, Generator().manual_seed(seed))


# contents

CASES = and_others(
    [
        Full(), Full(exponent=0.25), TopK(1), TopK(4), TopK(CLASSES), TopP(p=0.8, cap=6), TopP(p=0.98, cap=2),
        TopP(p=0.9, cap=8, exponent=0.5),
    ],
    [cls for cls in TARGETS.values() if cls not in SAMPLED],
)  # fmt: skip


@pytest.mark.parametrize("method", CASES, ids=str)
def test_contents(method: Target) -> None:
    name, dense = type(method).__name__, of(method).dense(CLASSES)
    assert name in oracle.TARGETS, f"target {name} has no oracle: write its equation in tests/oracle.py"
    meant = partial(oracle.TARGETS[name], **asdict(method))
    rows = [meant(teacher, int(label)) for teacher, label in zip(teachers(), LABELS, strict=True)]
    np.testing.assert_allclose(dense.numpy(), rows, rtol=0, atol=FLOAT32)


def test_top_p_keeps_as_many_as_it_needs() -> None:
    counts = (of(TopP(p=0.8, cap=6)).weights_NK > 0).sum(1).tolist()
    assert counts == [np.count_nonzero(oracle.top_p(t, 0.8, 6)) for t in teachers()]
    assert len(set(counts)) > 1


@pytest.mark.parametrize("name", TARGETS)
def test_a_sparse_target_is_well_formed(name: str) -> None:
    """int64 ids, float32 weights; a slot without weight has id 0, no class has two slots; `of` and `dense` agree."""
    target = of(EXAMPLES[name])
    dense = target.dense(CLASSES)
    assert dense.shape == (ROWS, CLASSES) and dense.dtype == torch.float32
    np.testing.assert_allclose(
        target.of(LABELS, CLASSES).numpy(), dense.gather(1, LABELS[:, None])[:, 0].numpy(), atol=FLOAT32
    )
    if isinstance(target, SparseTarget):
        assert target.ids_NK.dtype == torch.int64 and target.weights_NK.dtype == torch.float32
        assert (target.weights_NK >= 0).all()
        assert (target.ids_NK[target.weights_NK == 0] == 0).all()
        for ids, weights in zip(target.ids_NK, target.weights_NK, strict=True):
            used = ids[weights > 0].tolist()
            assert len(used) == len(set(used))


@pytest.mark.parametrize("method", [OneHot(), Full(), SmoothedTopK(4), NaiveFix(4), RandomSampling(50)], ids=str)
def test_weights_sum_to_one_where_the_paper_says_so(method: object) -> None:
    np.testing.assert_allclose(of(method).dense(CLASSES).sum(1).numpy(), 1, rtol=0, atol=1e-6)


def test_l1_error_of_the_normalised_top_k() -> None:
    """RS-KD A.3: 2 (1 - a), least for the K largest."""
    for teacher, row in zip(teachers(), of(TopK(4)).dense(CLASSES).double().numpy(), strict=True):
        error = np.abs(teacher - row / row.sum()).sum()
        assert error == pytest.approx(2 * (1 - row.sum()), abs=1e-6)
        others = [np.random.default_rng(n).choice(CLASSES, 4, replace=False).tolist() for n in range(50)]
        assert all(oracle.l1_error_of_normalised(teacher, ids) >= error - 1e-6 for ids in others)


@pytest.mark.parametrize("draws", [1, 22, 50, 127])
def test_plain_draws_weigh_counts_over_draws(draws: int) -> None:
    target = of(RandomSampling(draws))
    counts = target.weights_NK.double() * draws
    np.testing.assert_allclose(counts.numpy(), counts.round().numpy(), rtol=0, atol=1e-4)
    assert counts.sum(1).round().tolist() == [draws] * ROWS


@pytest.mark.parametrize("exponent", [0.0, 0.8, 1.2])
def test_other_proposals_weigh_by_the_normalised_ratios(exponent: float) -> None:
    """Divided by t / q the weights are counts: whole numbers that sum to `draws`."""
    draws = 40
    dense = of(RandomSampling(draws, exponent)).dense(CLASSES).double().numpy()
    for teacher, row in zip(teachers(), dense, strict=True):
        raw = row * oracle.powered(teacher, exponent) / teacher
        counts = raw * draws / raw.sum()
        np.testing.assert_allclose(counts, counts.round(), rtol=0, atol=1e-3)
        drawn = [i for i, count in enumerate(counts.round().astype(int)) for _ in range(count)]
        assert len(drawn) == draws
        np.testing.assert_allclose(row, oracle.random_sampling(teacher, drawn, exponent), rtol=0, atol=2e-6)


def test_a_draw_is_determined_by_its_generator() -> None:
    first, again, other = (of(RandomSampling(50), seed).dense(CLASSES) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize("name", TARGETS)
def test_bfloat16_logits_are_not_softmaxed_in_bfloat16(name: str) -> None:
    method, low = EXAMPLES[name], teacher_logits().bfloat16()
    targets = [method(logits, LABELS, Generator().manual_seed(0)).dense(CLASSES) for logits in (low, low.float())]
    assert torch.equal(*targets)


# the end of the distribution


def heavy_head_logits(rows: int, tail_mass: float, classes: int = 100_000) -> Tensor:
    """Class 0 has 1 - tail_mass, all others share the rest equally, float32."""
    logits = torch.full((rows, classes), math.log(tail_mass / (classes - 1)))
    logits[:, 0] = math.log1p(-tail_mass)
    return logits


def test_the_hazard_a_running_float32_sum_starves_the_tail() -> None:
    """What the next test guards against: 10^5 equal steps of 1e-8 vanish beside 0.999, and a draw above falls off."""
    probs = heavy_head_logits(1, 0.001).softmax(1)[0].numpy()
    running = np.cumsum(probs, dtype=np.float32)
    assert np.searchsorted(running, np.float32(0.9999)) == len(probs)


@pytest.mark.parametrize("tail_mass", [0.5, 0.001])
def test_the_tail_is_drawn_as_often_as_it_should(tail_mass: float) -> None:
    classes, rows, draws = 100_000, 20, 20_000
    logits = heavy_head_logits(rows, tail_mass, classes)
    target = RandomSampling(draws)(logits, torch.zeros(rows, dtype=torch.int64), Generator().manual_seed(5))
    assert int(target.ids_NK.max()) < classes
    dense = torch.bincount(target.ids_NK.flatten(), target.weights_NK.double().flatten(), minlength=classes) / rows
    for first, mass in [(1, tail_mass), (classes // 2, tail_mass / 2), (classes - 10_000, tail_mass / 10)]:
        deviation = math.sqrt(mass * (1 - mass) / (rows * draws))
        assert abs(float(dense[first:].sum()) - mass) < 4 * deviation + 1e-4 * mass


@pytest.mark.parametrize("exponent", [1.0, 0.8])
@pytest.mark.parametrize(("point", "wanted"), [(0.0, 2), (1 - 2**-53, 5), (1.0, 5)])
def test_extreme_points_land_on_classes_that_have_mass(
    monkeypatch: pytest.MonkeyPatch, point: float, wanted: int, exponent: float
) -> None:
    """Masked classes stand at both ends; the extreme uniform numbers land beside them."""
    logits = torch.full((4, 9), -torch.inf)
    logits[:, 2:6] = torch.tensor([0.3, 1.0, -2.0, 0.1])

    def extreme(generator: Randomness, rows: int, draws: int, device: torch.device) -> Tensor:
        return torch.full((rows, draws), point, dtype=torch.float64)

    monkeypatch.setattr("replication.axes.targets.drawing.ascending", extreme)
    target = RandomSampling(6, exponent)(logits, torch.zeros(4, dtype=torch.int64), Generator())
    assert (target.ids_NK == wanted).all()
    np.testing.assert_allclose(target.weights_NK.numpy(), 1, atol=FLOAT32)


@pytest.mark.parametrize("exponent", [0.0, 0.8, 1.0])
def test_masked_classes_are_never_drawn(exponent: float) -> None:
    """A teacher whose padding classes are at -inf (one family, two widths) is a distribution like any other."""
    logits = teacher_logits()
    logits[:, -4:] = -torch.inf
    target = RandomSampling(200, exponent)(logits, LABELS, Generator().manual_seed(0))
    assert (target.dense(CLASSES)[:, -4:] == 0).all()


# schedules


def test_two_stage_is_algorithm_1() -> None:
    """Progress is the share already done, (j - 1) / n at step j; at n_KD + 1 the second stage begins."""
    schedule = TwoStage()
    for step in (1, 2, 35_999, 36_000, 36_001, 208_000):
        assert schedule((step - 1) / 208_000) == pytest.approx(oracle.salt_weights(step, 36_000, 0.667), abs=1e-15)


def test_constant_stays() -> None:
    assert {Constant(0.9, 0.1)(progress) for progress in (0.0, 0.5, 0.999)} == {(0.9, 0.1)}


def test_warm_up_stable_decay_rises_stays_and_falls() -> None:
    schedule = WarmupStableDecay(peak=0.8, warmup=0.25, decay=0.5)
    kd_weights = [schedule(progress)[0] for progress in (0.0, 0.125, 0.25, 0.375, 0.5, 0.75, 1.0)]
    assert kd_weights == pytest.approx([0, 0.4, 0.8, 0.8, 0.8, 0.4, 0])


@pytest.mark.parametrize(("warmup", "decay"), [(0.0, 0.0), (0.0, 0.3), (0.3, 0.0), (0.5, 0.5)])
def test_warm_up_stable_decay_without_some_of_its_parts(warmup: float, decay: float) -> None:
    schedule = WarmupStableDecay(peak=0.8, warmup=warmup, decay=decay)
    for progress in np.linspace(0, 1, 101)[:-1]:
        kd_weight, ce_weight = schedule(float(progress))
        assert 0 <= kd_weight <= 0.8
        assert kd_weight + ce_weight == pytest.approx(1)


@pytest.mark.parametrize("name", SCHEDULES)
def test_weights_are_never_negative(name: str) -> None:
    schedule = SCHEDULES[name]()
    assert all(min(schedule(float(progress))) >= 0 for progress in np.linspace(0, 1, 101)[:-1])


# bad input: what came stands in the message


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: TopK(0), r"TopK\.k is 0"),
        (lambda: TopK(-3), r"TopK\.k is -3"),
        (lambda: TopK(2.5), r"TopK\.k is 2\.5"),
        (lambda: TopK(True), r"TopK\.k is True"),
        (lambda: SmoothedTopK(0), r"SmoothedTopK\.k is 0"),
        (lambda: NaiveFix(0), r"NaiveFix\.k is 0"),
        (lambda: TopP(p=0.0, cap=5), r"TopP\.p is 0\.0"),
        (lambda: TopP(p=1.5, cap=5), r"TopP\.p is 1\.5"),
        (lambda: TopP(p=math.nan, cap=5), r"TopP\.p is nan"),
        (lambda: TopP(p=0.9, cap=0), r"TopP\.cap is 0"),
        (lambda: TopP(p=0.9, cap=5, exponent=0.0), r"TopP\.exponent is 0\.0"),
        (lambda: Full(exponent=0.0), r"Full\.exponent is 0\.0"),
        (lambda: Full(exponent=-1.0), r"Full\.exponent is -1\.0"),
        (lambda: Full(exponent=math.inf), r"Full\.exponent is inf"),
        (lambda: RandomSampling(draws=0), r"RandomSampling\.draws is 0"),
        (lambda: RandomSampling(draws=1.5), r"RandomSampling\.draws is 1\.5"),
        (lambda: RandomSampling(exponent=-0.1), r"RandomSampling\.exponent is -0\.1"),
        (lambda: RandomSampling(exponent=math.nan), r"RandomSampling\.exponent is nan"),
        (lambda: TailAware(k=0), r"TailAware\.k is 0"),
        (lambda: TailAware(beta=-1.0), r"TailAware\.beta is -1\.0"),
        (lambda: TopFraction(keep=0.0), r"TopFraction\.keep is 0\.0"),
        (lambda: TopFraction(keep=1.2), r"TopFraction\.keep is 1\.2"),
        (lambda: TopFraction(keep=math.nan), r"TopFraction\.keep is nan"),
        (lambda: HardTokens(ratio=0.0), r"HardTokens\.ratio is 0\.0"),
        (lambda: HardTokens(ratio=math.nan), r"HardTokens\.ratio is nan"),
        (lambda: HardTokens(hard=1.0), r"HardTokens\.hard is 1\.0"),
        (lambda: TwoStage(omega=1.5), r"TwoStage\.omega is 1\.5"),
        (lambda: TwoStage(until=-0.1), r"TwoStage\.until is -0\.1"),
        (lambda: WarmupStableDecay(peak=2.0), r"WarmupStableDecay\.peak is 2\.0"),
        (lambda: WarmupStableDecay(warmup=-1.0), r"WarmupStableDecay\.warmup is -1\.0"),
    ],
)
def test_a_method_refuses_impossible_hyper_parameters(make: object, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        make()
    assert "give" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("method", [TopK(13), SmoothedTopK(13), NaiveFix(13), TopP(p=0.9, cap=13)], ids=str)
def test_more_classes_than_the_teacher_has(method: object) -> None:
    with pytest.raises(ValueError, match=r"is 13, but the teacher has 12 classes"):
        of(method)


@pytest.mark.parametrize("broken", [math.nan, math.inf], ids=str)
@pytest.mark.parametrize(
    "method", [Full(), TopK(4), TopP(p=0.9, cap=4), SmoothedTopK(4), NaiveFix(4), RandomSampling(5)], ids=str
)
def test_teacher_logits_that_are_no_distribution(method: object, broken: float) -> None:
    logits = teacher_logits()
    logits[2, 7] = broken
    with pytest.raises(ValueError, match="position 2"):
        method(logits, LABELS, Generator())


def test_a_teacher_row_of_minus_infinity() -> None:
    logits = teacher_logits()
    logits[4] = -torch.inf
    with pytest.raises(ValueError, match="position 4"):
        RandomSampling(5)(logits, LABELS, Generator())


def test_tail_aware_refuses_a_head_of_all_classes() -> None:
    with pytest.raises(ValueError, match=r"TailAware\.k is 12"):
        TailAware(k=CLASSES)(teacher_logits(), of(Full()))


def test_tail_aware_refuses_positions_that_are_not_whole_sequences() -> None:
    target = DenseTarget(of(Full()).probs_NV, sequences=2)
    with pytest.raises(ValueError, match="sequences"):
        TailAware(k=3)(teacher_logits(), target)


def test_a_divergence_over_all_classes_says_what_to_use_instead() -> None:
    with pytest.raises(ValueError, match="Use target Full"):
        ReverseKL()(teacher_logits(), of(TopK(3)))


@pytest.mark.parametrize("axis", AXES)
def test_an_unknown_method_is_named_with_the_known_ones(axis: str) -> None:
    with pytest.raises(ValueError, match=f"Unknown {axis} 'Nonesuch'") as caught:
        stated_method(axis, "Nonesuch")
    assert all(known in str(caught.value) for known in AXES[axis])


def test_an_unknown_field_is_named_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="TopK has no field 'K'. Its fields: k"):
        stated_method("target", {"name": "TopK", "K": 12})


def test_a_hyper_parameter_without_default_is_asked_for() -> None:
    with pytest.raises(ValueError, match="TopK needs 'k'"):
        stated_method("target", "TopK")


def test_a_recipe_s_hyper_parameter_is_refused_like_any_other() -> None:
    with pytest.raises(ValueError, match=r"RandomSampling\.draws is 0"):
        stated_method("target", {"name": "RandomSampling", "draws": 0})
