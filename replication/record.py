"""Records: what a run leaves behind. The format is in results/README.md."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import resource
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from replication.digest import digests
from replication.files import replace_text

ROOT = Path(__file__).parent.parent
FORMAT = 2
STEPS, EVALUATIONS = "metrics.jsonl", "evaluations.jsonl"  # lines logged on the way
NO_CORPUS = {"name": "none", "fingerprint": "none"}  # of what reads no text
LIBRARIES = ("torch", "transformers", "tokenizers", "numpy")
# the files of which `source` is a digest, beside the axes: a hint of how the code was written, never compared
DECISIVE = (
    "loss.py", "fused.py", "products.py", "logit_gradients.py", "head.py", "student.py", "corpus.py", "tokenizer.py",
    "packing.py", "model.py", "supervision.py", "train.py", "cache/codec.py", "cache/counts.py", "cache/filling.py",
    "cache/ratio.py", "cache/bits.py", "cache/choose.py", "evaluate/language_model.py", "evaluate/calibration.py",
)  # fmt: skip
DECIDING = tuple(ROOT / "replication" / name for name in DECISIVE)
# what must be the same where a run is resumed, with the words of a refusal
BOUND = {
    "recipe": "recipe", "scale": "scale", "settings": "settings", "seed": "seed", "corpus": "text", "inputs": "input",
    "numerics": "numerics of the code", "products": "precision of its products",
}  # fmt: skip


def seed_for(seed: int, *purpose: Any) -> int:
    """A seed for one purpose ("init", "draw", 17, ...), so that no two purposes share a random stream."""
    text = json.dumps([seed, *purpose])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *purpose: Any) -> torch.Generator:
    return torch.Generator().manual_seed(seed_for(seed, *purpose))


@dataclass
class Record:
    """The folder of one run. `finish` writes the summary last, by rename: its presence means done."""

    folder: Path
    started: float = field(default_factory=time.perf_counter)

    @property
    def done(self) -> bool:
        return (self.folder / "summary.json").exists()

    def open(self, config: dict[str, Any]) -> None:
        """Write config.json, or refuse to continue a record that was begun with other settings."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "config.json"
        if path.exists():
            before, now = json.loads(path.read_text()), json.loads(json.dumps(config))
            for key, words in BOUND.items():
                then, new = (each.get("precision", {}) if key == "products" else each for each in (before, now))
                if then.get(key) != new.get(key):
                    raise ValueError(
                        f"{self.folder.name} was begun with another {words} ({then.get(key)} then, {new.get(key)} "
                        f"now). Delete {self.folder} to run it again."
                    )
        else:
            write(path, config)

    def resume_at(self, step: int) -> None:
        """Drop logged lines beyond `step`, which a resumed run will write again."""
        for name in (STEPS, EVALUATIONS):
            kept = [line for line in self.lines(name) if line["step"] <= step]
            replace_text(self.folder / name, "".join(json.dumps(line) + "\n" for line in kept))

    def log(self, name: str = STEPS, **values: Any) -> None:
        with open(self.folder / name, "a") as file:
            file.write(json.dumps({key: finite(value) for key, value in values.items()}) + "\n")

    def lines(self, name: str) -> list[dict[str, Any]]:
        """What was logged, without a line that a kill has cut."""
        path = self.folder / name
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("}")]

    def finish(
        self, metrics: dict[str, float], curves: dict[str, Any], diverged: bool = False, **machine: float
    ) -> None:
        write(
            self.folder / "summary.json",
            {
                "run_id": self.folder.name,
                "metrics": {key: finite(value) for key, value in metrics.items()},
                "curves": curves,
                "diverged": diverged,
                "machine": {
                    "seconds": round(time.perf_counter() - self.started, 3),
                    "peak_memory_bytes": peak_memory(),
                    **machine,
                },
            },
        )


def finite(value: Any) -> Any:
    """JSON has no infinity: null stands for a number that is not finite."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write(path: Path, content: dict[str, Any]) -> None:
    replace_text(path, json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n")


def provenance(methods: Iterable[str], files: Sequence[Path] = DECIDING) -> dict[str, Any]:
    """By which code, on what: recorded with every run, never part of its id and never compared.

    `source` digests `files` and, of the axis files, what they and `methods`, the recipe's classes, use.
    """
    source = {**asdict(digests(files, methods)), "commit": commit()}
    return {"format": FORMAT, "source": source, "versions": versions(), "hardware": hardware()}


def commit() -> str:
    """The commit, with '+' if tracked files differ from it; '' outside a git checkout."""
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        state = subprocess.run(["git", "diff", "--quiet", "HEAD"], cwd=ROOT, capture_output=True).returncode
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head.strip()[:12] + ("+" if state else "")


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"machine": platform.machine(), "cores": os.cpu_count(), "gpu": gpu, "threads": torch.get_num_threads()}


def forget_peak_memory() -> None:
    """So that the next peak is that of what comes now; on a CPU where the system can: Linux does."""
    forgetting = Path("/proc/self/clear_refs")
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    elif forgetting.exists():
        forgetting.write_text("5")


def peak_memory() -> int:
    """Bytes: of the GPU where there is one, else of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
