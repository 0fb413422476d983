"""One process at a time at one piece of work."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """While the block lasts no other process enters one of the same path: it gets a ValueError.

    The path is a file that the block makes and removes; its lock ends with the process, however that ends.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT)  # to write: over NFS only such a file can be locked
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise ValueError(f"Another process is at {path.name}; wait for it, or end it.") from None
        if stands(path, descriptor):
            break
        os.close(descriptor)  # of a block that has ended meanwhile
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def stands(path: Path, descriptor: int) -> bool:
    """Whether an open file still has this name."""
    try:
        return path.stat().st_ino == os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False
