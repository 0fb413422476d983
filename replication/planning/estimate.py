"""Estimate: what a plan costs, line by line and in all, before anyone runs it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from replication.cache.manifest import FILE
from replication.cache.stats import stats
from replication.cost.flops import Cost, Work
from replication.experiment.run import Run
from replication.machine.device import Machine
from replication.planning.past_runs import Past, kept
from replication.planning.plan import Plan
from replication.probes.module import work
from replication.records.record import record_of
from replication.training.needs import Need


@dataclass(frozen=True)
class Line:
    """A teacher, a teacher pass, a cache that the pass fills, or a run."""

    kind: str
    name: str
    done: bool
    tokens: float = 0.0  # trained on, or read by the teacher
    work: Work = Work()
    disk: float = 0.0  # bytes that stay
    held: float = 0.0  # bytes of memory that a step takes whatever its batch
    each: float = 0.0  # and for each sequence of it
    shared: float = 0.0  # of `held`: what several processes can share
    gathered: float = 0.0  # and how much of that each of them then makes whole again
    sequences: int = 1  # of a step, or of a batch that a teacher reads
    beside: float = 0.0  # tokens that a teacher reads beside the student
    note: str = ""


def estimate(plan: Plan, machine: Machine, past: list[Past]) -> list[Line]:
    """In the order in which they depend on each other. `past` tells how many classes a target keeps."""
    teachers = [of_run("teacher", run, machine) for run in plan.teachers.values()]
    passes = [line for needs in by_pass(plan.needs, machine) for line in of_pass(needs, machine, past)]
    return [*teachers, *passes, *(of_run("run", run, machine) for run in plan.runs.values())]


def of_run(kind: str, run: Run, machine: Machine) -> Line:
    cost, done = Cost(run), record_of(run, machine).done
    if run.recipe.measurement is not None:
        return Line(kind, run.id, done, work=work(cost), note=f"measures {run.recipe.probe}")
    return Line(
        kind,
        run.id,
        done,
        tokens=cost.tokens,
        work=cost.training + cost.evaluation,
        disk=4 * cost.student.parameters,
        held=cost.held_bytes,
        each=cost.sequence_bytes,
        shared=cost.student_bytes,
        gathered=cost.gathered_bytes,
        sequences=cost.sequences,
        beside=cost.taught * cost.batch if cost.asks_teacher else 0,
        note="with its teacher beside it" if cost.asks_teacher else "",
    )


def by_pass(needs: Iterable[Need], machine: Machine) -> list[dict[Path, Need]]:
    """The caches by the teacher pass that fills them, as `teacher_pass.build` groups them."""
    found: dict[str, dict[Path, Need]] = {}
    for need in needs:
        found.setdefault(json.dumps(need.identity, sort_keys=True), {})[need.folder(machine)] = need
    return list(found.values())


def of_pass(needs: dict[Path, Need], machine: Machine, past: list[Past]) -> Iterator[Line]:
    run = next(iter(needs.values())).run
    cost = Cost(run)
    caches = [of_cache(folder, need, past) for folder, need in needs.items()]
    done = all(cache.done for cache in caches)
    note = f"fills {len(caches)} cache{'s' * (len(caches) > 1)}"
    yield Line(
        "pass",
        f"{run.recipe.teacher}, seed {run.seed}",
        done,
        cost.stored_tokens,
        cost.teacher_pass,
        held=cost.teacher_bytes + cost.read_bytes,
        note=note,
    )
    yield from caches


def of_cache(folder: Path, need: Need, past: list[Past]) -> Line:
    if (folder / FILE).exists():
        found = stats(folder)
        note = f"{found['unique_classes']:.1f} classes a token, as it is"
        return Line("cache", folder.name, True, disk=found["bytes"], note=note)
    cost, measured = Cost(need.run), kept(past, need.run)
    budget = need.target.budget(cost.student.classes)
    classes, known = (budget.mean, budget.known) if measured is None else (measured, "as measured")
    return Line(
        "cache", folder.name, False, disk=cost.stored_bytes(classes), note=f"{classes:.1f} classes a token, {known}"
    )
