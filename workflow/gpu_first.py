"""`python -m workflow.gpu_first --minutes 12`: what to run first where a GPU is at hand for a few minutes.

Parts in the order of their worth, each a process of its own and on disk as it ends. Where time runs out the rest is
left; the same command goes on: what has ended is not run again, and a training that was cut off resumes. Nothing of
this has been measured on a GPU yet: the times are the plan's, of an H100 at the share of its rate in gpus.toml.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from replication.experiment.run import Run
from replication.experiment.scale import load_scale
from replication.machine.device import Machine, this_machine
from replication.machine.files import ROOT, replace_text
from replication.planning.estimate import Line, estimate
from replication.planning.estimate_table import duration
from replication.planning.machine_speed import gpu
from replication.planning.plan import Plan, plan
from workflow.child import Outcome, last_words, outcome_of

SHARE = "0.02"  # of the seconds that a whole bench gives each group: a GPU's steps take milliseconds
LEAST = 15.0  # seconds that are left, below which nothing more is begun
THROUGHPUT, GRADIENTS, SWEEP = "rskd/table04", "rskd/table03", ("rskd/table06", "rskd/table01")


@dataclass(frozen=True)
class Part:
    """`expected`: seconds of what it computes, on an H100; 0 where nothing says."""

    name: str
    command: tuple[str, ...]
    expected: float = 0.0


def parts(large: str, sweep: str, machine: Machine, folder: Path) -> list[Part]:
    """`large` is the scale whose steps are timed, `sweep` the one whose tables are filled, as far as time goes."""
    first = [Part("tests on the device", python("pytest", "-q", "tests/test_device.py"))]
    for name in ("loss", "draws"):
        place = str(folder / f"bench-{name}")
        first.append(Part(f"bench {name}", python("benchmarks", name, "--share", SHARE, "--build", place)))
    begun: set[str] = set()  # a run of two exhibits belongs to the first
    # on stand-ins, without text, teacher or hub
    timed = parts_of(THROUGHPUT, large, machine, begun, lambda run: run.recipe.student == "300M")
    # caches between teacher and students; Table 3 compares gradients at the weights of Table 6's FullKD
    filled = [part for name in (GRADIENTS, *SWEEP) for part in parts_of(name, sweep, machine, begun)]
    return [*first, *timed, *filled]


def python(*words: str) -> tuple[str, ...]:
    return (sys.executable, "-m", *words)


def parts_of(
    exhibit: str, scale: str, machine: Machine, begun: set[str], wanted: Callable[[Run], bool] = lambda run: True
) -> Iterator[Part]:
    """Teachers, caches, students and probes of an exhibit, each kind in one process: its runs end one by one."""
    known = load_scale(scale)
    found = plan([exhibit], known, [0])
    lines = {line.name: line for line in estimate(found, machine, [])}
    for kind, runs in kinds(found, wanted):
        if kind == "caches":
            passes = [line for line in lines.values() if line.kind == "pass"]
            yield Part(
                f"{exhibit} caches", python("replication", "cache", "build", exhibit, "--scale", scale), cost(passes)
            )
        elif names := [run.id for run in runs if run.id not in begun]:
            begun.update(names)
            step = python("replication", "step", exhibit, "--scale", scale, "--runs", *names)
            yield Part(f"{exhibit} {kind}", step, cost([lines[name] for name in names]))


def kinds(found: Plan, wanted: Callable[[Run], bool]) -> Iterator[tuple[str, list[Run]]]:
    runs = [run for run in found.runs.values() if wanted(run)]
    yield "teachers", list(found.teachers.values())
    if found.needs:
        yield "caches", []
    yield "students", [run for run in runs if run.recipe.measurement is None]
    yield "probes", [run for run in runs if run.recipe.measurement is not None]


def cost(lines: Sequence[Line]) -> float:
    pace = gpu("h100")
    return sum(pace.seconds(line.work) for line in lines)


def carry_out(given: Sequence[Part], minutes: float, folder: Path, clock: Callable[[], float] = time.monotonic) -> bool:
    """Whether every part has ended well. `folder` has each part's output and, of what has ended, how."""
    until, well = clock() + 60 * minutes, True
    for number, part in enumerate(given, 1):
        place = folder / f"{number:02}-{part.name.replace('/', '-').replace(' ', '-')}"
        done = place.with_suffix(".json")
        if done.exists() and json.loads(done.read_text())["command"] == list(part.command):
            print(f"{part.name}: done before", flush=True)
            continue
        if (left := until - clock()) < LEAST:
            print(f"{part.name} and what comes after: no time left. The same command goes on from here.", flush=True)
            return False
        found = outcome_of(part.command, log := place.with_suffix(".log"), {}, seconds=left)
        print(told(part, found, log), flush=True)
        if found.status == 0:
            replace_text(done, json.dumps({**asdict(part), **asdict(found)}, indent=1) + "\n")
        well = well and found.status == 0
    return well


def told(part: Part, found: Outcome, log: Path) -> str:
    took = f"{part.name}: {duration(found.seconds)}, {found.memory / 1e9:.1f} GB of main memory"
    if found.status == 0:
        return took
    if found.status == -signal.SIGKILL:
        return f"{took}; cut off. The same command goes on from its last checkpoint."
    return f"{took}; failed ({log}):\n{last_words(log)}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m workflow.gpu_first", description=__doc__)
    parser.add_argument("--minutes", type=float, default=12.0)
    parser.add_argument("--large", default="h100", help="the scale whose steps are timed")
    parser.add_argument("--sweep", default="h100-sweep", help="the scale whose tables are filled")
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "gpu-first", help="where the output goes")
    parser.add_argument("--dry", action="store_true", help="say what would be run, and run nothing")
    given = parser.parse_args(arguments)
    try:
        if given.minutes <= 0:
            raise ValueError(f"MINUTES is {given.minutes:g}; give more than 0.")
        found = parts(given.large, given.sweep, machine := this_machine(), given.build)
        if not given.dry and machine.device.type != "cuda":
            raise ValueError(
                "No GPU is at hand, and these parts are sized for one. `make gpu-first DRY=1` says them, and "
                "`make rehearse SCALE=h100` walks the path on a CPU."
            )
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    show(found, given.minutes)
    return 0 if given.dry or carry_out(found, given.minutes, given.build) else 1


def show(found: Sequence[Part], minutes: float) -> None:
    print(f"{minutes:g} minutes. Expected of an H100, not yet measured on a GPU:")
    begins = 0.0
    for part in found:
        late = "" if begins < 60 * minutes else "  (if time is left)"
        print(
            f"  {duration(begins) or 'at once':>10}  {part.name}: {duration(part.expected) or 'about a minute'}{late}"
        )
        begins += part.expected or 60


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what it has started ends with it
    sys.exit(main())
