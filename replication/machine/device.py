"""The machine a run happens on: recorded, never part of a run's id."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from replication.machine.files import ROOT
from replication.machine.processes import World, join

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Machine:
    """Device, precision, threads, and where things lie."""

    device: torch.device
    autocast: bool | None  # bfloat16 products; weights, softmax and optimiser stay in float32. None: as the scale says
    results: Path
    artifacts: Path
    world: World = World()
    sharded: bool = False  # each process holds a shard of the student's weights, not a copy
    at_once: int | None = None  # sequences of a batch that pass through the student together; None: all
    compiled: bool = False  # the models' layers through torch.compile

    def at(self, precision: str) -> Machine:
        """This machine, set to this precision, a scale's, unless it was told another one."""
        return self if self.autocast is not None else replace(self, autocast=precision == "bfloat16")

    def precision(self) -> AbstractContextManager[object]:
        assert self.autocast is not None, "a machine computes at a scale: machine.at(scale.precision)"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.autocast)


def this_machine(results: Path | None = None, artifacts: Path | None = None) -> Machine:
    """A GPU if there is one, else the CPU.

    Environment: RESULTS and ARTIFACTS move the folders, OMP_NUM_THREADS sets the threads, AT_ONCE the sequences of a
    batch that pass through the student together; AUTOCAST=0 has every product in float32 and AUTOCAST=1 in bfloat16,
    whatever the scale says; SHARDED=1 shards the student's weights over torchrun's processes, COMPILE=0 leaves the
    models uncompiled on a GPU. Raises ValueError for a setting that is none.
    """
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if torch.cuda.is_available() else CPU
    if device.type == "cuda":
        torch.cuda.set_device(device)
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdigit() and int(threads) > 0:
        torch.set_num_threads(int(threads))
    return Machine(
        device=device,
        autocast=switch("AUTOCAST", False) if os.environ.get("AUTOCAST") else None,
        results=results or Path(os.environ.get("RESULTS", ROOT / "results" / "local")).expanduser(),
        artifacts=artifacts or Path(os.environ.get("ARTIFACTS", ROOT / "artifacts")).expanduser(),
        world=join(device),
        sharded=switch("SHARDED", False),
        at_once=whole("AT_ONCE"),
        compiled=switch("COMPILE", device.type == "cuda"),
    )


def switch(name: str, default: bool) -> bool:
    word = os.environ.get(name, "")
    if word not in ("", "0", "1"):
        raise ValueError(f"{name} is {word!r}; give 0 or 1.")
    return word == "1" if word else default


def whole(name: str) -> int | None:
    word = os.environ.get(name, "")
    if word and (not word.isdecimal() or int(word) < 1):
        raise ValueError(f"{name} is {word!r}; give a whole number of at least 1.")
    return int(word) if word else None


def has_bfloat16(device: torch.device) -> bool:
    """Whether it has instructions for bfloat16 products; elsewhere they are many times slower than float32."""
    return torch.cuda.is_bf16_supported() if device.type == "cuda" else "avx512_bf16" in cpu_flags()


def cpu_flags() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.exists() else ""
