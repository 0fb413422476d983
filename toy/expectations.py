"""Closed forms of Figure 2a: the mean of a target and its scatter, from RS-KD App. A.3, A.6 and binomial counts.

The teacher is sorted, most probable class first. A random target's weight on class i is mean_i plus `share` times what
the `draws` from the proposal q scatter. V classes, G groups of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from replication.axes.divergences import Divergence, GhostToken
from replication.axes.targets.base import Target
from replication.axes.targets.kept import Full, NaiveFix, OneHot, SmoothedTopK, TopK, TopP
from replication.axes.targets.sampled import RandomSampling

Group = Callable[[Tensor], Tensor]  # [V] -> [G]: sums over the classes of each group


@dataclass(frozen=True)
class Law:
    """Exact, but for the mean and the scatter of ratios that are normalised (proposal exponent not 1).

    Those are of leading order in 1 / draws.
    """

    teacher_V: Tensor
    mean_V: Tensor
    unique: float  # expected kept classes
    error: float | None  # expected L1 distance of one target to the teacher; None where no closed form is known
    proposal_V: Tensor | None = None  # None: the target is the same in every round
    draws: int = 1
    share: float = 1.0

    @property
    def random(self) -> bool:
        return self.proposal_V is not None

    def bias(self, group: Group) -> float:
        """L1 distance of the mean target to the teacher, of infinitely many rounds."""
        return float((group(self.mean_V) - group(self.teacher_V)).abs().sum())

    def variance_G(self, group: Group) -> Tensor:
        """Of one round's target, [G]: (w (1 - 2 p) + p^2 sum w) / draws, w = p^2 / q; p (1 - p) / draws if q = p."""
        if self.proposal_V is None:
            return torch.zeros_like(group(self.teacher_V))
        ratio_V = self.teacher_V**2 / self.proposal_V
        p_G, w_G = group(self.teacher_V), group(ratio_V)
        return self.share**2 / self.draws * (w_G * (1 - 2 * p_G) + p_G**2 * ratio_V.sum())

    def variance(self) -> float:
        """Summed over single classes."""
        return float(self.variance_G(lambda values_V: values_V).sum())

    def squared_error(self) -> float:
        """Expected sum of squares of one target's distance to the teacher: bias and variance."""
        return float((self.mean_V - self.teacher_V).square().sum()) + self.variance()

    def noise(self, rounds: int, group: Group) -> float:
        """Expected L1 distance of the mean of as many rounds to its own expectation."""
        if self.proposal_V is None:
            return 0.0
        if self.proposal_V is self.teacher_V:
            return self.share * float(mean_deviation(group(self.teacher_V), self.draws * rounds).sum())
        return float((2 / math.pi / rounds * self.variance_G(group)).sqrt().sum())


def law(target: Target, divergence: Divergence, teacher_V: Tensor) -> Law | None:
    """None for a target that none is written for. `divergence` decides what a student makes of the classes left out."""
    if isinstance(target, Full):
        return fixed(teacher_V, powered(teacher_V, target.exponent), len(teacher_V))
    if isinstance(target, OneHot):
        return Law(teacher_V, teacher_V, 1.0, float(mean_deviation(teacher_V, 1).sum()), teacher_V)
    if isinstance(target, RandomSampling):
        return of_draws(target, teacher_V)
    if not isinstance(target, (TopK, TopP, SmoothedTopK, NaiveFix)):
        return None
    kept_V = kept(target, teacher_V)
    number, rest = int((kept_V > 0).sum()), float(1 - kept_V.sum())
    if isinstance(target, SmoothedTopK):
        return fixed(teacher_V, kept_V + rest / len(teacher_V), number)
    if isinstance(target, NaiveFix):
        # a label in the head is off by the tail and by the rest upon itself; one in the tail by both, less itself
        off_V = torch.where(kept_V > 0, 2 * rest, 2 * (rest - teacher_V))
        unique, error = number + rest, float((teacher_V * off_V).sum())
        return Law(teacher_V, kept_V + rest * teacher_V, unique, error, teacher_V, share=rest)
    if isinstance(divergence, GhostToken):
        left_out_V = kept_V == 0
        return fixed(teacher_V, kept_V + left_out_V * rest / left_out_V.sum().clamp_min(1), number)
    return fixed(teacher_V, kept_V / kept_V.sum(), number)


def fixed(teacher_V: Tensor, mean_V: Tensor, kept: int) -> Law:
    """2 (1 - a) for top-K of mass a (App. A.3)."""
    return Law(teacher_V, mean_V, kept, float((mean_V - teacher_V).abs().sum()))


def of_draws(target: RandomSampling, teacher_V: Tensor) -> Law:
    """Exponent 1: counts / draws (App. A.6). Any other: ratios over their own sum, by the delta method."""
    proposal_V = teacher_V if target.exponent == 1 else powered(teacher_V, target.exponent)
    unique = float(seen(proposal_V, target.draws).sum())
    if target.exponent == 1:
        error = float(mean_deviation(teacher_V, target.draws).sum())
        return Law(teacher_V, teacher_V, unique, error, teacher_V, target.draws)
    ratio_V = teacher_V**2 / proposal_V
    mean_V = teacher_V + (teacher_V * ratio_V.sum() - ratio_V) / target.draws
    return Law(teacher_V, mean_V, unique, None, proposal_V, target.draws)


def seen(proposal_V: Tensor, draws: int) -> Tensor:
    """The chance of each class to be drawn at least once, 1 - (1 - q) ** draws."""
    return -(draws * (-proposal_V).log1p()).expm1()


def kept(target: TopK | TopP | SmoothedTopK | NaiveFix, teacher_V: Tensor) -> Tensor:
    """The weights of the most probable classes, zero elsewhere."""
    base_V = powered(teacher_V, target.exponent) if isinstance(target, TopP) else teacher_V
    if isinstance(target, TopP):
        most = min(target.cap, int((base_V.cumsum(0) - base_V < target.p).sum()))
    else:
        most = target.k
    return torch.where(torch.arange(len(base_V)) < most, base_V, 0.0)


def powered(teacher_V: Tensor, exponent: float) -> Tensor:
    return teacher_V if exponent == 1 else (exponent * teacher_V.log()).softmax(0)


def mean_deviation(p: Tensor, n: int) -> Tensor:
    """E |count / n - p| of a binomial count, elementwise (De Moivre): 2 (m + 1) C(n, m + 1) p^(m+1) (1-p)^(n-m) / n.

    m is the whole part of n p.
    """
    m = (n * p).floor().clamp_max(n - 1)
    ways = math.lgamma(n + 1) - torch.lgamma(m + 1) - torch.lgamma(n - m)
    deviation = 2 / n * (ways + (m + 1) * p.log() + (n - m) * (-p).log1p()).exp()
    return torch.where(p < 1, deviation, 0.0)
