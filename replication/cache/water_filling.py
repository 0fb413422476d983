"""Rows of water-filling: a whole number of parts for each class of the head, and for the tail nothing but its ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from replication.cache.codec import Ids, Numerators, SetCodec, Weights

FLOAT32 = 2.0**-22  # what a weight may be off: four roundings of float32
FINEST = 2**21  # parts times classes: beyond it float32 cannot tell a tail's weight from a whole number of parts


@dataclass(frozen=True)
class FillingCodec(SetCodec):
    """Weights that are whole multiples of 1 / parts, but for equal ones that share what is left of one: the tail.

    A numerator is the number of parts, or 0 in the tail, which no row lacks: equal weights of whole parts are a tail
    as well. Its highest bit says "and the row ends here".
    """

    parts: int
    cap: int
    name: ClassVar[str] = "filling"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (2 <= self.parts and 1 <= self.cap and self.parts * self.cap <= FINEST):
            raise ValueError(
                f"Water-filling to {self.cap} classes in {self.parts} parts cannot be cached: their product must not "
                f"exceed {FINEST}. Give fewer classes, or a higher level."
            )

    @property
    def numerator_bits(self) -> int:
        return self.end.bit_length()

    @property
    def end(self) -> int:
        """The bit that marks the last class of a row."""
        return 1 << (self.parts - 1).bit_length()

    @property
    def most(self) -> int:
        return min(self.cap, self.vocabulary)

    @property
    def usual(self) -> float:
        return self.parts / 4

    def ordered(self, ids_NK: Ids, weights_NK: NDArray[Any]) -> tuple[Ids, NDArray[Any]]:
        """Slots whose weight was rounded to nothing come last."""
        unused_NK = weights_NK == 0
        if np.all(unused_NK[:, :-1] <= unused_NK[:, 1:]):
            return ids_NK, weights_NK
        order_NK = np.argsort(unused_NK, axis=1, kind="stable")
        return np.take_along_axis(ids_NK, order_NK, 1), np.take_along_axis(weights_NK, order_NK, 1)

    def numerators(self, weights_M: NDArray[Any], lengths_N: NDArray[np.int64]) -> Numerators:
        parts_M, starts_N = weights_M.astype(np.float64) * self.parts, lengths_N.cumsum() - lengths_N
        whole_M = np.rint(parts_M)
        broken_M, off = np.abs(parts_M - whole_M) > self.parts * FLOAT32, 2 * self.parts * FLOAT32
        least_M = np.repeat(np.minimum.reduceat(parts_M, starts_N), lengths_N)
        # any equal weights may be the tail where all are whole: the least are usually the most
        some_M = np.repeat(np.logical_or.reduceat(broken_M, starts_N), lengths_N)
        tail_M = np.where(some_M, broken_M, parts_M <= least_M)
        number_M = np.where(tail_M, 0, whole_M)
        rest_N = self.parts - np.add.reduceat(number_M, starts_N)
        level_M = np.repeat(rest_N / np.maximum(np.add.reduceat(tail_M, starts_N, dtype=np.int64), 1), lengths_N)
        # NaN fails every comparison
        if not ((np.abs(parts_M - np.where(tail_M, level_M, number_M)) <= off) & (parts_M > off)).all():
            raise ValueError(
                f"The filling codec stores multiples of 1 / {self.parts} and equal shares of what is left of one; "
                f"these weights are something else. Check the target's fields."
            )
        number_M[starts_N + lengths_N - 1] += self.end
        return number_M.astype(self.numerator_type)

    def lengths(self, numerators_M: Numerators) -> NDArray[np.int64]:
        ends_N = np.flatnonzero(numerators_M >= self.end)
        if len(numerators_M) and (not len(ends_N) or ends_N[-1] != len(numerators_M) - 1):
            raise ValueError("The cached classes stop in the middle of a position: the cache is damaged.")
        return np.diff(ends_N, prepend=-1)

    def weights(self, numerators_M: Numerators, kept_NK: NDArray[np.bool_]) -> Weights:
        number_NK = np.zeros(kept_NK.shape)
        number_NK[kept_NK] = self.numbers(numerators_M)
        tail_NK = kept_NK & (number_NK == 0)
        rest_N1, tail_N1 = self.parts - number_NK.sum(1, keepdims=True), tail_NK.sum(1, keepdims=True)
        if not ((rest_N1 > 0) & (tail_N1 > 0)).all():
            raise ValueError(f"A cached position's numbers leave nothing of {self.parts}: the cache is damaged.")
        return (np.where(tail_NK, rest_N1 / tail_N1, number_NK) / self.parts).astype(np.float32)

    def numbers(self, numerators_M: Numerators) -> NDArray[np.int64]:
        return (numerators_M & (self.end - 1)).astype(np.int64)

    def numerators_of(self, numbers_M: NDArray[np.int64], lengths_N: NDArray[np.int64]) -> Numerators:
        if numbers_M.max(initial=0) >= self.end:
            raise ValueError(f"A cached number is {numbers_M.max()} of {self.parts} parts: the cache is damaged.")
        numerators_M = numbers_M.astype(self.numerator_type)
        numerators_M[lengths_N.cumsum() - 1] |= self.end
        return numerators_M

    def tolerance(self, weights_NK: NDArray[np.float64], lengths_N: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.full(weights_NK.shape, 1e-6)
