"""Counts of draws, exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from replication.axes.targets.storage import LARGEST_NUMERATOR
from replication.cache.codec import Numerators, SetCodec, Weights


@dataclass(frozen=True)
class CountsCodec(SetCodec):
    """Exact counts of `draws` draws: the numerator is the count, so weights come back as float32(count) / draws.

    A row's counts sum to `draws`, so rows end where the running sum reaches a multiple of it.
    """

    draws: int
    name: ClassVar[str] = "counts"
    rising: ClassVar[bool] = True  # as they are drawn; other orders come back as well

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.draws <= LARGEST_NUMERATOR:
            raise ValueError(
                f"The counts codec holds 1 to {LARGEST_NUMERATOR} draws, not {self.draws}; use the ratio codec "
                f"(RatioCodec with length=None, normalised=True), which has no such limit."
            )

    @property
    def most(self) -> int:
        return min(self.draws, self.vocabulary)

    @property
    def usual(self) -> float:
        return self.draws / 2

    def numerators(self, weights_M: NDArray[Any], lengths_N: NDArray[np.int64]) -> Numerators:
        scaled_M = weights_M * weights_M.dtype.type(self.draws)
        rounded_M = np.rint(scaled_M)
        # NaN fails every comparison
        whole = np.abs(scaled_M - rounded_M).max(initial=0) < 1e-3
        if whole and 1 <= rounded_M.min(initial=1) and rounded_M.max(initial=1) <= self.draws:
            counts_M = rounded_M.astype(np.uint8)
            total_N = counts_M.cumsum(dtype=np.int64)[lengths_N.cumsum() - 1]
            if np.array_equal(total_N, self.draws * np.arange(1, len(lengths_N) + 1)):
                return counts_M
        raise ValueError(
            f"The counts codec stores counts / {self.draws} that sum to one; these weights are something else. "
            f"Use the ratio codec, or give the number of draws."
        )

    def lengths(self, numerators_M: Numerators) -> NDArray[np.int64]:
        total_M = numerators_M.cumsum(dtype=np.int64)
        # looked up: to divide each total by the draws costs more than all the rest
        wanted_N = np.arange(self.draws, total_M[-1:].sum() + 1, self.draws)
        ends_N = np.searchsorted(total_M, wanted_N)
        # every count is at least 1, so no multiple is met twice; damage may skip one
        sound = np.array_equal(total_M[ends_N], wanted_N) and total_M[-1:].sum() == self.draws * len(ends_N)
        if not sound or numerators_M.min(initial=1) == 0:
            raise ValueError(f"The cached counts do not sum to {self.draws} per position: the cache is damaged.")
        return np.diff(ends_N, prepend=-1)

    def weights(self, numerators_M: Numerators, kept_NK: NDArray[np.bool_]) -> Weights:
        weights_NK = np.zeros(kept_NK.shape, np.float32)
        weights_NK[kept_NK] = numerators_M.astype(np.float32) / np.float32(self.draws)
        return weights_NK

    def tolerance(self, weights_NK: NDArray[np.float64], lengths_N: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.full(weights_NK.shape, 1e-6)  # float32 rounding of count / draws

    def numbers(self, numerators_M: Numerators) -> NDArray[np.int64]:
        return numerators_M.astype(np.int64) - 1

    def numerators_of(self, numbers_M: NDArray[np.int64], lengths_N: NDArray[np.int64]) -> Numerators:
        if numbers_M.max(initial=0) >= self.draws:
            raise ValueError(f"A cached count is {numbers_M.max() + 1} of {self.draws}: the cache is damaged.")
        return (numbers_M + 1).astype(self.numerator_type)
