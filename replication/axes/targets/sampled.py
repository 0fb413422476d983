"""Sampled targets: unbiased sparse estimates of the teacher's distribution. RS-KD's, and the better draws of our own.

All weights of a position sum to one (WithoutReplacement's on average), so the error of the gradient in the logits is
the error of the target: at equal cost the draw with the least mean squared error wins.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import log

import torch
from torch import Tensor

from replication.axes.targets.arrivals import first_arrivals
from replication.axes.targets.base import Classes, SparseTarget, Target, at_least_one, classes
from replication.axes.targets.blocks import Blocks
from replication.axes.targets.drawing import Randomness, ascending, at, counted, draw, softmax_by_rows, uniform
from replication.axes.targets.storage import LARGEST_NUMERATOR, Storage, counts, headed, ratios

# RS-KD App. C: the number of different classes is a power of the number of draws. One draw is one class; the one point
# that it prints is 50 draws, 12 classes. Another teacher, text or vocabulary bends it: a measured number goes first.
LAW = log(12) / log(50)


@dataclass(frozen=True)
class RandomSampling(Target):
    """Draws with replacement from the proposal teacher ** exponent, weighted by teacher / proposal, normalised.

    RS-KD Section 4; `exponent` is its tau. At exponent 1 the weights are counts / draws: exactly unbiased. At any other
    exponent the ratios are normalised by their own sum, which is biased at finite `draws` (of order 1 / draws).
    """

    draws: int = 50
    exponent: float = 1.0

    def __post_init__(self) -> None:
        at_least_one("RandomSampling.draws", self.draws)
        if not 0 <= self.exponent < float("inf"):
            raise ValueError(
                f"RandomSampling.exponent is {self.exponent}; the proposal is teacher ** exponent: give a number >= 0."
            )

    def __call__(self, teacher_logits_NV: Tensor, labels_N: Tensor, generator: Randomness) -> SparseTarget:
        ids_NK, counts_NK = counted(draw(teacher_logits_NV, self.draws, generator, self.exponent))
        if self.exponent == 1:
            return SparseTarget(ids_NK, counts_NK / self.draws)
        # log teacher - log proposal, up to a number of the row that normalising takes out again
        log_ratio_NK = (1 - self.exponent) * teacher_logits_NV.gather(1, ids_NK).float()
        # the largest ratio is taken out before exp: uniform proposals give ratios over many orders of magnitude
        log_ratio_NK = log_ratio_NK.masked_fill(counts_NK == 0, -torch.inf)
        weights_NK = counts_NK * (log_ratio_NK - log_ratio_NK.amax(1, keepdim=True)).exp()
        # float64: the number of unused slots depends on the batch, and must not change how the sum is rounded
        sum_N1 = weights_NK.sum(1, keepdim=True, dtype=torch.float64)
        return SparseTarget(ids_NK, (weights_NK / sum_N1).float())

    def storage(self, vocabulary: int) -> Storage | None:
        if self.exponent == 1 and self.draws <= LARGEST_NUMERATOR:
            return counts(self.draws)
        return ratios(min(self.draws, vocabulary), normalised=True)

    def budget(self, vocabulary: int) -> Classes:
        if self.exponent == 1:
            return Classes(min(self.draws**LAW, vocabulary), "by law")
        return Classes(min(self.draws, vocabulary), "at most")

    def kept(self, probs_NV: Tensor) -> Tensor | None:
        return drawn_at_all(probs_NV, self.draws).sum(1) if self.exponent == 1 else None

    def squared_error(self, probs_NV: Tensor) -> Tensor | None:
        return (1 - probs_NV.square().sum(1)) / self.draws if self.exponent == 1 else None


@dataclass(frozen=True)
class Stratified(Target):
    """One draw from each of `draws` equal strata of the cumulative distribution; counts / draws.

    Kitagawa 1996; Douc and Cappe 2005. Never more variance than RandomSampling.
    """

    draws: int = 50

    def __post_init__(self) -> None:
        at_least_one("Stratified.draws", self.draws)

    def __call__(self, teacher_logits_NV: Tensor, labels_N: Tensor, generator: Randomness) -> SparseTarget:
        within_ND = uniform(generator, len(labels_N), self.draws, teacher_logits_NV.device)
        ids_NK, counts_NK = counted(at(teacher_logits_NV, spaced(within_ND, self.draws)))
        return SparseTarget(ids_NK, counts_NK / self.draws)

    def storage(self, vocabulary: int) -> Storage | None:
        return counts(self.draws)

    def budget(self, vocabulary: int) -> Classes:
        return Classes(min(self.draws, vocabulary), "at most")

    def kept(self, probs_NV: Tensor) -> Tensor:
        return touched(probs_NV, self.draws).sum(1)

    def squared_error(self, probs_NV: Tensor) -> Tensor:
        """Of the strata that a class covers in part, at most two, each has p (1 - p) of a draw."""
        end_NV = probs_NV.cumsum(1) * self.draws
        begin_NV = end_NV - probs_NV * self.draws
        first_NV, last_NV = begin_NV.ceil(), end_NV.floor()
        within_NV = first_NV > last_NV  # a class inside one stratum
        parts = (torch.where(within_NV, end_NV - begin_NV, first_NV - begin_NV), (end_NV - last_NV) * ~within_NV)
        return torch.stack([(part * (1 - part)).sum(1) for part in parts]).sum(0) / self.draws**2


@dataclass(frozen=True)
class Systematic(Target):
    """`draws` equally spaced points through the cumulative distribution, one random offset a position; counts / draws.

    Kitagawa 1996; Douc and Cappe 2005. A class's count is one of the two whole numbers next to draws * probability.
    """

    draws: int = 50

    def __post_init__(self) -> None:
        at_least_one("Systematic.draws", self.draws)

    def __call__(self, teacher_logits_NV: Tensor, labels_N: Tensor, generator: Randomness) -> SparseTarget:
        offset_N1 = uniform(generator, len(labels_N), 1, teacher_logits_NV.device)
        ids_NK, counts_NK = counted(at(teacher_logits_NV, spaced(offset_N1, self.draws)))
        return SparseTarget(ids_NK, counts_NK / self.draws)

    def storage(self, vocabulary: int) -> Storage | None:
        return counts(self.draws)

    def budget(self, vocabulary: int) -> Classes:
        return Classes(min(self.draws, vocabulary), "at most")

    def kept(self, probs_NV: Tensor) -> Tensor:
        return (probs_NV * self.draws).clamp_max(1).sum(1)

    def squared_error(self, probs_NV: Tensor) -> Tensor:
        """The count is rounded up with a chance of its fraction."""
        fraction_NV = (probs_NV * self.draws).frac()
        return (fraction_NV * (1 - fraction_NV)).sum(1) / self.draws**2


@dataclass(frozen=True)
class HeadAndSampledTail(Target):
    """The k largest probabilities as they are, and `draws` draws of the others that share what is left.

    Liu et al. 2019 (Rao-Blackwellised head). The head costs a weight each and has no error.
    """

    k: int = 10
    draws: int = 20

    def __post_init__(self) -> None:
        at_least_one("HeadAndSampledTail.k", self.k)
        at_least_one("HeadAndSampledTail.draws", self.draws)

    def __call__(self, teacher_logits_NV: Tensor, labels_N: Tensor, generator: Randomness) -> SparseTarget:
        k = classes("HeadAndSampledTail.k", self.k, teacher_logits_NV)
        points_ND = ascending(generator, len(labels_N), self.draws, teacher_logits_NV.device)
        heads, tails = [], []
        for rows, probs_RV in softmax_by_rows(teacher_logits_NV, 1.0, self.draws):
            blocks = Blocks.of(probs_RV, self.draws)
            ids_RK, exact_RK = blocks.head(k)
            tails.append(blocks.without(ids_RK).at(points_ND[rows]))
            heads.append((ids_RK, exact_RK.float()))
        head_NK, exact_NK = (torch.cat(parts) for parts in zip(*heads, strict=True))
        ids_ND, counts_ND = counted(torch.cat(tails))
        rest_N1 = (1 - exact_NK.sum(1, keepdim=True, dtype=torch.float64)).clamp_min(0).float()
        weights_NK = torch.cat([exact_NK, rest_N1 * counts_ND / self.draws], 1)
        return SparseTarget(torch.cat([head_NK, ids_ND], 1), weights_NK, head=k)

    def budget(self, vocabulary: int) -> Classes:
        return Classes(min(self.k + self.draws, vocabulary), "at most")

    def kept(self, probs_NV: Tensor) -> Tensor:
        tail_NV = self.tail(probs_NV)
        of_tail_NV = tail_NV / tail_NV.sum(1, keepdim=True).clamp_min(torch.finfo(tail_NV.dtype).tiny)
        return (probs_NV > 0).sum(1).clamp_max(self.k) + drawn_at_all(of_tail_NV, self.draws).sum(1)

    def squared_error(self, probs_NV: Tensor) -> Tensor:
        """As RandomSampling's, of the tail alone."""
        tail_NV = self.tail(probs_NV)
        return (tail_NV.sum(1).square() - tail_NV.square().sum(1)) / self.draws

    def tail(self, probs_NV: Tensor) -> Tensor:
        """The probabilities without the head, zero there, [N, V]."""
        return probs_NV.scatter(1, probs_NV.topk(self.k, dim=1).indices, 0.0)


@dataclass(frozen=True)
class HeadAndCountedTail(HeadAndSampledTail):
    """The same from a cache: the head to seven digits, the tail by its counts.

    With it `TailAware` (TAD) runs without its teacher: the tail's mass is exact, so the gradient is right on average.
    It scatters by beta(X) squared times `squared_error` (docs/theory.md, 12). The loss is off by the entropy of the
    draws, which no student changes.
    """

    def storage(self, vocabulary: int) -> Storage | None:
        return headed(min(self.k, vocabulary), self.draws)

    def lengths(self, kept: SparseTarget) -> Tensor:
        """All of the head, although the k-th probability of a sharp teacher may underflow to 0."""
        return kept.head + (kept.weights_NK[:, kept.head :] > 0).sum(1)

    def complete(self, kept: SparseTarget, labels_N: Tensor) -> SparseTarget:
        return replace(kept, head=min(self.k, kept.ids_NK.shape[1]))


@dataclass(frozen=True)
class WithoutReplacement(Target):
    """`classes` different classes as drawn without replacement, weighted by probability / chance of being chosen.

    Gumbel top-k with Horvitz-Thompson weights: Kool et al. 2019; Duffield, Lund and Thorup 2007. The answer to the
    question of RS-KD's poster. Unbiased, but the weights sum to one on average only.
    """

    classes: int = 20

    def __post_init__(self) -> None:
        at_least_one("WithoutReplacement.classes", self.classes)

    def __call__(self, teacher_logits_NV: Tensor, labels_N: Tensor, generator: Randomness) -> SparseTarget:
        kept = min(self.classes, teacher_logits_NV.shape[1])
        ids_NK, probs_NK, times_NK = first_arrivals(teacher_logits_NV, kept + 1, generator)
        # given when the next one arrived, a class had arrived with chance 1 - exp(-probability * time)
        chance_NK = -torch.expm1(-probs_NK * times_NK[:, -1:])
        weights_NK = (probs_NK / chance_NK).nan_to_num(0.0)[:, :kept].float()
        return SparseTarget(ids_NK[:, :kept] * (weights_NK > 0), weights_NK)

    def budget(self, vocabulary: int) -> Classes:
        return Classes(min(self.classes, vocabulary), "at most")

    def kept(self, probs_NV: Tensor) -> Tensor:
        return (probs_NV > 0).sum(1).clamp_max(self.classes).to(probs_NV.dtype)


def spaced(offset_ND: Tensor, points: int) -> Tensor:
    """(i + offset) / points for i < points: one point a stratum, ascending; offsets [N, points], or [N, 1] for all."""
    return (torch.arange(points, device=offset_ND.device) + offset_ND) / points


def drawn_at_all(probs_NV: Tensor, draws: int) -> Tensor:
    """The chance that a class is drawn at least once, 1 - (1 - p) ** draws."""
    return -(draws * (-probs_NV).log1p()).expm1()


def touched(probs_NV: Tensor, draws: int) -> Tensor:
    """The chance that a class is hit by one of `draws` stratified points: surely, where it covers a whole stratum."""
    end_NV = probs_NV.cumsum(1) * draws
    begin_NV = end_NV - probs_NV * draws
    first_NV, last_NV = begin_NV.ceil(), end_NV.floor()
    in_two_NV = 1 - (1 - (first_NV - begin_NV)) * (1 - (end_NV - last_NV))
    chance_NV = torch.where(first_NV > last_NV, end_NV - begin_NV, in_two_NV)
    return torch.where(last_NV - first_NV >= 1, torch.ones_like(chance_NV), chance_NV)


DRAWS = (RandomSampling, Stratified, Systematic, HeadAndSampledTail, WithoutReplacement, HeadAndCountedTail)
