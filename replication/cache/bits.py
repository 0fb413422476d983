"""Codes of 8 to 57 bits, packed without gaps: code i holds bits [i * width, (i + 1) * width), lowest first.

Axis letters: M codes in B blocks; G groups, each the fewest codes that fill whole bytes. All blocks are packed in one
go, so that NumPy's cost per call is paid once a batch: each block starts a group of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import gcd

import numpy as np
from numpy.typing import NDArray

WORDS = np.dtype("<u4"), np.dtype("<u8")


@dataclass(frozen=True)
class Bits:
    """Blocks of ceil(count * width / 8) bytes; the spare bits of a last byte are 0."""

    width: int

    def pack(self, codes_M: NDArray[np.uint64], counts_B: Sequence[int]) -> list[bytes]:
        """B blocks from codes below 2 ** width."""
        group, size = self.period
        starts_B = group_starts(counts_B, group)
        padded = np.zeros(starts_B[-1] * group, np.uint64)
        taken = 0
        for start, count in zip(starts_B, counts_B, strict=False):
            padded[start * group : start * group + count] = codes_M[taken : taken + count]
            taken += count
        code_GP = padded.reshape(-1, group)
        byte_GS = np.zeros((len(code_GP), size), np.uint8)
        for byte in range(size):
            for slot in range(8 * byte // self.width, (8 * byte + 7) // self.width + 1):
                shift = slot * self.width - 8 * byte
                column = code_GP[:, slot]
                part = column << np.uint64(shift) if shift >= 0 else column >> np.uint64(-shift)
                byte_GS[:, byte] |= part.astype(np.uint8)  # the cast keeps the low 8 bits
        bytes_X = byte_GS.reshape(-1)
        return [
            bytes_X[start * size : start * size - (-count * self.width // 8)].tobytes()
            for start, count in zip(starts_B, counts_B, strict=False)
        ]

    def unpack(self, blocks: Sequence[bytes | memoryview]) -> NDArray[np.unsignedinteger]:
        """The codes of all blocks, in the smallest words that hold one wherever in a byte it begins."""
        group, size = self.period
        word = WORDS[self.width + 7 > 32]
        counts_B = [self.count(block) for block in blocks]
        starts_B = group_starts(counts_B, group)
        # one spare word: the last slots are read as whole words that reach beyond the last block
        padded = np.zeros(starts_B[-1] * size + word.itemsize, np.uint8)
        for start, block in zip(starts_B, blocks, strict=False):
            padded[start * size : start * size + len(block)] = np.frombuffer(block, np.uint8)
        code_GP = np.empty((starts_B[-1], group), word)
        mask = (1 << self.width) - 1
        for slot in range(group if len(code_GP) else 0):
            byte, shift = divmod(slot * self.width, 8)
            words = np.ndarray((len(code_GP),), word, padded.data, byte, (size,))
            code_GP[:, slot] = (words >> shift) & mask
        codes_X = code_GP.reshape(-1)
        parts = [
            codes_X[start * group : start * group + count] for start, count in zip(starts_B, counts_B, strict=False)
        ]
        return np.concatenate(parts) if parts else np.empty(0, word)

    def count(self, block: bytes | memoryview) -> int:
        """How many codes a block holds. It follows from its size: 8 bits or more exceed the padding."""
        return len(block) * 8 // self.width

    @property
    def period(self) -> tuple[int, int]:
        """How many codes fill a whole number of bytes, and that number."""
        assert 8 <= self.width <= 57
        return 8 // gcd(8, self.width), self.width // gcd(8, self.width)


def group_starts(counts_B: Sequence[int], group: int) -> list[int]:
    """The group in which each block starts, and last the number of groups."""
    return list(accumulate((-(-count // group) for count in counts_B), initial=0))
