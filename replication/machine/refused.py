"""What a disk refuses: found before work begins, and told with what to do about it."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from tempfile import TemporaryFile

FULL = errno.ENOSPC, errno.EDQUOT
FORBIDDEN = errno.EROFS, errno.EACCES, errno.EPERM
NO_FOLDER = errno.EEXIST, errno.ENOTDIR


def refuse_unwritable(folder: Path) -> None:
    """Raises OSError where no file can be made in a folder, which need not be there yet."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    try:
        with TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from None


def told(error: OSError) -> str:
    """One line: which file, what the system said, and what to do. A message of our own says that already."""
    if error.errno is None or error.strerror != os.strerror(error.errno):
        return str(error.strerror or error)
    where, elsewhere = error.filename or "a file", "let RESULTS and ARTIFACTS name other folders"
    if error.errno in FULL:
        return (
            f"{where}: the disk is full. Free some space and run the same command again: it goes on from what is saved."
        )
    if error.errno in FORBIDDEN:
        return f"{where}: {error.strerror}. Allow it there, or {elsewhere}."
    if error.errno in NO_FOLDER:
        return f"{where}: there is a file where a folder has to be. Move it, or {elsewhere}."
    if error.filename is None:
        return str(error)
    return f"Cannot use {where}: {error.strerror}. Mend that, or {elsewhere}; the same command then goes on from here."
