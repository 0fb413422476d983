"""The right to write into a cache's folder: for one cache only, and for one builder alone or for jobs side by side.

The lock lies on the plan, a file that stands from the first moment until the manifest replaces it, and ends with the
processes that hold it, however they end. It keeps the builder, who sweeps and finishes, apart from jobs that still
write. Jobs need none among themselves: every file appears by rename, with the same bytes from each.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from replication.cache.manifest import (
    FILE,
    UNFINISHED,
    Expected,
    Header,
    Plan,
    check,
    read_manifest,
    read_plan,
    write_plan,
)
from replication.cache.shard import NOTE
from replication.machine import files

PATIENCE = 5.0  # seconds: the worker of a killed writer may be in the middle of its last shard


def claim(directory: Path, plan: Plan, alone: bool) -> int | None:
    """Make the directory this plan's own; give the descriptor of its lock, or None where the cache is finished.

    Raises ValueError where the directory holds another cache or something else, and where a process writes there that
    must not write at the same time.
    """
    while True:
        directory.mkdir(parents=True, exist_ok=True)
        if (directory / FILE).exists():
            refuse_other(directory, read_manifest(directory), plan)
            settle(directory)
            return None
        try:
            if not (directory / UNFINISHED).exists():
                refuse_strangers(directory)
                write_plan(directory, plan)
            refuse_other(directory, read_plan(directory), plan)
            lock = locked(directory / UNFINISHED, alone)
        except FileNotFoundError:
            continue  # another process finished the cache a moment ago
        if os.fstat(lock).st_ino == inode(directory / UNFINISHED):
            break
        os.close(lock)
    if alone:
        files.sweep(directory)
    return lock


def inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def refuse_other(directory: Path, found: Plan, plan: Plan) -> None:
    try:
        check(found, Expected(**{key: getattr(plan.header, key) for key in Header.model_fields}))
    except ValueError as error:
        raise ValueError(f"{directory}: {error}") from None
    for key in ("sequences", "shard_sequences", "codec", "codec_parameters", "compression", "law"):
        begun, wanted = getattr(found, key), getattr(plan, key)
        if begun != wanted:
            raise ValueError(
                f"{directory} was begun with {key} = {begun}, not {wanted}; "
                f"resume with the same, or remove the folder to begin anew."
            )


def settle(directory: Path) -> None:
    """What only an unfinished cache has goes when the manifest stands; the plan last, since it says that it may."""
    if (directory / UNFINISHED).exists():
        for note in directory.glob("*" + NOTE):
            note.unlink(missing_ok=True)
        files.remove(directory / UNFINISHED)


def refuse_strangers(directory: Path) -> None:
    strangers = sorted(path.name for path in directory.iterdir() if path.suffix != files.TEMPORARY)
    if strangers and not (directory / UNFINISHED).exists():
        raise ValueError(f"{directory} holds {strangers[0]!r} but no cache; give an empty or a new folder.")


def locked(path: Path, alone: bool) -> int:
    # opened to write: over NFS only such a file can be locked for one process alone
    descriptor = os.open(path, os.O_RDWR)
    begun = time.monotonic()
    while True:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() - begun > PATIENCE:
                os.close(descriptor)
                raise ValueError(
                    f"Another process is writing the cache in {path.parent}; wait for it, or end it."
                ) from None
            time.sleep(0.05)
