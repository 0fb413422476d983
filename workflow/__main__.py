"""`python -m workflow rskd/table06 --scale laptop --seeds 0`: run what an exhibit still lacks on this machine."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from paper_tables import spec
from replication.machine import this_machine
from replication.plan import plan
from replication.promote import promote
from replication.recipe import seeds as parse_seeds
from replication.scale import load_scale
from toy import __main__ as toy

FOLDER = Path(__file__).parent


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        seeds, scale = parse_seeds(options.seeds), spec.load(options.exhibit).at(options.scale)
        if options.record:
            return record(options.exhibit, scale, seeds)
        return run(options.exhibit, scale, seeds, options.cores)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m workflow", description=__doc__)
    parser.add_argument("exhibit")
    parser.add_argument("--scale", default="laptop")
    parser.add_argument("--seeds", nargs="+", default=["0"], help="0 1 2, or 0,1,2")
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument(
        "--record", action="store_true", help="run nothing: promote the finished records to logged ones"
    )
    return parser


def run(exhibit: str, scale_name: str, seeds: list[int], cores: int) -> int:
    """Exit status: 0 when every record of the exhibit is complete on this machine."""
    if cores < 1:
        raise ValueError(f"CORES is {cores}; give at least 1.")
    words = ",".join(map(str, seeds))
    if is_toy(exhibit):
        sizes = ["--scale", scale_name, "--seeds", words, "--cores", str(cores)]
        return subprocess.call([sys.executable, "-m", "toy", exhibit, *sizes])
    machine, found = this_machine(), plan([exhibit], load_scale(scale_name), seeds)
    for planned in found.runs.values():
        planned.check()
    missing = [
        name
        for name, run in found.runs.items()
        if not (machine.results / run.scale.name / name / "summary.json").exists()
    ]
    print(f"{exhibit}: {len(found.runs)} runs at scale {scale_name}, {len(missing)} still to do", flush=True)
    if not missing:
        return 0
    started = time.perf_counter()
    status = subprocess.call(snakemake(exhibit, scale_name, words, cores))
    if status:
        print("error: a step failed (its message is above). The same command goes on from there.", file=sys.stderr)
    else:
        print(f"{exhibit}: {len(missing)} runs in {(time.perf_counter() - started) / 60:.1f} minutes", flush=True)
    return status


def is_toy(exhibit: str) -> bool:
    loaded = spec.load(exhibit)
    return any("toy" in (loaded.recipe_of(row) or {}) for row in loaded.rows)


def record(exhibit: str, scale_name: str, seeds: list[int]) -> int:
    scale = load_scale(scale_name)
    if is_toy(exhibit):
        found = [each.id for _, each in toy.runs(exhibit, scale.name, seeds)]
    else:
        found = list(plan([exhibit], scale, seeds).runs)
    written = promote(found, scale.name, this_machine().results)
    print(f"{len(written)} records of {exhibit} are now logged under {written[0].parent}. Commit them.")
    return 0


def snakemake(exhibit: str, scale: str, seeds: str, cores: int) -> list[str]:
    return [
        *(sys.executable, "-m", "snakemake", "--snakefile", str(FOLDER / "Snakefile"), "--cores", str(cores)),
        *("--config", f"exhibit={exhibit}", f"scale={scale}", f"seeds='{seeds}'"),
        # a run is redone only when its record is missing: the record itself refuses changed settings
        *("--rerun-triggers", "mtime", "--rerun-incomplete", "--keep-going", "--nolock", "--quiet", "rules"),
    ]


if __name__ == "__main__":
    sys.exit(main())
