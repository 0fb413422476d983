"""Hardware: whether a GPU's memory holds a step, and the least hardware that does."""

from __future__ import annotations

from replication.planning.estimate import Line
from replication.planning.machine_speed import gpus

MOST = 1024  # GPUs


def needed(line: Line, processes: int = 1) -> float:
    """Bytes in each of the processes that share the student's weights (SHARDED=1), a sequence at a time."""
    if processes == 1:
        return line.held + line.each
    return line.held - line.shared + line.shared / processes + line.gathered + line.each


def fits(line: Line, memory: float) -> bool:
    return needed(line) <= memory


def least(line: Line) -> str:
    """The fewest GPUs of those on file that hold it, and the smallest of these: '1 H200', '4 A100 (SHARDED=1)'."""
    processes = 1
    while processes <= MOST and line.sequences % processes == 0:
        for pace in sorted(gpus(), key=lambda pace: (pace.memory, pace.rate)):
            if needed(line, processes) <= pace.memory:
                return f"{processes} {pace.name}{' (SHARDED=1)' if processes > 1 else ''}"
        processes *= 2 if line.shared else MOST + 1  # a teacher is whole in every process
    return "no GPU on file"
