"""Slots of memory that several processes share, for batches on their way to the disk.

The memory has no name: it is handed on as a file descriptor, so nothing is left to unlink, however the processes end,
and it is not bounded by the /dev/shm of a container (often 64 MB).
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from contextlib import suppress

import numpy as np

ALIGNED = 64  # bytes: a cache line

Layout = list[tuple[str, tuple[int, ...]]]  # dtype and shape of each array in a slot


class Ring:
    """Memory of equal slots. Its users decide who fills which slot, and when."""

    def __init__(self, descriptor: int, slot_bytes: int) -> None:
        self.descriptor = descriptor
        self.slot_bytes = slot_bytes
        self.memory = mmap.mmap(descriptor, os.fstat(descriptor).st_size)

    def write(self, slot: int, arrays: Sequence[np.ndarray], dtypes: Sequence[np.dtype]) -> Layout:
        """Copy arrays into a slot, each as the given type."""
        layout: Layout = [(dtype.str, array.shape) for dtype, array in zip(dtypes, arrays, strict=True)]
        for place, array in zip(self.read(slot, layout), arrays, strict=True):
            place[...] = array
        return layout

    def read(self, slot: int, layout: Layout) -> list[np.ndarray]:
        """The arrays in a slot: views, good until it is written again."""
        start, found = slot * self.slot_bytes, []
        for name, shape in layout:
            dtype = np.dtype(name)
            found.append(np.ndarray(shape, dtype, self.memory, start))
            start += padded(int(np.prod(shape)) * dtype.itemsize)
        assert start <= (slot + 1) * self.slot_bytes
        return found

    def close(self) -> None:
        """The memory itself goes with the last process that uses it."""
        os.close(self.descriptor)
        with suppress(
            BufferError
        ):  # an interrupted copy: its array lives as long as its traceback, and holds the memory
            self.memory.close()


def create(slots: int, slot_bytes: int) -> Ring:
    descriptor = os.memfd_create("sparse-cache")
    os.ftruncate(descriptor, slots * slot_bytes)
    return Ring(descriptor, slot_bytes)


def narrow(array: np.ndarray) -> np.dtype:
    """The smallest type that holds every number of an array: nothing is cut off, also of what will be refused."""
    if array.dtype.kind not in "iu" or not array.size or array.min() < 0:
        return array.dtype
    return np.min_scalar_type(array.max())


def padded(size: int) -> int:
    return -(-size // ALIGNED) * ALIGNED
