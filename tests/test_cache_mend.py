"""A cache that was damaged, or is another one: noticed where it is opened, and put right without losing anything."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from replication.cache import manifest, mend, ownership, shard
from replication.cache.law import FILE as LAW
from replication.cache.manifest import FILE, UNFINISHED, Expected, Header, read_manifest
from replication.cache.mend import make_way
from replication.cache.reader import Reader
from replication.cache.shard import BUILD, NOTE, file_name
from replication.cache.verify import verify
from replication.cache.writer import Writer
from tests.test_cache import IN_SHARD, SEQUENCES, build, files, fill, header
from tests.test_cache_formats import UNIGRAM

FORMATS: dict[str, dict[str, Any]] = {"plain": {}, "zstd": {"compression": "zstd"}, "unigram": UNIGRAM}
EXPECTED = Expected(**dict(header()))
SHARDS = -(-SEQUENCES // IN_SHARD)


def flip(path: Path, place: int | None = None) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2 if place is None else place] ^= 1
    path.write_bytes(raw)


def put_right(directory: Path, expected: Expected = EXPECTED, head: Header | None = None, **how: Any) -> list[str]:
    """What `cache build` does; what it tells."""
    told: list[str] = []
    plan = make_way(directory, expected, told.append)
    head = head or (plan.header if plan else header())
    with Writer(directory, head, SEQUENCES, IN_SHARD, **how) as cache:
        fill(cache)
    return told


@pytest.mark.parametrize("how", FORMATS.values(), ids=FORMATS)
def test_a_shard_is_checked_when_it_is_first_read(tmp_path: Path, how: dict[str, Any]) -> None:
    build(tmp_path, **how)
    for index in range(SHARDS):
        sound = (tmp_path / file_name(index)).read_bytes()
        flip(tmp_path / file_name(index), 11 * index)  # in the mark, the count, the sizes, the blocks
        reader, damaged = Reader(tmp_path), index * IN_SHARD
        with pytest.raises(
            ValueError, match=rf"{file_name(index)} is damaged: its checksum differs.*cache build"
        ) as caught:
            reader.rows([(damaged + IN_SHARD) % SEQUENCES, damaged])
        assert "\n" not in str(caught.value)
        with pytest.raises(ValueError, match=file_name(index)):
            reader.positions([[damaged * reader.length]])
        (tmp_path / file_name(index)).write_bytes(sound)
        reader.rows([damaged])  # a restored file is read on


def test_a_shard_is_checked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it is mapped: no more than one more pass over a cache."""
    build(tmp_path)
    checked: list[Path] = []
    real = manifest.checksum
    monkeypatch.setattr(manifest, "checksum", lambda path: checked.append(path) or real(path))
    monkeypatch.setattr("replication.cache.reader.OPEN_SHARDS", 2)
    reader = Reader(tmp_path)
    assert not checked
    for sequence in [*range(SEQUENCES), *reversed(range(SEQUENCES))]:
        reader.rows([sequence])
    assert [path.name for path in checked] == [file_name(index) for index in range(SHARDS)]


def cut(path: Path) -> None:
    os.truncate(path, 100)


DAMAGE: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "a bit": (flip, [file_name(1)]),
    "two shards": (flip, [file_name(0), file_name(5)]),
    "lost": (Path.unlink, [file_name(3)]),
    "cut": (cut, [file_name(5)]),
}


@pytest.mark.parametrize("how", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("kind", DAMAGE)
def test_only_what_is_damaged_is_written_again(tmp_path: Path, kind: str, how: dict[str, Any]) -> None:
    before = files(build(tmp_path, **how))
    (damage, names), inodes = DAMAGE[kind], {path.name: path.stat().st_ino for path in tmp_path.glob("*.bin")}
    for name in names:
        damage(tmp_path / name)
    told = put_right(tmp_path, **how)
    assert [name for name in names for words in told if f"/{name} " in words and "and nothing else" in words] == names
    assert len(told) == len(names)
    assert files(tmp_path) == before and verify(tmp_path) == []
    same = {name for name, inode in inodes.items() if (tmp_path / name).stat().st_ino == inode}
    assert same >= set(inodes) - set(names) and not any(path.name.endswith(NOTE) for path in tmp_path.iterdir())
    assert put_right(tmp_path, **how) == []


def test_a_damaged_law_is_written_again(tmp_path: Path) -> None:
    before = files(build(tmp_path, **UNIGRAM))
    flip(tmp_path / LAW)
    with pytest.raises(ValueError, match=rf"{LAW} is damaged: its checksum differs; to write this file again"):
        Reader(tmp_path)
    assert [LAW in words for words in put_right(tmp_path, **UNIGRAM)] == [True]
    assert files(tmp_path) == before


@pytest.mark.parametrize("finished", [True, False])
def test_another_cache_is_put_aside_whole(tmp_path: Path, finished: bool) -> None:
    directory = tmp_path / "cache"
    for number, seed in enumerate([1, 2], 1):
        if finished:
            build(directory)
        else:
            with pytest.raises(ValueError, match="lacks"):
                build(directory, stop_after=9)
        before, other = files(directory), header(seed=seed)
        (words,) = put_right(directory, Expected(**dict(other)), other)
        assert f"seed is 0 in the cache but {seed} here. It is kept as {tmp_path}/replaced/cache-{number}" in words
        assert files(tmp_path / "replaced" / f"cache-{number}") == before
        assert read_manifest(directory).header == other and verify(directory) == []
        shutil.rmtree(directory)


def test_a_teacher_goes_by_its_older_name_too(tmp_path: Path) -> None:
    """What was begun under it is mended under it."""
    before = files(build(tmp_path))
    flip(tmp_path / file_name(2))
    put_right(tmp_path, Expected(teacher=("new name", "teacher-a")))
    assert files(tmp_path) == before


@pytest.mark.parametrize("name", [FILE, UNFINISHED])
def test_a_cache_without_a_word_of_its_own_is_put_aside(tmp_path: Path, name: str) -> None:
    directory, once = tmp_path / "cache", build(tmp_path / "once")
    if name == FILE:
        build(directory)
    else:
        with pytest.raises(ValueError, match="lacks"):
            build(directory, stop_after=9)
    flip(directory / name, 0)
    before = files(directory)
    (words,) = put_right(directory)
    assert name in words and "cache build" not in words  # it is what is being done
    assert files(tmp_path / "replaced" / "cache-1") == before and files(directory) == files(once)


def test_a_bit_that_changes_between_a_kill_and_its_resumption_is_noticed(tmp_path: Path) -> None:
    once = build(tmp_path / "once")
    with pytest.raises(ValueError, match="lacks"):
        build(tmp_path / "cache", stop_after=13)
    assert shard.noted(tmp_path / "cache" / file_name(1)) == shard.checksum(once / file_name(1))
    flip(tmp_path / "cache" / file_name(1))
    with Writer(tmp_path / "cache", header(), SEQUENCES, IN_SHARD) as cache:
        assert cache.missing() == [range(4, 8), range(12, SEQUENCES)]
        flip(tmp_path / "cache" / file_name(2))  # and while it is being written
        fill(cache)
    assert [file_name(2) in problem for problem in verify(tmp_path / "cache")] == [True]
    put_right(tmp_path / "cache")
    assert files(tmp_path / "cache") == files(once)


def test_a_kill_while_a_damaged_file_is_taken_out_leaves_a_cache_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each rename and removal: what stands then is refused by a reader, and put right by the same command."""
    once, step = files(build(tmp_path / "once")), 0
    while True:
        directory = build(tmp_path / str(step))
        flip(directory / file_name(2))
        left = [step]

        def ticking(call: Callable[..., Any], left: list[int] = left) -> Callable[..., Any]:
            def ticked(*given: Any, **named: Any) -> Any:
                left[0] -= 1
                if left[0] < 0:
                    raise KeyboardInterrupt
                return call(*given, **named)

            return ticked

        with monkeypatch.context() as patched:
            for name in ("replace", "unlink"):
                patched.setattr(os, name, ticking(getattr(os, name)))
            try:
                make_way(directory, EXPECTED, lambda words: None)
            except KeyboardInterrupt:
                pass
            else:
                break
        with pytest.raises(ValueError, match="cache build"):
            Reader(directory).rows(range(SEQUENCES))
        put_right(directory)
        assert files(directory) == once, step
        step += 1
    assert step == 3  # the plan, the shard, the manifest


def test_nothing_is_taken_from_a_process_that_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "PATIENCE", 0.1)
    with Writer(tmp_path, header(), SEQUENCES, IN_SHARD) as cache:
        with pytest.raises(ValueError, match="Another process is writing the cache in"):
            make_way(tmp_path, Expected(seed=1), lambda words: None)
        fill(cache)
    assert verify(tmp_path) == []


def test_two_that_find_the_same_damage_mend_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second looked before the first had mended, and got the lock after."""
    before = files(build(tmp_path))
    flip(tmp_path / file_name(2))
    real, told = mend.locked, []

    def overtaken(path: Path, alone: bool) -> int:
        monkeypatch.setattr(mend, "locked", real)
        put_right(tmp_path)
        return real(path, alone)

    monkeypatch.setattr(mend, "locked", overtaken)
    make_way(tmp_path, EXPECTED, told.append)
    assert told == [] and files(tmp_path) == before


def test_what_is_said_can_be_typed() -> None:
    assert BUILD.startswith("python -m replication cache build RECIPE")
