"""Sampled targets: unbiased sparse estimates of the teacher's distribution. RS-KD's, and the better draws of our own.

All weights of a position sum to one (WithoutReplacement's on average), so the error of the gradient in the logits is
the error of the target: at equal cost the draw with the least mean squared error wins.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from replication.blocks import Blocks
from replication.draws import Randomness, ascending, at, counted, draw, exponential, softmax_by_rows, uniform
from replication.target import SparseTarget, Target, at_least_one, classes


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
        return SparseTarget(torch.cat([head_NK, ids_ND], 1), torch.cat([exact_NK, rest_N1 * counts_ND / self.draws], 1))

    def squared_error(self, probs_NV: Tensor) -> Tensor:
        """As RandomSampling's, of the tail alone."""
        tail_NV = probs_NV.scatter(1, probs_NV.topk(self.k, dim=1).indices, 0.0)
        return (tail_NV.sum(1).square() - tail_NV.square().sum(1)) / self.draws


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


def first_arrivals(logits_NV: Tensor, classes: int, generator: Randomness) -> tuple[Tensor, Tensor, Tensor]:
    """The first so many different classes where each arrives at random times with its probability as rate.

    Their ids, probabilities and times of arrival, [N, K] each, in that order; float64: a float32 time has no small
    values, which is where rare classes win. Where there are fewer classes the last times are infinite. The largest
    classes, which would arrive over and over, are given a time each; the others arrive in rounds, each without the
    classes seen before, whose rates do not concern the others.
    """
    heads, draws = min(max(1, 2 * classes // 5), logits_NV.shape[1]), 9 * classes // 8
    wait_NH = exponential(generator, len(logits_NV), heads, logits_NV.device)
    rounds: list[tuple[Tensor, Tensor]] = []
    parts = []

    def a_round(number: int, rows: slice) -> tuple[Tensor, Tensor]:
        """Points and waits of these rows; drawn for all rows, so that none depends on which others need another."""
        if number == len(rounds):
            shape = generator, len(logits_NV), draws, logits_NV.device
            rounds.append((uniform(*shape), exponential(*shape)))
        return rounds[number][0][rows], rounds[number][1][rows]

    for rows, probs_RV in softmax_by_rows(logits_NV, 1.0, draws):
        blocks = Blocks.of(probs_RV, draws)
        total_R1 = blocks.total_R1  # a float32 softmax's own
        ids_RH = blocks.largest(heads)
        probs_RH = probs_RV.gather(1, ids_RH)
        times_RH = (wait_NH[rows] / probs_RH).masked_fill(probs_RH == 0, torch.inf)
        rest = blocks.without(ids_RH)
        ids_RD, times_RD, now_R1 = arrivals(rest, *a_round(0, rows))
        ids_RK, times_RK = earliest(torch.cat([ids_RH, ids_RD], 1), torch.cat([times_RH, times_RD], 1), classes)
        # until then others may arrive
        open_O, number = (times_RK[:, -1:] > now_R1).nonzero()[:, 0], 1
        while len(open_O):
            old_OK, times_OK = ids_RK[open_O], times_RK[open_O]
            # an empty slot stands for the first one again
            left = rest.rows(open_O).without(torch.where(times_OK.isfinite(), old_OK, old_OK[:, :1]))
            points_RD, waits_RD = a_round(number, rows)
            ids_OD, times_OD, after_O1 = arrivals(left, points_RD[open_O], waits_RD[open_O])
            times_OX = torch.cat([times_OK, now_R1[open_O] + times_OD], 1)
            ids_RK[open_O], times_RK[open_O] = earliest(torch.cat([old_OK, ids_OD], 1), times_OX, classes)
            now_R1[open_O] += after_O1
            open_O, number = open_O[times_RK[open_O, -1] > now_R1[open_O, 0]], number + 1
        probs_RV.scatter_(1, ids_RH, probs_RH)
        probs_RK = probs_RV.gather(1, ids_RK).masked_fill(times_RK.isinf(), 0.0)
        parts.append((ids_RK, probs_RK / total_R1, times_RK * total_R1))
    ids_NK, probs_NK, times_NK = (torch.cat(part) for part in zip(*parts, strict=True))
    return ids_NK, probs_NK, times_NK


def arrivals(blocks: Blocks, points_RD: Tensor, waits_RD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Classes and when they arrive, [R, D] each, never where that is a repetition; and the time of the last, [R, 1].

    Where nothing has a probability, nothing ever arrives, and all times are infinite.
    """
    times_RD = (waits_RD.cumsum(1) / blocks.total_R1).masked_fill(blocks.total_R1 == 0, torch.inf)
    ids_RD, order_RD = blocks.at(points_RD).sort(dim=1, stable=True)
    again_RD = pad(ids_RD[:, 1:] == ids_RD[:, :-1], (1, 0))
    return ids_RD, times_RD.gather(1, order_RD).masked_fill(again_RD, torch.inf), times_RD[:, -1:]


def earliest(ids_RX: Tensor, times_RX: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    times_RK, first_RK = times_RX.topk(classes, dim=1, largest=False)
    return ids_RX.gather(1, first_RK), times_RK


def spaced(offset_ND: Tensor, points: int) -> Tensor:
    """(i + offset) / points for i < points: one point a stratum, ascending; offsets [N, points], or [N, 1] for all."""
    return (torch.arange(points, device=offset_ND.device) + offset_ND) / points
