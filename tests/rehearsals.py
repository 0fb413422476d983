"""Rehearsals: what every component does in a run of no size, held against what it did when its numbers were logged.

`rehearsals.json` has one entry for each component and version of its numerics: "target.TopK@1". Where a rehearsal also
uses other components of a version above 1, its key says so ("divergence.GhostToken@1 target.TopK@2"), so that raising
one integer asks for new entries and leaves the old ones. `python -m tests.rehearsals` adds what is missing, an entry or
a number that is measured by now; it never changes one.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from replication.evaluate.tasks.at_hand.answering import NUMERICS as TASKS
from replication.experiment.measurements import PROBES
from replication.experiment.recipe import AXES
from replication.probes.module import module_of
from replication.records.numerics import SHARED, of_class, of_module
from tests import rehearsal_axes, rehearsal_parts, rehearsal_toys
from tests.rehearsal_stage import Stage, of_default
from toy.study import STUDIES

FILE = Path(__file__).with_name("rehearsals.json")
TOLERANCE = 1e-6  # relative; two orders of the same sum differ by 4e-7 at most, the smallest fault known by 1e-5
NOTHING = 1e-10  # what is smaller is rounding of what should be 0
UNREHEARSED = {
    **dict.fromkeys(("probe.throughput", "probe.selection_time"), "all its numbers are times"),
    "probe.output_layers": "times and memory; that all its flows are one loss is tested by itself",
}


def components() -> list[str]:
    """Everything that has a version of its numerics, from the collections themselves; shared parts first."""
    probes = dict.fromkeys(asked.module for asked in PROBES.values())  # the suites are one
    return [
        *SHARED,
        "tasks",  # at hand
        *(f"{axis}.{name}" for axis, known in AXES.items() for name in known),
        *(f"probe.{name}" for name in probes),
        *(f"toy.{name}" for name in STUDIES),
    ]


def numerics_of(component: str) -> int:
    """The version of what a component computes: a number beside its code, which whoever changes its results raises."""
    kind, _, name = component.partition(".")
    if kind == "tasks":
        return TASKS
    if kind in SHARED:
        return SHARED[kind]
    if kind in AXES:
        return of_class(AXES[kind][name])
    return of_module(import_module(f"toy.{name}") if kind == "toy" else module_of(name))


def perform(component: str, stage: Stage) -> tuple[str, dict[str, Any]]:
    """(key, numbers) of one rehearsal."""
    kind, _, name = component.partition(".")
    stage.used = {component}
    if kind in rehearsal_parts.SHARED:
        numbers = rehearsal_parts.SHARED[kind](stage)
    elif kind in rehearsal_axes.AXES:
        numbers = rehearsal_axes.AXES[kind](name, stage)
    elif kind == "probe":
        numbers = rehearsal_parts.probe(name, stage)
    else:
        numbers = rehearsal_toys.study(name, stage)
    others = {other: numerics_of(other) for other in sorted(stage.used - {component})}
    raised = [f"{other}@{version}" for other, version in others.items() if version != 1]
    return " ".join([f"{component}@{numerics_of(component)}", *raised]), rounded(numbers)


def rounded(numbers: Any) -> Any:
    """As the file has them: numbers to ten digits."""
    if isinstance(numbers, dict):
        return {str(key): rounded(value) for key, value in numbers.items()}
    if isinstance(numbers, (list, tuple)):
        return [rounded(value) for value in numbers]
    return float(f"{numbers:.10g}") if isinstance(numbers, float) else numbers


def problem(key: str, found: dict[str, Any], known: dict[str, Any]) -> str:
    """What is wrong with a rehearsal, and what to do; "" where its numbers are those of the file."""
    component, _, version = key.split()[0].partition("@")
    if key not in known:
        return f"{key} has no entry in tests/{FILE.name}: `make rehearsals` adds it."
    place = next(differences(known[key], found), "")
    if not place:
        new = next(additions(known[key], found), "")
        return f"{key} has no {new} in tests/{FILE.name}: `make rehearsals` adds it." if new else ""
    return (
        f"{component} behaves otherwise than numerics {version} ({place}, tolerance {TOLERANCE:.0e}). A fault: mend "
        f"it. Meant: raise its numerics, or that of what it uses, to {int(version) + 1}, then `make rehearsals`."
    )


def differences(wanted: Any, found: Any, place: str = "") -> Iterator[str]:
    """Where two rehearsals differ and by how much, the first steps first."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        for name in wanted:
            where = f"{place}, {name}" if place else str(name)
            if name not in found:
                yield f"{where}: not measured any more"
            else:
                yield from differences(wanted[name], found[name], where)
    elif isinstance(wanted, list) and isinstance(found, list):
        if len(wanted) != len(found):
            yield f"{place}: {len(found)} numbers instead of {len(wanted)}"
        for step, pair in enumerate(zip(wanted, found, strict=False), 1):
            yield from differences(*pair, f"{place} at step {step}")
    elif isinstance(wanted, float) and isinstance(found, float):
        off, size = abs(wanted - found), max(abs(wanted), abs(found))
        if off > TOLERANCE * size and size > NOTHING:
            yield f"{place}: {off / size:.1e} off"
    elif wanted != found:
        yield f"{place}: {found!r} instead of {wanted!r}"


def additions(wanted: Any, found: Any, place: str = "") -> Iterator[str]:
    """What is measured by now and was not when the entry was written."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        for name, value in found.items():
            where = f"{place}, {name}" if place else str(name)
            if name not in wanted:
                yield where
            else:
                yield from additions(wanted[name], value, where)


def completed(wanted: Any, found: Any) -> Any:
    """The entry as it was, and beside it what it lacks."""
    if not (isinstance(wanted, dict) and isinstance(found, dict)):
        return wanted
    return {name: completed(wanted[name], value) if name in wanted else value for name, value in found.items()}


def logged() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FILE.read_text()) if FILE.exists() else {}
    return found


def main() -> int:
    """Add what is missing. 1 where an entry that is there says otherwise, and nothing is written then."""
    known, added, problems = logged(), {}, []
    with tempfile.TemporaryDirectory() as folder, of_default(torch.float64):
        stage = Stage(Path(folder) / "stage")
        for component in components():
            if component in UNREHEARSED:
                continue
            key, numbers = perform(component, stage)
            if key not in known:
                added[key] = numbers
            elif next(differences(known[key], numbers), ""):
                problems.append(problem(key, numbers, known))
            elif next(additions(known[key], numbers), ""):
                added[key] = completed(known[key], numbers)
    if problems:
        print("\n".join([*problems, f"Nothing is written: tests/{FILE.name} keeps its entries."]), file=sys.stderr)
        return 1
    entries = [f"{json.dumps(key)}: {json.dumps(numbers)}" for key, numbers in {**known, **added}.items()]
    if added:
        FILE.write_text("{\n" + ",\n".join(entries) + "\n}\n")
    print(f"{len(added)} added, {len(known)} as before: {', '.join(added) or 'none was missing'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
