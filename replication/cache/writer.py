"""Writing a cache beside a running teacher: `put` hands over; a thread or processes encode, pack and write.

Sequences gather into shards of fixed ranges; a shard appears by rename, the manifest last. So a kill at any moment
loses at most the shards being gathered, and `missing()` says which sequences to compute again. Nothing in a file
depends on when, in which order, or by which of several jobs it was written. (A teacher's own rounding may depend on
its batch: to resume to identical bytes, let `shard_sequences` be a multiple of the batch, so that the batches are the
same again.)
"""

from __future__ import annotations

import errno
import os
from itertools import groupby
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import ArrayLike

from replication.cache import shard
from replication.cache.codec import Codec, SetCodec
from replication.cache.crew import Crew
from replication.cache.gather import Gathering
from replication.cache.law import Law, law_of, write_law
from replication.cache.manifest import Compression, Header, Manifest, Plan, ShardEntry, write_manifest
from replication.cache.ownership import claim, settle
from replication.cache.part import WHOLE, Part
from replication.cache.thread import WriterThread
from replication.machine import files

SHARD = 256  # sequences in a file
BATCH = 16  # sequences per teacher forward; divides SHARD, so that every job and a resumed pass make the same batches


def law_for(codec: Codec, frequencies_V: ArrayLike | None) -> Law:
    """What ids are coded against. Raises ValueError where they cannot be."""
    if not isinstance(codec, SetCodec):
        raise ValueError(
            f"Rows of the {codec.name} codec come in the order of their weights, which compression = 'unigram' would "
            f"lose; use 'zstd' or 'none'."
        )
    if frequencies_V is None or np.shape(frequencies_V) != (codec.vocabulary,):
        raise ValueError(
            f"compression = 'unigram' needs how often each of the {codec.vocabulary} classes occurs in the text; found "
            f"numbers of shape {None if frequencies_V is None else np.shape(frequencies_V)}."
        )
    return law_of(frequencies_V, codec.usual)


class Writer:
    """Creates or resumes the cache in `directory`. Use as a context manager; leaving it finishes the cache.

    `workers` processes encode and write, or a thread where there are none. One `part` of several writes its own shards,
    beside the others, and leaves the manifest to a Writer of the whole. `compression` "unigram" codes ids against
    `frequencies_V`: how often each class occurs in the text.

    Raises ValueError where the directory holds another cache or another process is writing there; what goes wrong in
    the thread or a process (bad ids, a full disk) is raised by the next `put` or by `close`.
    """

    def __init__(
        self,
        directory: Path | str,
        header: Header,
        sequences: int,
        shard_sequences: int = SHARD,
        workers: int = 0,
        part: Part = WHOLE,
        compression: Compression = "none",
        frequencies_V: ArrayLike | None = None,
    ) -> None:
        if sequences < 1 or shard_sequences < 1:
            raise ValueError(f"{sequences} sequences in shards of {shard_sequences}: give at least 1 of each.")
        self.directory = Path(directory)
        self.part = part
        codec = header.codec
        law = law_for(codec, frequencies_V) if compression == "unigram" else None
        self.plan = Plan(
            header=header,
            sequences=sequences,
            shard_sequences=shard_sequences,
            codec=codec.name,
            codec_parameters=codec.parameters,
            compression=compression,
            law="" if law is None else law.fingerprint,
        )
        self.lock: int | None = None
        self.closed = False
        try:
            self.lock = claim(self.directory, self.plan, alone=part == WHOLE)
            if law is not None and self.lock is not None:
                write_law(self.directory, law)
            self.taken = np.ones(sequences, bool)  # on disk, handed over, or another part's
            for index in range(self.plan.shard_count if self.lock is not None else 0):
                if part.owns(index):
                    covered = self.plan.shard_range(index)
                    self.taken[covered.start : covered.stop] = self.complete(index)
            self.hand: WriterThread | Crew
            if workers and self.lock is not None and not self.taken.all():
                self.hand = Crew(self.directory, self.plan, workers, self.lock)
            else:
                self.hand = WriterThread(Gathering(self.directory, self.plan))
        except BaseException as error:
            self.release()
            raise self.explained(error) from None

    def complete(self, index: int) -> bool:
        """Whether a shard is on disk as it was written; a damaged one is removed, to be written again."""
        path = self.directory / shard.file_name(index)
        if not path.exists():
            return False
        try:
            shard.Shard(path, len(self.plan.shard_range(index)))
            sound = shard.checksum(path) == shard.noted(path)
        except ValueError:
            sound = False
        if not sound:
            files.remove(path)
        return sound

    def missing(self) -> list[range]:
        """The ranges of sequences that are still to be put."""
        open_S = np.flatnonzero(~self.taken)
        runs = groupby(enumerate(open_S.tolist()), lambda pair: pair[1] - pair[0])
        spans = [[sequence for _, sequence in run] for _, run in runs]
        return [range(span[0], span[-1] + 1) for span in spans]

    def put(self, first_sequence: int, ids_BLK: ArrayLike, weights_BLK: ArrayLike, lengths_BL: ArrayLike) -> None:
        """Hand over B consecutive sequences (copied). Waits only while some earlier batches wait."""
        ids_BLK, weights_BLK, lengths_BL = np.asarray(ids_BLK), np.asarray(weights_BLK), np.asarray(lengths_BL)
        stop = first_sequence + len(ids_BLK)
        if not 0 <= first_sequence < stop <= self.plan.sequences:
            raise ValueError(f"Sequences {first_sequence} to {stop} are not among the {self.plan.sequences} announced.")
        if lengths_BL.shape != (len(ids_BLK), self.plan.header.length):
            shape = len(ids_BLK), self.plan.header.length
            raise ValueError(f"Lengths have shape {lengths_BL.shape}; sequences of this cache need {shape}.")
        if self.taken[first_sequence:stop].any():
            twice = first_sequence + int(self.taken[first_sequence:stop].argmax())
            raise ValueError(f"Sequence {twice} is cached already or another part's; put only what missing() names.")
        try:
            self.hand.put(first_sequence, ids_BLK, weights_BLK, lengths_BL)
        except OSError as error:
            raise self.explained(error) from None
        self.taken[first_sequence:stop] = True

    @property
    def safe(self) -> int:
        """Sequences in shards on disk, whoever wrote them."""
        indices = range(self.plan.shard_count)
        return sum(
            len(self.plan.shard_range(index)) for index in indices if (self.directory / shard.file_name(index)).exists()
        )

    def explained(self, error: BaseException) -> BaseException:
        """What happened, what is safe, and what to do."""
        rest = f"{self.safe} of {self.plan.sequences} sequences are safe"
        if isinstance(error, ChildProcessError):
            return ChildProcessError(f"{error}: {rest}; run the same command again to resume")
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return OSError(
                error.errno,
                f"Disk full while caching into {self.directory}: {rest}; free some space and run the same command "
                f"again to resume",
            )
        return error

    def close(self) -> None:
        """Write what is left and, for the whole, the manifest.

        Raises what went wrong, or ValueError where sequences are missing.
        """
        if self.closed:
            return
        self.closed = True
        try:
            self.hand.stop()
            if self.hand.error is not None:
                raise self.hand.error
            if left := int((~self.taken).sum()):
                raise ValueError(
                    f"The cache in {self.directory} lacks {left} of {self.plan.sequences} sequences; "
                    f"run the same command again to resume."
                )
            if self.part == WHOLE and self.lock is not None:
                self.finish()
        except OSError as error:
            raise self.explained(error) from None
        finally:
            self.release()

    def release(self) -> None:
        if self.lock is not None:
            os.close(self.lock)
            self.lock = None

    def finish(self) -> None:
        entries, classes, layout = [], 0, self.plan.layout(self.directory)
        for index in range(self.plan.shard_count):
            covered, path = self.plan.shard_range(index), self.directory / shard.file_name(index)
            written = shard.Shard(path, len(covered))
            classes += sum(layout.count(written.block(offset)) for offset in range(len(covered)))
            entries.append(
                ShardEntry(
                    file=path.name,
                    first=covered.start,
                    sequences=len(covered),
                    bytes=written.bytes,
                    sha256=shard.noted(path),
                )
            )
        positions = self.plan.sequences * self.plan.header.length
        manifest = Manifest(**dict(self.plan), shards=entries, classes=classes, positions=positions)
        write_manifest(self.directory, manifest)
        settle(self.directory)

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif not self.closed:  # what was handed over is still written; the error that ended the block stands
            self.closed = True
            try:
                self.hand.stop()
            finally:
                self.release()
