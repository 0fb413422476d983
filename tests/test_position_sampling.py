"""Policies beyond the top fraction: windows of ranks, weights, sums of signals, and positions that are drawn."""

from __future__ import annotations

from dataclasses import fields
from fractions import Fraction

import numpy as np
import oracle
import pytest
import torch
from test_positions import LENGTH, SEQUENCES, given, inputs, small_pieces, weights_of
from torch import Generator, Tensor

from replication.axes import loss
from replication.axes.divergences import ForwardKL
from replication.axes.positions import (
    POSITIONS,
    AllPositions,
    Bucket,
    Curriculum,
    PositionSampling,
    SignalWeights,
    TopFraction,
    TopStandardised,
    UnbiasedPositionSampling,
)
from replication.axes.signals import NEEDS_WHOLE, OF_WHOLE, SIGNALS
from replication.axes.targets.base import DenseTarget, one_hot
from replication.axes.targets.drawing import Streams
from replication.experiment.recipe import parse
from replication.fused import loss as fused

assert small_pieces
BY_SIGNAL = {name: cls for name, cls in POSITIONS.items() if "signal" in {item.name for item in fields(cls)}}
DRAWN = 0.5
VALUES = [[0.3, 0.9, 0.1, 0.0, 2.0, 0.7, 0.4, 0.2, 1.1, 0.6], [float(n) for n in range(10)]]


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


@pytest.mark.parametrize("progress", ["0", "0.1", "0.2048", "0.4", "0.4096", "0.9"])
@pytest.mark.parametrize("keep", ["0.2", "0.3", "0.07", "1"])
def test_a_curriculum_goes_from_low_to_high(keep: str, progress: str) -> None:
    weights = Curriculum(float(keep), until=0.4096)(given(student_entropy=torch.tensor(VALUES)), float(progress), None)
    phase = min(Fraction(1), Fraction(progress) / Fraction("0.4096"))
    assert (weights > 0).int().tolist() == [oracle.curriculum(row, keep, phase) for row in VALUES]
    np.testing.assert_allclose(weights.mean(1).numpy(), 1, rtol=0, atol=1e-6)


def test_a_curriculum_ends_as_the_top_fraction_after_the_paper_s_steps() -> None:
    values = given(student_entropy=torch.rand(3, 50, generator=seeded()))
    assert Curriculum().until == pytest.approx(4000 / (80e6 / 512 / 16), rel=1e-4)
    assert torch.equal(Curriculum()(values, 0.4097, None), TopFraction()(values, 0.4097, None))
    assert not (Curriculum()(values, 0.0, None) * TopFraction()(values, 0.0, None)).any()


@pytest.mark.parametrize(
    ("low", "high", "ranks"), [(0.7, 0.8, [7]), (0.0, 0.3, [0, 1, 2]), (0.95, 1.0, [9]), (0.1, 0.11, [1])]
)
def test_a_bucket_holds_the_ranks_between_two_shares(low: float, high: float, ranks: list[int]) -> None:
    weights = weights_of(Bucket(low, high), given(student_entropy=torch.tensor(VALUES)))
    assert (weights[1] > 0).nonzero()[:, 0].tolist() == ranks


def test_of_equal_signals_the_earlier_positions_are_taken() -> None:
    tied = given(student_entropy=torch.zeros(2, 10))
    for policy, chosen in ((TopFraction(), [0, 1]), (Curriculum(), [0, 1]), (Bucket(), [7])):
        assert (weights_of(policy, tied) > 0).nonzero()[:, 1].tolist() == 2 * chosen


def test_z_scores_are_taken_within_the_sequence() -> None:
    entropy, kl = torch.tensor(VALUES), torch.rand(2, 10, generator=seeded())
    weights = weights_of(TopStandardised(0.3), given(student_entropy=entropy, kl=kl))
    for row in range(2):
        sums = np.add(oracle.z_scores(entropy[row].tolist()), oracle.z_scores(kl[row].tolist()))
        assert (weights[row] > 0).int().tolist() == oracle.top_fraction(sums.tolist(), "0.3")
    flat = given(student_entropy=torch.ones(1, 4), kl=torch.tensor([[0.0, 3.0, 1.0, 2.0]]))
    assert weights_of(TopStandardised(0.25), flat).tolist() == [[0, 4, 0, 0]]


def test_weighted_distillation_weighs_by_the_signal() -> None:
    weights = weights_of(SignalWeights(), given(student_entropy=torch.tensor([[1.0, 0.0, 3.0], [0.0, 0.0, 0.0]])))
    assert weights.tolist() == [[0.75, 0, 2.25], [1, 1, 1]]


@pytest.mark.parametrize(
    ("drawn", "meant"), [(UnbiasedPositionSampling(DRAWN), AllPositions()), (PositionSampling(DRAWN), SignalWeights())]
)
def test_drawn_positions_have_the_right_gradient_on_average(drawn: object, meant: object) -> None:
    """SE-KD App. A: of full distillation with the correction, of weighted distillation without; every parameter."""
    hidden_BLD, head, labels_BL, teacher = inputs()
    leaves = [hidden_BLD.requires_grad_(), head.weight_VD.requires_grad_()]

    def gradient(positions: object, generator: Generator | None) -> Tensor:
        value = loss.distillation_loss(
            head(hidden_BLD), labels_BL, teacher.whole(), ForwardKL(), positions, 1.0, 0.0, 0.0, generator
        )
        return torch.cat([part.flatten() for part in torch.autograd.grad(value, leaves)])

    generator, truth_P = seeded(), gradient(meant, None)
    found_MP = torch.stack([gradient(drawn, generator) for _ in range(1200)])
    error_P = found_MP.std(0) / len(found_MP) ** 0.5
    assert (error_P > 0).all()
    assert ((found_MP.mean(0) - truth_P).abs() < 4 * error_P).all()


@pytest.mark.parametrize("keep", [0.2, 0.07, 1.0])
def test_as_many_are_drawn_as_the_top_fraction_has_and_the_mean_weight_is_one(keep: float) -> None:
    values = given(student_entropy=torch.rand(50, 20, generator=seeded()))
    weights = weights_of(PositionSampling(keep), values, seeded())
    counts = weights * (weights_of(TopFraction(keep), values) > 0).sum(1, keepdim=True) / 20
    assert torch.equal(counts.round(), counts.round(decimals=4)) and counts.max() > 1
    np.testing.assert_allclose(weights.mean(1).numpy(), 1, rtol=0, atol=1e-6)


def test_draws_of_a_sequence_do_not_depend_on_its_batch() -> None:
    values = torch.rand(3, 9, generator=seeded())

    def chosen(rows: list[int]) -> Tensor:
        return PositionSampling(0.5)(given(student_entropy=values[rows]), 0.0, Streams(tuple(map(seeded, rows))))  # type: ignore[arg-type]

    assert torch.equal(chosen([0, 1, 2])[1:], chosen([1, 2]))


def test_the_mitigations_of_appendix_d() -> None:
    """Flatter chances, none at the beginning, none beyond a quantile, and a part of the budget that is certain."""
    values = given(student_entropy=torch.tensor([[9.0, 4.0, 1.0, 0.25]]).repeat(20_000, 1))

    def shares(**how: float) -> list[float]:
        return (weights_of(PositionSampling(0.5, **how), values, seeded()).mean(0) / 4).tolist()

    def of(*weights: float) -> object:
        return pytest.approx([weight / sum(weights) for weight in weights], abs=0.01)

    assert shares() == of(9, 4, 1, 0.25)
    assert shares(temperature=2.0) == of(3, 2, 1, 0.5)
    assert shares(first=1) == of(0, 4, 1, 0.25)
    assert shares(clip=2 / 3) == of(4, 4, 1, 0.25)
    rest = [0.5 * value / 5.25 for value in (4, 1, 0.25)]
    assert shares(certain=0.5) == pytest.approx([0.5, *rest], abs=0.01)
    exact = weights_of(UnbiasedPositionSampling(0.5, certain=0.5), values, seeded())
    assert (exact[:, 0] == 1).all() and exact.mean(0).tolist() == pytest.approx([1, 1, 1, 1], abs=0.06)


def test_a_sequence_without_signal_and_one_shorter_than_what_is_left_out_are_drawn_from_evenly() -> None:
    silent = given(student_entropy=torch.zeros(20_000, 4))
    assert weights_of(PositionSampling(0.5), silent, seeded()).mean(0).tolist() == pytest.approx([1] * 4, abs=0.05)
    weights = weights_of(PositionSampling(0.5, first=2), silent, seeded())
    assert weights.mean(0).tolist() == pytest.approx([0, 0, 2, 2], abs=0.05)
    assert weights_of(PositionSampling(0.5, first=9), silent, seeded()).mean(1).tolist() == pytest.approx([1] * 20_000)
    some = given(student_entropy=torch.tensor([[0.0, 1.0, 0.0]] * 100))
    assert weights_of(UnbiasedPositionSampling(0.5), some, seeded()).unique(dim=0).tolist() == [[0, 1, 0]]


MASK_BL = torch.rand(SEQUENCES, LENGTH, generator=seeded(1)) < 0.6
MASK_BL[0] = torch.arange(LENGTH) == 3  # a sequence of which one position is trained


@pytest.mark.parametrize("mask_BL", [None, MASK_BL], ids=["all", "some"])
@pytest.mark.parametrize("policy", BY_SIGNAL)
@pytest.mark.parametrize("name", SIGNALS)
def test_every_policy_by_every_signal_is_the_same_without_logits(
    name: str, policy: str, mask_BL: Tensor | None, small_pieces: None
) -> None:
    hidden_BLD, head, labels_BL, teacher = inputs()
    leaves = [hidden_BLD.requires_grad_(), head.weight_VD.requires_grad_()]
    positions = BY_SIGNAL[policy](signal=name)
    rest = (ForwardKL(), positions, 0.7, 0.4, 0.3)
    with_logits = loss.distillation_loss(head(hidden_BLD), labels_BL, teacher.whole(), *rest, seeded(), mask_BL=mask_BL)
    without = fused.fused_loss(hidden_BLD, head, labels_BL, teacher, *rest, seeded(), mask_BL=mask_BL)
    assert float(without.detach()) == pytest.approx(float(with_logits.detach()), abs=1e-6)
    for ours, meant in zip(torch.autograd.grad(without, leaves), torch.autograd.grad(with_logits, leaves), strict=True):
        np.testing.assert_allclose(ours.numpy(), meant.numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("signal", OF_WHOLE)
def test_a_signal_that_needs_every_class_is_refused_of_a_sparse_target_before_and_in_a_training(signal: object) -> None:
    name = signal.__name__  # type: ignore[attr-defined]
    said = NEEDS_WHOLE.format(name)
    stated = {"name": "TopFraction", "signal": name}
    parse({"positions": stated, "target": "Full"})
    with pytest.raises(ValueError) as refused:
        parse({"positions": stated, "target": {"name": "TopK", "k": 5}})
    assert str(refused.value) == said and "\n" not in said
    for instead in ("student_entropy", "student_ce", "kl", "confidence"):
        assert instead in said
        parse({"positions": {**stated, "signal": instead}, "target": {"name": "TopK", "k": 5}})
    labels = torch.zeros(2, 3, dtype=torch.long)
    with pytest.raises(ValueError, match=name):
        loss.signals_of((name,), torch.zeros(2, 3, 5), labels, one_hot(labels.flatten()))


def test_kl_of_a_sparse_target_is_what_its_loss_has() -> None:
    hidden_BLD, head, labels_BL, _ = inputs()
    target = one_hot(labels_BL.flatten())
    found = loss.signals_of(("kl", "student_ce"), head(hidden_BLD), labels_BL, target)
    np.testing.assert_allclose(found["kl"].numpy(), found["student_ce"].numpy(), rtol=0, atol=1e-12)


def test_a_certain_teacher_leaves_a_finite_ratio_that_ranks_first() -> None:
    probs = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    labels = torch.zeros(1, 3, dtype=torch.long)
    found = loss.signals_of(("ce_ratio", "teacher_ce"), torch.zeros(1, 3, 2), labels, DenseTarget(probs))
    assert torch.isfinite(found["ce_ratio"]).all() and torch.isfinite(found["teacher_ce"]).all()
    assert found["ce_ratio"][0].argmax() == 0 and found["teacher_ce"][0].argmax() == 2


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Curriculum(until=0.0), r"Curriculum\.until is 0\.0"),
        (lambda: Curriculum(signal="entropy"), r"Curriculum\.signal is 'entropy'"),
        (lambda: Bucket(0.5, 0.5), r"Bucket\.low and high are 0\.5 and 0\.5"),
        (lambda: PositionSampling(0.0), r"PositionSampling\.keep is 0\.0"),
        (lambda: PositionSampling(temperature=0.0), r"PositionSampling\.temperature is 0\.0"),
        (lambda: UnbiasedPositionSampling(certain=1.0), r"UnbiasedPositionSampling\.certain is 1\.0"),
        (lambda: UnbiasedPositionSampling(clip=0.0), r"UnbiasedPositionSampling\.clip is 0\.0"),
        (lambda: PositionSampling(first=-1), r"PositionSampling\.first is -1"),
        (lambda: TopStandardised(plus="x"), r"TopStandardised\.plus is 'x'"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(make: object, said: str) -> None:
    with pytest.raises(ValueError, match=said) as refused:
        make()  # type: ignore[operator]
    assert "\n" not in str(refused.value) and "give" in str(refused.value)
