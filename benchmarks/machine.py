"""The machine on which the numbers were measured."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from replication.records.provenance import commit, versions


@dataclass(frozen=True)
class Machine:
    """`load` is the system's mean number of running processes over a minute, before the run and after it."""

    processor: str
    cores: int
    threads: int
    memory_bytes: int
    gpu: str | None
    versions: dict[str, str]
    commit: str
    load: tuple[float, float]

    @property
    def name(self) -> str:
        return self.gpu or f"{self.processor}, {self.cores} cores"

    @property
    def slug(self) -> str:
        """'amd-epyc-2-cores': the name of the result's file."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")

    @property
    def device(self) -> str:
        return "cuda" if self.gpu else "cpu"

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def this_machine(load_before: float) -> Machine:
    return Machine(
        processor=processor(),
        cores=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        memory_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        versions=versions(),
        commit=commit(),
        load=(load_before, load()),
    )


def processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def load() -> float:
    return round(os.getloadavg()[0], 2)
