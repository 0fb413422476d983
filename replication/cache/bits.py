"""Codes of 8 to 57 bits, packed without gaps: code i holds bits [i * width, (i + 1) * width), lowest first."""

from __future__ import annotations

from math import gcd

import numpy as np
from numpy.typing import NDArray

WORD = np.dtype("<u8")


def pack(codes_M: NDArray[np.uint64], width: int) -> bytes:
    """M codes below 2 ** width as ceil(M * width / 8) bytes; the spare bits of the last byte are 0."""
    group, size = period(width)
    groups = -(-len(codes_M) // group)
    padded = np.zeros(groups * group, np.uint64)
    padded[: len(codes_M)] = codes_M
    code_GP = padded.reshape(groups, group)
    byte_GS = np.zeros((groups, size), np.uint8)
    for byte in range(size):
        for slot in range(8 * byte // width, (8 * byte + 7) // width + 1):
            shift = slot * width - 8 * byte
            column = code_GP[:, slot]
            part = column << np.uint64(shift) if shift >= 0 else column >> np.uint64(-shift)
            byte_GS[:, byte] |= part.astype(np.uint8)  # the cast keeps the low 8 bits
    return byte_GS.tobytes()[: -(-len(codes_M) * width // 8)]


def unpack(block: bytes | memoryview, width: int) -> NDArray[np.uint64]:
    """The codes of a packed block. Their number follows from its size: 8 bits or more exceed the padding."""
    group, size = period(width)
    count = code_count(len(block), width)
    groups = max(1, -(-count // group))
    # one spare word: the last slots are read as whole words that reach beyond the block
    padded = np.zeros(groups * size + WORD.itemsize, np.uint8)
    padded[: len(block)] = np.frombuffer(block, np.uint8)
    code_GP = np.empty((groups, group), np.uint64)
    mask = np.uint64((1 << width) - 1)
    for slot in range(group):
        byte, shift = divmod(slot * width, 8)
        words = np.ndarray((groups,), WORD, padded.data, byte, (size,))
        code_GP[:, slot] = (words >> np.uint64(shift)) & mask
    return code_GP.reshape(-1)[:count]


def code_count(block_bytes: int, width: int) -> int:
    return block_bytes * 8 // width


def period(width: int) -> tuple[int, int]:
    """How many codes fill a whole number of bytes, and that number."""
    assert 8 <= width <= 57
    return 8 // gcd(8, width), width // gcd(8, width)
