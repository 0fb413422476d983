"""Records: what a run leaves behind. The format is in results/README.md."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from replication.experiment.run import Run
from replication.machine.device import Machine
from replication.machine.files import replace_text
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


def record_of(run: Run, machine: Machine) -> Record:
    return Record(machine.results / run.scale.name / run.id)
