"""What a step takes beyond its inputs, at most: measured in a process of its own, which has done nothing else."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from replication.machine.memory import huge_pages

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
Step = Callable[[], object]
Maker = Callable[..., Step]
# a bare process with everything loaded, of which each measured one is a copy
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["benchmarks.losses", "benchmarks.heads", "benchmarks.draws"])


def peaks(maker: Maker, arguments: dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]]) -> dict[str, dict[str, float]]:
    """By contender, whose arguments are a small step's and the measured one's. Nothing where it cannot be measured."""
    if not (torch.cuda.is_available() or CLEAR.exists()):
        return {}
    found = {name: peak_bytes(maker, small, large) for name, (small, large) in arguments.items()}
    return {"peak_bytes": {name: float(peak) for name, peak in found.items() if peak is not None}}


def peak_bytes(maker: Maker, small: tuple[Any, ...], arguments: tuple[Any, ...]) -> int | None:
    """Of `maker(*arguments)()`; None where the process was killed, as it is when memory runs out.

    `maker(*small)()` runs first, so that libraries are loaded before anything is counted. Resident memory (Linux) of
    the process; of a GPU what PyTorch has allocated.
    """
    receiver, sender = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=report, args=(sender, torch.get_num_threads(), maker, small, arguments))
    process.start()
    sender.close()
    try:
        answer: int | Exception = receiver.recv()
    except EOFError:
        return None
    finally:
        process.join()
    if isinstance(answer, Exception):
        raise answer
    return answer


def report(sender: Connection, threads: int, maker: Maker, small: tuple[Any, ...], arguments: tuple[Any, ...]) -> None:
    try:
        torch.set_num_threads(threads)
        sender.send(growth(maker, small, arguments))
    except Exception as error:  # raised again in the process that asked
        sender.send(error)


def growth(maker: Maker, small: tuple[Any, ...], arguments: tuple[Any, ...]) -> int:
    maker(*small)()
    step = maker(*arguments)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    CLEAR.write_text("5")  # the peak so far is forgotten
    before = resident("VmRSS")
    step()
    return resident("VmHWM") - before


def resident(key: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024


def touch(size: int) -> Callable[[], None]:
    """Takes `size` bytes and gives them back: no step pays for memory that the system had reclaimed meanwhile."""

    def touched() -> None:
        if not torch.cuda.is_available():
            torch.frombuffer(huge_pages(size), dtype=torch.uint8).zero_()

    return touched
