"""Ways to keep sparse targets on disk: the cache, and the files that a user would write instead.

Each writes `Rows` into a folder, flushed to the disk, in files of IN_SHARD sequences, and reads sequences back as a
training step takes them. The files hold 32-bit ids and 16-bit or 32-bit weights without padding, if not said otherwise.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.rows import BATCH, IN_SHARD, Padded, Rows, padded
from replication.cache.manifest import Compression, Header, Target
from replication.cache.reader import Reader
from replication.cache.writer import Writer

Arrays = dict[str, NDArray[Any]]


class Store(ABC):
    """`write` once into an empty folder; `opened(folder)` gives the function that reads sequences, ascending."""

    @abstractmethod
    def write(self, folder: Path, rows: Rows) -> None: ...

    @abstractmethod
    def opened(self, folder: Path) -> Callable[[NDArray[np.int64]], Padded]: ...


@dataclass(frozen=True)
class Cache(Store):
    """Ours."""

    classes: int
    draws: int
    compression: Compression = "none"
    workers: int = 0

    def write(self, folder: Path, rows: Rows) -> None:
        sequences, length = rows.lengths_BL.shape
        target = Target(name="RandomSampling", fields={"draws": self.draws, "exponent": 1.0})
        header = Header(
            teacher="", tokenizer="", packing="", target=target, seed=0, vocabulary=self.classes, length=length
        )
        writer = Writer(folder, header, sequences, IN_SHARD, workers=self.workers, compression=self.compression)
        with writer:
            for first, part in rows.batches(BATCH):
                writer.put(first, part.ids_BLK, part.weights_BLK, part.lengths_BL)

    def opened(self, folder: Path) -> Callable[[NDArray[np.int64]], Padded]:
        return Reader(folder).rows


class Files(Store):
    """A file per IN_SHARD sequences."""

    suffix: str

    def write(self, folder: Path, rows: Rows) -> None:
        for first, part in rows.batches(IN_SHARD):
            path = self.path(folder, first // IN_SHARD)
            self.save(path, part)
            with open(path, "rb") as file:
                os.fsync(file.fileno())

    def opened(self, folder: Path) -> Callable[[NDArray[np.int64]], Padded]:
        shards = [self.open(self.path(folder, index)) for index in range(len(list(folder.iterdir())))]

        def read(sequences_B: NDArray[np.int64]) -> Padded:
            first = int(sequences_B[0])
            index, offset = divmod(first, IN_SHARD)
            if len(sequences_B) == sequences_B[-1] - first + 1 and sequences_B[-1] // IN_SHARD == index:
                return self.read(shards[index], offset, offset + len(sequences_B))
            raise ValueError("These files are read by neighbouring sequences of one file.")

        return read

    def path(self, folder: Path, index: int) -> Path:
        return folder / f"{index:05d}.{self.suffix}"

    @abstractmethod
    def save(self, path: Path, rows: Rows) -> None: ...

    @abstractmethod
    def open(self, path: Path) -> Any: ...

    @abstractmethod
    def read(self, shard: Any, first: int, stop: int) -> Padded: ...


def flat(rows: Rows, weights: type[np.floating[Any]]) -> Arrays:
    """Rows one behind the other, how long each is, and where each sequence begins."""
    kept_BLK = rows.kept
    return {
        "ids": rows.ids_BLK[kept_BLK].astype(np.int32),
        "weights": rows.weights_BLK[kept_BLK].astype(weights),
        "lengths": rows.lengths_BL.astype(np.uint8),
        "starts": np.concatenate([[0], rows.lengths_BL.sum(1).cumsum()]),
    }


class SafeTensors(Files):
    suffix = "safetensors"

    def save(self, path: Path, rows: Rows) -> None:
        from safetensors.numpy import save_file

        save_file(flat(rows, np.float16), path)

    def open(self, path: Path) -> Any:
        from safetensors import safe_open

        return safe_open(path, "numpy")

    def read(self, shard: Any, first: int, stop: int) -> Padded:
        begin, end = (int(shard.get_slice("starts")[place]) for place in (first, stop))
        ids_M, weights_M = (shard.get_slice(name)[begin:end] for name in ("ids", "weights"))
        return padded(ids_M, weights_M, shard.get_slice("lengths")[first:stop])


class PaddedSafeTensors(SafeTensors):
    """Every row as long as the longest: nothing to put together when it is read."""

    def save(self, path: Path, rows: Rows) -> None:
        from safetensors.numpy import save_file

        save_file({"ids": rows.ids_BLK.astype(np.int32), "weights": rows.weights_BLK.astype(np.float16)}, path)

    def read(self, shard: Any, first: int, stop: int) -> Padded:
        ids_BLK, weights_BLK = (shard.get_slice(name)[first:stop] for name in ("ids", "weights"))
        return ids_BLK.astype(np.int64), weights_BLK.astype(np.float32)


class TorchSave(Files):
    suffix = "pt"

    def save(self, path: Path, rows: Rows) -> None:
        torch.save({name: torch.from_numpy(array) for name, array in flat(rows, np.float32).items()}, path)

    def open(self, path: Path) -> Any:
        return {name: part.numpy() for name, part in torch.load(path, mmap=True, weights_only=True).items()}

    def read(self, shard: Any, first: int, stop: int) -> Padded:
        part = slice(shard["starts"][first], shard["starts"][stop])
        return padded(shard["ids"][part], shard["weights"][part], shard["lengths"][first:stop])


class Parquet(Files):
    """A row per sequence, BATCH of them in a row group, zstd."""

    suffix = "parquet"

    def save(self, path: Path, rows: Rows) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        arrays = flat(rows, np.float16)
        sequences, length = rows.lengths_BL.shape
        starts, by_position = arrays["starts"].astype(np.int32), np.arange(sequences + 1, dtype=np.int32) * length
        table = pa.table(
            {
                "ids": pa.ListArray.from_arrays(starts, arrays["ids"]),
                "weights": pa.ListArray.from_arrays(starts, arrays["weights"]),
                "lengths": pa.ListArray.from_arrays(by_position, arrays["lengths"].reshape(-1)),
            }
        )
        parquet.write_table(table, path, row_group_size=BATCH, compression="zstd")

    def open(self, path: Path) -> Any:
        from pyarrow import parquet

        return parquet.ParquetFile(path, memory_map=True)

    def read(self, shard: Any, first: int, stop: int) -> Padded:
        groups = range(first // BATCH, (stop - 1) // BATCH + 1)
        table = shard.read_row_groups(list(groups)).slice(first - groups.start * BATCH, stop - first)
        ids_M, weights_M, lengths_N = (
            table.column(name).combine_chunks().flatten().to_numpy(zero_copy_only=False)
            for name in ("ids", "weights", "lengths")
        )
        return padded(ids_M, weights_M, lengths_N.reshape(stop - first, -1))


CACHE, CACHE_ZSTD = "cache", "cache, zstd"
SAFE, SAFE_PADDED = "safetensors, 16-bit weights", "safetensors, padded rows"
PARQUET, TORCH = "parquet, zstd, 16-bit weights", "torch.save, 32-bit weights"


def stores(classes: int, draws: int) -> dict[str, Store]:
    return {
        CACHE: Cache(classes, draws),
        CACHE_ZSTD: Cache(classes, draws, "zstd"),
        SAFE: SafeTensors(),
        SAFE_PADDED: PaddedSafeTensors(),
        PARQUET: Parquet(),
        TORCH: TorchSave(),
    }
