"""Numbers of different widths side by side without gaps: the widths are known beforehand, so all are read at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

WIDEST = 32
WORD = np.dtype("<u8")


def packed(values_M: NDArray[np.uint64], widths_M: NDArray[np.int64]) -> bytes:
    """ceil(sum of widths / 8) bytes; each value is below 2 ** width, each width at most WIDEST."""
    ends_M = widths_M.cumsum()
    starts_M, total = ends_M - widths_M, int(ends_M[-1]) if len(ends_M) else 0
    shifted_M, word_M = values_M << (starts_M & 31).astype(np.uint64), starts_M >> 5
    words = total // 32 + 2
    # in each word of 32 bits no bit is set twice: their sum is exact in float64, and bincount is the fastest scatter
    low_X = np.bincount(word_M, shifted_M & np.uint64(0xFFFFFFFF), words)
    high_X = np.bincount(word_M + 1, shifted_M >> np.uint64(32), words)
    return (low_X + high_X).astype("<u4").view(np.uint8)[: -(-total // 8)].tobytes()


def unpacked(raw: bytes | memoryview, widths_M: NDArray[np.int64]) -> NDArray[np.int64]:
    """What `packed` was given. Raises ValueError where `raw` is not as long as these widths are."""
    ends_M = widths_M.cumsum()
    total = int(ends_M[-1]) if len(ends_M) else 0
    if len(raw) != -(-total // 8):
        raise ValueError(f"{len(raw)} bytes do not hold {total} bits: the cache is damaged.")
    starts_M = ends_M - widths_M
    padded = np.zeros(len(raw) + WORD.itemsize, np.uint8)
    padded[: len(raw)] = np.frombuffer(raw, np.uint8)
    # a word from every byte on: each number stands whole in the one from its first byte
    words = np.ndarray((len(raw) + 1,), WORD, padded.data, 0, (1,))
    mask_M = (np.uint64(1) << widths_M.astype(np.uint64)) - np.uint64(1)
    return (words[starts_M >> 3] >> (starts_M & 7).astype(np.uint64) & mask_M).astype(np.int64)
