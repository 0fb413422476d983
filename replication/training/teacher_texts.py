"""Text that a teacher writes once, for all students: made before the first step, and kept among the artifacts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from replication.machine.files import replacing

PART = 128  # rows of a file


@dataclass(frozen=True)
class TeacherTexts:
    """Rows of a packing as a teacher went on with them; `fingerprint` is of the content of those that a run reads."""

    folder: Path
    fingerprint: str

    def rows(self, rows_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(int64 tokens [B, X], bool: which of them were written). On file a written token is its complement."""
        coded_BX = np.stack([np.load(part_of(self.folder, row), mmap_mode="r")[row % PART] for row in rows_B])
        coded_BX = coded_BX.astype(np.int64)
        return np.where(coded_BX < 0, ~coded_BX, coded_BX), coded_BX < 0


def teacher_texts(
    folder: Path, rows_S: np.ndarray, count: int, write: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
) -> TeacherTexts:
    """The texts of these rows of `count`, those that lack written now, a file at a time: a kill costs one.

    `folder` is named after all that decides them; `write` gives tokens and which of them were written. ValueError for
    a file that is no such file.
    """
    wanted = sorted({int(row) // PART for row in rows_S})
    for part in lacking(folder, wanted):
        rows_B = np.arange(part * PART, min((part + 1) * PART, count))
        tokens_BX, wrote_BX = write(rows_B)
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(part_of(folder, part * PART)) as file:
            np.save(file, np.where(wrote_BX, ~tokens_BX, tokens_BX).astype(np.int32))
    digest = hashlib.sha256()
    for part in wanted:
        path = part_of(folder, part * PART)
        try:
            found = np.load(path)
        except (ValueError, EOFError):
            raise ValueError(f"{path} is damaged. Delete it; it is then written again.") from None
        digest.update(np.ascontiguousarray(found).tobytes())
    return TeacherTexts(folder, digest.hexdigest()[:16])


def lacking(folder: Path, parts: list[int]) -> Iterable[int]:
    missing = [part for part in parts if not part_of(folder, part * PART).exists()]
    return tqdm(missing, desc="the teacher writes", unit="file", mininterval=2.0) if missing else []


def part_of(folder: Path, row: int) -> Path:
    return folder / f"rows-{row // PART:06}.npy"
