"""A head as it is and draws of the tail: a fine number for each class of the head, a count for each drawn one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from replication.axes.targets.storage import LARGEST_NUMERATOR
from replication.cache.codec import Codec, Numerators, Weights

PARTS = 2**22  # of one, to which a probability of the head is rounded: 2.4e-7, as float32 has it near one
END = 2 * PARTS  # "and the row ends here"


@dataclass(frozen=True)
class HeadedCodec(Codec):
    """Rows of `head` probabilities, and `draws` draws of other classes that share what the head leaves of one.

    A numerator is a probability in parts of one, and behind the head the count; its highest bit says "and the row ends
    here". What the head leaves is not stored: it is one minus the head, and so are the tail's weights.
    """

    head: int
    draws: int
    name: ClassVar[str] = "headed"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (1 <= self.head <= self.vocabulary and 1 <= self.draws <= LARGEST_NUMERATOR):
            raise ValueError(
                f"A head of {self.head} classes and {self.draws} draws cannot be cached: give a head of 1 to "
                f"{self.vocabulary} classes, and 1 to {LARGEST_NUMERATOR} draws."
            )

    @property
    def numerator_bits(self) -> int:
        return END.bit_length()

    @property
    def most(self) -> int:
        return min(self.head + self.draws, self.vocabulary)

    def numerators(self, weights_M: NDArray[Any], lengths_N: NDArray[np.int64]) -> Numerators:
        weights_M, starts_N = weights_M.astype(np.float64), lengths_N.cumsum() - lengths_N
        head_M = self.places(lengths_N) < self.head
        rest_N = np.add.reduceat(np.where(head_M, 0.0, weights_M), starts_N) if len(starts_N) else starts_N * 0.0
        rest_M = np.repeat(np.where(rest_N > 0, rest_N, 1.0), lengths_N)
        exact_M = weights_M * np.where(head_M, PARTS, self.draws / rest_M)
        number_M = np.rint(exact_M)
        # NaN fails every comparison
        sound = np.where(
            head_M, (number_M >= 0) & (number_M <= PARTS), (abs(exact_M - number_M) < 1e-3) & (number_M > 0)
        )
        if not (sound.all() and (lengths_N >= self.head).all()):
            raise ValueError(
                f"The headed codec stores {self.head} probabilities and counts of {self.draws} draws; these weights "
                "are something else. Check the target's fields."
            )
        numerators_M = number_M.astype(self.numerator_type)
        numerators_M[starts_N + lengths_N - 1] += END
        return numerators_M

    def lengths(self, numerators_M: Numerators) -> NDArray[np.int64]:
        ends_N = np.flatnonzero(numerators_M >= END)
        if len(numerators_M) and (not len(ends_N) or ends_N[-1] != len(numerators_M) - 1):
            raise ValueError("The cached classes stop in the middle of a position: the cache is damaged.")
        lengths_N = np.diff(ends_N, prepend=-1)
        if lengths_N.min(initial=self.head) < self.head:
            raise ValueError(f"A cached position has fewer classes than its head of {self.head}: the cache is damaged.")
        return lengths_N

    def weights(self, numerators_M: Numerators, kept_NK: NDArray[np.bool_]) -> Weights:
        number_NK = np.zeros(kept_NK.shape)
        number_NK[kept_NK] = numerators_M & (END - 1)
        head_NK, count_NK = number_NK[:, : self.head] / PARTS, number_NK[:, self.head :]
        drawn_N1, rest_N1 = count_NK.sum(1, keepdims=True), 1 - head_NK.sum(1, keepdims=True)
        if head_NK.max(initial=0) > 1 or not ((drawn_N1 == self.draws) | (drawn_N1 == 0)).all():
            raise ValueError(f"A cached position's counts do not sum to {self.draws}: the cache is damaged.")
        return np.concatenate([head_NK, rest_N1.clip(0) * count_NK / self.draws], 1).astype(np.float32)

    def tolerance(self, weights_NK: NDArray[np.float64], lengths_N: NDArray[np.int64]) -> NDArray[np.float64]:
        """Half a part for a class of the head; for all that is drawn together as much for each of these."""
        return np.full(weights_NK.shape, self.head / PARTS + 1e-6)

    def places(self, lengths_N: NDArray[np.int64]) -> NDArray[np.int64]:
        """The slot of each code in its row, [M]."""
        return np.arange(lengths_N.sum()) - np.repeat(lengths_N.cumsum() - lengths_N, lengths_N)
