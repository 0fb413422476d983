"""What the Snakefile is told of an exhibit: plain data, since each job of a cluster reads it before it starts."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import sys
from pathlib import Path
from typing import TypedDict

from replication.evaluate.tasks.task_data import HUB, directory
from replication.experiment.run import Run, students
from replication.experiment.scale import Scale
from replication.machine.device import Machine
from replication.machine.files import ROOT
from replication.planning.plan import Plan
from replication.records.record import write

# of this machine and of a judge, whose key stays in the environment: a job must find them as they are here
SETTINGS = ("AT_ONCE", "AUTOCAST", "SHARDED", "COMPILE", "JUDGE_URL", "JUDGE_MODEL", "JUDGE_PRICE")
CLASSES = 128_000  # no tokenizer of the scales has more
WORD = 16  # bytes of a trained weight: float32 value, gradient and two moments


def write_steps(found: Plan, scale: Scale, machine: Machine, sizes: list[str], cores: int | None) -> Path:
    """The Snakefile's config, in a file under artifacts, which every job sees. `sizes`: exhibit, scale and seeds."""
    content = steps(found, scale, machine, sizes, cores)
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
    path = machine.artifacts / scale.name / "steps" / f"{digest}.json"
    write(path, content)
    return path.absolute()


def steps(found: Plan, scale: Scale, machine: Machine, sizes: list[str], cores: int | None) -> dict[str, object]:
    results, artifacts = machine.results.absolute(), machine.artifacts.absolute()
    # All said, since neither the shell nor the folder that a job was submitted from is known where it runs.
    given = {name: os.environ[name] for name in SETTINGS if os.environ.get(name)}
    if os.environ.get("TASK_DATA"):
        given["TASK_DATA"] = str(directory() or HUB)
    places = {"RESULTS": str(results), "ARTIFACTS": str(artifacts)} | given
    return {
        "where": f"cd {shlex.quote(str(ROOT))} && {' '.join(f'{key}={shlex.quote(places[key])}' for key in places)}",
        "python": shlex.quote(sys.executable),
        "sizes": shlex.join(sizes),
        "cores": 2 if cores is None else cores,
        "mem_mb": memory(found),
        "summary": str(results / scale.name / "{id}" / "summary.json"),
        "teachers": list(found.teachers),
        "timed": [run.id for run in found.runs.values() if run.recipe.measurement and run.recipe.measurement.timed],
        "before": {run.id: before(run, found) for run in waiting(found, results)},
        "caches": str(marker(found, scale, machine).absolute()),
    }


def waiting(found: Plan, results: Path) -> list[Run]:
    """The runs without a record. Snakemake is not told of the others, which it would make again behind a new cache."""
    planned = (found.teachers | found.runs).values()
    return [run for run in planned if not (results / run.scale.name / run.id / "summary.json").exists()]


class Before(TypedDict):
    """What a run needs first."""

    runs: list[str]
    caches: bool


def before(run: Run, found: Plan) -> Before:
    runs = [run.teacher.id] if run.teacher and run.teacher.id in found.teachers else []
    runs += [student.id for student in students(run)]
    runs += [each.id for each in run.scorers.values() if isinstance(each, Run) and each.id in found.teachers]
    return Before(runs=runs, caches=run.recipe.reads_cache)


def marker(found: Plan, scale: Scale, machine: Machine) -> Path:
    """Named after the caches it stands for: an exhibit with a new row needs a new teacher pass."""
    wanted = " ".join(sorted({need.folder(machine).name for need in found.needs}))
    return machine.artifacts / scale.name / "caches" / f"{hashlib.sha256(wanted.encode()).hexdigest()[:16]}.done"


def memory(found: Plan) -> int:
    """MB that a job asks a cluster for: PyTorch itself, and the training of the plan's largest model."""
    weights = [
        role.layers * role.width * (4 * role.width + 3 * role.ffn) + 2 * (role.vocabulary or CLASSES) * role.width
        for role in [run.role for run in (found.teachers | found.runs).values()]
    ]
    return 3_000 + WORD * max(weights) // 1_000_000
