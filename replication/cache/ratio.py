"""Probabilities in descending order, each as a 7-bit ratio to the one before it (RS-KD App. D.1).

The loop is closed: the ratio is taken to the previous *decoded* weight, so errors do not add up along a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from replication.cache.codec import LARGEST_NUMERATOR, Codec, Ids, Weights, slots

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


FIXED = grid(LEVELS)
INNER = grid(LEVELS - LAST_LEVELS)
LAST = grid(LAST_LEVELS)
VARIABLE = np.concatenate([INNER, LAST])


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

    def ordered(self, ids_NK: Ids, weights_NK: NDArray[np.float64]) -> tuple[Ids, NDArray[np.float64]]:
        # not (a >= b): also where a NaN stands, which `numerators` then refuses
        if np.all(weights_NK[:, :-1] >= weights_NK[:, 1:]):
            return ids_NK, weights_NK
        order_NK = np.argsort(-weights_NK, axis=1, kind="stable")
        return np.take_along_axis(ids_NK, order_NK, 1), np.take_along_axis(weights_NK, order_NK, 1)

    def numerators(
        self, weights_NK: NDArray[np.float64], lengths_N: NDArray[np.int64], kept_NK: NDArray[np.bool_]
    ) -> NDArray[np.uint8]:
        self.refuse(weights_NK, lengths_N)
        numerators_NK = np.zeros(weights_NK.shape, np.uint8)
        decoded_N = np.ones(len(weights_NK))
        for slot in range(weights_NK.shape[1]):
            # a row of zeros may take the running product below the smallest float64
            ratio_N = weights_NK[:, slot] / np.maximum(decoded_N, np.finfo(np.float64).tiny)
            if self.length is not None:
                numerator_N = nearest(FIXED, ratio_N)
            else:
                ends_N = LEVELS - LAST_LEVELS + nearest(LAST, ratio_N)
                numerator_N = np.where(lengths_N == slot + 1, ends_N, nearest(INNER, ratio_N))
            numerators_NK[:, slot] = numerator_N
            decoded_N = decoded_N * self.levels[numerator_N]
        return numerators_NK[kept_NK]

    def refuse(self, weights_NK: NDArray[np.float64], lengths_N: NDArray[np.int64]) -> None:
        if not ((weights_NK >= 0) & (weights_NK <= 1 + 1e-5)).all():
            wrong = weights_NK[~((weights_NK >= 0) & (weights_NK <= 1 + 1e-5))][0]
            raise ValueError(f"The ratio codec stores probabilities; {wrong} is none. Check the teacher's logits.")
        if self.length is not None and (lengths_N != self.length).any():
            wrong = lengths_N[lengths_N != self.length][0]
            raise ValueError(f"A position keeps {wrong} classes where each must keep {self.length}; give length=None.")
        if lengths_N.max(initial=0) > self.cap:
            raise ValueError(f"A position keeps {lengths_N.max()} classes, more than the cap of {self.cap}.")
        if self.normalised and np.abs(weights_NK.sum(1) - 1).max(initial=0) > 1e-3:
            raise ValueError("These weights do not sum to one, as normalised rows must; give normalised=False.")

    @property
    def levels(self) -> NDArray[np.float64]:
        """The ratio of each numerator, [128]."""
        return VARIABLE if self.length is None else FIXED

    def lengths(self, numerators_M: NDArray[np.uint8]) -> NDArray[np.int64]:
        if self.length is not None:
            if len(numerators_M) % self.length:
                raise ValueError(f"{len(numerators_M)} classes are not rows of {self.length}: the cache is damaged.")
            return np.full(len(numerators_M) // self.length, self.length)
        ends_N = np.flatnonzero(numerators_M >= LEVELS - LAST_LEVELS)
        if len(numerators_M) and (not len(ends_N) or ends_N[-1] != len(numerators_M) - 1):
            raise ValueError("The cached classes stop in the middle of a position: the cache is damaged.")
        return np.diff(ends_N, prepend=-1)

    def weights(self, numerators_NK: NDArray[np.uint8], kept_NK: NDArray[np.bool_]) -> Weights:
        weights_NK = np.cumprod(self.levels[numerators_NK], axis=1) * kept_NK
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


def nearest(descending: NDArray[np.float64], ratio_N: NDArray[np.float64]) -> NDArray[np.int64]:
    """The index of the level nearest to each ratio: equal distance, not equal factor, keeps the mean error at zero."""
    ascending = descending[::-1]
    middles = (ascending[1:] + ascending[:-1]) / 2
    return len(descending) - 1 - np.searchsorted(middles, ratio_N)
