"""Files: each exists completely or not at all, whatever is killed when, and whoever else writes the same one."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import BinaryIO

TEMPORARY = ".tmp"
ROOT = Path(__file__).parents[2]  # of the checkout


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write in: flushed to the disk, it takes the place of `path` at the end of the block.

    Where the block or the disk fails (OSError), `path` is as before and nothing is left beside it.
    """
    temporary = beside(path)
    try:
        with flushed(temporary) as file:
            yield file
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def write(path: Path, parts: Iterable[bytes]) -> None:
    """All of the parts or what was there before. Raises OSError (disk full, ...)."""
    with replacing(path) as file:
        for part in parts:
            file.write(part)


def replace_text(path: Path, text: str) -> None:
    """All of the new text or all of the old; folders that are not there are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, [text.encode()])


def create(path: Path, parts: Iterable[bytes]) -> None:
    """As `write`, unless `path` exists: of several processes that create it at once, one does, and it stays."""
    temporary = beside(path)
    try:
        with flushed(temporary) as file:
            for part in parts:
                file.write(part)
        with suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def beside(path: Path) -> Path:
    """A name that no other process, here or on another machine, will choose."""
    return path.with_name(f"{path.name}.{secrets.token_hex(8)}{TEMPORARY}")


@contextmanager
def flushed(path: Path) -> Iterator[BinaryIO]:
    with naming(path), open(path, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def jot(path: Path, text: str) -> None:
    """Quick, but a kill or a power cut may leave a part of it: for what is worth nothing then, and does no harm."""
    with naming(path), open(path, "wb") as file:
        file.write(text.encode())


def append(path: Path, line: str) -> None:
    with naming(path), open(path, "a") as file:
        file.write(line)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """A disk that is full while it is written to says so without the name of the file."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    sync(path.parent)


def sync(directory: Path) -> None:
    """Makes renames in a directory outlive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(directory: Path) -> None:
    """Remove the half-written files of killed writers. Only for the one process that writes in the directory."""
    for stale in directory.glob("*" + TEMPORARY):
        stale.unlink(missing_ok=True)


def set_aside(path: Path) -> Path:
    """Move a file or folder into 'replaced' beside it, under a number of its own, and say where it is then."""
    folder = path.parent / "replaced"
    folder.mkdir(exist_ok=True)
    place = next(to for number in count(1) if not (to := folder / f"{path.name}-{number}").exists())
    path.rename(place)
    return place
