"""The machine a run happens on: recorded, never part of a run's id."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Machine:
    """Device, precision, threads, and where things lie."""

    device: torch.device
    autocast: bool  # bfloat16 matrix products; weights, softmax and optimiser stay in float32
    results: Path
    artifacts: Path

    def precision(self) -> AbstractContextManager[object]:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.autocast)


def this_machine(results: Path | None = None, artifacts: Path | None = None) -> Machine:
    """A GPU if there is one, else the CPU with bfloat16 where its instructions have it.

    Environment: RESULTS and ARTIFACTS move the folders, OMP_NUM_THREADS sets the threads.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdigit() and int(threads) > 0:
        torch.set_num_threads(int(threads))
    return Machine(
        device=device,
        autocast=torch.cuda.is_bf16_supported() if device.type == "cuda" else "avx512_bf16" in cpu_flags(),
        results=results or Path(os.environ.get("RESULTS", ROOT / "results" / "local")),
        artifacts=artifacts or Path(os.environ.get("ARTIFACTS", ROOT / "artifacts")),
    )


def cpu_flags() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.exists() else ""
