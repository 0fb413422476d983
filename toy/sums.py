"""Sums over rounds of what a student makes of its targets: N rounds at a time, K kept classes, V classes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from replication.axes.divergences import Divergence, GhostToken
from replication.axes.targets.base import AnyTarget, SparseTarget
from replication.axes.targets.kept import residual


@dataclass
class Sums:
    """Totals over rounds, in float64, of what a student fits."""

    teacher_V: Tensor
    target_V: Tensor
    error: float = 0.0  # L1 distances to the teacher
    squares: float = 0.0  # squares of the target
    distances: float = 0.0  # squares of its distance to the teacher, less those of the teacher
    kept: float = 0.0  # classes
    mass: float = 0.0
    rounds: int = 0

    def add(self, target: AnyTarget, divergence: Divergence) -> None:
        ids_NK, weights_NK = fitted(target, divergence, len(self.teacher_V))
        self.target_V.scatter_add_(0, ids_NK.flatten(), weights_NK.flatten())
        # a class without a slot is off by all of its probability; an unused slot adds that and takes it away again
        teacher_NK = self.teacher_V[ids_NK]
        apart_NK = weights_NK - teacher_NK
        self.error += float(apart_NK.abs().sum() + (1 - teacher_NK.sum(1)).sum())
        self.squares += float(weights_NK.square().sum())
        self.distances += float(apart_NK.square().sum() - teacher_NK.square().sum())
        kept_NK = target.weights_NK if isinstance(target, SparseTarget) else target.probs_NV
        self.kept += int((kept_NK > 0).sum())
        self.mass += float(kept_NK.double().sum())
        self.rounds += len(ids_NK)

    @property
    def squared_error(self) -> float:
        return self.distances / self.rounds + float(self.teacher_V.square().sum())

    @property
    def mean_V(self) -> Tensor:
        return self.target_V / self.rounds

    @property
    def variance(self) -> float:
        """Of one round's target about the mean, summed over classes; unbiased."""
        return (self.squares / self.rounds - float(self.mean_V.square().sum())) * self.rounds / (self.rounds - 1)


def fitted(target: AnyTarget, divergence: Divergence, vocabulary: int) -> tuple[Tensor, Tensor]:
    """Classes and the probabilities at which a student's gradient is zero, [N, K] in float64.

    Forward KL: the target over its sum (App. A.4). Ghost token: the target itself, and the rest of the mass anywhere
    (App. A.5); a student that knew nothing of the classes left out ends with equal shares of it.
    """
    if isinstance(divergence, GhostToken):
        assert isinstance(target, SparseTarget)
        weights_NV = target.dense(vocabulary).double()
        left_out_NV = weights_NV == 0
        share_N = residual(target).double() / left_out_NV.sum(1).clamp_min(1)
        return every_class(weights_NV + left_out_NV * share_N[:, None])
    ids_NK, weights_NK = entries(target, vocabulary)
    weights_NK = weights_NK.double()
    return ids_NK, weights_NK / weights_NK.sum(1, keepdim=True)


def entries(target: AnyTarget, vocabulary: int) -> tuple[Tensor, Tensor]:
    """Class ids and weights, [N, K]; K is the vocabulary where every class has a weight."""
    if isinstance(target, SparseTarget) and target.spread_N is None:
        return target.ids_NK, target.weights_NK
    return every_class(target.dense(vocabulary))


def every_class(weights_NV: Tensor) -> tuple[Tensor, Tensor]:
    return torch.arange(weights_NV.shape[1]).expand_as(weights_NV), weights_NV
