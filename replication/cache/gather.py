"""Sequences gather into shards: encoded as they come, written when a shard is complete."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from replication.cache import shard
from replication.cache.manifest import Plan

Batch = tuple[int, np.ndarray, np.ndarray, np.ndarray]  # first sequence, ids_BLK, weights_BLK, lengths_BL


class Gathering:
    """The shards of a cache that are begun here and not complete yet."""

    def __init__(self, directory: Path, plan: Plan) -> None:
        self.directory = directory
        self.plan = plan
        self.codec = plan.coder
        self.layout = plan.layout(directory)
        self.blocks: dict[int, dict[int, bytes]] = {}  # by shard, by sequence

    def add(self, first: int, ids_BLK: np.ndarray, weights_BLK: np.ndarray, lengths_BL: np.ndarray) -> None:
        """Take consecutive sequences, in any order of batches, and write the shards that they complete.

        Raises ValueError for what cannot be encoded, naming the sequences, and OSError for what the disk refuses.
        """
        try:
            blocks = self.layout.pack(*self.codec.codes(ids_BLK, weights_BLK, lengths_BL))
        except ValueError as error:
            raise ValueError(f"Sequences {first} to {first + len(ids_BLK) - 1}: {error}") from None
        for sequence, block in enumerate(blocks, first):
            index = sequence // self.plan.shard_sequences
            gathered = self.blocks.setdefault(index, {})
            gathered[sequence] = block
            covered = self.plan.shard_range(index)
            if len(gathered) == len(covered):
                shard.write(self.directory / shard.file_name(index), [gathered[member] for member in covered])
                del self.blocks[index]
