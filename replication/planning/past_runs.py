"""Past runs: what finished runs of a scale say about the next ones: how fast they were, how many classes they kept."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replication.experiment.recipe import parse
from replication.experiment.run import Run
from replication.experiment.scale import Scale
from replication.machine.files import ROOT


@dataclass(frozen=True)
class Past:
    """One finished run, as far as a plan can learn from it."""

    run: Run
    metrics: dict[str, Any]
    machine: dict[str, Any]
    gpu: str  # "" for a CPU


def past_runs(scale: Scale, local: Path, logged: Path = ROOT / "results") -> list[Past]:
    """This machine's finished runs at the scale; where it has none, the logged ones. Toy studies are no runs of it."""
    for folder in (local / scale.name, logged / scale.name):
        found = [past for path in sorted(folder.glob("*/summary.json")) if (past := read(path, scale)) is not None]
        if found:
            return found
    return []


def read(summary_path: Path, scale: Scale) -> Past | None:
    """None for a toy study, and for a run whose words stood for something else than they do now."""
    config = json.loads((summary_path.parent / "config.json").read_text())
    if "toy" in config["recipe"]:
        return None
    try:
        run = Run(parse(config["recipe"]), scale, config["seed"])
        now = json.loads(json.dumps(run.settings()))
    except ValueError:  # a role, a length or a method that is no more
        return None
    if now != config["settings"]:
        return None
    summary = json.loads(summary_path.read_text())
    return Past(run, summary["metrics"], summary["machine"], (config.get("hardware") or {}).get("gpu") or "")


def kept(past: list[Past], run: Run) -> float | None:
    """Classes per position that earlier runs found the run's stored target to keep; None where there were none."""
    found = [
        each.metrics["unique_classes"]
        for each in past
        if each.run.recipe.target.stored == run.recipe.target.stored
        and (each.run.recipe.teacher, each.run.recipe.text) == (run.recipe.teacher, run.recipe.text)
        and each.metrics.get("unique_classes") is not None
    ]
    return sum(found) / len(found) if found else None
