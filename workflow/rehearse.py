"""`python -m workflow.rehearse --scale h100`: a GPU scale's runs at their true size, on this machine's CPU.

Every kind of run that RS-KD's Tables 1, 3, 4 and 6 need, each once: true shapes, classes and lengths, but a few steps
and sequences of local text. The commands are the workflow's own. One run is killed and goes on from its checkpoint, one
is sharded over two processes. What does not fit is cut in layers, and that is said.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from replication.experiment.recipe import parse
from replication.experiment.run import Run
from replication.experiment.scale import Scale, load_scale
from replication.machine.device import this_machine
from replication.machine.files import ROOT, replace_text
from replication.planning.estimate import Line, estimate
from replication.planning.estimate_table import duration, memory
from replication.planning.machine_speed import gpu
from replication.planning.plan import Plan, plan
from replication.records.record import STEPS as LOG
from workflow.child import Outcome, last_words, outcome_of
from workflow.peaks import beside_the_first, caching, peak
from workflow.rehearsed_scale import BATCH, STEPS, rehearsed, write

EXHIBITS = ("rskd/table06", "rskd/table01", "rskd/table03", "rskd/table04")
OFF = 0.10  # so far may the memory that was predicted be from what is measured


@dataclass(frozen=True)
class Act:
    """One command. `bytes` are predicted, the program itself aside; `line` says what the true run takes."""

    name: str
    command: tuple[str, ...]
    run: Run
    bytes: float
    line: Line | None
    others: float = 0.0  # of the other processes, where there are several
    killed: bool = False  # after its checkpoint; then it goes on


Kinds = dict[str, tuple[str, Run]]  # kind of run -> exhibit and run


def kinds(scale: Scale) -> Kinds:
    """The first run of each kind. Of timed steps only those with a teacher beside, which take most."""
    found: Kinds = {}
    for exhibit in EXHIBITS:
        for run in plan([exhibit], scale, [0]).runs.values():
            found.setdefault(kind(run), (exhibit, run))
    return {name: each for name, each in found.items() if name not in ("throughput, plain", "throughput, cached")}


def kind(run: Run) -> str:
    recipe = run.recipe
    taught = "plain" if not recipe.uses_teacher else "cached" if recipe.cached else "online"
    if recipe.measurement is None:
        return f"student, {taught}"
    return f"{recipe.probe}, {taught}" if recipe.measurement.timed else recipe.probe


def acts(found: Kinds, small: Scale, path: Path) -> list[Act]:
    """In order: teachers, their pass, students, probes; and last a student in two processes."""
    mine, true = Plan(), Plan()
    for _, run in found.values():
        mine.add(replace(run, scale=small))
        true.add(run)
    lines = {line.name: line for line in estimate(true, this_machine(), [])}
    passes = [line for line in lines.values() if line.kind == "pass"]
    named = {run.id: line for run, line in zip(known(mine), [lines[each.id] for each in known(true)], strict=True)}

    def step(name: str, exhibit: str, run: Run, killed: bool = False) -> Act:
        command = python("replication", "step", exhibit, "--scale", str(path), "--runs", run.id)
        return Act(name, command, run, peak(run), named[run.id], killed=killed)

    students = [(name, exhibit, replace(run, scale=small)) for name, (exhibit, run) in found.items()]
    students.sort(key=lambda each: each[2].recipe.measurement is not None)
    need, exhibit = mine.needs[0], found["student, cached"][0]
    building = python("replication", "cache", "build", exhibit, "--scale", str(path))
    alone = Run(parse({"teacher": "none", "target": "OneHot"}), small, 0)
    return [
        *(step("teacher", EXHIBITS[0], run) for run in mine.teachers.values()),
        Act("caches", building, need.run, caching(need.run, need.sequences), passes[0]),
        *(step(name, exhibit, run, name == "student, cached") for name, exhibit, run in students),
        Act("student, sharded", sharded(path), alone, peak(alone, 2), None, others=beside_the_first(alone)),
    ]


def known(found: Plan) -> list[Run]:
    return [*found.teachers.values(), *found.runs.values()]


def python(*words: str) -> tuple[str, ...]:
    return (sys.executable, "-m", *words)


def sharded(path: Path) -> tuple[str, ...]:
    recipe = path.with_name("alone.toml")
    several = python("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "replication", "run")
    return (*several, str(recipe), "--scale", str(path))


def fitted(scale: Scale, found: Kinds, path: Path, room: float, text: str) -> Scale:
    """The scale of the rehearsal, whose roles have as many layers as this room allows.

    ValueError where it does not hold one layer of each.
    """
    layers: dict[str, int] = {}
    while True:
        small = rehearsed(scale, path, layers, text, lengths(found))
        largest = max(acts(found, small, path), key=lambda act: act.bytes + act.others)
        if largest.bytes + largest.others <= room:
            return small
        # the teacher first, of which nothing is expected but its size
        pair = [largest.run.recipe.teacher, largest.run.recipe.student]
        deep = [name for name in pair if name in small.roles and small.roles[name].layers > 1]
        if not deep:
            taken = (largest.bytes + largest.others) / 1e9
            raise ValueError(
                f"Even with one layer in each model {largest.name!r} takes {taken:.1f} GB, and "
                f"{room / 1e9:.1f} GB are left beside the program: give more --gigabytes, or a smaller scale."
            )
        layers[deep[0]] = small.roles[deep[0]].layers - 1


def lengths(found: Kinds) -> dict[str, int]:
    """Word of a budget -> tokens in a sequence of the runs that have it."""
    runs = [each for _, run in found.values() for each in (run, run.teacher) if each is not None]
    return {run.recipe.tokens: run.length for run in runs}


@dataclass(frozen=True)
class Played:
    act: Act
    found: Outcome
    program: float

    @property
    def predicted(self) -> float:
        return self.program + self.act.bytes

    @property
    def off(self) -> float:
        return self.predicted / self.found.memory - 1

    def told(self) -> str:
        pace, line = gpu("h100"), self.act.line
        memories = (
            f"{self.predicted / 1e9:5.1f} GB predicted, {self.found.memory / 1e9:5.1f} GB measured ({self.off:+.0%})"
        )
        truly = "" if line is None else f"; on an H100 {duration(pace.seconds(line.work))}"
        of_step = memory(line, pace) if line is not None else ""
        return f"{self.act.name:22} {duration(self.found.seconds):>9}  {memories}{truly}{of_step and ', ' + of_step}"


def play(act: Act, folder: Path, program: float, seconds: float) -> Played:
    """ValueError, one line and the last ones of its output, where the command fails."""
    log = folder / f"{act.name.replace(', ', '-').replace(' ', '-')}.log"
    settings = settings_of(folder, 1 + bool(act.others)) | {"SHARDED": str(int(bool(act.others)))}
    until, killed = time.perf_counter() + seconds, None
    if act.killed:
        killed = outcome_of(act.command, log, settings, seconds, stop=checkpoint(act.run, folder).exists)
        if killed.status != -signal.SIGKILL:
            raise ValueError(f"{act.name}: to be killed after its checkpoint, it ended before:\n{last_words(log)}")
    before = logged(act.run, folder)
    found = outcome_of(act.command, log, settings, until - time.perf_counter())
    if found.status != 0:
        raise ValueError(f"{act.name}: ended with {found.status} after {duration(found.seconds)}:\n{last_words(log)}")
    if killed is None:
        return Played(act, found, program)
    after = logged(act.run, folder)
    if len(after) != STEPS or after[: STEPS - 1] != before[: STEPS - 1]:
        raise ValueError(f"{act.name}: killed after step {len(before)} and resumed, it has the steps {after}.")
    both = Outcome(0, killed.seconds + found.seconds, max(killed.memory, found.memory))
    return Played(replace(act, name=f"{act.name}, killed"), both, program)


def settings_of(folder: Path, processes: int = 1) -> dict[str, str]:
    """Of a command: everything in this folder, nothing from the hub, no GPU; all cores, or as many as are given."""
    cores = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
    return {
        "RESULTS": str(folder / "results"), "ARTIFACTS": str(folder / "artifacts"), "AT_ONCE": "", "AUTOCAST": "",
        "OMP_NUM_THREADS": str(max(1, cores // processes)), "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1",
    }  # fmt: skip


def program_of(scale: Scale, folder: Path, path: Path) -> int:
    """Bytes of a process that has opened the scale's text. ValueError where it cannot."""
    write(scale, path)
    for _ in range(2):  # the first time it is tokenised
        found = outcome_of(
            python("workflow.rehearsed_scale", str(path)), log := folder / "program.log", settings_of(folder)
        )
        if found.status != 0:
            raise ValueError(f"The text cannot be opened:\n{last_words(log)}")
    return found.memory


def checkpoint(run: Run, folder: Path) -> Path:
    return folder / "artifacts" / run.scale.name / "checkpoints" / run.id / f"{STEPS - 1:09}"


def logged(run: Run, folder: Path) -> list[str]:
    """The lines of the run's steps so far."""
    path = folder / "results" / run.scale.name / run.id / LOG
    return path.read_text().splitlines() if path.exists() else []


def rehearse(
    scale: Scale, folder: Path, gigabytes: float, minutes: float, text: str, show: Callable[[str], None]
) -> bool:
    """Whether all of it ended, in its bounds, with the memory that was predicted."""
    until = time.perf_counter() + 60 * minutes
    shutil.rmtree(folder, ignore_errors=True)
    path, found = folder / f"{scale.name}-rehearsed.toml", kinds(scale)
    program = program_of(rehearsed(scale, path, {}, text, lengths(found)), folder, path)
    small = fitted(scale, found, path, 1e9 * gigabytes - program, text)
    write(small, path)
    replace_text(path.with_name("alone.toml"), 'teacher = "none"\ntarget = "OneHot"\n')
    for name, role in small.roles.items():
        if role.layers < scale.roles[name].layers:
            show(
                f"{name}: {role.layers} of its {scale.roles[name].layers} layers, so that it fits into {gigabytes:g} GB"
            )
    show(f"program and text       {program / 1e9:.2f} GB; {STEPS} steps of {BATCH} sequences each")
    played = []
    for act in acts(found, small, path):
        played.append(play(act, folder, program, until - time.perf_counter()))
        show(played[-1].told())
    shutil.rmtree(folder / "artifacts")
    largest = max(each.found.memory + each.act.others for each in played)
    wrong = [each for each in played if abs(each.off) > OFF]
    for each in wrong:
        show(f"{each.act.name}: memory predicted {each.off:+.0%} off, more than {OFF:.0%}")
    if largest > 1e9 * gigabytes:
        show(f"{largest / 1e9:.1f} GB is more than {gigabytes:g} GB")
    return not wrong and largest <= 1e9 * gigabytes


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m workflow.rehearse", description=__doc__)
    parser.add_argument("--scale", default="h100")
    parser.add_argument("--gigabytes", type=float, default=20.0, help="of main memory, for all processes (20)")
    parser.add_argument("--minutes", type=float, default=45.0, help="for all of it (45); it needs 30 GB of disk, too")
    parser.add_argument("--text", default="stdlib", help="a corpus at hand, in place of the scale's")
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "rehearse", help="where it happens")
    given = parser.parse_args(arguments)
    try:
        scale = load_scale(given.scale)
        well = rehearse(scale, given.build.absolute() / scale.name, given.gigabytes, given.minutes, given.text, told)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0 if well else 1


def told(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what it has started ends with it
    sys.exit(main())
