"""How frequent each class is in the text: what the ids of a cache are coded against, stored once beside its shards."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from replication.cache.shard import MEND
from replication.machine import files

FILE = "law.bin"
MARK = b"unigram1"
NUMBER = np.dtype("<u4")


@dataclass(frozen=True, eq=False)
class Law:
    """Classes by falling frequency, in cells of consecutive ranks; V classes, C cells."""

    order_V: NDArray[np.int64]  # the class of each rank
    widths_C: NDArray[np.int64]  # a cell has 2 ** width ranks, the last one fewer

    @cached_property
    def rank_V(self) -> NDArray[np.int64]:
        rank_V = np.empty_like(self.order_V)
        rank_V[self.order_V] = np.arange(len(self.order_V))
        return rank_V

    @cached_property
    def begins_C(self) -> NDArray[np.int64]:
        """The first rank of each cell."""
        sizes_C = 1 << self.widths_C
        return sizes_C.cumsum() - sizes_C

    @cached_property
    def cell_V(self) -> NDArray[np.int64]:
        """The cell of each rank."""
        return np.searchsorted(self.begins_C, np.arange(len(self.order_V)), side="right") - 1

    @cached_property
    def raw(self) -> bytes:
        """The file: mark, number of cells (uint32), widths and order (uint32 each)."""
        numbers = np.concatenate([[len(self.widths_C)], self.widths_C, self.order_V])
        return MARK + numbers.astype(NUMBER).tobytes()

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.raw).hexdigest()


def law_of(frequencies_V: ArrayLike, kept: float) -> Law:
    """From how often each class occurs in a text, for positions that keep about so many classes.

    A cell holds as many ranks as are expected to be kept once: then its number of kept classes, in unary, costs about
    what it says. Half or twice as many cells cost 1 % more.
    """
    frequencies_V = np.asarray(frequencies_V, np.float64)
    order_V = np.argsort(-frequencies_V, kind="stable")
    share_V = frequencies_V[order_V] + 0.5  # a class that the text lacks may be drawn all the same
    upto_V = np.concatenate([[0.0], share_V.cumsum()]) * (kept / share_V.sum())
    widths, begin, classes = [], 0, len(order_V)
    while begin < classes:
        width = 0
        while begin + (1 << width) < classes and upto_V[min(begin + (2 << width), classes)] - upto_V[begin] <= 1:
            width += 1
        widths.append(width)
        begin += 1 << width
    return Law(order_V, np.array(widths))


def write_law(directory: Path, law: Law) -> None:
    files.create(directory / FILE, [law.raw])


def read_law(directory: Path, fingerprint: str) -> Law:
    """Raises ValueError where the file is missing or not the one of this fingerprint."""
    path = directory / FILE
    if not path.exists():
        raise ValueError(f"{path} is missing; {MEND}.")
    raw = path.read_bytes()
    if hashlib.sha256(raw).hexdigest() != fingerprint:
        raise ValueError(f"{path} is damaged: its checksum differs; {MEND}.")
    numbers = np.frombuffer(raw[len(MARK) :], NUMBER).astype(np.int64)
    cells = int(numbers[0])
    return Law(numbers[1 + cells :], numbers[1 : 1 + cells])
