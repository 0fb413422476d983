"""Codes as zstd compresses them well: the same byte of every code side by side, and rising ids as steps.

Of RS-KD's 50 draws from a small trained teacher (V = 2,048, 31 classes kept) zstd leaves 87 % of the packed bits, 66 %
of the planes, 55 % with the steps: draws have no order, and log2(31!) bits of sorted ids say nothing. A top-K row's ids
come in the order of their weights and stay as they are: 87 % are left at K = 12, 86 % at 50.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

COUNT = np.dtype("<u4")


@dataclass(frozen=True)
class Planes:
    """Blocks of a count (uint32) and one zstd frame each; codes have `width` bits, of which `low` are the numerator."""

    width: int
    low: int
    rising: bool  # the ids within a row

    @property
    def planes(self) -> int:
        return -(-self.width // 8)

    def pack(self, codes_M: NDArray[np.uint64], counts_B: Sequence[int]) -> list[bytes]:
        from pyarrow import Codec

        zstd, blocks = Codec("zstd"), []
        for start, stop in pairwise(accumulate(counts_B, initial=0)):
            codes_C = self.steps(codes_M[start:stop]) if self.rising else codes_M[start:stop]
            plane_PC = codes_C.astype("<u8").view(np.uint8).reshape(-1, 8)[:, : self.planes].T
            blocks.append(np.array(stop - start, COUNT).tobytes() + zstd.compress(plane_PC.tobytes(), asbytes=True))
        return blocks

    def unpack(self, blocks: Sequence[bytes | memoryview]) -> NDArray[np.uint64]:
        """The codes of all blocks. Raises ValueError where zstd finds one damaged."""
        from pyarrow import Codec

        zstd, parts = Codec("zstd"), [np.empty(0, np.uint64)]
        for block in blocks:
            count = self.count(block)
            try:
                raw = zstd.decompress(block[COUNT.itemsize :], count * self.planes)
            except OSError as error:
                raise ValueError(f"The cache is damaged: {error}.") from None
            byte_C8 = np.zeros((count, 8), np.uint8)
            byte_C8[:, : self.planes] = np.frombuffer(raw, np.uint8).reshape(self.planes, count).T
            codes_C = byte_C8.reshape(-1).view("<u8")
            parts.append(self.sums(codes_C) if self.rising else codes_C)
        return np.concatenate(parts)

    def count(self, block: bytes | memoryview) -> int:
        """How many codes a block holds."""
        return int(np.frombuffer(block[: COUNT.itemsize], COUNT)[0])

    def steps(self, codes_C: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Each id as its distance to the one before, modulo 2 ** bits: where a row begins, it wraps around."""
        low, mask = np.uint64((1 << self.low) - 1), np.uint64((1 << self.width) - 1)
        return np.diff(codes_C & ~low, prepend=np.uint64(0)) & mask | codes_C & low

    def sums(self, steps_C: NDArray[np.uint64]) -> NDArray[np.uint64]:
        low, mask = np.uint64((1 << self.low) - 1), np.uint64((1 << self.width) - 1)
        return np.cumsum(steps_C & ~low, dtype=np.uint64) & mask | steps_C & low
