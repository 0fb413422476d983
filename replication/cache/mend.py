"""What stands where a cache is to be built: its damaged files are taken out, another run's cache is put aside."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from replication.cache import shard
from replication.cache.manifest import FILE, UNFINISHED, Expected, Manifest, Plan, differences, read_manifest, read_plan
from replication.cache.ownership import locked
from replication.machine import files

Tell = Callable[[str], None]


def make_way(directory: Path, expected: Expected, tell: Tell) -> Plan | None:
    """Let a Writer build the `expected` cache in `directory`; gives the plan of what stands there and is to go on.

    A finished cache loses its damaged files and is unfinished again, so that a Writer makes these anew and no other.
    A cache that is another one, or whose own word cannot be read, is put aside. `tell` hears of both, a line each.
    Reads every byte. Raises ValueError where another process writes there.
    """
    while True:
        try:
            found = look(directory, expected)
            if not found.strange and not found.damaged:
                return found.plan
            lock = locked(directory / found.file, alone=True)
        except FileNotFoundError:
            continue  # another process made way, or finished the cache, a moment ago
        try:
            act(directory, look(directory, expected), tell)
        finally:
            os.close(lock)


@dataclass(frozen=True)
class Found:
    """What stands in a cache's folder: a manifest, a plan, or neither."""

    file: str
    plan: Plan | None = None
    strange: str = ""  # why it cannot be gone on with
    damaged: dict[Path, str] = field(default_factory=dict)  # words by file, of a finished cache


def look(directory: Path, expected: Expected) -> Found:
    file = FILE if (directory / FILE).exists() else UNFINISHED
    if not (directory / file).exists():
        return Found(file)
    try:
        plan = read_manifest(directory) if file == FILE else read_plan(directory)
    except ValueError as error:
        return Found(file, strange=str(error).rpartition("; ")[0])  # without what to do, which is being done
    if wrong := differences(plan, expected):
        return Found(file, strange=f"{directory} is another cache: {'; '.join(wrong)}")
    return Found(file, plan, damaged=plan.damage(directory) if isinstance(plan, Manifest) else {})


def act(directory: Path, found: Found, tell: Tell) -> None:
    if found.strange:
        place = files.set_aside(directory)
        tell(f"{found.strange}. It is kept as {place}; delete that when no run needs it.")
    elif found.damaged:
        assert isinstance(found.plan, Manifest)
        for words in found.damaged.values():
            tell(f"{words}; it is written again, and nothing else.")
        take_out(directory, found.plan, found.damaged)


def take_out(directory: Path, manifest: Manifest, damaged: dict[Path, str]) -> None:
    """In an order in which a kill at any moment leaves a cache that says what it lacks."""
    plan = Plan(**{name: getattr(manifest, name) for name in Plan.model_fields})
    files.write(directory / UNFINISHED, [plan.model_dump_json(indent=1).encode()])
    for entry in manifest.shards:
        if directory / entry.file not in damaged:
            shard.note(directory / entry.file, entry.sha256)
    for path in damaged:
        files.remove(path)
    files.remove(directory / FILE)
