"""Divergences that look at the label: against the oracle, without logits, in pieces; what is refused."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import partial

import numpy as np
import oracle
import pytest
import torch
from test_fused import EVERYWHERE, assert_equal, labels_BL, small_pieces, student
from test_gradients import CLASSES, LENGTH, POSITIONS, SEQUENCES, drawn, inputs
from torch import Tensor

from replication.axes import loss
from replication.axes.comparison import Told, bound, told_of
from replication.axes.decoupled import AdaptiveTeaching, Decoupled
from replication.axes.divergences import ForwardKL, ReverseKL, TailAware
from replication.axes.positions import AllPositions, TopFraction
from replication.axes.targets.base import one_hot
from replication.axes.targets.kept import Full, TopK
from replication.fused import loss as fused
from replication.fused.head import Head, TeacherStates

assert small_pieces  # a fixture, used by every test here too
MASK_BL = torch.tensor([[True, False, True], [True, True, False]])


def rows(target: object, student_NV: Tensor) -> tuple[list[np.ndarray], list[np.ndarray], list[int]]:
    labels_N = inputs()[2]
    return list(target.probs_NV.numpy()), list(student_NV.numpy()), labels_N.tolist()  # type: ignore[attr-defined]


@pytest.mark.parametrize("method", [Decoupled(), Decoupled(2.0, 0.5), Decoupled(0.0, 1.0)], ids=str)
def test_decoupled_distillation_is_its_paper_s(method: Decoupled) -> None:
    target, student_NV = drawn(Full()), inputs()[1].requires_grad_()
    told = told_of(method, inputs()[2], None, None)
    ours_N = bound(method, told)(student_NV, target)
    (ours_NV,) = torch.autograd.grad(ours_N.sum(), student_NV)
    for n, (teacher, logits, label) in enumerate(zip(*rows(target, student_NV.detach()), strict=True)):
        known = {"label": label, "label_weight": method.label_weight, "rest_weight": method.rest_weight}
        meant = partial(oracle.decoupled, teacher, **known)
        assert float(ours_N[n].detach()) == pytest.approx(np.real(meant(logits)), abs=1e-12)
        slope = oracle.numerical_gradient(meant, logits)
        np.testing.assert_allclose(ours_NV[n].numpy(), slope, rtol=0, atol=1e-9)


def test_with_the_teacher_s_own_weights_the_two_parts_are_kl() -> None:
    target, student_NV, labels_N = drawn(Full()), inputs()[1], inputs()[2]
    rest_N = 1 - target.of(labels_N, CLASSES)
    told = Told(labels_N, torch.stack([torch.ones_like(rest_N), rest_N], 1))
    np.testing.assert_allclose(
        Decoupled().compare(told, student_NV, target), ForwardKL()(student_NV, target), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("hard", ["0.5", "0.2", "0.8"])
def test_adaptive_teaching_is_its_paper_s(hard: str) -> None:
    """Six positions of two sequences are ranked together."""
    method, target, student_NV = AdaptiveTeaching(0.3, float(hard)), drawn(Full()), inputs()[1]
    labels = labels_BL()
    ours = loss.distillation_loss(
        student_NV.view(SEQUENCES, LENGTH, -1), labels, target, method, AllPositions(), 1.0, 0.0
    )
    meant = oracle.adaptive_teaching(*rows(target, student_NV), 0.3, math.ceil(Fraction(hard) * POSITIONS))
    assert float(ours) == pytest.approx(np.real(meant), abs=1e-6)  # weights are float32


def test_only_trained_positions_are_ranked() -> None:
    method, target, student_NV = AdaptiveTeaching(), drawn(Full()), inputs()[1]
    ours = loss.distillation_loss(
        student_NV.view(SEQUENCES, LENGTH, -1), labels_BL(), target, method, AllPositions(), 1.0, 0.0, mask_BL=MASK_BL
    )
    kept = [
        [value for value, trained in zip(values, MASK_BL.flatten().tolist(), strict=True) if trained]
        for values in rows(target, student_NV)
    ]
    assert float(ours) == pytest.approx(np.real(oracle.adaptive_teaching(*kept, 0.2, 2)), abs=1e-6)


@pytest.mark.parametrize("mask_BL", [None, MASK_BL], ids=["all", "some"])
@pytest.mark.parametrize("positions", [EVERYWHERE, TopFraction(0.5)], ids=str)
@pytest.mark.parametrize("method", [Decoupled(), AdaptiveTeaching()], ids=str)
@pytest.mark.parametrize("states", [False, True], ids=["probabilities", "states"])
def test_without_logits_it_is_the_same(method: object, positions: object, mask_BL: Tensor | None, states: bool) -> None:
    hidden, head = student(bias=True)
    target = drawn(Full())
    if states:
        random = torch.Generator().manual_seed(3)
        states_ND = torch.randn(POSITIONS, 7, generator=random)
        target = TeacherStates(states_ND, Head(torch.randn(CLASSES, 7, generator=random)), sequences=SEQUENCES)
    rest = (method, positions, 0.7, 0.4, 0.0, None, None, mask_BL)
    leaves = (hidden, head.weight_VD, head.bias_V)
    found = []
    for value in (
        fused.fused_loss(hidden, head, labels_BL(), target, *rest),
        loss.distillation_loss(head(hidden), labels_BL(), target.whole() if states else target, *rest),
    ):
        found.append([value.detach().numpy(), *(part.numpy() for part in torch.autograd.grad(value, leaves))])
    assert_equal(*found, atol=1e-6 if states else 1e-12)


@pytest.mark.parametrize("method", [Decoupled(), AdaptiveTeaching(), ReverseKL(), TailAware(3)], ids=str)
def test_without_a_weight_on_distillation_no_divergence_is_asked(method: object) -> None:
    """As in SALT's second stage, whose steps have no teacher: cross-entropy alone."""
    hidden, head = student()
    leaves = (hidden, head.weight_VD)
    nothing, rest = one_hot(labels_BL().flatten()), (EVERYWHERE, 0.0, 1.0)
    found = []
    for value in (
        fused.fused_loss(hidden, head, labels_BL(), nothing, method, *rest),
        loss.distillation_loss(head(hidden), labels_BL(), nothing, method, *rest),
    ):
        found.append([value.detach().numpy(), *(part.numpy() for part in torch.autograd.grad(value, leaves))])
    assert_equal(*found)


def test_a_certain_teacher_leaves_finite_gradients() -> None:
    """All mass on the label: the others have nothing that could be normalised."""
    logits_NV = torch.zeros(1, CLASSES, requires_grad=True)
    sure = torch.zeros(1, CLASSES)
    sure[0, 2] = 1.0
    told = Told(torch.tensor([2]), torch.ones(1, 2))
    value = Decoupled().compare(told, logits_NV, type(drawn(Full()))(sure))
    (gradient,) = torch.autograd.grad(value.sum(), logits_NV)
    assert float(value.detach()) == pytest.approx(math.log(CLASSES), rel=1e-6)
    assert torch.isfinite(gradient).all()


def test_what_they_cannot_use_is_refused_in_a_line() -> None:
    with pytest.raises(ValueError, match="Decoupled looks at the label .* or ForwardKL"):
        Decoupled()(inputs()[1], drawn(Full()))
    with pytest.raises(ValueError, match="Decoupled compares all classes"):
        told = told_of(Decoupled(), inputs()[2], None, None)
        bound(Decoupled(), told)(inputs()[1], drawn(TopK(3)))
    for wrong in (lambda: AdaptiveTeaching(hard=1.0), lambda: AdaptiveTeaching(2.0), lambda: Decoupled(-1.0)):
        with pytest.raises(ValueError, match=r"(hard|easy_weight|label_weight) is .*; give"):
            wrong()
