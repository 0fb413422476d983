"""One file of consecutive sequences: mark (8 bytes), count (uint32), block sizes (uint32 each), blocks.

While its cache is unfinished a note beside it has its checksum, as the manifest has it afterwards.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from replication.machine import files

MARK = b"sparse01"
NUMBER = np.dtype("<u4")
NOTE = ".sha256"
BUILD = "python -m replication cache build RECIPE, with the scale and seeds of its run"
MEND = f"to write this file again, and nothing else: {BUILD}"


def file_name(index: int) -> str:
    return f"shard-{index:06d}.bin"


def write(path: Path, blocks: Sequence[bytes]) -> None:
    """The note first: no shard stands without one. The checksum is of the memory, whatever the disk makes of it."""
    sizes = np.array([len(blocks), *map(len, blocks)], NUMBER)
    parts, digest = [MARK, sizes.tobytes(), *blocks], hashlib.sha256()
    for part in parts:
        digest.update(part)
    note(path, digest.hexdigest())
    files.write(path, parts)


def note(path: Path, sha256: str) -> None:
    """One that is lost leaves its shard unchecked until the manifest stands; one that is cut has it written again."""
    files.jot(path.with_name(path.name + NOTE), sha256)


def noted(path: Path) -> str:
    """The checksum that an unfinished cache's shard should have; what it has, where an older writer left no note."""
    beside = path.with_name(path.name + NOTE)
    return beside.read_text(errors="replace") if beside.exists() else checksum(path)


def checksum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Shard:
    """A shard on disk, memory-mapped once. Raises ValueError where the file is missing or not what it says."""

    def __init__(self, path: Path, sequences: int) -> None:
        if not path.exists():
            raise ValueError(f"{path} is missing; {MEND}.")
        self.bytes = path.stat().st_size
        head = len(MARK) + NUMBER.itemsize * (1 + sequences)
        if self.bytes < head:
            raise ValueError(f"{path} is truncated: {self.bytes} bytes; {MEND}.")
        self.data = np.memmap(path, np.uint8, "r")
        numbers = self.data[len(MARK) : head].view(NUMBER)
        if self.data[: len(MARK)].tobytes() != MARK or numbers[0] != sequences:
            raise ValueError(f"{path} is not a shard of {sequences} sequences; {MEND}.")
        self.sizes = numbers[1:].astype(np.int64)
        self.ends = head + self.sizes.cumsum()
        if self.ends[-1] != self.bytes:
            raise ValueError(f"{path} has {self.bytes} bytes instead of {self.ends[-1]}: truncated or damaged; {MEND}.")

    def block(self, offset: int) -> memoryview:
        """The packed codes of the shard's sequence `offset`."""
        return self.data[self.ends[offset] - self.sizes[offset] : self.ends[offset]].data
