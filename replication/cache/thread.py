"""A thread that writes beside the teacher: enough where a forward pass takes much longer than encoding its targets."""

from __future__ import annotations

import queue
import threading

import numpy as np

from replication.cache.gather import Batch, Gathering

WAITING = 4  # batches that may wait for the disk before the teacher does


class WriterThread:
    """`put` hands over and raises what went wrong earlier; `stop` ends it when all that was handed over is written."""

    def __init__(self, gathering: Gathering) -> None:
        self.gathering = gathering
        self.error: BaseException | None = None
        self.queue: queue.Queue[Batch | None] = queue.Queue(WAITING)
        self.thread = threading.Thread(target=self.work, name="cache writer", daemon=True)
        self.thread.start()

    def put(self, first: int, ids_BLK: np.ndarray, weights_BLK: np.ndarray, lengths_BL: np.ndarray) -> None:
        """Copies: the teacher may reuse its buffers. Waits only while WAITING earlier batches do."""
        if self.error is not None:
            raise self.error
        self.queue.put((first, ids_BLK.copy(), weights_BLK.copy(), lengths_BL.copy()))

    def work(self) -> None:
        """After an error it goes on taking batches, so that `put` never waits for a dead thread."""
        while (batch := self.queue.get()) is not None:
            if self.error is None:
                try:
                    self.gathering.add(*batch)
                except BaseException as error:
                    self.error = error

    def stop(self) -> None:
        self.queue.put(None)
        self.thread.join()
