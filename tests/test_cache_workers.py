"""Processes that write a cache: the bytes of the thread, and whatever is killed, nobody waits and nothing is lost."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from replication.cache import crew, ownership
from replication.cache.crew import Crew
from replication.cache.manifest import Target
from replication.cache.ring import create, narrow
from replication.cache.verify import verify
from replication.cache.writer import Writer
from tests.test_cache import IN_SHARD, SAMPLING, SEQUENCES, TARGETS, build, files, fill, header, rows

ROOT = Path(__file__).parents[1]


def crew_of(cache: Writer) -> Crew:
    assert isinstance(cache.hand, Crew)
    return cache.hand


def descriptors() -> set[str]:
    """What this process has open, pipes and shared memory among it."""
    found = set()
    for path in Path("/proc/self/fd").iterdir():
        try:
            found.add(f"{path.name} {os.readlink(path)}")
        except FileNotFoundError:
            continue
    return {name for name in found if "memfd" in name or "socket" in name}


@TARGETS
def test_the_bytes_are_those_of_the_thread(tmp_path: Path, target: Target) -> None:
    before = descriptors()
    once = files(build(tmp_path / "thread", header(target)))
    assert files(build(tmp_path / "crew", header(target), workers=2, batch=7)) == once
    assert descriptors() == before


def test_one_batch_may_be_larger_than_a_slot(tmp_path: Path) -> None:
    head = header()
    with Writer(tmp_path / "crew", head, 90, shard_sequences=40, workers=1) as cache:
        cache.put(0, *rows(head, range(90)))
    assert files(tmp_path / "crew") == files(build(tmp_path / "thread", head, 90, shard_sequences=40))
    with Writer(tmp_path / "wide", head, SEQUENCES, IN_SHARD, workers=1) as cache:
        padded = [np.pad(part, ((0, 0), (0, 0), (0, 1000))) for part in rows(head, range(1))[:2]]
        with pytest.raises(ValueError, match="too wide; this target keeps at most 20"):
            cache.put(0, *padded, rows(head, range(1))[2])
        fill(cache)
    assert verify(tmp_path / "wide") == []


@pytest.mark.parametrize("wrong", [1000, -1, 2**40])
def test_bad_ids_are_refused_in_the_same_words(tmp_path: Path, wrong: int) -> None:
    """Ids travel in the smallest type that holds them: what is outside must not be cut down to something inside."""
    ids_BLK, weights_BLK, lengths_BL = rows(header(), range(4, 6))
    ids_BLK[1, 3, 0] = wrong
    with pytest.raises(ValueError, match=f"Sequences 4 to 5: Class id {wrong} is outside the vocabulary of 1000"):
        with Writer(tmp_path, header(), SEQUENCES, IN_SHARD, workers=2) as cache:
            fill(cache, stop_after=4, batch=1)
            cache.put(4, ids_BLK, weights_BLK, lengths_BL)
            for sequence in range(6, SEQUENCES):  # many more than there are slots: must not hang
                cache.put(sequence, *rows(header(), [sequence]))
                time.sleep(0.01)
    with Writer(tmp_path, header(), SEQUENCES, IN_SHARD, workers=1) as cache:
        assert cache.missing()[0].start == 4  # another worker may have written a later shard
        fill(cache)
    assert verify(tmp_path) == []


def test_an_error_of_the_last_batch_is_raised_by_close(tmp_path: Path) -> None:
    ids_BLK, weights_BLK, lengths_BL = rows(header(), range(SEQUENCES))
    cache = Writer(tmp_path, header(), SEQUENCES, IN_SHARD, workers=1)
    cache.put(0, ids_BLK[:20], weights_BLK[:20], lengths_BL[:20])
    cache.put(20, ids_BLK[20:] + 1000, weights_BLK[20:], lengths_BL[20:])
    with pytest.raises(ValueError, match="Sequences 20 to 21: Class id"):
        cache.close()
    assert all(worker.process.poll() == 0 for worker in crew_of(cache).workers)


@pytest.mark.parametrize("begun", [0, 9, SEQUENCES])
def test_a_killed_worker_is_told_and_resumed(tmp_path: Path, begun: int) -> None:
    with pytest.raises(ChildProcessError, match=r"ended \(signal 9\): \d+ of 22 sequences are safe; run the") as caught:
        with Writer(tmp_path / "killed", header(), SEQUENCES, IN_SHARD, workers=2) as cache:
            for worker in crew_of(cache).workers:
                os.kill(worker.process.pid, signal.SIGSTOP)  # so that work is waiting when it dies
            fill(cache, batch=4, stop_after=begun)
            crew_of(cache).workers[1].process.kill()
            crew_of(cache).workers[1].process.wait()
            os.kill(crew_of(cache).workers[0].process.pid, signal.SIGCONT)
            fill(cache, batch=4)
    assert not any(worker.process.poll() is None for worker in crew_of(cache).workers)
    assert f": {cache.safe} of 22" in str(caught.value)  # the other worker was waited for
    with Writer(tmp_path / "killed", header(), SEQUENCES, IN_SHARD, workers=2) as cache:
        fill(cache)
    assert files(tmp_path / "killed") == files(build(tmp_path / "once"))


def test_the_teacher_waits_only_when_the_ring_is_full(tmp_path: Path) -> None:
    with Writer(tmp_path, header(), SEQUENCES, shard_sequences=1, workers=1) as cache:
        (worker,) = crew_of(cache).workers
        os.kill(worker.process.pid, signal.SIGSTOP)
        slots = len(crew_of(cache).free)
        fill(cache, batch=1, stop_after=slots)
        finished = threading.Event()

        def one_more() -> None:
            cache.put(slots, *rows(header(), [slots]))
            finished.set()

        waiting = threading.Thread(target=one_more)
        waiting.start()
        assert not finished.wait(0.3)
        os.kill(worker.process.pid, signal.SIGCONT)
        waiting.join(20)
        assert finished.is_set()
        fill(cache)
    assert verify(tmp_path) == []


FULL = """
import errno, os
from pathlib import Path
from replication.machine import files

def limited(path, mode):
    if len(list(path.parent.glob("shard-*.bin"))) >= {fit}:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return open(path, mode)

files.open = limited
"""


@pytest.mark.parametrize("fit", [0, 2])
def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fit: int) -> None:
    (tmp_path / "sitecustomize.py").write_text(FULL.format(fit=fit))  # a new interpreter runs this first
    with monkeypatch.context() as patched:
        patched.setenv("PYTHONPATH", str(tmp_path))
        safe = fit * IN_SHARD
        match = f"Disk full while caching into .*: {safe} of 22 sequences are safe; .*same command"
        with pytest.raises(OSError, match=match) as caught:
            build(tmp_path / "full", workers=1, batch=2)
    assert caught.value.errno == errno.ENOSPC and "\n" not in str(caught.value)
    with Writer(tmp_path / "full", header(), SEQUENCES, IN_SHARD, workers=1) as cache:
        assert sum(map(len, cache.missing())) == SEQUENCES - safe
        fill(cache)
    assert files(tmp_path / "full") == files(build(tmp_path / "once"))


def test_an_interrupt_leaves_what_was_handed_over_and_no_process(tmp_path: Path) -> None:
    before = descriptors()
    with pytest.raises(KeyboardInterrupt):
        with Writer(tmp_path, header(), SEQUENCES, IN_SHARD, workers=2) as cache:
            fill(cache, batch=4, stop_after=16)
            raise KeyboardInterrupt
    assert all(worker.process.poll() == 0 for worker in crew_of(cache).workers)
    assert descriptors() == before
    with Writer(tmp_path, header(), SEQUENCES, IN_SHARD, workers=1) as cache:
        assert cache.missing() == [range(16, SEQUENCES)]
        fill(cache)


def test_an_interrupt_while_stopping_waits_for_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: Crew, seconds: float | None) -> None:
        raise KeyboardInterrupt

    cache = Writer(tmp_path, header(), SEQUENCES, IN_SHARD, workers=2)
    for worker in crew_of(cache).workers:
        os.kill(worker.process.pid, signal.SIGSTOP)  # it would be waited for without end
    monkeypatch.setattr(Crew, "listen", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cache.close()
    assert all(worker.process.poll() == -signal.SIGKILL for worker in crew_of(cache).workers)
    assert cache.lock is None


HELD = """
import time
from pathlib import Path
from replication.machine import files

def held(path, mode):
    while path.name.startswith("shard") and not Path({go!r}).exists():
        time.sleep(0.01)
    return open(path, mode)

files.open = held
"""


def test_a_killed_teacher_takes_its_workers_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They finish the shard that they are writing; the lock goes with the last, so that whoever resumes is alone."""
    with teacher_with_held_workers(tmp_path) as (teacher, workers):
        teacher.kill()
        teacher.wait()
        with monkeypatch.context() as patched, pytest.raises(ValueError, match="Another process is writing"):
            patched.setattr(ownership, "PATIENCE", 0.1)
            Writer(tmp_path / "cache", header(), SEQUENCES, IN_SHARD)
        (tmp_path / "go").touch()
        with Writer(tmp_path / "cache", header(), SEQUENCES, IN_SHARD) as cache:
            assert cache.missing() == [range(8, SEQUENCES)]  # a shard each; the other two are left
            assert not any(outlives(20, worker) for worker in workers)
            fill(cache)
    assert files(tmp_path / "cache") == files(build(tmp_path / "once"))


def test_ctrl_c_at_the_terminal_leaves_the_workers_their_work(tmp_path: Path) -> None:
    with teacher_with_held_workers(tmp_path) as (teacher, _):
        os.killpg(teacher.pid, signal.SIGINT)
        time.sleep(0.2)
        (tmp_path / "go").touch()
        assert teacher.wait(20) == -signal.SIGINT
    with Writer(tmp_path / "cache", header(), SEQUENCES, IN_SHARD) as cache:
        assert cache.missing() == [range(16, SEQUENCES)]
        fill(cache)


@contextmanager
def teacher_with_held_workers(folder: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A process, and its two workers that have two shards each to write and may not until there is a file `go`."""
    (folder / "sitecustomize.py").write_text(HELD.format(go=str(folder / "go")))
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"}
    command = [sys.executable, __file__, str(folder / "cache")]
    quiet, said = subprocess.DEVNULL, subprocess.PIPE
    with subprocess.Popen(
        command, env=environment, cwd=ROOT, start_new_session=True, stdout=said, stderr=quiet, text=True
    ) as teacher:
        assert teacher.stdout is not None
        workers = [int(word) for word in teacher.stdout.readline().split()]
        assert len(workers) == 2
        try:
            yield teacher, workers
        finally:
            teacher.kill()


def outlives(seconds: float, process: int) -> bool:
    """A process that ends closes its files, and with them the lock, a moment before the system counts it as ended."""
    end = time.monotonic() + seconds
    while alive(process):
        if time.monotonic() > end:
            return True
        time.sleep(0.01)
    return False


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def hand_over(directory: Path) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are started to ignore it
    with Writer(directory, header(SAMPLING), SEQUENCES, IN_SHARD, workers=2) as cache:
        fill(cache, batch=4, stop_after=16)
        print(*(worker.process.pid for worker in crew_of(cache).workers), flush=True)
        time.sleep(60)


@pytest.mark.parametrize(
    ("numbers", "dtype"),
    [([0, 255], "u1"), ([256], "u2"), ([65_536], "u4"), ([-1, 3], "i8"), ([2**40], "u8"), ([], "i8")],
)
def test_integers_take_the_room_they_need(numbers: list[int], dtype: str) -> None:
    array = np.array(numbers, np.int64)
    assert narrow(array) == np.dtype(dtype)
    ring = create(2, 4096)
    layout = ring.write(1, [array, np.ones(3, np.float32)], [narrow(array), np.dtype(np.float32)])
    ring.write(0, [np.full(512, 7)], [np.dtype(np.int64)])
    np.testing.assert_array_equal(ring.read(1, layout)[0], array)
    np.testing.assert_array_equal(ring.read(1, layout)[1], 1)
    ring.close()


@pytest.mark.parametrize(("cores", "workers"), [(1, 0), (2, 0), (4, 1), (8, 2), (16, 4), (96, 4)])
def test_a_few_cores_are_for_the_teacher_alone(monkeypatch: pytest.MonkeyPatch, cores: int, workers: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)))
    assert crew.spare_workers() == workers


if __name__ == "__main__":
    hand_over(Path(sys.argv[1]))
