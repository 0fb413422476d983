"""A command in a process of its own: its output in a file, its seconds, and the most memory that it has held."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from replication.machine.files import ROOT

GLANCE = 0.05  # seconds between two looks at whether it is to be stopped


@dataclass(frozen=True)
class Outcome:
    """`status` as a shell has it, negative for a signal; `memory` in bytes, of the largest process of several."""

    status: int
    seconds: float
    memory: int


def outcome_of(
    command: Sequence[str],
    log: Path,
    environment: Mapping[str, str],
    seconds: float = float("inf"),
    stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """The command, run in the repository's root to its end, or killed with all that it has started.

    That is after so many seconds, or as soon as `stop` says so.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    began, over = time.perf_counter(), threading.Event()
    with log.open("a") as file:
        child = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **environment}, stdout=file, stderr=file, start_new_session=True
        )

    def watch() -> None:
        while not over.wait(GLANCE):
            if time.perf_counter() - began > seconds or stop():
                end(child.pid)
                return

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        # the only way to hear of this child's memory, and not of the largest child's so far; it stays until waited for
        _, status, usage = os.wait4(child.pid, 0)
    except BaseException:
        end(child.pid)
        raise
    finally:
        over.set()
        watching.join()
    child.returncode = os.waitstatus_to_exitcode(status)
    unit = 1 if platform.system() == "Darwin" else 1024
    return Outcome(child.returncode, time.perf_counter() - began, usage.ru_maxrss * unit)


def end(pid: int) -> None:
    """Kill a process and all that it has started, in whatever session."""
    for each in (pid, *descendants(pid)):
        with suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)


def descendants(pid: int) -> list[int]:
    """As /proc has them; none where there is no /proc."""
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # a thread that has ended meanwhile
            for child in map(int, path.read_text().split()):
                found += [child, *descendants(child)]
    return found


def last_words(log: Path, lines: int = 12) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
