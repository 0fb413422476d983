"""Rows as sets: the ids of a position in the order of their frequency in the text, as cells and places within them.

A row says for each cell of the law how many of its classes are kept, in unary: so many ones and a zero. It has a zero
for each cell, which is how its end is found. What else is known of a class, a whole number, is coded by Elias' gamma:
its number of bits in unary, then the bits. All places and bits stand behind all unary numbers, so that NumPy reads
each kind at once.

Measured on a trained teacher (V = 2,048): 15 % above the entropy of the ids under the law (docs/theory.md has
the floor).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from replication.cache.codec import SetCodec
from replication.cache.fields import WIDEST, packed, unpacked
from replication.cache.law import Law

COUNT = np.dtype("<u4")


@dataclass(frozen=True, eq=False)
class Unigram:
    """Blocks of a count of classes (uint32), the unary numbers, and the others; `length` positions each."""

    codec: SetCodec
    law: Law
    length: int

    def pack(self, codes_M: NDArray[np.uint64], counts_B: Sequence[int]) -> list[bytes]:
        ids_M, numerators_M = self.codec.split(codes_M)
        lengths_N = self.codec.lengths(numerators_M)
        row_M = np.repeat(np.arange(len(lengths_N)), lengths_N)
        rank_M = self.law.rank_V[ids_M]
        order_M = np.argsort(row_M * len(self.law.order_V) + rank_M)
        rank_M, row_M = rank_M[order_M], row_M[order_M] % self.length
        number_M = self.codec.numbers(numerators_M)[order_M] + 1
        return [
            self.block(row_M[start:stop], rank_M[start:stop], number_M[start:stop])
            for start, stop in pairwise(accumulate(counts_B, initial=0))
        ]

    def block(self, row_M: NDArray[np.int64], rank_M: NDArray[np.int64], number_M: NDArray[np.int64]) -> bytes:
        """Of one sequence: numbers of 1 or more."""
        law, kept = self.law, len(rank_M)
        cell_M, bits_M = law.cell_V[rank_M], np.frexp(number_M)[1].astype(np.int64) - 1
        ones_M = np.arange(kept) + row_M * len(law.widths_C) + cell_M
        ends_M = self.begin(kept) + (bits_M + 1).cumsum() - 1
        unary = np.zeros(ends_M[-1] + 1, np.uint8)
        unary[ones_M] = unary[ends_M] = 1
        values = np.concatenate([rank_M - law.begins_C[cell_M], number_M - (1 << bits_M)]).astype(np.uint64)
        rest = packed(values, np.concatenate([law.widths_C[cell_M], bits_M]))
        return np.array(kept, COUNT).tobytes() + np.packbits(unary, bitorder="little").tobytes() + rest

    def begin(self, kept: int) -> int:
        """Where the numbers begin among the bits of a block."""
        return kept + self.length * len(self.law.widths_C)

    def unpack(self, blocks: Sequence[bytes | memoryview]) -> NDArray[np.uint64]:
        """The codes of all blocks. Raises ValueError where one is damaged."""
        if not blocks:
            return np.empty(0, np.uint64)
        ids, numbers, lengths = zip(*map(self.read, blocks), strict=True)
        numerators_M = self.codec.numerators_of(np.concatenate(numbers), np.concatenate(lengths))
        return self.codec.joined(np.concatenate(ids), numerators_M)

    def read(self, block: bytes | memoryview) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Of one sequence: ids_M, numbers_M (0 or more), lengths_L."""
        law, kept = self.law, self.count(block)
        cells, begin = len(law.widths_C), self.begin(kept)
        unary = np.unpackbits(np.frombuffer(block[COUNT.itemsize :], np.uint8), bitorder="little").view(np.bool_)
        ones_M, ends_M = np.flatnonzero(unary[:begin]), begin + np.flatnonzero(unary[begin:])[:kept]
        bits_M = np.diff(ends_M, prepend=begin - 1) - 1
        if not kept or len(ones_M) != kept or len(ends_M) != kept or unary[begin - 1] or bits_M.max() >= WIDEST:
            raise ValueError("The cached classes are not as many as they say: the cache is damaged.")
        row_M, cell_M = np.divmod(ones_M - np.arange(kept), cells)
        rest = block[COUNT.itemsize + int(ends_M[-1]) // 8 + 1 :]
        values = unpacked(rest, np.concatenate([law.widths_C[cell_M], bits_M]))
        rank_M, lengths_L = law.begins_C[cell_M] + values[:kept], np.bincount(row_M, minlength=self.length)
        if rank_M.max() >= len(law.order_V) or not lengths_L.all():
            raise ValueError("A cached position holds no class or one beyond the vocabulary: the cache is damaged.")
        return law.order_V[rank_M], (1 << bits_M) + values[kept:] - 1, lengths_L

    def count(self, block: bytes | memoryview) -> int:
        """How many classes a block holds."""
        return int(np.frombuffer(block[: COUNT.itemsize], COUNT)[0])
