"""The log of ratings: one line for each that was given, on the disk before the next is asked for."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType


@dataclass(frozen=True)
class Rating:
    key: str  # judge.Pair.key
    scores: tuple[float, float] | None  # of the first and the second response; None: every reply was malformed
    replies: list[str]  # the last one is what the scores were read from
    tokens_in: int  # of all replies, as the server counts
    tokens_out: int


class Ratings:
    """Append-only, one process at a time. Half a line, as a process that is killed leaves it, is cut off.

    ValueError where another process has it, and where a line is damaged. Use as a context manager.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.found = path, dict[str, Rating]()
        self.file = open(path, "a+b")
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.file.close()
            raise ValueError(f"Another process is writing {path}: wait for it, or end it.") from None
        self.file.seek(0)
        whole = 0
        for number, line in enumerate(self.file, start=1):
            if not line.endswith(b"\n"):
                break
            try:
                row = json.loads(line)
                rating = Rating(**{**row, "scores": None if row["scores"] is None else tuple(row["scores"])})
            except (ValueError, TypeError, KeyError):
                self.file.close()
                raise ValueError(
                    f"{path}, line {number} is damaged. Remove that line; it is then asked again."
                ) from None
            self.found[rating.key] = rating
            whole += len(line)
        self.file.truncate(whole)

    def add(self, rating: Rating) -> None:
        assert rating.key not in self.found
        self.file.write(json.dumps(asdict(rating)).encode() + b"\n")
        self.file.flush()
        os.fsync(self.file.fileno())
        self.found[rating.key] = rating

    def __enter__(self) -> Ratings:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()
