"""Sparse targets to the disk and back: what is measured of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks import rows, stores
from benchmarks.effort import Effort
from benchmarks.race import Contender
from benchmarks.result import Group


def groups(effort: Effort) -> Iterator[Group]:
    """Sparse targets to the disk and back."""
    sizes = effort.stored
    drawn, every_store = rows.drawn(sizes), stores.stores(sizes.classes, sizes.draws)
    case = asdict(sizes)
    with TemporaryDirectory() as place:
        room = Path(place)
        against = stores.SAFE
        writing = {name: into(room / "written", store, drawn) for name, store in every_store.items()}
        yield Group("cache", "write", case, against, seconds=written(effort, room, writing, sizes, 15))
        folders = {}
        for number, (name, store) in enumerate(every_store.items()):
            folders[name] = room / str(number)
            folders[name].mkdir()
            store.write(folders[name], drawn)
        sizes_on_disk = {name: size_of(folder) / sizes.tokens for name, folder in folders.items()}
        yield Group("cache", "size", case, against, values={"bytes_per_token": sizes_on_disk})
        readers = {name: every_store[name].opened(folder) for name, folder in folders.items()}
        batches = [np.arange(first, first + rows.BATCH) for first in range(0, sizes.sequences, rows.BATCH)]
        alone = [np.array([each]) for each in np.random.default_rng(0).integers(sizes.sequences, size=64)]
        for name, asked, units in (("read", batches, sizes.tokens), ("access", alone, len(alone))):
            reading = [Contender(each, every(reader, asked), units) for each, reader in readers.items()]
            yield Group("cache", name, case, against, seconds=effort.race(reading, 8))
        for workers in (0, 1, 2, 4):
            crew = stores.Cache(sizes.classes, sizes.draws, workers=workers)
            several = {stores.CACHE: into(room / "written", crew, drawn)}
            yield Group(
                "cache",
                "growth",
                {**case, "workers": workers},
                varied="workers",
                seconds=written(effort, room, several, sizes, 4),
            )


def into(folder: Path, store: stores.Store, drawn: rows.Rows) -> Callable[[], object]:
    return lambda: store.write(folder, drawn)


def every(reader: Callable[[np.ndarray], object], asked: Sequence[np.ndarray]) -> Callable[[], object]:
    def read() -> None:
        for sequences_B in asked:
            reader(sequences_B)

    return read


def written(
    effort: Effort, room: Path, writing: dict[str, Callable[[], object]], sizes: rows.Sizes, seconds: float
) -> dict[str, list[float]]:
    """A unit is a token. Each time into an empty folder."""

    def emptied() -> None:
        rmtree(room / "written", ignore_errors=True)
        (room / "written").mkdir()

    contenders = [Contender(name, step, sizes.tokens) for name, step in writing.items()]
    return effort.race(contenders, seconds, settle=emptied, warm=False)


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
