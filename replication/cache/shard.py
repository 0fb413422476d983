"""One file of consecutive sequences: mark (8 bytes), count (uint32), block sizes (uint32 each), blocks.

A compressed shard has another mark and, after the sizes, the compressed sizes (uint32 each). Each block is compressed
alone, so that one sequence can be read without its neighbours.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from replication.cache import durable

Compression = Literal["none", "zstd"]
MARKS: dict[Compression, bytes] = {"none": b"sparse01", "zstd": b"sparsez1"}
NUMBER = np.dtype("<u4")


def file_name(index: int) -> str:
    return f"shard-{index:06d}.bin"


def write(path: Path, blocks: Sequence[bytes], compression: Compression = "none") -> None:
    numbers = [len(blocks), *map(len, blocks)]
    if compression == "zstd":
        blocks = [compressed(block) for block in blocks]
        numbers += map(len, blocks)
    durable.write(path, [MARKS[compression], np.array(numbers, NUMBER).tobytes(), *blocks])


def compressed(block: bytes) -> bytes:
    from pyarrow import Codec

    return Codec("zstd").compress(block, asbytes=True)


def checksum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Shard:
    """A shard on disk, memory-mapped once. Raises ValueError where the file is missing or not what it says."""

    def __init__(self, path: Path, sequences: int, compression: Compression = "none") -> None:
        if not path.exists():
            raise ValueError(f"{path} is missing; restore it or rebuild the cache.")
        self.path = path
        self.bytes = path.stat().st_size
        mark = MARKS[compression]
        tables = 1 if compression == "none" else 2
        head = len(mark) + NUMBER.itemsize * (1 + tables * sequences)
        if self.bytes < head:
            raise ValueError(f"{path} is truncated: {self.bytes} bytes; restore it or rebuild the cache.")
        self.data = np.memmap(path, np.uint8, "r")
        numbers = self.data[len(mark) : head].view(NUMBER)
        if self.data[: len(mark)].tobytes() != mark or numbers[0] != sequences:
            raise ValueError(f"{path} is not a shard of {sequences} sequences; restore it or rebuild the cache.")
        self.sizes = numbers[1 : 1 + sequences].astype(np.int64)  # of the blocks as they are decoded
        self.stored = numbers[-sequences:].astype(np.int64)
        self.ends = head + self.stored.cumsum()
        self.compression = compression
        if self.ends[-1] != self.bytes:
            raise ValueError(
                f"{path} has {self.bytes} bytes instead of {self.ends[-1]}: truncated or damaged; restore it."
            )

    def block(self, offset: int) -> memoryview:
        """The packed codes of the shard's sequence `offset`."""
        stored = self.data[self.ends[offset] - self.stored[offset] : self.ends[offset]].data
        return stored if self.compression == "none" else self.expanded(stored, int(self.sizes[offset]))

    def expanded(self, stored: memoryview, size: int) -> memoryview:
        from pyarrow import Codec

        try:
            return memoryview(Codec("zstd").decompress(stored, size, asbytes=True))
        except OSError as error:
            raise ValueError(f"{self.path} is damaged: {error}; restore it or rebuild the cache.") from None
