"""What is stored: the classes of every position of many sequences, and how often each was drawn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IN_SHARD, BATCH = 256, 16  # sequences in a file, and handed over or asked for at a time

Padded = tuple[NDArray[np.int64], NDArray[np.float32]]  # ids_BLK, weights_BLK; unused slots are id 0, weight 0


@dataclass(frozen=True)
class Sizes:
    sequences: int = 1024
    length: int = 256
    classes: int = 100_278
    draws: int = 50

    @property
    def tokens(self) -> int:
        return self.sequences * self.length


@dataclass(frozen=True)
class Rows:
    ids_BLK: NDArray[np.int64]
    weights_BLK: NDArray[np.float32]
    lengths_BL: NDArray[np.int64]

    def __getitem__(self, sequences: slice) -> Rows:
        return Rows(self.ids_BLK[sequences], self.weights_BLK[sequences], self.lengths_BL[sequences])

    def batches(self, size: int) -> Iterator[tuple[int, Rows]]:
        for first in range(0, len(self.ids_BLK), size):
            yield first, self[first : first + size]

    @property
    def kept(self) -> NDArray[np.bool_]:
        return used(self.lengths_BL, self.ids_BLK.shape[2])


def drawn(sizes: Sizes, seed: int = 0) -> Rows:
    """Draws from Zipf's law, a dozen different classes in 50, as RS-KD has them; every position favours others."""
    random = np.random.default_rng(seed)
    weight_V = 1 / np.arange(1, sizes.classes + 1) ** 1.7
    upto_V = np.cumsum(weight_V / weight_V.sum())
    rank_ND = np.searchsorted(upto_V, random.random((sizes.tokens, sizes.draws)) * upto_V[-1], side="right")
    id_ND = np.sort((rank_ND * 7919 + random.integers(sizes.classes, size=(sizes.tokens, 1))) % sizes.classes, 1)
    first_ND = np.ones(id_ND.shape, bool)
    first_ND[:, 1:] = id_ND[:, 1:] != id_ND[:, :-1]
    slot_ND, row_ND = first_ND.cumsum(1) - 1, np.arange(sizes.tokens)[:, None]
    length_N = slot_ND[:, -1] + 1
    counts_NK = np.zeros((sizes.tokens, length_N.max()), np.float32)
    np.add.at(counts_NK, (np.broadcast_to(row_ND, slot_ND.shape), slot_ND), 1)
    ids_NK = np.zeros(counts_NK.shape, np.int64)
    ids_NK[np.broadcast_to(row_ND, slot_ND.shape), slot_ND] = id_ND
    shape = sizes.sequences, sizes.length
    weights_NK = (counts_NK / sizes.draws).astype(np.float32)
    return Rows(ids_NK.reshape(*shape, -1), weights_NK.reshape(*shape, -1), length_N.reshape(shape))


def padded(ids_M: NDArray, weights_M: NDArray, lengths_BL: NDArray) -> Padded:
    """Rows that stand one behind the other, each in slots of its own: what a training step takes."""
    most = int(lengths_BL.max())
    kept_BLK = used(lengths_BL, most)
    ids_BLK, weights_BLK = np.zeros(kept_BLK.shape, np.int64), np.zeros(kept_BLK.shape, np.float32)
    ids_BLK[kept_BLK], weights_BLK[kept_BLK] = ids_M, weights_M
    return ids_BLK, weights_BLK


def used(lengths_BL: NDArray, most: int) -> NDArray[np.bool_]:
    return np.arange(most) < lengths_BL[..., None]
