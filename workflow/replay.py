"""`python -m workflow.replay --sample 5`: make logged runs again, their first steps or all of them, and compare.

Nothing is written into results/. A training needs the teacher that its record names: `make replicate-table-6` trains
it, or its weights lie in its record.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path

import torch
from tqdm import tqdm

from paper_tables import spec
from replication.execution.replay import Logged, logged, replay
from replication.experiment.scale import load_scale
from replication.machine.device import Machine, this_machine
from replication.machine.files import ROOT
from replication.planning.plan import plan
from replication.records.agreement import WHOLE, WORDS, Verdict, of_numbers
from toy import __main__ as toy
from toy.study import Run as Study
from toy.study import stated_run

PATIENCE = 60  # seconds that a probe or a toy took, at most, to be drawn: these are made again from end to end


def main(arguments: list[str] | None = None) -> int:
    """0 when nothing differs; 1 when something does; 2 with one line on stderr for bad input."""
    given = parser().parse_args(arguments)
    try:
        chosen = records(given, ROOT / "results")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    verdicts = replayed(chosen, this_machine(), tqdm.write)
    counts = [f"{sum(v.word == word for v in verdicts)} {word}" for word in reversed(WORDS)]
    print(f"{len(verdicts)} records made again: {', '.join(counts)}")
    return int(any(verdict.word == "differs" for verdict in verdicts))


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m workflow.replay", description=__doc__)
    what = top.add_mutually_exclusive_group()
    what.add_argument("--exhibit", default="", help="all logged records of an exhibit, such as rskd/table06")
    what.add_argument("--run", default="", help="one record, by its id")
    top.add_argument("--sample", type=int, default=0, help="so many of them, drawn anew each day")
    top.add_argument("--scale", default="laptop")
    return top


def records(given: argparse.Namespace, results: Path) -> list[Logged]:
    """The records that are asked for. ValueError where there is none of that name."""
    folder = results / load_scale(given.scale).name
    if given.run:
        if not (folder / given.run / "summary.json").exists():
            raise ValueError(f"There is no finished record {given.run!r} in {folder}.")
        return [logged(folder / given.run)]
    found = records_of(given.exhibit, given.scale, results)
    if not found:
        raise ValueError(f"Nothing of {given.exhibit or 'any exhibit'} is logged at scale {given.scale}.")
    return drawn(found, given.sample) if given.sample else found


def records_of(exhibit: str, scale: str, results: Path) -> list[Logged]:
    """The logged records of an exhibit, or of all where none is named."""
    planned = ids_of(exhibit, scale) if exhibit else None
    folders = [path.parent for path in sorted((results / load_scale(scale).name).glob("*/summary.json"))]
    return [logged(folder) for folder in folders if planned is None or folder.name in planned]


def ids_of(exhibit: str, scale: str) -> set[str]:
    """The runs of an exhibit under the seeds that anybody logs."""
    seeds, known = range(10), load_scale(scale)
    if any("toy" in (recipe or {}) for recipe in map(spec.load(exhibit).recipe_of, spec.load(exhibit).rows)):
        return {run.id for _, run in toy.runs(exhibit, known.name, list(seeds))}
    return set(plan([exhibit], known, seeds).runs)


def drawn(found: list[Logged], count: int) -> list[Logged]:
    """Some that take no longer than our patience; the same ones all day."""
    quick = [each for each in found if trains(each) or each.seconds <= PATIENCE]
    return sorted(random.Random(date.today().toordinal()).sample(quick, min(count, len(quick))), key=lambda r: r.run_id)


def trains(record: Logged) -> bool:
    return bool(record.config["recipe"].get("probe") == "train")


def replayed(chosen: list[Logged], machine: Machine, tell: Callable[[str], None]) -> list[Verdict]:
    """Told one by one, since each takes seconds."""
    verdicts = []
    for record in tqdm(chosen, desc="replay", unit="record", disable=len(chosen) < 2):
        verdict = studied_again(record) if "toy" in record.config["recipe"] else replay(record, machine)
        tell(f"{verdict.word:<10} {verdict.run_id}: {verdict.why}")
        verdicts.append(verdict)
    return verdicts


def studied_again(record: Logged) -> Verdict:
    """A toy, from end to end, on one thread as its record was made."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        config = record.config
        run: Study = stated_run(config["changed"], config["scale"], config["seed"])
        if run.id != record.run_id:
            return Verdict(record.run_id, "cannot", f"its recipe is run {run.id} by now")
        metrics, _ = run.execute()
    except ValueError as error:
        return Verdict(record.run_id, "cannot", str(error))
    finally:
        torch.set_num_threads(threads)
    return of_numbers(record.run_id, record.metrics, metrics, WHOLE, "metrics")


if __name__ == "__main__":
    sys.exit(main())
