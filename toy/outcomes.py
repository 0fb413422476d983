"""Outcomes: every target that a method may make of a known teacher, the chance of each, and the gradients under them.

Axis letters: O outcomes, M states, V classes, K kept classes, D draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from replication.axes.divergences import Divergence
from replication.axes.targets.base import AnyTarget, SparseTarget, Target
from replication.axes.targets.drawing import counted
from replication.axes.targets.sampled import RandomSampling
from replication.seeds import generator

MOST = 50_000  # outcomes of a random target


@dataclass(frozen=True)
class Outcomes:
    """One target a row, and the chance of each, [O] float64."""

    target: AnyTarget
    chances_O: Tensor

    def times(self, states: int) -> AnyTarget:
        """All rows, once for every state."""
        return mapped(self.target, lambda rows: rows.repeat(states, *[1] * (rows.dim() - 1)))

    def dense(self, vocabulary: int) -> Tensor:
        """[O, V] float64."""
        return self.target.dense(vocabulary).double()

    def mean(self, vocabulary: int) -> Tensor:
        """The expected target, [V]."""
        return self.chances_O @ self.dense(vocabulary)

    def average(self, values_MOV: Tensor) -> Tensor:
        """The expectation over the outcomes, [M, V]."""
        return torch.einsum("o,mov->mv", self.chances_O, values_MOV)


def outcomes(target: Target, logits_V: Tensor, teacher_V: Tensor) -> Outcomes:
    """All draws of random sampling; a target for each ground truth, distributed as the teacher; or the only one.

    Raises ValueError for a target that is random in another way or has more outcomes than can be enumerated.
    """
    if isinstance(target, RandomSampling):
        return drawn(target, teacher_V)
    classes = len(teacher_V)
    made, again = (
        target(logits_V.expand(classes, -1), torch.arange(classes), generator(seed, "fields")) for seed in (0, 1)
    )
    dense_VV = made.dense(classes)
    if not torch.equal(dense_VV, again.dense(classes)):
        raise ValueError(f"{type(target).__name__} draws; of random targets only RandomSampling is enumerated here.")
    if bool((dense_VV == dense_VV[0]).all()):
        return only(mapped(made, lambda rows: rows[:1]))
    return Outcomes(made, teacher_V)


def only(target: AnyTarget) -> Outcomes:
    """A target of one row that is certain."""
    return Outcomes(target, torch.ones(1, dtype=torch.float64))


def drawn(target: RandomSampling, teacher_V: Tensor) -> Outcomes:
    """Every multiset of draws, its weights count / draws, and its multinomial chance (RS-KD Section 4)."""
    if target.exponent != 1:
        raise ValueError(f"RandomSampling.exponent is {target.exponent}; draws are enumerated at exponent 1 only.")
    many = math.comb(len(teacher_V) + target.draws - 1, target.draws)
    if many > MOST:
        raise ValueError(f"{target.draws} draws of {len(teacher_V)} classes have {many} outcomes; give at most {MOST}.")
    ids_OD = torch.combinations(torch.arange(len(teacher_V)), target.draws, with_replacement=True)
    ids_OK, counts_OK = counted(ids_OD)
    counts_OK = counts_OK.double()
    ways_O = math.lgamma(target.draws + 1) - torch.lgamma(counts_OK + 1).sum(1)
    chances_O = (ways_O + teacher_V.log()[ids_OD].sum(1)).exp()
    return Outcomes(SparseTarget(ids_OK, counts_OK / target.draws), chances_O)


def mapped(target: AnyTarget, change: Callable[[Tensor], Tensor]) -> AnyTarget:
    tensors = {name: value for name, value in vars(target).items() if isinstance(value, Tensor)}
    changed: dict[str, Any] = {name: change(value) for name, value in tensors.items()}
    return replace(target, **changed)


def gradients(logits_MV: Tensor, given: Outcomes, divergence: Divergence) -> Tensor:
    """Of the divergence in the logits, at every state, for every outcome, by automatic differentiation, [M, O, V]."""
    rows_RV = logits_MV.repeat_interleave(len(given.chances_O), 0).requires_grad_()
    (gradient_RV,) = torch.autograd.grad(divergence(rows_RV, given.times(len(logits_MV))).sum(), rows_RV)
    return gradient_RV.view(len(logits_MV), -1, logits_MV.shape[1])
