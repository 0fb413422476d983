"""Writing a cache beside a running teacher: `put` hands over, one thread encodes, packs and writes.

Sequences gather into shards of fixed ranges; a shard appears by rename, the manifest last. So a kill at any moment
loses at most the shards being gathered, and `missing()` says which sequences to compute again. Nothing in a file
depends on when or in which order it was written. (A teacher's own rounding may depend on its batch: to resume to
identical bytes, let `shard_sequences` be a multiple of the batch, so that the batches are the same again.)
"""

from __future__ import annotations

import errno
import fcntl
import os
import queue
import threading
from itertools import groupby
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import ArrayLike

from replication.cache import durable, shard
from replication.cache.manifest import (
    FILE,
    UNFINISHED,
    Expected,
    Header,
    Manifest,
    Plan,
    ShardEntry,
    check,
    read_manifest,
    read_plan,
    write_manifest,
    write_plan,
)

WAITING = 4  # batches that may wait for the disk before the teacher does

Batch = tuple[int, np.ndarray, np.ndarray, np.ndarray]


class Writer:
    """Creates or resumes the cache in `directory`. Use as a context manager; leaving it finishes the cache.

    Raises ValueError where the directory holds another cache or another process is writing there; what goes wrong in
    the thread (bad ids, a full disk) is raised by the next `put` or by `close`.
    """

    def __init__(self, directory: Path | str, header: Header, sequences: int, shard_sequences: int = 256) -> None:
        if sequences < 1 or shard_sequences < 1:
            raise ValueError(f"{sequences} sequences in shards of {shard_sequences}: give at least 1 of each.")
        self.directory = Path(directory)
        self.codec = header.codec
        self.plan = Plan(
            header=header,
            sequences=sequences,
            shard_sequences=shard_sequences,
            codec=self.codec.name,
            codec_parameters=self.codec.parameters,
        )
        self.directory.mkdir(parents=True, exist_ok=True)
        self.lock = locked(self.directory)
        self.safe = 0  # sequences in complete shards
        try:
            self.finished = self.claim()
            self.taken = np.zeros(sequences, bool)  # on disk or handed over
            for index in range(self.plan.shard_count):
                covered = self.plan.shard_range(index)
                self.taken[covered.start : covered.stop] = self.finished or self.complete(index)
        except BaseException as error:
            os.close(self.lock)
            raise self.explained(error) from None
        self.safe = int(self.taken.sum())
        self.gathering: dict[int, dict[int, bytes]] = {}
        self.checksums: dict[int, str] = {}
        self.error: BaseException | None = None
        self.closed = False
        self.queue: queue.Queue[Batch | None] = queue.Queue(WAITING)
        self.thread = threading.Thread(target=self.work, name="cache writer", daemon=True)
        self.thread.start()

    def claim(self) -> bool:
        """Make the directory this cache's own; True where the cache is already finished."""
        durable.sweep(self.directory)
        if (self.directory / FILE).exists():
            self.refuse_other(read_manifest(self.directory))
            durable.remove(self.directory / UNFINISHED)
            return True
        begun = read_plan(self.directory)
        if begun is not None:
            self.refuse_other(begun)
            return False
        if strangers := sorted(path.name for path in self.directory.iterdir()):
            raise ValueError(f"{self.directory} holds {strangers[0]!r} but no cache; give an empty or a new folder.")
        write_plan(self.directory, self.plan)
        return False

    def refuse_other(self, other: Plan) -> None:
        try:
            check(other, Expected(**{key: getattr(self.plan.header, key) for key in Header.model_fields}))
        except ValueError as error:
            raise ValueError(f"{self.directory}: {error}") from None
        for key in ("sequences", "shard_sequences", "codec", "codec_parameters"):
            found, wanted = getattr(other, key), getattr(self.plan, key)
            if found != wanted:
                raise ValueError(
                    f"{self.directory} was begun with {key} = {found}, not {wanted}; "
                    f"resume with the same, or remove the folder to begin anew."
                )

    def complete(self, index: int) -> bool:
        """Whether a shard is on disk; a damaged one is removed, to be written again."""
        path = self.directory / shard.file_name(index)
        if not path.exists():
            return False
        try:
            shard.Shard(path, len(self.plan.shard_range(index)))
        except ValueError:
            durable.remove(path)
            return False
        return True

    def missing(self) -> list[range]:
        """The ranges of sequences that are still to be put."""
        open_S = np.flatnonzero(~self.taken)
        runs = groupby(enumerate(open_S.tolist()), lambda pair: pair[1] - pair[0])
        spans = [[sequence for _, sequence in run] for _, run in runs]
        return [range(span[0], span[-1] + 1) for span in spans]

    def put(self, first_sequence: int, ids_BLK: ArrayLike, weights_BLK: ArrayLike, lengths_BL: ArrayLike) -> None:
        """Hand over B consecutive sequences (copied). Waits only while WAITING earlier batches do."""
        if self.error is not None:
            raise self.error
        # copied: the teacher may reuse its buffers
        ids_BLK, weights_BLK, lengths_BL = np.array(ids_BLK), np.array(weights_BLK), np.array(lengths_BL)
        stop = first_sequence + len(ids_BLK)
        if not 0 <= first_sequence < stop <= self.plan.sequences:
            raise ValueError(f"Sequences {first_sequence} to {stop} are not among the {self.plan.sequences} announced.")
        if lengths_BL.shape != (len(ids_BLK), self.plan.header.length):
            shape = len(ids_BLK), self.plan.header.length
            raise ValueError(f"Lengths have shape {lengths_BL.shape}; sequences of this cache need {shape}.")
        if self.taken[first_sequence:stop].any():
            twice = first_sequence + int(self.taken[first_sequence:stop].argmax())
            raise ValueError(f"Sequence {twice} is cached already; put only what missing() names.")
        self.taken[first_sequence:stop] = True
        self.queue.put((first_sequence, ids_BLK, weights_BLK, lengths_BL))

    def work(self) -> None:
        """The thread: after an error it goes on taking batches, so that `put` never waits for a dead thread."""
        while (batch := self.queue.get()) is not None:
            if self.error is None:
                try:
                    self.gather(*batch)
                except BaseException as error:
                    self.error = self.explained(error)

    def gather(self, first: int, ids_BLK: np.ndarray, weights_BLK: np.ndarray, lengths_BL: np.ndarray) -> None:
        try:
            blocks = self.codec.encode_many(ids_BLK, weights_BLK, lengths_BL)
        except ValueError as error:
            raise ValueError(f"Sequences {first} to {first + len(ids_BLK) - 1}: {error}") from None
        for sequence, block in enumerate(blocks, first):
            index = sequence // self.plan.shard_sequences
            gathered = self.gathering.setdefault(index, {})
            gathered[sequence] = block
            covered = self.plan.shard_range(index)
            if len(gathered) == len(covered):
                path = self.directory / shard.file_name(index)
                shard.write(path, [gathered[covered_sequence] for covered_sequence in covered])
                self.checksums[index] = shard.checksum(path)
                self.safe += len(covered)
                del self.gathering[index]

    def explained(self, error: BaseException) -> BaseException:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return OSError(
                error.errno,
                f"Disk full while caching into {self.directory}: {self.safe} of {self.plan.sequences} sequences are "
                f"safe; free some space and run the same command again to resume",
            )
        return error

    def close(self) -> None:
        """Write what is left and the manifest. Raises what went wrong, or ValueError where sequences are missing."""
        if self.closed:
            return
        try:
            self.stop()
            if self.error is not None:
                raise self.error
            if left := int((~self.taken).sum()):
                raise ValueError(
                    f"The cache in {self.directory} lacks {left} of {self.plan.sequences} sequences; "
                    f"run the same command again to resume."
                )
            if not self.finished:
                try:
                    self.finish()
                except OSError as error:
                    raise self.explained(error) from None
        finally:
            os.close(self.lock)

    def stop(self) -> None:
        self.closed = True
        self.queue.put(None)
        self.thread.join()

    def finish(self) -> None:
        entries, classes = [], 0
        for index in range(self.plan.shard_count):
            covered, path = self.plan.shard_range(index), self.directory / shard.file_name(index)
            written = shard.Shard(path, len(covered))
            classes += sum(self.codec.classes(size) for size in written.sizes.tolist())
            sha256 = self.checksums.get(index) or shard.checksum(path)
            entries.append(
                ShardEntry(
                    file=path.name, first=covered.start, sequences=len(covered), bytes=written.bytes, sha256=sha256
                )
            )
        positions = self.plan.sequences * self.plan.header.length
        manifest = Manifest(**dict(self.plan), shards=entries, classes=classes, positions=positions)
        write_manifest(self.directory, manifest)
        durable.remove(self.directory / UNFINISHED)

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif not self.closed:  # what was handed over is still written; the error that ended the block stands
            self.stop()
            os.close(self.lock)


def locked(directory: Path) -> int:
    """A lock that ends with the process, however it ends."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise ValueError(f"Another process is writing the cache in {directory}; wait for it, or end it.") from None
    return descriptor
