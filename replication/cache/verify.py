"""Is a cache what it says? Every bit against its checksum, its packing, and on request the teacher itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from replication.cache.manifest import Manifest, read_manifest
from replication.cache.reader import Reader
from replication.cache.shard import MEND

SAMPLE = 8  # sequences that are computed again

Recompute = Callable[[NDArray[np.int64]], tuple[np.ndarray, np.ndarray]]  # indices -> ids_BLK, weights_BLK


class Packing(Protocol):
    """The sequences that a cache claims to follow."""

    @property
    def fingerprint(self) -> str: ...

    @property
    def length(self) -> int: ...

    def __len__(self) -> int: ...


def verify(directory: Path | str, packing: Packing | None = None, recompute: Recompute | None = None) -> list[str]:
    """The problems found, one line each; empty where there are none. Reads every byte.

    Raises ValueError where there is no finished cache, or its manifest is damaged.
    """
    directory = Path(directory)
    manifest = read_manifest(directory)
    problems = [*manifest.damage(directory).values(), *misaligned(manifest, packing)]
    return problems or faults(directory, recompute)


def faults(directory: Path, recompute: Recompute | None = None) -> list[str]:
    """What was wrong when it was written: that it cannot be decoded or, on request, is not what a teacher says."""
    if problems := uncovered(read_manifest(directory)):
        return problems
    reader = Reader(directory)
    return undecodable(reader) or ([] if recompute is None else different(reader, recompute))


def uncovered(manifest: Manifest) -> list[str]:
    covered = [(entry.first, entry.sequences) for entry in manifest.shards]
    if covered == [(span.start, len(span)) for span in map(manifest.shard_range, range(manifest.shard_count))]:
        return []
    return [f"The shards do not cover the {manifest.sequences} sequences once each."]


def refuse_damaged(directory: Path | str) -> None:
    """Raises ValueError, one line, where a file of the cache is not as it was written. Reads every byte."""
    if found := read_manifest(Path(directory)).damage(Path(directory)):
        first, *others = found.values()
        also = f" (and {len(others)} other files)" if others else ""
        raise ValueError(f"{first}{also}; {MEND}.")


def misaligned(manifest: Manifest, packing: Packing | None) -> list[str]:
    if packing is None:
        return []
    header = manifest.header
    pairs = (
        ("packing", header.packing, packing.fingerprint),
        ("sequence length", header.length, packing.length),
    )
    problems = [f"The {word} is {found} in the cache but {here} here." for word, found, here in pairs if found != here]
    if manifest.sequences > len(packing):  # fewer is fine: a run may need the first sequences only
        problems.append(f"The cache has {manifest.sequences} sequences, the packing only {len(packing)}.")
    return problems


def undecodable(reader: Reader) -> list[str]:
    """Blocks with the right checksum that do not decode, since their writer made a mistake."""
    problems, classes = [], 0
    for entry in reader.manifest.shards:
        try:
            ids_BLK, weights_BLK, lengths_BL = reader.decoded(np.arange(entry.first, entry.first + entry.sequences))
        except ValueError as error:
            problems.append(f"{entry.file}: {error}")
            continue
        classes += int(lengths_BL.sum())
        if ids_BLK.max() >= reader.manifest.header.vocabulary:
            problems.append(f"{entry.file} holds class id {ids_BLK.max()}, outside the vocabulary.")
        if not np.isfinite(weights_BLK).all():
            problems.append(f"{entry.file} holds weights that are not finite.")
    if not problems and classes != reader.manifest.classes:
        problems.append(f"The shards hold {classes} classes, the manifest says {reader.manifest.classes}.")
    return problems


def different(reader: Reader, recompute: Recompute) -> list[str]:
    """Compare evenly spaced sequences with the teacher's own: ids exactly, weights within the codec's rounding."""
    indices_B = np.unique(np.linspace(0, reader.sequences - 1, SAMPLE).astype(np.int64))
    ids_BLK, weights_BLK, lengths_BL = reader.decoded(indices_B)
    true_ids_BLK, true_weights_BLK = (np.asarray(part) for part in recompute(indices_B))
    if true_ids_BLK.shape[:2] != ids_BLK.shape[:2]:
        return [f"Recomputed targets have shape {true_ids_BLK.shape[:2]}, the cache {ids_BLK.shape[:2]}."]
    ids_NK, weights_NK = flat(ids_BLK), flat(weights_BLK).astype(np.float64)
    true_ids_NK, true_weights_NK = reader.codec.ordered(flat(true_ids_BLK), flat(true_weights_BLK).astype(np.float64))
    lengths_N = (true_weights_NK > 0).sum(1)
    tolerance_NK = 2 * reader.codec.tolerance(true_weights_NK, lengths_N) + 1e-4 * true_weights_NK
    most = max(ids_NK.shape[1], true_ids_NK.shape[1])
    cached_NK, cached_weight_NK = by_id(widened(ids_NK, most), widened(weights_NK, most))[:2]
    true_NK, true_weight_NK, order_NK = by_id(widened(true_ids_NK, most), widened(true_weights_NK, most))
    bound_NK = np.take_along_axis(widened(tolerance_NK, most), order_NK, 1)
    wrong_N = (cached_NK != true_NK).any(1) | (np.abs(cached_weight_NK - true_weight_NK) > bound_NK).any(1)
    if not wrong_N.any():
        return []
    sequence, offset = divmod(int(wrong_N.argmax()), reader.length)
    return [
        f"{wrong_N.sum()} of {len(wrong_N)} recomputed positions differ from the cache, the first at sequence "
        f"{indices_B[sequence]}, position {offset}: another teacher, packing or seed, or other hardware."
    ]


def flat(rows_BLK: np.ndarray) -> np.ndarray:
    return rows_BLK.reshape(-1, rows_BLK.shape[2])


def widened(rows_NK: np.ndarray, most: int) -> np.ndarray:
    return np.pad(rows_NK, ((0, 0), (0, most - rows_NK.shape[1])))


def by_id(ids_NK: np.ndarray, weights_NK: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows sorted by class, unused slots first (as class -1), and the order that did it."""
    ids_NK = np.where(weights_NK > 0, ids_NK, -1)
    order_NK = np.argsort(ids_NK, axis=1, kind="stable")
    return np.take_along_axis(ids_NK, order_NK, 1), np.take_along_axis(weights_NK, order_NK, 1), order_NK
