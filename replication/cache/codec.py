"""One position's kept classes as packed codes: a class id and a 7-bit numerator each.

Axis letters: B sequences, L positions, N = B x L rows, K kept classes (padded), M codes (not padded). A *block* is the
packed codes of one sequence. Row lengths are never stored: each codec reads the end of a row off its numerators, so a
class costs its code alone: 24 bits at V = 100,000 (RS-KD App. D.1), less at smaller vocabularies.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from replication.cache.bits import Bits
from replication.cache.planes import Planes

NUMERATOR_BITS = 7
LARGEST_NUMERATOR = 2**NUMERATOR_BITS - 1

Ids = NDArray[np.int64]
Weights = NDArray[np.float32]
Codes = tuple[NDArray[np.uint64], list[int]]  # codes_M, how many in each sequence
Rows = tuple[Ids, Weights, NDArray[np.int64]]  # ids, weights, lengths


@dataclass(frozen=True)
class Codec(ABC):
    """`encode` and `decode` for one sequence, `encode_many` and `decode_many` for several of equal length."""

    vocabulary: int
    name: ClassVar[str]
    rising: ClassVar[bool] = False  # whether ids rise within a row

    def __post_init__(self) -> None:
        if not 2 <= self.vocabulary <= 2**32:
            raise ValueError(f"A vocabulary of {self.vocabulary} classes cannot be cached; give 2 to 2**32.")

    @property
    def id_bits(self) -> int:
        return (self.vocabulary - 1).bit_length()

    @property
    def width(self) -> int:
        """Bits of one code."""
        return self.id_bits + NUMERATOR_BITS

    @property
    def parameters(self) -> dict[str, Any]:
        """The fields beyond the vocabulary, for the manifest."""
        return {key: value for key, value in asdict(self).items() if key != "vocabulary"}

    def encode(self, ids_LK: ArrayLike, weights_LK: ArrayLike, lengths_L: ArrayLike) -> bytes:
        return self.encode_many(np.asarray(ids_LK)[None], np.asarray(weights_LK)[None], np.asarray(lengths_L)[None])[0]

    def decode(self, block: bytes | memoryview) -> Rows:
        """ids_LK, weights_LK (both padded with 0), lengths_L."""
        ids_BLK, weights_BLK, lengths_BL = self.decode_many([block])
        return ids_BLK[0], weights_BLK[0], lengths_BL[0]

    def encode_many(self, ids_BLK: ArrayLike, weights_BLK: ArrayLike, lengths_BL: ArrayLike) -> list[bytes]:
        """One block of packed bits per sequence."""
        return self.bits.pack(*self.codes(ids_BLK, weights_BLK, lengths_BL))

    def decode_many(self, blocks: Sequence[bytes | memoryview]) -> Rows:
        return self.rows(self.bits.unpack(blocks), len(blocks))

    @property
    def bits(self) -> Bits:
        """Codes in files, as they are."""
        return Bits(self.width)

    @property
    def planes(self) -> Planes:
        """Codes in files, compressed."""
        return Planes(self.width, NUMERATOR_BITS, self.rising)

    def codes(self, ids_BLK: ArrayLike, weights_BLK: ArrayLike, lengths_BL: ArrayLike) -> Codes:
        """The codes of all sequences, and how many each has.

        Raises ValueError for anything that `rows` would not give back.
        """
        ids_BLK, weights_BLK, lengths_BL = np.asarray(ids_BLK), np.asarray(weights_BLK), np.asarray(lengths_BL)
        if ids_BLK.ndim != 3 or ids_BLK.shape != weights_BLK.shape or ids_BLK.shape[:2] != lengths_BL.shape:
            shapes = f"{ids_BLK.shape}, {weights_BLK.shape} and {lengths_BL.shape}"
            raise ValueError(f"Shapes {shapes} do not fit: give ids and weights [B, L, K] and lengths [B, L].")
        most = ids_BLK.shape[2]
        ids_NK, weights_NK = ids_BLK.reshape(-1, most), weights_BLK.reshape(-1, most)
        lengths_N = lengths_BL.reshape(-1).astype(np.int64, copy=False)
        if lengths_N.size and not (1 <= lengths_N.min() and lengths_N.max() <= most):
            wrong = lengths_N[(lengths_N < 1) | (lengths_N > most)][0]
            raise ValueError(f"A position keeps {wrong} classes; every position must keep 1 to {most}, its slots.")
        ids_NK, weights_NK = self.ordered(ids_NK, weights_NK)
        kept_NK = slots(lengths_N, most)
        ids_M, weights_M = ids_NK[kept_NK], weights_NK[kept_NK]
        if np.count_nonzero(weights_M) != np.count_nonzero(weights_NK):
            raise ValueError("Weights beyond a position's length are not 0; give the length that covers all of them.")
        if ids_M.size and not (0 <= ids_M.min() and ids_M.max() < self.vocabulary):
            wrong = ids_M[(ids_M < 0) | (ids_M >= self.vocabulary)][0]
            raise ValueError(f"Class id {wrong} is outside the vocabulary of {self.vocabulary}; check the tokenizer.")
        numerators_M = self.numerators(weights_M, lengths_N)
        codes_M = (ids_M.astype(np.uint64) << np.uint64(NUMERATOR_BITS)) | numerators_M
        return codes_M, lengths_N.reshape(lengths_BL.shape).sum(1).tolist()

    def rows(self, codes_M: NDArray[np.uint64], sequences: int) -> Rows:
        """ids_BLK, weights_BLK (padded with 0 to the longest row here), lengths_BL. Raises ValueError if damaged."""
        numerators_M = (codes_M & np.uint64(LARGEST_NUMERATOR)).astype(np.uint8)
        lengths_N = self.lengths(numerators_M)
        most = int(lengths_N.max(initial=0))
        kept_NK = slots(lengths_N, most)
        ids_NK = np.zeros(kept_NK.shape, np.int64)
        ids_NK[kept_NK] = codes_M >> np.uint64(NUMERATOR_BITS)
        weights_NK = self.weights(numerators_M, kept_NK)
        if sequences == 0 or len(lengths_N) % sequences:
            raise ValueError(f"{sequences} blocks hold {len(lengths_N)} positions, which is not as many in each.")
        shape = sequences, len(lengths_N) // sequences
        return ids_NK.reshape(*shape, most), weights_NK.reshape(*shape, most), lengths_N.reshape(shape)

    @property
    @abstractmethod
    def most(self) -> int:
        """The classes that a position keeps at most."""

    def ordered(self, ids_NK: Ids, weights_NK: NDArray[Any]) -> tuple[Ids, NDArray[Any]]:
        """The rows in the order in which the codec stores them."""
        return ids_NK, weights_NK

    @abstractmethod
    def numerators(self, weights_M: NDArray[Any], lengths_N: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The 7-bit numerators of the kept weights, [M]."""

    @abstractmethod
    def lengths(self, numerators_M: NDArray[np.uint8]) -> NDArray[np.int64]:
        """How many classes each row has, [N], from the numerators alone."""

    @abstractmethod
    def weights(self, numerators_M: NDArray[np.uint8], kept_NK: NDArray[np.bool_]) -> Weights:
        """The weights, [N, K] float32, 0 where not kept."""

    @abstractmethod
    def tolerance(self, weights_NK: NDArray[np.float64], lengths_N: NDArray[np.int64]) -> NDArray[np.float64]:
        """How far a decoded weight may lie from the true one, [N, K]; rows as `ordered` gives them."""


@dataclass(frozen=True)
class CountsCodec(Codec):
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

    def numerators(self, weights_M: NDArray[Any], lengths_N: NDArray[np.int64]) -> NDArray[np.uint8]:
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

    def lengths(self, numerators_M: NDArray[np.uint8]) -> NDArray[np.int64]:
        total_M = numerators_M.cumsum(dtype=np.int64)
        # not total % draws == 0: a remainder costs as much as all the rest
        ends_N = np.flatnonzero(np.diff(total_M // self.draws, prepend=0) != 0)
        # every count is at least 1, so no multiple is met twice; damage may skip one
        wanted_N = self.draws * np.arange(1, len(ends_N) + 1)
        sound = np.array_equal(total_M[ends_N], wanted_N) and total_M[-1:].sum() == self.draws * len(ends_N)
        if not sound or numerators_M.min(initial=1) == 0:
            raise ValueError(f"The cached counts do not sum to {self.draws} per position: the cache is damaged.")
        return np.diff(ends_N, prepend=-1)

    def weights(self, numerators_M: NDArray[np.uint8], kept_NK: NDArray[np.bool_]) -> Weights:
        weights_NK = np.zeros(kept_NK.shape, np.float32)
        weights_NK[kept_NK] = numerators_M.astype(np.float32) / np.float32(self.draws)
        return weights_NK

    def tolerance(self, weights_NK: NDArray[np.float64], lengths_N: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.full(weights_NK.shape, 1e-6)  # float32 rounding of count / draws


def slots(lengths_N: NDArray[np.int64], most: int) -> NDArray[np.bool_]:
    """Which of `most` slots a row uses, [N, most]."""
    return np.arange(most, dtype=np.int32) < lengths_N.astype(np.int32)[:, None]
