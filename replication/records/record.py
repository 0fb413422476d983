"""Records: what a run leaves behind. The format is in results/README.md."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from replication.experiment.run import Run
from replication.machine.device import Machine
from replication.machine.files import append, replace_text, sync
from replication.machine.memory import peak_memory

STEPS, EVALUATIONS = "metrics.jsonl", "evaluations.jsonl"  # lines logged on the way
NO_CORPUS = {"name": "none", "fingerprint": "none"}  # of what reads no text


# what must be the same where a run is resumed, with the words of a refusal
BOUND = {
    "recipe": "recipe", "scale": "scale", "settings": "settings", "seed": "seed", "corpus": "text", "inputs": "input",
    "numerics": "numerics of the code", "products": "precision of its products",
}  # fmt: skip


@dataclass
class Record:
    """The folder of one run. `finish` writes the summary last, by rename: its presence means done."""

    folder: Path
    started: float = field(default_factory=time.perf_counter)

    @property
    def done(self) -> bool:
        return (self.folder / "summary.json").exists()

    @property
    def begun(self) -> bool:
        return (self.folder / "config.json").exists()

    def open(self, config: dict[str, Any]) -> None:
        """Write config.json, or refuse to continue a record that was begun with other settings."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.begun:
            before, now = self.config, json.loads(json.dumps(config))
            for key, words in BOUND.items():
                then, new = (each.get("precision", {}) if key == "products" else each for each in (before, now))
                if then.get(key) != new.get(key):
                    raise ValueError(
                        f"{self.folder.name} was begun with another {words} ({then.get(key)} then, {new.get(key)} "
                        f"now). Delete {self.folder} to run it again."
                    )
        else:
            write(self.folder / "config.json", config)

    @property
    def config(self) -> dict[str, Any]:
        path = self.folder / "config.json"
        try:
            found: dict[str, Any] = json.loads(path.read_bytes())
        except ValueError as error:
            raise ValueError(f"{path} is damaged ({error}). Delete {self.folder} to run it again.") from None
        return found

    def resume_at(self, step: int, logged: Mapping[str, Iterable[int]]) -> None:
        """Drop lines beyond `step`, which a resumed run will write again.

        ValueError where one is missing of the steps that were `logged` until then, by file: it would not be written.
        """
        for name in (STEPS, EVALUATIONS):
            kept = [line for line in self.lines(name) if line["step"] <= step]
            if missing := sorted(
                {wanted for wanted in logged[name] if wanted <= step} - {line["step"] for line in kept}
            ):
                raise ValueError(
                    f"{self.folder / name} has no whole line of step {missing[0]}, after which this run would go on. "
                    f"Restore the file, or delete {self.folder} to run it again."
                )
            replace_text(self.folder / name, "".join(json.dumps(line) + "\n" for line in kept))

    def log(self, name: str = STEPS, **values: Any) -> None:
        append(self.folder / name, json.dumps({key: finite(value) for key, value in values.items()}) + "\n")

    def flush(self) -> None:
        """What was logged outlives a power cut: to be called before a checkpoint says that its steps are done."""
        for name in (STEPS, EVALUATIONS):
            if (self.folder / name).exists():
                sync(self.folder / name)

    def lines(self, name: str) -> list[dict[str, Any]]:
        """What was logged, without lines that a kill or a full disk has cut."""
        path = self.folder / name
        found = map(whole, path.read_bytes().splitlines() if path.exists() else [])
        return [line for line in found if line is not None]

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


def whole(raw: bytes) -> dict[str, Any] | None:
    """A logged line; None of one that is cut or damaged."""
    try:
        line = json.loads(raw)
    except ValueError:
        return None
    return line if isinstance(line, dict) and "step" in line else None


def finite(value: Any) -> Any:
    """JSON has no infinity: null stands for a number that is not finite."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write(path: Path, content: dict[str, Any]) -> None:
    replace_text(path, json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n")


def record_of(run: Run, machine: Machine) -> Record:
    return Record(machine.results / run.scale.name / run.id)
