"""Sampled targets: unbiased sparse estimates of the teacher's distribution. RS-KD's, and the better draws of our own.

All weights of a position sum to one (WithoutReplacement's on average), so the error of the gradient in the logits is
the error of the target: at equal cost the draw with the least mean squared error wins.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from replication.draws import Randomness, at, by_sequence, counted, draw, softmax_by_rows, uniform
from replication.target import SparseTarget, Target, at_least_one, classes, largest


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
        # float64: how many unused slots there are, which is the batch's doing, must not move a rounding
        sum_N1 = weights_NK.sum(1, keepdim=True, dtype=torch.float64)
        return SparseTarget(ids_NK, (weights_NK / sum_N1).float())

    def squared_error(self, probs_NV: Tensor) -> Tensor:
        """Expected sum over classes of (weight - probability)^2, [N]. ValueError at other exponents: no closed form."""
        if self.exponent != 1:
            raise ValueError(
                f"RandomSampling at exponent {self.exponent} has no closed form of its error; simulate it."
            )
        return (1 - probs_NV.square().sum(1)) / self.draws


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

    def squared_error(self, probs_NV: Tensor) -> Tensor:
        """As RandomSampling's: of the strata that a class covers in part, at most two, each has p (1 - p) of a draw."""
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

    def squared_error(self, probs_NV: Tensor) -> Tensor:
        """As RandomSampling's: the count is rounded up with a chance of its fraction."""
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
        head_NK, exact_NK = largest(teacher_logits_NV, classes("HeadAndSampledTail.k", self.k, teacher_logits_NV))
        points_ND = uniform(generator, len(labels_N), self.draws, teacher_logits_NV.device)
        everywhere_NK = torch.ones_like(head_NK, dtype=torch.bool)
        ids_ND, counts_ND = counted(at(teacher_logits_NV, points_ND, left_out=(head_NK, everywhere_NK)).sort(1)[0])
        rest_N1 = (1 - exact_NK.sum(1, keepdim=True, dtype=torch.float64)).clamp_min(0).float()
        return SparseTarget(torch.cat([head_NK, ids_ND], 1), torch.cat([exact_NK, rest_N1 * counts_ND / self.draws], 1))

    def squared_error(self, probs_NV: Tensor) -> Tensor:
        """As RandomSampling's, of the tail alone."""
        tail_NV = probs_NV.scatter(1, probs_NV.topk(self.k, dim=1).indices, 0.0)
        return (tail_NV.sum(1).square() - tail_NV.square().sum(1)) / self.draws


@dataclass(frozen=True)
class WaterFilling(Target):
    """Exactly `classes` classes, with the least mean squared error of all unbiased choices of that many.

    Fearnhead and Clifford 2003: probabilities of at least a level are kept as they are, the others are drawn
    systematically, each kept with probability / level, and then weigh exactly the level. So the tail needs no weights.
    """

    classes: int = 20

    def __post_init__(self) -> None:
        at_least_one("WaterFilling.classes", self.classes)

    def __call__(self, teacher_logits_NV: Tensor, labels_N: Tensor, generator: Randomness) -> SparseTarget:
        return filled(teacher_logits_NV, torch.full_like(labels_N, self.classes), self.classes, generator)

    def squared_error(self, probs_NV: Tensor) -> Tensor:
        """As RandomSampling's: a class of the tail weighs the level with chance probability / level, else nothing."""
        return error_below(probs_NV, torch.full_like(probs_NV[:, 0], self.classes, dtype=torch.int64))


@dataclass(frozen=True)
class AdaptiveWaterFilling(Target):
    """Water-filling to one level everywhere: the least total error at a given mean number of classes.

    A further class lowers a position's error by the square of its level (derived in docs/theory.md), so that the budget
    is spent best where all levels are equal: sharp positions get few classes, flat ones many, `cap` at most.
    """

    level: float = 0.02
    cap: int = 256

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise ValueError(f"AdaptiveWaterFilling.level is {self.level}; give a probability between 0 and 1.")
        at_least_one("AdaptiveWaterFilling.cap", self.cap)

    def __call__(self, teacher_logits_NV: Tensor, labels_N: Tensor, generator: Randomness) -> SparseTarget:
        wanted_N = torch.cat([self.classes(probs_RV) for _, probs_RV in softmax_by_rows(teacher_logits_NV, 1.0)])
        return filled(teacher_logits_NV, wanted_N, int(wanted_N.max()), generator)

    def classes(self, probs_NV: Tensor) -> Tensor:
        """How many are kept at each position, [N]."""
        wanted_N = (probs_NV / self.level).clamp_max(1).sum(1).round().long()
        return wanted_N.clamp(1, min(self.cap, probs_NV.shape[1]))

    def squared_error(self, probs_NV: Tensor) -> Tensor:
        return error_below(probs_NV, self.classes(probs_NV))


@dataclass(frozen=True)
class WithoutReplacement(Target):
    """`classes` different classes by Gumbel top-k, weighted by probability / chance of being chosen (Horvitz-Thompson).

    Kool et al. 2019; Duffield, Lund and Thorup 2007. The answer to the question of RS-KD's poster. Unbiased, but the
    weights sum to one on average only.
    """

    classes: int = 20

    def __post_init__(self) -> None:
        at_least_one("WithoutReplacement.classes", self.classes)

    def __call__(self, teacher_logits_NV: Tensor, labels_N: Tensor, generator: Randomness) -> SparseTarget:
        parts = []
        for each, rows in by_sequence(generator, len(labels_N)):
            for _, probs_RV in softmax_by_rows(teacher_logits_NV[rows], 1.0):
                # the first classes to arrive, each after an exponential time of rate its probability; float64: a
                # float32 time has no small values, which is where rare classes win
                race_RV = probs_RV / torch.empty_like(probs_RV, dtype=torch.float64).exponential_(generator=each)
                fastest = race_RV.topk(min(self.classes + 1, probs_RV.shape[1]), dim=1)
                ids_RK, weights_RK = fastest.indices[:, : self.classes], probs_RV.gather(1, fastest.indices)
                if fastest.values.shape[1] > self.classes:
                    # given when the next one arrived, a class had arrived with chance 1 - exp(-probability * time)
                    weights_RK = weights_RK[:, : self.classes].double()
                    weights_RK = weights_RK / -torch.expm1(-weights_RK / fastest.values[:, -1:])
                parts.append((ids_RK, weights_RK.float().nan_to_num(0.0)))
        return SparseTarget(torch.cat([ids for ids, _ in parts]), torch.cat([weights for _, weights in parts]))


def spaced(offset_ND: Tensor, points: int) -> Tensor:
    """(i + offset) / points for i < points: one point a stratum, ascending; offsets [N, points], or [N, 1] for all."""
    return (torch.arange(points, device=offset_ND.device) + offset_ND) / points


def filled(logits_NV: Tensor, wanted_N: Tensor, most: int, generator: Randomness) -> SparseTarget:
    """Water-filling to `wanted` classes at each position, `most` at most."""
    ids_NK, probs_NK = largest(logits_NV, min(most, logits_NV.shape[1]))
    head_N1, tail_N1, level_N1 = levelled(probs_NK, wanted_N)
    slot_K = torch.arange(probs_NK.shape[1], device=logits_NV.device)
    in_head_NK, in_tail_NK = slot_K < head_N1, (slot_K >= head_N1) & (slot_K < head_N1 + tail_N1)
    points_NK = (slot_K + uniform(generator, len(logits_NV), 1, logits_NV.device)) / tail_N1.clamp_min(1)
    drawn_NK = at(logits_NV, points_NK.clamp_max(1), left_out=(ids_NK, in_head_NK))  # beyond the tail's: not used
    ids_NK = torch.where(in_head_NK, ids_NK, drawn_NK.gather(1, (slot_K - head_N1).clamp_min(0)) * in_tail_NK)
    return SparseTarget(ids_NK, torch.where(in_head_NK, probs_NK, (level_N1 * in_tail_NK).float()))


def levelled(largest_NK: Tensor, wanted_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """How many classes are kept as they are, how many are drawn, and the level that these weigh; [N, 1] each.

    `largest_NK`: at least the `wanted` largest probabilities, descending. The head ends where the next class would
    weigh less than an equal share of all that is left.
    """
    wanted_N1 = wanted_N[:, None].clamp_max(largest_NK.shape[1])
    slot_K = torch.arange(largest_NK.shape[1], device=largest_NK.device)
    rest_NK = 1 - (largest_NK.cumsum(1, dtype=torch.float64) - largest_NK)  # without the first k
    ends_NK = ((wanted_N1 - slot_K) * largest_NK < rest_NK) & (slot_K < wanted_N1) & (largest_NK > 0)
    head_N1 = torch.where(ends_NK.any(1, keepdim=True), ends_NK.int().argmax(1, keepdim=True), wanted_N1)
    tail_N1 = wanted_N1 - head_N1
    rest_N1 = rest_NK.gather(1, head_N1.clamp_max(largest_NK.shape[1] - 1))
    return head_N1, tail_N1, torch.where(tail_N1 > 0, rest_N1 / tail_N1.clamp_min(1), 0.0)


def error_below(probs_NV: Tensor, wanted_N: Tensor) -> Tensor:
    """Sum over the classes below the level of probability * (level - probability), [N]."""
    _, _, level_N1 = levelled(probs_NV.topk(min(int(wanted_N.max()), probs_NV.shape[1]), dim=1).values, wanted_N)
    return (probs_NV * (level_N1 - probs_NV).clamp_min(0)).sum(1)
