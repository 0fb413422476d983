"""`python -m workflow rskd/table06 --scale laptop --seeds 0`: run what an exhibit still lacks, here or on a cluster."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from paper_tables import spec
from replication.execution.replay import logged as read
from replication.experiment.recipe import seeds as parse_seeds
from replication.experiment.run import Run
from replication.experiment.scale import load_scale
from replication.machine.device import Machine, this_machine
from replication.machine.files import ROOT
from replication.planning.plan import plan
from replication.probes.module import refuse_unready
from replication.records.promote import apart, keep_weights, promote
from replication.training.replaced import own_caches, settle
from replication.training.weights import model_folder
from toy import __main__ as toy
from workflow.replay import drawn, records_of, replayed
from workflow.steps import marker, write_steps

FOLDER = Path(__file__).parent
JOINED = 2  # logged records that are made again before others join them


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        seeds, scale = parse_seeds(options.seeds), spec.load(options.exhibit).at(options.scale)
        if options.record:
            return record(options.exhibit, scale, seeds)
        return run(options.exhibit, absolute(scale), seeds, options.profile, options.cores, options.again)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m workflow", description=__doc__)
    parser.add_argument("exhibit")
    parser.add_argument("--scale", default="laptop")
    parser.add_argument("--seeds", nargs="+", default=["0"], help="0 1 2, or 0,1,2")
    parser.add_argument("--profile", default="local", help="where: local, slurm, kubernetes, or a profile's folder")
    parser.add_argument("--cores", type=int, help="of this machine, or in use at once on a cluster")
    parser.add_argument(
        "--again",
        action="store_true",
        help="make anew what was made of a text, tokenizer or model that was replaced since; the old is kept aside",
    )
    parser.add_argument(
        "--record", action="store_true", help="run nothing: promote the finished records to logged ones"
    )
    return parser


def absolute(scale: str) -> str:
    """A scale's file under its full path: a job may start in another folder."""
    return str(Path(scale).expanduser().absolute()) if scale.endswith(".toml") else scale


def profile_folder(profile: str) -> Path:
    """A profile of ours by its name, or anybody's by its folder. ValueError if there is none."""
    known = sorted(path.parent.name for path in (FOLDER / "profiles").glob("*/config.yaml"))
    folder = FOLDER / "profiles" / profile if profile in known else Path(profile).expanduser().absolute()
    if not (folder / "config.yaml").exists():
        raise ValueError(
            f"Unknown profile {profile!r}. Known: {', '.join(known)}; or give the path of a folder with a config.yaml."
        )
    return folder


def run(exhibit: str, scale_name: str, seeds: list[int], profile: str, cores: int | None, again: bool = False) -> int:
    """Exit status: 0 when every record of the exhibit is complete."""
    if cores is not None and cores < 1:
        raise ValueError(f"CORES is {cores}; give at least 1.")
    words, folder = ",".join(map(str, seeds)), profile_folder(profile)
    if is_toy(exhibit):
        if profile != "local":
            raise ValueError(f"{exhibit} is a toy study, which runs on this machine: leave out PROFILE={profile}.")
        sizes = ["--scale", scale_name, "--seeds", words, "--cores", str(cores or 1)]
        return subprocess.call([sys.executable, "-m", "toy", exhibit, *sizes])
    machine, scale = this_machine(), load_scale(scale_name)
    found = plan([exhibit], scale, seeds)
    settle([*found.teachers.values(), *found.runs.values()], machine, again)
    if again:
        own_caches(found.needs, machine, again)
        marker(found, scale, machine).unlink(missing_ok=True)
    missing = [
        name
        for name, run in found.runs.items()
        if not (machine.results / run.scale.name / name / "summary.json").exists()
    ]
    print(f"{exhibit}: {len(found.runs)} runs at scale {scale_name}, {len(missing)} still to do", flush=True)
    if not missing:
        return 0
    for name in missing:
        refuse_unready(found.runs[name])
    started = time.perf_counter()
    sizes = [exhibit, "--scale", scale_name, "--seeds", words]
    command = snakemake(write_steps(found, scale, machine, sizes, cores), folder, cores)
    status = subprocess.call(command, cwd=FOLDER.parent, env=os.environ | with_our_plugins())
    if status:
        print("error: a step failed (its message is above). The same command goes on from there.", file=sys.stderr)
    else:
        print(f"{exhibit}: {len(missing)} runs in {(time.perf_counter() - started) / 60:.1f} minutes", flush=True)
    return status


def with_our_plugins() -> dict[str, str]:
    given = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join([str(FOLDER / "plugins"), *([given] if given else [])])}


def is_toy(exhibit: str) -> bool:
    loaded = spec.load(exhibit)
    return any("toy" in (loaded.recipe_of(row) or {}) for row in loaded.rows)


def record(exhibit: str, scale_name: str, seeds: list[int]) -> int:
    scale = load_scale(scale_name)
    machine, teachers = this_machine(), list[Run]()
    if is_toy(exhibit):
        found = [each.id for _, each in toy.runs(exhibit, scale.name, seeds)]
    else:
        planned = plan([exhibit], scale, seeds)
        found, teachers = list(planned.runs), list(planned.teachers.values())
    join(exhibit, scale_name, set(found), machine)
    written = promote([*found, *(run.id for run in teachers)], scale.name, machine.results)
    for run in teachers:
        keep_weights(model_folder(run, machine), ROOT / "results" / scale.name / run.id)
    print(f"{len(written)} records of {exhibit} are now logged under {written[0].parent}. Commit them.")
    return 0


def join(exhibit: str, scale: str, coming: set[str], machine: Machine, logged: Path = ROOT / "results") -> None:
    """Makes again a few of those logged records of the exhibit beside which the `coming` ones will stand in a table.

    ValueError where one differs: today's code does otherwise than the code that they were logged with.
    """
    place = machine.results / load_scale(scale).name
    configs = {name: read(place / name).config for name in coming if (place / name / "config.json").exists()}
    present = [
        record
        for record in records_of(exhibit, scale, logged)
        if record.run_id not in coming and not apart({**configs, record.run_id: record.config})
    ]
    if differing := [v for v in replayed(drawn(present, JOINED), machine, print) if v.word == "differs"]:
        raise ValueError(
            f"The logged record {differing[0].run_id} does not come out again ({differing[0].why}), so nothing new can "
            "stand beside it. Mend what changed; or raise its numerics, run the exhibit again and record all of it."
        )


def snakemake(steps: Path, profile: Path, cores: int | None) -> list[str]:
    return [
        *(sys.executable, "-m", "snakemake", "--snakefile", str(FOLDER / "Snakefile"), "--configfile", str(steps)),
        *("--workflow-profile", str(profile), *(("--cores", str(cores)) if cores is not None else ())),
        # a run is redone only when its record is missing: the record itself refuses changed settings
        *("--rerun-triggers", "mtime", "--rerun-incomplete", "--keep-going", "--nolock", "--quiet", "rules"),
    ]


if __name__ == "__main__":
    sys.exit(main())
