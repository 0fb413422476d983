"""One position's kept classes as packed codes: a class id and a small numerator each.

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

from replication.axes.targets.storage import NUMERATOR_BITS
from replication.cache.bits import Bits
from replication.cache.planes import Planes

Ids = NDArray[np.int64]
Weights = NDArray[np.float32]
Numerators = NDArray[Any]  # unsigned, of the codec's `numerator_type`
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
    def numerator_bits(self) -> int:
        return NUMERATOR_BITS

    @property
    def numerator_type(self) -> np.dtype:
        return np.min_scalar_type((1 << self.numerator_bits) - 1)

    @property
    def width(self) -> int:
        """Bits of one code."""
        return self.id_bits + self.numerator_bits

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
        return Planes(self.width, self.numerator_bits, self.rising)

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
        return self.joined(ids_M, numerators_M), lengths_N.reshape(lengths_BL.shape).sum(1).tolist()

    def rows(self, codes_M: NDArray[np.unsignedinteger], sequences: int) -> Rows:
        """ids_BLK, weights_BLK (padded with 0 to the longest row here), lengths_BL. Raises ValueError if damaged."""
        ids_M, numerators_M = self.split(codes_M)
        lengths_N = self.lengths(numerators_M)
        most = int(lengths_N.max(initial=0))
        kept_NK = slots(lengths_N, most)
        ids_NK = np.zeros(kept_NK.shape, np.int64)
        ids_NK[kept_NK] = ids_M
        weights_NK = self.weights(numerators_M, kept_NK)
        if sequences == 0 or len(lengths_N) % sequences:
            raise ValueError(f"{sequences} blocks hold {len(lengths_N)} positions, which is not as many in each.")
        shape = sequences, len(lengths_N) // sequences
        return ids_NK.reshape(*shape, most), weights_NK.reshape(*shape, most), lengths_N.reshape(shape)

    def joined(self, ids_M: Ids, numerators_M: Numerators) -> NDArray[np.uint64]:
        """Codes."""
        return (ids_M.astype(np.uint64) << np.uint64(self.numerator_bits)) | numerators_M

    def split(self, codes_M: NDArray[np.unsignedinteger]) -> tuple[NDArray[np.unsignedinteger], Numerators]:
        """Ids and numerators."""
        word = codes_M.dtype.type
        low = word((1 << self.numerator_bits) - 1)
        return codes_M >> word(self.numerator_bits), (codes_M & low).astype(self.numerator_type)

    @property
    @abstractmethod
    def most(self) -> int:
        """The classes that a position keeps at most."""

    def ordered(self, ids_NK: Ids, weights_NK: NDArray[Any]) -> tuple[Ids, NDArray[Any]]:
        """The rows in the order in which the codec stores them."""
        return ids_NK, weights_NK

    @abstractmethod
    def numerators(self, weights_M: NDArray[Any], lengths_N: NDArray[np.int64]) -> Numerators:
        """The numerators of the kept weights, [M]."""

    @abstractmethod
    def lengths(self, numerators_M: Numerators) -> NDArray[np.int64]:
        """How many classes each row has, [N], from the numerators alone."""

    @abstractmethod
    def weights(self, numerators_M: Numerators, kept_NK: NDArray[np.bool_]) -> Weights:
        """The weights, [N, K] float32, 0 where not kept."""

    @abstractmethod
    def tolerance(self, weights_NK: NDArray[np.float64], lengths_N: NDArray[np.int64]) -> NDArray[np.float64]:
        """How far a decoded weight may lie from the true one, [N, K]; rows as `ordered` gives them."""


@dataclass(frozen=True)
class SetCodec(Codec):
    """A row is the same in any order: a set of classes, each with a whole number."""

    @property
    @abstractmethod
    def usual(self) -> float:
        """About how many classes a position keeps on average."""

    @abstractmethod
    def numbers(self, numerators_M: Numerators) -> NDArray[np.int64]:
        """What the numerators say besides where rows end: 0 or more, mostly small."""

    @abstractmethod
    def numerators_of(self, numbers_M: NDArray[np.int64], lengths_N: NDArray[np.int64]) -> Numerators:
        """The numerators that say these numbers, in rows of these lengths. ValueError where none do."""


def slots(lengths_N: NDArray[np.int64], most: int) -> NDArray[np.bool_]:
    """Which of `most` slots a row uses, [N, most]."""
    return np.arange(most, dtype=np.int32) < lengths_N.astype(np.int32)[:, None]
