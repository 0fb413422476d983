"""A process that encodes and writes whole shards for a teacher: `python -m replication.cache.worker PIPE RING`."""

from __future__ import annotations

import sys
from contextlib import suppress
from multiprocessing.connection import Connection

from replication.cache.gather import Gathering
from replication.cache.ring import Layout, Ring

Piece = tuple[int, int, Layout]  # the slot, the first sequence in it, the arrays in it
Answer = tuple[int, Exception | None]  # the slot, free again; what went wrong


def serve(connection: Connection, ring: Ring, gathering: Gathering) -> None:
    """Take pieces until told to stop. After an error it goes on freeing slots: the teacher is not kept waiting."""
    failed = False
    while True:
        piece: Piece | None = connection.recv()
        if piece is None:
            connection.send(None)
            return
        slot, first, layout = piece
        answer: Exception | None = None
        if not failed:
            try:
                gathering.add(first, *ring.read(slot, layout))
            except Exception as error:
                answer, failed = error, True
        connection.send((slot, answer))


def main(pipe: int, ring: int) -> None:
    # a pipe that ends is a teacher that was killed: what it had handed over is left to whoever resumes
    with suppress(EOFError, ConnectionError), Connection(pipe) as connection:
        directory, plan, slot_bytes = connection.recv()
        serve(connection, Ring(ring, slot_bytes), Gathering(directory, plan))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
