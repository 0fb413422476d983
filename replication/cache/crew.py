"""Processes that write beside the teacher, behind a ring of shared slots: each encodes and writes whole shards.

A batch is copied into a free slot and its place told to the worker that owns its shard. Each worker has a pipe of its
own, and a pipe ends with its process: so a worker that is killed is noticed, workers notice a teacher that is killed,
and nobody waits for the dead.
"""

from __future__ import annotations

import os
import subprocess
import sys
from multiprocessing.connection import Pipe, wait
from pathlib import Path

import numpy as np

from replication.cache.manifest import Plan
from replication.cache.ring import ALIGNED, create, narrow
from replication.cache.worker import Answer, Piece

WAITING = 4  # slots beyond one for each worker
SEQUENCES = 16  # in a slot, at least, where every position keeps as many classes as the target allows
ROOT = Path(__file__).parents[2]


def spare_workers() -> int:
    """A quarter of the cores that this process may use, at most 4: the teacher needs a few as well.

    None below 4 cores, where a worker would take from the teacher what it saves, and outside Linux (`memfd_create`).
    """
    return min(4, len(os.sched_getaffinity(0)) // 4) if hasattr(os, "memfd_create") else 0


class Crew:
    """`put` hands over and raises what went wrong earlier; `stop` ends it when all that was handed over is written."""

    def __init__(self, directory: Path, plan: Plan, workers: int, lock: int) -> None:
        self.directory = directory
        self.plan = plan
        self.error: BaseException | None = None
        self.ended = False
        self.owners: dict[int, Worker] = {}  # by shard
        length, codec = plan.header.length, plan.coder
        itemsize = narrow(np.array([plan.header.vocabulary - 1])).itemsize + np.dtype(np.float32).itemsize
        self.ring = create(workers + WAITING, SEQUENCES * length * (codec.most * itemsize + 8) + 3 * ALIGNED)
        self.free = list(range(workers + WAITING))
        self.workers: list[Worker] = []
        try:
            for _ in range(workers):
                self.workers.append(Worker(self.ring.descriptor, lock))
                self.workers[-1].connection.send((directory, plan, self.ring.slot_bytes))
        except BaseException:
            self.end()
            raise

    def put(self, first: int, ids_BLK: np.ndarray, weights_BLK: np.ndarray, lengths_BL: np.ndarray) -> None:
        """Copies: the teacher may reuse its buffers. Waits only while every slot is taken."""
        arrays = ids_BLK, weights_BLK, lengths_BL
        dtypes = [narrow(array) for array in arrays]
        each = sum(array[0].size * dtype.itemsize for array, dtype in zip(arrays, dtypes, strict=True))
        fitting = (self.ring.slot_bytes - len(arrays) * ALIGNED) // each
        if not fitting:
            most = self.plan.coder.most
            raise ValueError(f"Rows of {ids_BLK.shape[2]} slots are too wide; this target keeps at most {most}.")
        begin = 0
        while begin < len(ids_BLK):
            index = (first + begin) // self.plan.shard_sequences
            end = min(begin + fitting, len(ids_BLK), self.plan.shard_range(index).stop - first)
            owner = self.owners.setdefault(index, self.workers[len(self.owners) % len(self.workers)])
            slot = self.free_slot()
            layout = self.ring.write(slot, [array[begin:end] for array in arrays], dtypes)
            self.tell(owner, (slot, first + begin, layout))
            begin = end

    def free_slot(self) -> int:
        """Raises what went wrong in a worker."""
        self.listen(0)
        while not self.free and self.error is None:
            self.listen(None)
        if self.error is not None:
            self.stop()  # so that nothing changes any more when the error is told
            raise self.error
        return self.free.pop()

    def tell(self, worker: Worker, words: Piece | None) -> None:
        try:
            worker.connection.send(words)
        except OSError:
            self.lose(worker)

    def listen(self, seconds: float | None) -> None:
        """Take what workers have to say; wait so many seconds for a first word, or as long as it takes (None)."""
        speaking = wait([worker.connection for worker in self.workers if not worker.gone], seconds)
        for worker in self.workers:
            if worker.connection in speaking:
                self.hear(worker)

    def hear(self, worker: Worker) -> None:
        try:
            answer: Answer | None = worker.connection.recv()
        except (EOFError, OSError):
            self.lose(worker)
            return
        if answer is None:
            worker.gone = True
            worker.process.wait()
            return
        slot, wrong = answer
        self.free.append(slot)
        self.error = self.error or wrong

    def lose(self, worker: Worker) -> None:
        """Take note of a worker that has died: what it was still to write is missing."""
        worker.gone = True
        status = worker.process.wait()
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        self.error = self.error or ChildProcessError(f"A process that writes into {self.directory} ended ({how})")

    def stop(self) -> None:
        if self.ended:
            return
        try:
            for worker in self.workers:
                if not worker.gone:
                    self.tell(worker, None)
            while not all(worker.gone for worker in self.workers):
                self.listen(None)
        finally:
            self.end()

    def end(self) -> None:
        """Nothing is left running, also where `stop` was interrupted: a shard appears complete or not at all."""
        self.ended = True
        for worker in self.workers:
            worker.process.kill()
            worker.process.wait()
            worker.connection.close()
        self.ring.close()


class Worker:
    """A process and our end of its pipe; `gone` when it has said its last word or died."""

    def __init__(self, ring: int, lock: int) -> None:
        self.connection, theirs = Pipe()
        self.gone = False
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "replication.cache.worker", str(theirs.fileno()), str(ring)],
                pass_fds=(theirs.fileno(), ring, lock),  # the lock, so that it outlives a killed teacher's workers
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
                process_group=0,  # Ctrl-C is the teacher's: the workers finish what they were given
                stdin=subprocess.DEVNULL,
            )
