"""Water-filling: the largest probabilities as they are, the others drawn, and then all of one weight.

A row of it costs few bits: the tail stores its ids only, the head a small whole number each.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from replication.axes.targets.base import Classes, SparseTarget, Target, at_least_one
from replication.axes.targets.blocks import Blocks
from replication.axes.targets.drawing import Randomness, softmax_by_rows, uniform
from replication.axes.targets.storage import Storage
from replication.axes.targets.storage import filling as filling_rows


@dataclass(frozen=True)
class WaterFilling(Target):
    """At most `classes` classes, with the least mean squared error of all unbiased choices of that many.

    Fearnhead and Clifford 2003: probabilities of at least a level are kept, the others are drawn systematically, each
    with chance probability / level, and then weigh exactly the level. So the tail needs no weights, and the head, which
    is rounded to multiples of 1 / `parts` without bias (`filled`), few bits: the cached target is the one online.
    """

    classes: int = 20

    def __post_init__(self) -> None:
        at_least_one("WaterFilling.classes", self.classes)

    @property
    def parts(self) -> int:
        """Four to the highest level that so many classes may have: the rounding adds under 2 % to the mean error.

        At a sharp position, whose error is tiny, it may be most of it (docs/theory.md, 17).
        """
        return 4 * self.classes

    @property
    def most(self) -> int:
        return self.classes

    def wanted(self, largest_NK: Tensor) -> Tensor:
        """How many are kept at each position, [N]."""
        return torch.full_like(largest_NK[:, 0], self.classes, dtype=torch.int64)

    def known(self, largest_NK: Tensor) -> Tensor:
        """Whether `wanted` would not change with further classes, [N]."""
        return torch.ones_like(largest_NK[:, 0], dtype=torch.bool)

    def __call__(self, teacher_logits_NV: Tensor, labels_N: Tensor, generator: Randomness) -> SparseTarget:
        return filled(self, teacher_logits_NV, self.classes, generator)

    def storage(self, vocabulary: int) -> Storage | None:
        return filling_rows(self.parts, self.most)

    def budget(self, vocabulary: int) -> Classes:
        return Classes(min(self.most, vocabulary), "at most")

    def kept(self, probs_NV: Tensor) -> Tensor:
        return filling_classes(self, probs_NV)

    def squared_error(self, probs_NV: Tensor) -> Tensor:
        """A class of the tail weighs the level with chance probability / level, else nothing."""
        return filling_error(self, probs_NV)


@dataclass(frozen=True)
class AdaptiveWaterFilling(Target):
    """Water-filling to one level everywhere: the least total error at a given mean number of classes.

    A further class lowers a position's error by the square of its level (derived in docs/theory.md), so that the budget
    is spent best where all levels are equal: sharp positions get few classes, flat ones many, 1 / level at most.
    """

    level: float = 0.02

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise ValueError(f"AdaptiveWaterFilling.level is {self.level}; give a probability between 0 and 1.")

    @property
    def parts(self) -> int:
        """Two to the level: finer ones cost more bits than the draws that they save."""
        return round(2 / self.level)

    @property
    def most(self) -> int:
        """The classes that a position keeps at most: the sum of min(1, probability / level) is not above 1 / level."""
        return max(1, round(1 / self.level))

    def wanted(self, largest_NK: Tensor) -> Tensor:
        """How many are kept at each position, [N]: the sum over all classes of min(1, probability / level), rounded.

        What is left beside the head is rounded to nothing only where that costs less than a class is worth, the square
        of the level: the rest and the smallest of the head then share one, with an error of twice their product.
        """
        head_NK = largest_NK >= self.level
        rest_N = 1 - (largest_NK * head_NK).sum(1, dtype=torch.float64)
        least_N = largest_NK.masked_fill(~head_NK, 1.0).amin(1)
        drawn_N = (rest_N / self.level).round().maximum((2 * rest_N * least_N > self.level**2).double())
        return (head_NK.sum(1) + drawn_N.long()).clamp(1, self.most)

    def known(self, largest_NK: Tensor) -> Tensor:
        """As WaterFilling's: `wanted` counts what reaches the level."""
        return largest_NK[:, -1] < self.level

    def __call__(self, teacher_logits_NV: Tensor, labels_N: Tensor, generator: Randomness) -> SparseTarget:
        return filled(self, teacher_logits_NV, self.most, generator)

    def storage(self, vocabulary: int) -> Storage | None:
        return filling_rows(self.parts, self.most)

    def budget(self, vocabulary: int) -> Classes:
        return Classes(min(self.most, vocabulary), "at most")

    def kept(self, probs_NV: Tensor) -> Tensor:
        return filling_classes(self, probs_NV)

    def squared_error(self, probs_NV: Tensor) -> Tensor:
        return filling_error(self, probs_NV)


def filled(
    target: WaterFilling | AdaptiveWaterFilling, logits_NV: Tensor, most: int, generator: Randomness
) -> SparseTarget:
    """Water-filling to `wanted` classes at each position, `most` at most.

    The head and the mass of the tail are rounded together to parts of one, up or down with the chance that makes each
    right on average: floor(running sum + offset), differenced. They still sum to one, and the tail shares its own mass
    equally, so that it needs no weights. A weight that is rounded to nothing leaves its slot unused.
    """
    most = min(most, logits_NV.shape[1])
    offset_N2 = uniform(generator, len(logits_NV), 2, logits_NV.device)
    slot_K = torch.arange(most, device=logits_NV.device)
    parts = []
    for rows, probs_RV in softmax_by_rows(logits_NV, 1.0, most):
        blocks = Blocks.of(probs_RV, max(1, 3 * most // 4))  # some are the head, and are not looked for again
        ids_RK, probs_RK, head_R1, tail_R1 = head_and_tail(target, blocks, most)
        heads, tails = torch.cat([head_R1, tail_R1], 1).amax(0).tolist()
        # beyond a row's own tail they are not used
        points_RT = ((slot_K[:tails] + offset_N2[rows, :1]) / tail_R1.clamp_min(1)).clamp_max(1)
        drawn_RT = blocks.without(ids_RK[:, :heads], head_R1).at(points_RT)
        parts.append((ids_RK, probs_RK, head_R1, tail_R1, pad(drawn_RT, (0, most - tails))))
    ids_NK, probs_NK, head_N1, tail_N1, drawn_NK = (torch.cat(part) for part in zip(*parts, strict=True))
    place_NK = slot_K - head_N1  # in the tail
    in_head_NK = place_NK < 0
    units_NK = rounded(probs_NK * in_head_NK, tail_N1 == 0, offset_N2[:, 1:], target.parts)
    rest_N1 = (target.parts - units_NK.sum(1, keepdim=True)) / tail_N1.clamp_min(1)
    weights_NK = torch.where(~in_head_NK & (place_NK < tail_N1), rest_N1, units_NK) / target.parts
    chosen_NK = torch.where(in_head_NK, ids_NK, drawn_NK.gather(1, place_NK.clamp_min(0)))
    return SparseTarget(chosen_NK * (weights_NK > 0), weights_NK.float())


def head_and_tail(
    target: WaterFilling | AdaptiveWaterFilling, blocks: Blocks, most: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The largest classes and their probabilities, descending, [R, K], `most` of them or 0 from where none is needed.

    Then how many of them are the head, and how many are drawn besides, [R, 1]. A third is searched for first, and all
    only in the rows whose head may be longer.
    """
    few = most // 3 + 1
    ids_RK, probs_RK = (pad(part, (0, most - few)) for part in blocks.head(few))
    head_R1, tail_R1, _ = levelled(probs_RK, target.wanted(probs_RK))
    short_S = ((head_R1[:, 0] > few) | ~target.known(probs_RK[:, :few])).nonzero()[:, 0]
    if len(short_S):
        ids_RK[short_S], probs_RK[short_S] = blocks.rows(short_S).head(most)
        head_R1, tail_R1, _ = levelled(probs_RK, target.wanted(probs_RK))
    return ids_RK, probs_RK, head_R1, tail_R1


def rounded(head_RK: Tensor, whole_R1: Tensor, offset_R1: Tensor, parts: int) -> Tensor:
    """Whole numbers of parts, up or down, [R, K] float64; where the head is the `whole` they sum to `parts`."""
    upto_RK = head_RK.double().cumsum(1) * parts
    upto_RK = torch.where(whole_R1 & (upto_RK == upto_RK[:, -1:]), parts, upto_RK)
    return (upto_RK + offset_R1).floor().diff(dim=1, prepend=torch.zeros_like(offset_R1))


def levelled(largest_NK: Tensor, wanted_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """How many classes are kept as they are, how many are drawn, and the level that these weigh; [N, 1] each.

    `largest_NK`: at least the `wanted` largest probabilities, descending. The head ends where the next class would
    weigh less than an equal share of all that is left.
    """
    wanted_N1 = wanted_N[:, None].clamp_max(largest_NK.shape[1])
    slot_K = torch.arange(largest_NK.shape[1], device=largest_NK.device)
    rest_NK = 1 - (largest_NK.cumsum(1, dtype=torch.float64) - largest_NK)  # without the first k
    ends_NK = ((wanted_N1 - slot_K) * largest_NK < rest_NK) & (slot_K < wanted_N1) & (largest_NK > 0)
    head_N1 = torch.where(ends_NK, slot_K, wanted_N1).amin(1, keepdim=True)
    tail_N1 = wanted_N1 - head_N1
    rest_N1 = rest_NK.gather(1, head_N1.clamp_max(largest_NK.shape[1] - 1))
    return head_N1, tail_N1, torch.where(tail_N1 > 0, rest_N1 / tail_N1.clamp_min(1), 0.0)


def drawn_error(probs_NV: Tensor, level_N1: Tensor) -> Tensor:
    """Sum over the classes below the level of probability * (level - probability), [N]."""
    return (probs_NV * (level_N1 - probs_NV).clamp_min(0)).sum(1)


def rounding_error(largest_NK: Tensor, head_N1: Tensor, tail_N1: Tensor, level_N1: Tensor, parts: int) -> Tensor:
    """Sum over all classes, [N]: a number is rounded up with a chance of its fraction.

    The tail shares its rounding among its classes; without a tail, the whole sums to `parts` anyway.
    """
    in_head_NK = torch.arange(largest_NK.shape[1], device=largest_NK.device) < head_N1
    up_NK, up_N1 = (largest_NK * in_head_NK * parts).frac(), (level_N1 * tail_N1 * parts).frac()
    error_N1 = (up_NK * (1 - up_NK)).sum(1, keepdim=True) + up_N1 * (1 - up_N1) / tail_N1.clamp_min(1)
    return error_N1[:, 0] / parts**2


def filling_error(target: WaterFilling | AdaptiveWaterFilling, probs_NV: Tensor) -> Tensor:
    largest_NK = probs_NV.topk(min(target.most, probs_NV.shape[1]), dim=1).values
    head_N1, tail_N1, level_N1 = levelled(largest_NK, target.wanted(largest_NK))
    drawn_N = drawn_error(probs_NV, level_N1)
    return drawn_N + rounding_error(largest_NK, head_N1, tail_N1, level_N1, target.parts)


def filling_classes(target: WaterFilling | AdaptiveWaterFilling, probs_NV: Tensor) -> Tensor:
    """How many different classes are kept, [N]: those that are not rounded to nothing."""
    head_NK, tail_N1, level_N1 = filled_head(target, probs_NV)
    tail_N1 = tail_N1 * (tail_N1 * level_N1 * target.parts).clamp_max(1)
    return (head_NK * target.parts).clamp_max(1).sum(1) + tail_N1[:, 0]


def filled_head(target: WaterFilling | AdaptiveWaterFilling, probs_NV: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The probabilities of the head, zero elsewhere, [N, K]; how many are drawn besides, and their level, [N, 1]."""
    largest_NK = probs_NV.topk(min(target.most, probs_NV.shape[1]), dim=1).values
    head_N1, tail_N1, level_N1 = levelled(largest_NK, target.wanted(largest_NK))
    in_head_NK = torch.arange(largest_NK.shape[1], device=probs_NV.device) < head_N1
    return largest_NK * in_head_NK, tail_N1, level_N1


FILLINGS = (WaterFilling, AdaptiveWaterFilling)
