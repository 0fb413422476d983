"""What is known of files by their content, remembered while nobody touches them: to ask again costs a look at each."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from replication.machine.files import replace_text


def remembered(what: str, of: Iterable[Path], find: Callable[[], str], folder: Path) -> str:
    """`find()`, or what it gave when these files were last asked `what`, in the state in which they are now.

    A file's state is its place, size, inode, and when content and inode were last changed, in nanoseconds: whatever
    replaces a file changes one of them, also with its date kept. It is taken before the content is read, so a file
    that is replaced meanwhile is read again the next time.
    """
    stats = [(os.path.abspath(path), path.stat()) for path in sorted(of) if path.exists()]
    state = [(place, each.st_size, each.st_ino, each.st_mtime_ns, each.st_ctime_ns) for place, each in stats]
    path = folder / hashlib.sha256(json.dumps([what, state]).encode()).hexdigest()[:32]
    if path.exists():
        return path.read_text()
    found = find()
    with suppress(OSError):  # a disk that is full or not ours costs another look, no more
        replace_text(path, found)
    return found
