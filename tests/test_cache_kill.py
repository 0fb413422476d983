"""Killed at twenty random moments and at every single step, then resumed: the bytes are those of one go.

The test runs this file as a script: a process of one thread, whose forks need not load numpy and torch again.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from replication.cache.manifest import FILE, Header, Target
from replication.cache.verify import verify
from replication.cache.writer import Writer
from replication.machine import files

SEQUENCES, LENGTH, IN_SHARD, PAUSE = 120, 32, 2, 0.002
KILLS, WORKERS_KILLS = 20, 6


def test_killed_at_random_moments(tmp_path: Path) -> None:
    in_one_thread("random-moments", tmp_path)


def test_killed_with_its_workers_at_random_moments(tmp_path: Path) -> None:
    in_one_thread("with-workers", tmp_path)


def test_killed_at_every_step(tmp_path: Path) -> None:
    in_one_thread("every-step", tmp_path)


def in_one_thread(how: str, folder: Path) -> None:
    root = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    subprocess.run([sys.executable, __file__, how, str(folder)], cwd=root, env=environment, check=True, timeout=120)


def at_random_moments(folder: Path, workers: int = 0, wanted: int = KILLS) -> None:
    write(folder / "before", 0, sequences=1)  # loads torch, which no fork should have to, and no clock should see
    begin = time.perf_counter()
    write(folder / "once", PAUSE)
    whole = time.perf_counter() - begin
    chance = random.Random(0)
    kills, rounds, halfway = 0, 0, 0
    while kills < wanted:
        directory = folder / f"round{rounds}"
        while not (directory / FILE).exists() and kills < wanted:
            if killed_while_writing(directory, chance.uniform(0, whole / 2), workers):
                kills += 1
                halfway += 0 < len(list(directory.glob("shard-*.bin"))) < SEQUENCES // IN_SHARD
        write(directory, 0)
        assert held(directory) == held(folder / "once"), rounds
        assert verify(directory) == []
        rounds += 1
    assert halfway >= wanted // 2, halfway  # the kills fell into the writing, not before or after it


def at_every_step(folder: Path) -> None:
    """Half of a write, a flush, a rename, a removal: the process ends right before or in each of them, once."""
    write(folder / "once", 0, sequences=5)
    step, died = 0, True
    while died:
        directory = folder / f"step{step}"
        writer = os.fork()
        if writer == 0:
            die_at(step)
            write(directory, 0, sequences=5)
            os._exit(0)
        status = os.waitpid(writer, 0)[1]
        died = os.WIFSIGNALED(status)
        assert died or status == 0, f"step {step} of the writer failed"
        write(directory, 0, sequences=5)
        assert held(directory) == held(folder / "once"), step
        step += 1
    assert step > 20, step  # five files of several steps each


def die_at(step: int) -> None:
    """Let this process kill itself at a certain step of writing files."""
    left = step

    def tick() -> None:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    class Slow:
        def __init__(self, path: Path, mode: str) -> None:
            self.file = open(path, mode, buffering=0)

        def __enter__(self) -> Slow:
            return self

        def __exit__(self, *error: object) -> None:
            self.file.close()

        def write(self, part: bytes) -> None:
            self.file.write(part[: len(part) // 2])
            tick()
            self.file.write(part[len(part) // 2 :])

        def flush(self) -> None:
            tick()

        def fileno(self) -> int:
            return self.file.fileno()

    def ticking(call: Any) -> Any:
        def ticked(*arguments: Any, **named: Any) -> Any:
            tick()
            return call(*arguments, **named)

        return ticked

    files.open = Slow  # type: ignore[attr-defined]
    os.link, os.replace, os.unlink = ticking(os.link), ticking(os.replace), ticking(os.unlink)


def killed_while_writing(directory: Path, seconds: float, workers: int) -> bool:
    """Fork a writer and SIGKILL it after so many seconds; False where it was done before.

    With workers, which take a while to start, the seconds count from the first shard that they write.
    """
    begun = len(list(directory.glob("shard-*.bin")))
    writer = os.fork()
    if writer == 0:
        write(directory, PAUSE, workers=workers)
        os._exit(0)
    while workers and not ended(writer) and len(list(directory.glob("shard-*.bin"))) == begun:
        time.sleep(0.001)
    time.sleep(seconds)
    os.kill(writer, signal.SIGKILL)
    status = os.waitpid(writer, 0)[1]
    assert os.WIFSIGNALED(status) or status == 0
    return os.WIFSIGNALED(status)


def ended(process: int) -> bool:
    return os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def write(directory: Path, pause: float, sequences: int = SEQUENCES, workers: int = 0) -> None:
    """Write the cache, or what is missing of it, not faster than a sequence every `pause` seconds."""
    target = Target(name="RandomSampling", fields={"draws": 4, "exponent": 1.0})
    header = Header(teacher="t", tokenizer="k", packing="p", target=target, seed=0, vocabulary=100_000, length=LENGTH)
    with Writer(directory, header, sequences, IN_SHARD, workers) as cache:
        for span in cache.missing():
            for sequence in span:
                ids_BLK = np.random.default_rng(sequence).integers(0, 100_000, (1, LENGTH, 2))
                weights_BLK = np.full((1, LENGTH, 2), [0.25, 0.75], np.float32)
                cache.put(sequence, ids_BLK, weights_BLK, np.full((1, LENGTH), 2))
                time.sleep(pause)


def held(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


if __name__ == "__main__":
    how, place = sys.argv[1], Path(sys.argv[2])
    if how == "every-step":
        at_every_step(place)
    elif how == "with-workers":
        at_random_moments(place, workers=2, wanted=WORKERS_KILLS)
    else:
        at_random_moments(place)
