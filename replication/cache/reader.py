"""Reading a cache: random access by sequence, from shards mapped into memory.

A shard is compared with its checksum when the first of its sequences is asked for. In training that is a thread ahead
of the steps, once a shard, and less work than decoding its sequences.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from replication.cache.codec import Ids, Rows, Weights
from replication.cache.manifest import Expected, check, read_manifest
from replication.cache.shard import MEND, Shard

OPEN_SHARDS = 256  # each holds a file descriptor, of which a process has about a thousand


class Reader:
    """Opens the cache in `directory`. Raises ValueError where it is not as `expected`, unfinished, or lacks a shard.

    Whatever asks for a sequence of a damaged shard gets a ValueError that names it.
    """

    def __init__(self, directory: Path | str, expected: Expected | None = None) -> None:
        self.directory = Path(directory)
        self.expected = expected
        self.manifest = read_manifest(self.directory)
        try:
            check(self.manifest, expected or Expected())
        except ValueError as error:
            raise ValueError(f"{self.directory}: {error}") from None
        for entry in self.manifest.shards:
            if problem := entry.damage(self.directory, every_byte=False):
                raise ValueError(f"{problem}; {MEND}.")
        self.codec = self.manifest.coder
        self.layout = self.manifest.layout(self.directory)
        self.length = self.manifest.header.length
        self.sequences = self.manifest.sequences
        self.mapped: OrderedDict[int, Shard] = OrderedDict()
        self.sound: set[int] = set()  # shards that have been compared with their checksums

    def rows(self, indices: ArrayLike) -> tuple[Ids, Weights]:
        """The targets of B sequences: ids_BLK and weights_BLK, padded with 0 to the longest row among them."""
        ids_BLK, weights_BLK, _ = self.decoded(indices)
        return ids_BLK, weights_BLK

    def batches(self, batches: Sequence[ArrayLike]) -> list[tuple[Ids, Weights]]:
        """As `rows` gives each, decoded in one go."""
        if not batches:
            return []
        ids_SLK, weights_SLK, lengths_SL = self.decoded(np.concatenate([np.asarray(batch) for batch in batches]))
        found = []
        for start, stop in pairwise(accumulate(map(np.size, batches), initial=0)):
            most = int(lengths_SL[start:stop].max())
            found.append((ids_SLK[start:stop, :, :most].copy(), weights_SLK[start:stop, :, :most].copy()))
        return found

    def lengths(self, indices: ArrayLike) -> NDArray[np.int64]:
        """How many classes each position of B sequences keeps, [B, L]."""
        return self.decoded(indices)[2]

    def positions(self, flat_positions_BL: ArrayLike) -> tuple[Ids, Weights]:
        """The targets at positions of the cached stream, sequence * length + offset; -1 gives an empty row."""
        flat_BL = np.asarray(flat_positions_BL)
        end = self.sequences * self.length
        if flat_BL.size and not (-1 <= flat_BL.min() and flat_BL.max() < end):
            wrong = flat_BL[(flat_BL < -1) | (flat_BL >= end)].flat[0]
            raise ValueError(f"Position {wrong} is not in the cache; give 0 to {end - 1}, or -1 for an empty row.")
        present_BL = flat_BL >= 0
        wanted, place_M = np.unique(flat_BL[present_BL] // self.length, return_inverse=True)
        if not len(wanted):
            return np.zeros((*flat_BL.shape, 0), np.int64), np.zeros((*flat_BL.shape, 0), np.float32)
        ids_SLK, weights_SLK, lengths_SL = self.decoded(wanted)
        offset_M = flat_BL[present_BL] % self.length
        most = int(lengths_SL[place_M, offset_M].max())
        ids_BLK = np.zeros((*flat_BL.shape, most), np.int64)
        weights_BLK = np.zeros((*flat_BL.shape, most), np.float32)
        ids_BLK[present_BL] = ids_SLK[place_M, offset_M, :most]
        weights_BLK[present_BL] = weights_SLK[place_M, offset_M, :most]
        return ids_BLK, weights_BLK

    def decoded(self, indices: ArrayLike) -> Rows:
        indices_B = np.asarray(indices, np.int64)
        if not len(indices_B):
            raise ValueError("No sequences asked for; give at least one index.")
        if not (0 <= indices_B.min() and indices_B.max() < self.sequences):
            wrong = indices_B[(indices_B < 0) | (indices_B >= self.sequences)][0]
            raise ValueError(f"Sequence {wrong} is not in the cache; give 0 to {self.sequences - 1}.")
        blocks = [self.block(int(index)) for index in indices_B]
        try:
            rows = self.codec.rows(self.layout.unpack(blocks), len(blocks))
        except ValueError as error:
            raise ValueError(f"{self.directory}: {error} Verify the cache to find where.") from None
        if rows[2].shape[1] != self.length:
            found = rows[2].shape[1]
            raise ValueError(
                f"{self.directory}: a sequence has {found} positions, not {self.length}; verify the cache."
            )
        return rows

    def block(self, sequence: int) -> memoryview:
        index, offset = divmod(sequence, self.manifest.shard_sequences)
        if index not in self.mapped:
            entry = self.manifest.shards[index]
            if index not in self.sound:
                if problem := entry.damage(self.directory):
                    raise ValueError(f"{problem}; {MEND}.")
                self.sound.add(index)
            self.mapped[index] = Shard(self.directory / entry.file, entry.sequences)
            if len(self.mapped) > OPEN_SHARDS:
                self.mapped.popitem(last=False)
        self.mapped.move_to_end(index)
        return self.mapped[index].block(offset)

    def __reduce__(self) -> tuple[type[Reader], tuple[Path, Expected | None]]:
        return Reader, (self.directory, self.expected)  # a data loader's process maps the shards anew
