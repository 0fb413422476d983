"""python -m benchmarks: ours beside what a user would take instead, in one run."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent


def main(words: list[str] | None = None) -> None:
    options = parser().parse_args(words)
    try:
        show(options) if options.show else run(options)
    except ValueError as error:
        sys.exit(f"{error}")


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    found.add_argument("parts", nargs="*", help="loss, heads, draws, cache, training, writing; all where none is named")
    found.add_argument("--quick", action="store_true", help="small sizes, about a minute; the numbers mean nothing")
    found.add_argument(
        "--share", type=float, default=1.0, help="of the seconds that each group is given: less noise with more"
    )
    found.add_argument("--results", type=Path, default=ROOT / "results" / "bench", help="where whole runs are kept")
    found.add_argument("--build", type=Path, default=ROOT / "build" / "bench", help="where the page goes, and the rest")
    found.add_argument("--show", type=Path, metavar="JSON", help="the table and the page of a result, running nothing")
    return found


def run(options: argparse.Namespace) -> None:
    """A whole run's result is kept among the results; one in parts, or a quick one, beside the page."""
    from benchmarks.bars import bars, judged
    from benchmarks.effort import QUICK, WHOLE
    from benchmarks.machine import load, this_machine
    from benchmarks.parts import PARTS
    from benchmarks.result import Group, Result, write

    if unknown := [name for name in options.parts if name not in PARTS]:
        raise ValueError(f"Unknown part {unknown[0]!r}. Known: {', '.join(PARTS)}.")
    effort = QUICK if options.quick else replace(WHOLE, share=options.share)
    began, before = time.perf_counter(), load()
    groups: list[Group] = []
    for name in options.parts or PARTS:
        for group in PARTS[name](effort):
            groups.append(group)
            done = f"{time.perf_counter() - began:4.0f} s  {group.part}: {group.name}"
            print(f"{done}{' against ' + group.varied if group.varied else ''}", file=sys.stderr, flush=True)
    machine = this_machine(before)
    date = datetime.now(UTC).isoformat(timespec="seconds")
    result = Result(machine, date, time.perf_counter() - began, options.quick, groups)
    whole = not options.quick and not options.parts and options.share == 1
    path = (options.results if whole else options.build) / f"{machine.slug}.json"
    write(result, [verdict.plain() for verdict in judged(result, bars())], path)
    print(path, file=sys.stderr)
    options.show = path
    show(options)


def show(options: argparse.Namespace) -> None:
    from benchmarks import page, table
    from benchmarks.bars import bars, judged
    from benchmarks.result import read

    result = read(options.show)
    verdicts = judged(result, bars())
    table.show(result, verdicts, Console())
    print(page.write(result, verdicts, options.build / "index.html"))


if __name__ == "__main__":
    main()
