"""Probabilities in descending order, each as a 7-bit ratio to the one before it (RS-KD App. D.1).

The loop is closed: the ratio is taken to the previous *decoded* weight, so errors do not add up along a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from replication.axes.targets.storage import LARGEST_NUMERATOR
from replication.cache.codec import Codec, Ids, Weights, slots

KNEE = 1 / 16  # ratios above are stored with equal absolute steps, ratios below with equal relative ones
SMALLEST = 2.0**-18  # smaller ratios are stored as this one
LEVELS = LARGEST_NUMERATOR + 1
LAST_LEVELS = 48  # of a variable-length row's numerators, those that mean "and the row ends here"


def step(levels: int) -> float:
    """The distance between neighbours above the knee; below it, neighbours differ by the factor exp(step / KNEE)."""
    return (1 - KNEE + KNEE * log(KNEE / SMALLEST)) / (levels - 2)


def grid(levels: int) -> NDArray[np.float64]:
    """Descending ratios: one a step above 1, so that equal weights recover from rounding down, then 1 to SMALLEST.

    A purely linear grid loses every row whose first probability is below 1/254, a purely logarithmic one that reaches
    as deep is 2 to 3 times coarser where ratios are frequent. Mean absolute relative error over softmax of normal
    logits (deviation 1, 3, 5; V = 20,000) and Zipf (0.8 to 2.5; V = 100,000), K = 12: linear 99, 0.5, 1.3, 0.4 %;
    logarithmic 2.5 %; this one 0.7, 0.7, 0.6, 0.6 %, with a mean error of 0.06 % at most.
    """
    distance = (np.arange(levels) - 1) * step(levels)
    above = 1 - distance
    below = KNEE * np.exp(-(distance - (1 - KNEE)) / KNEE)
    return np.where(above >= KNEE, above, below)


class Grid:
    """Descending ratios, and the one nearest to any: equal distance, not equal factor, keeps the mean error at zero.

    A binary search among 128 levels mispredicts its branches: this takes a tenth of its time. A ratio's exponent and
    first seven bits are looked up; where they are the same, at most one middle between neighbours is left to compare.
    """

    SHIFT = 52 - 7

    def __init__(self, levels: int) -> None:
        self.levels = grid(levels)
        ascending = self.levels[::-1]
        middles = (ascending[1:] + ascending[:-1]) / 2
        keys = middles.view(np.int64) >> self.SHIFT
        assert (np.diff(keys) > 0).all()
        self.low, self.high = keys[0], keys[-1] + 1
        edges = (np.arange(self.low, self.high + 1) << self.SHIFT).view(np.float64)
        below = np.searchsorted(middles, edges)
        self.index = levels - 1 - below
        self.middle = np.append(middles, np.inf)[below]

    def nearest(self, ratio_A: NDArray[np.float64]) -> NDArray[np.int64]:
        """The index of the level nearest to each ratio (0 or more)."""
        key_A = np.clip(ratio_A.view(np.int64) >> self.SHIFT, self.low, self.high) - self.low
        return self.index[key_A] - (self.middle[key_A] < ratio_A)


FIXED = Grid(LEVELS)
INNER = Grid(LEVELS - LAST_LEVELS)
LAST = Grid(LAST_LEVELS)
VARIABLE = np.concatenate([INNER.levels, LAST.levels])


@dataclass(frozen=True)
class RatioCodec(Codec):
    """Ratios of sorted weights; rows of `length` classes each, or of 1 to `cap` classes where `length` is None.

    In rows of variable length the last class takes its ratio from a grid of its own (48 of the 128 numerators), which
    marks the end of the row: stored lengths would cost more than 0.05 bytes a class in rows of a dozen classes. The
    price is precision: an error of at most 1.7 % of the weight before for the last class and 1.0 % for the others,
    where rows of fixed length have 0.6 %.

    A fixed-length row's first k classes decode to what caching those k alone gives. `normalised` rows sum to one, and
    decode to weights that do.
    """

    length: int | None
    cap: int
    normalised: bool = False
    name: ClassVar[str] = "ratio"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.cap <= self.vocabulary:
            raise ValueError(f"The ratio codec's cap is {self.cap}; give 1 to {self.vocabulary}, the vocabulary.")
        if self.length is not None and self.length != self.cap:
            raise ValueError(f"Rows of fixed length {self.length} have that cap, not {self.cap}; give both alike.")

    @property
    def most(self) -> int:
        return self.cap

    def ordered(self, ids_NK: Ids, weights_NK: NDArray[Any]) -> tuple[Ids, NDArray[Any]]:
        # not (a >= b): also where a NaN stands, which `numerators` then refuses
        if np.all(weights_NK[:, :-1] >= weights_NK[:, 1:]):
            return ids_NK, weights_NK
        order_NK = np.argsort(-weights_NK, axis=1, kind="stable")
        order_NK += np.arange(len(order_NK))[:, None] * order_NK.shape[1]
        return ids_NK.reshape(-1)[order_NK], weights_NK.reshape(-1)[order_NK]

    def numerators(self, weights_M: NDArray[Any], lengths_N: NDArray[np.int64]) -> NDArray[np.uint8]:
        weights_M = weights_M.astype(np.float64)
        self.refuse(weights_M, lengths_N)
        numerators_M = np.empty(len(weights_M), np.uint8)
        # A rows have a class in this slot: where it lies, what came before it, and how many follow
        at_A = np.cumsum(lengths_N) - lengths_N
        decoded_A, follow_A = np.ones(len(lengths_N)), lengths_N - 1
        while len(at_A):
            # a row of zeros may take the running product below the smallest float64
            ratio_A = weights_M[at_A] / np.maximum(decoded_A, np.finfo(np.float64).tiny)
            if self.length is not None:
                numerator_A = FIXED.nearest(ratio_A)
            else:
                numerator_A = INNER.nearest(ratio_A)
                last_A = follow_A == 0
                numerator_A[last_A] = LEVELS - LAST_LEVELS + LAST.nearest(ratio_A[last_A])
            numerators_M[at_A] = numerator_A
            decoded_A = decoded_A * self.levels[numerator_A]
            more_A = follow_A > 0
            at_A, decoded_A, follow_A = at_A[more_A] + 1, decoded_A[more_A], follow_A[more_A] - 1
        return numerators_M

    def refuse(self, weights_M: NDArray[np.float64], lengths_N: NDArray[np.int64]) -> None:
        probable_M = (weights_M >= 0) & (weights_M <= 1 + 1e-5)
        if not probable_M.all():
            wrong = weights_M[~probable_M][0]
            raise ValueError(f"The ratio codec stores probabilities; {wrong} is none. Check the teacher's logits.")
        if self.length is not None and (lengths_N != self.length).any():
            wrong = lengths_N[lengths_N != self.length][0]
            raise ValueError(f"A position keeps {wrong} classes where each must keep {self.length}; give length=None.")
        if lengths_N.max(initial=0) > self.cap:
            raise ValueError(f"A position keeps {lengths_N.max()} classes, more than the cap of {self.cap}.")
        if self.normalised and len(lengths_N):
            total_N = np.add.reduceat(weights_M, np.cumsum(lengths_N) - lengths_N)
            if np.abs(total_N - 1).max() > 1e-3:
                raise ValueError("These weights do not sum to one, as normalised rows must; give normalised=False.")

    @property
    def levels(self) -> NDArray[np.float64]:
        """The ratio of each numerator, [128]."""
        return VARIABLE if self.length is None else FIXED.levels

    def lengths(self, numerators_M: NDArray[np.uint8]) -> NDArray[np.int64]:
        if self.length is not None:
            if len(numerators_M) % self.length:
                raise ValueError(f"{len(numerators_M)} classes are not rows of {self.length}: the cache is damaged.")
            return np.full(len(numerators_M) // self.length, self.length)
        ends_N = np.flatnonzero(numerators_M >= LEVELS - LAST_LEVELS)
        if len(numerators_M) and (not len(ends_N) or ends_N[-1] != len(numerators_M) - 1):
            raise ValueError("The cached classes stop in the middle of a position: the cache is damaged.")
        return np.diff(ends_N, prepend=-1)

    def weights(self, numerators_M: NDArray[np.uint8], kept_NK: NDArray[np.bool_]) -> Weights:
        weights_NK = np.zeros(kept_NK.shape)
        weights_NK[kept_NK] = self.levels[numerators_M]
        np.cumprod(weights_NK, axis=1, out=weights_NK)
        if self.normalised:
            weights_NK /= weights_NK.sum(1, keepdims=True)
        return weights_NK.astype(np.float32)

    def tolerance(self, weights_NK: NDArray[np.float64], lengths_N: NDArray[np.int64]) -> NDArray[np.float64]:
        """The larger neighbour gap lies above the knee, so an error is at most half a step of the weight before.

        It is at most step / KNEE / 2 of the weight itself, too (unless the ratio is below SMALLEST). Where the weight
        before was stored too small, the ratio may exceed 1 and be cut: then that weight's error is the bound.
        """
        before_N, bound_N = np.ones(len(weights_NK)), np.zeros(len(weights_NK))
        bound_NK = np.zeros(weights_NK.shape)
        previous_N = before_N
        for slot, weight_N in enumerate(weights_NK.T):
            if self.length is not None:
                step_N = np.full(len(weights_NK), step(LEVELS))
            else:
                step_N = np.where(lengths_N == slot + 1, step(LAST_LEVELS), step(LEVELS - LAST_LEVELS))
            relative_N = step_N / KNEE / 2 * weight_N + SMALLEST * before_N
            cut_N = bound_N - (previous_N - weight_N)
            bound_N = np.maximum(np.minimum(step_N / 2 * before_N, relative_N), cut_N)
            bound_NK[:, slot] = bound_N
            previous_N, before_N = weight_N, weight_N + bound_N
        bound_NK = bound_NK * slots(lengths_N, weights_NK.shape[1]) + 1e-6 * weights_NK  # float32
        if self.normalised:
            total_N1 = bound_NK.sum(1, keepdims=True)
            bound_NK = (bound_NK + weights_NK * total_N1) / np.maximum(1 - total_N1, 0.1)
        return bound_NK
