"""python -m toy rskd/figure02a: run an exhibit's toy studies and leave their records."""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from paper_tables import spec
from replication.experiment.recipe import seeds
from replication.experiment.scale import load_scale
from replication.machine.files import ROOT
from replication.records.provenance import provenance
from replication.records.record import NO_CORPUS, Record
from toy.study import CODE, Run, numerics, stated_run, study


def main(arguments: list[str] | None = None) -> int:
    """0 when every run is finished; 2 with one line on stderr for bad input."""
    given = parser().parse_args(arguments)
    try:
        scale = load_scale(given.scale).name
        replicate(given.exhibit, scale, seeds(given.seeds), given.results, given.cores)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def parser() -> argparse.ArgumentParser:
    results = Path(os.environ.get("RESULTS", ROOT / "results" / "local")).expanduser()
    top = argparse.ArgumentParser(prog="python -m toy", description=__doc__)
    top.add_argument("exhibit", help="for example rskd/figure02a")
    top.add_argument("--seeds", default="0", help="separated by commas (default: 0)")
    top.add_argument("--scale", default="laptop", help="whose sizes and records these are (default: laptop)")
    top.add_argument("--results", type=Path, default=results, help="where records go (default: results/local)")
    top.add_argument("--cores", type=int, default=1, help="runs at the same time, one thread each (default: 1)")
    return top


def replicate(exhibit: str, scale: str, seeds: list[int], results: Path, cores: int = 1) -> list[Record]:
    """The records of the exhibit's toy rows, one per seed; those that are finished are not run again.

    Raises ValueError naming exhibit and row for a recipe that does not make sense.
    """
    if cores < 1:
        raise ValueError(f"CORES is {cores}; give at least 1.")
    found = {run.id: (label, run) for label, run in runs(exhibit, scale, seeds)}
    records = {run_id: Record(results / scale / run_id) for run_id in found}
    waiting = [run_id for run_id, record in records.items() if not record.done]
    try:
        prepare([found[run_id] for run_id in waiting])
        with tqdm(total=len(waiting), desc="toy", unit="run", disable=not waiting) as progress:
            for run_id in executed([found[run_id][1] for run_id in waiting], results, cores):
                progress.set_description(run_id)
                progress.update()
    except StudyError as error:
        raise ValueError(f"{exhibit}.toml, row {found[error.run_id][0]!r}: {error}") from None
    print(f"{exhibit}: {len(found)} runs in {results / scale}, {len(found) - len(waiting)} of them done before.")
    return list(records.values())


class StudyError(ValueError):
    """A study refused its setting; says which run."""

    def __init__(self, run_id: str, message: str) -> None:
        super().__init__(run_id, message)
        self.run_id = run_id
        self.message = message

    def __str__(self) -> str:
        return self.message


def prepare(waiting: list[tuple[str, Run]]) -> None:
    """What several runs share (a teacher) is made first, once, with all threads."""
    for _, run in waiting:
        shared = getattr(study(run.study), "prepare", None)
        if shared is not None:
            try:
                shared(run.sized, run.seed)
            except ValueError as error:
                raise StudyError(run.id, str(error)) from None


def executed(waiting: list[Run], results: Path, cores: int) -> Any:
    """Run ids as they finish: here, or in as many processes as there are cores."""
    if cores == 1 or len(waiting) < 2:
        for run in waiting:
            yield execute(run, results)
        return
    # a forked process cannot use the GPU that its parent has used for what they share
    start = get_context("spawn") if torch.cuda.is_available() else None
    with ProcessPoolExecutor(cores, start, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        jobs = [pool.submit(execute, run, results) for run in waiting]
        try:
            for job in as_completed(jobs):
                yield job.result()
        finally:
            pool.shutdown(cancel_futures=True)


def runs(exhibit: str, scale: str, seeds: list[int]) -> list[tuple[str, Run]]:
    """Row label and run, of every row that states a toy study."""
    loaded = spec.load(exhibit)
    found = []
    for seed in seeds:
        for row in loaded.rows:
            stated = loaded.recipe_of(row) or {}
            if "toy" in stated:
                try:
                    found.append((row.label, stated_run(stated, scale, seed)))
                except ValueError as error:
                    raise ValueError(f"{exhibit}.toml, row {row.label!r}: {error}") from None
    if not found:
        raise ValueError(f"{exhibit} has no row of a toy study. rskd/figure02a has.")
    return found


def execute(run: Run, results: Path) -> str:
    # opened when there is something to write: a toy that is cut off leaves nothing behind
    record = Record(results / run.scale / run.id)
    try:
        metrics, curves = run.execute()
        corpus = getattr(study(run.study), "corpus", lambda setting: NO_CORPUS)(run.sized)
    except ValueError as error:
        raise StudyError(run.id, str(error)) from None
    stated = {"recipe": run.recipe, "changed": run.changed, "scale": run.scale, "seed": run.seed}
    known = provenance(CODE)
    bound = {"settings": run.sizes, "corpus": corpus, "numerics": numerics(run), "inputs": {}}
    record.open({**known, "run_id": run.id, **stated, **bound})
    record.finish(metrics, curves)
    return run.id


if __name__ == "__main__":
    sys.exit(main())
