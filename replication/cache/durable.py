"""A file that exists completely or not at all, whatever is killed when, and whoever else writes the same one."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from pathlib import Path

TEMPORARY = ".tmp"


def write(path: Path, parts: Iterable[bytes]) -> None:
    """Write next to `path`, flush to the disk, rename. Raises OSError (disk full, ...) and leaves nothing behind."""
    temporary = drafted(path, parts)
    try:
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def create(path: Path, parts: Iterable[bytes]) -> None:
    """The same, unless `path` exists: of several processes that create it at once, one does, and it stays."""
    temporary = drafted(path, parts)
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
    sync(path.parent)


def drafted(path: Path, parts: Iterable[bytes]) -> Path:
    """A complete file beside `path`, under a name that no other process, here or on another machine, will choose."""
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}{TEMPORARY}")
    try:
        with open(temporary, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


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
    """Remove what killed writers left half-written. Only for who is alone in the directory."""
    for stale in directory.glob("*" + TEMPORARY):
        stale.unlink(missing_ok=True)
