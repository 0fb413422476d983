"""The command line: run recipes, build and check caches, plan exhibits."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import get_args

from tqdm import tqdm

from paper_tables import spec
from replication.axes.targets.base import at_least_one
from replication.cache.manifest import Compression
from replication.cache.part import part
from replication.cache.stats import stats
from replication.cache.verify import verify
from replication.data.packing import frequencies
from replication.evaluate.judged.asking import Errand, this_judge
from replication.execution.execute import execute
from replication.experiment.recipe import Recipe, parse, read, seeds
from replication.experiment.run import Run, student_of
from replication.experiment.scale import Scale, load_scale
from replication.machine.device import Machine, this_machine
from replication.machine.processes import leave
from replication.planning import estimate_table
from replication.planning.cache_advice import Wanted, advice, tokens
from replication.planning.cache_advice import show as show_offer
from replication.planning.estimate import estimate
from replication.planning.machine_speed import CPU, calibrated, gpu
from replication.planning.past_runs import past_runs
from replication.planning.plan import Plan, plan
from replication.probes.judged import outstanding
from replication.probes.module import refuse_unready
from replication.records.record import record_of
from replication.training.answers import answer_later
from replication.training.needs import Need
from replication.training.run_data import data_for
from replication.training.scores import scored
from replication.training.teacher_pass import build, probabilities
from replication.training.weights import model_folder, teacher_for

JUDGE = (
    "A judge is any server of OpenAI's protocol: JUDGE_URL=http://127.0.0.1:8000/v1 and JUDGE_MODEL=<a model there>; "
    "OPENAI_API_KEY, if it wants one; JUDGE_PRICE=0.9,2.5, dollars per million tokens read and written, for the cost. "
    "The answers are what `make replicate-table-9 TASK_DATA=<folder>` made; the same command with JUDGE_URL and "
    "JUDGE_MODEL has them rated, each beside the true answer in both orders. Every rating goes into a log at once: "
    "stopped anywhere, it goes on from there."
)


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        options.action(options)
    except (ValueError, OSError) as error:
        # one line that says what to do, below any progress bar; a traceback would bury it
        tqdm.write(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    finally:
        leave()
    return 0


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m replication", description=__doc__)
    actions = top.add_subparsers(required=True, metavar="ACTION")

    one = actions.add_parser("run", help="train or measure one recipe file, with the teacher and cache it needs")
    one.add_argument("recipe", type=Path)
    sizes(one)
    one.set_defaults(action=run_recipe)

    step = actions.add_parser("step", help="one run of an exhibit (what the workflow calls)")
    step.add_argument("exhibit")
    step.add_argument("--runs", dest="run_ids", nargs="+", required=True, metavar="RUN_ID")
    sizes(step)
    step.set_defaults(action=run_steps)

    late = actions.add_parser(
        "answer", help="the tasks at hand, of finished runs that have not answered them and whose weights are here"
    )
    late.add_argument("exhibits", nargs="+", metavar="EXHIBIT", help="such as rskd/table06, or a recipe.toml")
    late.add_argument("--runs", dest="run_ids", nargs="+", default=[], metavar="RUN_ID", help="only these")
    sizes(late)
    late.set_defaults(action=answer_tasks)

    planned = actions.add_parser("plan", help="what an exhibit or a recipe file will take: runs, FLOPs, hours, disk")
    planned.add_argument("exhibit")
    sizes(planned)
    planned.add_argument("--gpu", default="", help="h100, h200 or a100: the hours are this GPU's; none: this machine's")
    planned.set_defaults(action=show_plan)

    judge = actions.add_parser(
        "judge-cost",
        help="what a judge would still be asked of an exhibit's answers, and what that costs; nobody is asked",
        description=JUDGE,
    )
    judge.add_argument("exhibit", help="rskd/table09, whose students have answered already")
    sizes(judge)
    judge.set_defaults(action=judge_cost)

    cache = actions.add_parser("cache", help="build, verify or measure caches of sparse targets")
    verbs = cache.add_subparsers(required=True, metavar="VERB")
    built = verbs.add_parser("build", help="every cache that a recipe file or an exhibit needs, in one teacher pass")
    built.add_argument("source", help="a recipe.toml, or an exhibit such as rskd/table06")
    built.add_argument(
        "--part", default="1/1", help="2/4: only this job's shards, of four; then build the rest without"
    )
    built.add_argument("--compression", choices=get_args(Compression), default="none", help="of each sequence, alone")
    sizes(built)
    built.set_defaults(action=build_caches)
    checked = verbs.add_parser("verify", help="checksums; with --recipe also alignment and a recomputed sample")
    checked.add_argument("folder", type=Path)
    checked.add_argument("--recipe", type=Path, help="the recipe the cache was built for")
    sizes(checked)
    checked.set_defaults(action=verify_cache)
    advised = verbs.add_parser(
        "plan", help="which draw reaches a wanted gradient error, and what its cache would weigh"
    )
    advised.add_argument("source", nargs="?", help="a recipe.toml; or say --teacher and --corpus")
    advised.add_argument("--teacher", help="a role of the scale, a Hugging Face name or path")
    advised.add_argument(
        "--corpus", help="as a recipe's text: path:..., hub:..., or nothing for the scale's", default=""
    )
    error = advised.add_mutually_exclusive_group()
    error.add_argument("--error", type=float, default=1.0, help="in units of RS-KD's with 50 draws (1)")
    error.add_argument("--absolute", type=float, help="squared error of the gradient in a position's logits")
    advised.add_argument("--tokens", default="100B", help="real tokens to be cached, such as 15T (100B)")
    advised.add_argument("--positions", type=int, default=4096, help="of the text that are looked at (4096)")
    sizes(advised)
    advised.set_defaults(action=plan_cache)
    counted = verbs.add_parser("stats", help="bytes per token, unique classes")
    counted.add_argument("folder", type=Path)
    counted.set_defaults(action=cache_stats)
    return top


def sizes(action: argparse.ArgumentParser) -> None:
    action.add_argument("--scale", default="laptop", help="smoke, laptop, h100, paper, or a .toml file")
    action.add_argument("--seeds", nargs="+", default=["0"], help="0 1 2, or 0,1,2")


def plan_of(options: argparse.Namespace, source: str) -> Plan:
    """The plan of a recipe file or of an exhibit."""
    scale = scale_of(options, source)
    if not source.endswith(".toml"):
        return plan([source], scale, seeds(options.seeds))
    found = Plan()
    for seed in seeds(options.seeds):
        try:
            found.add(Run(parse(read(Path(source))), scale, seed))
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from None
    return found


def scale_of(options: argparse.Namespace, source: str) -> Scale:
    return load_scale(options.scale if source.endswith(".toml") else spec.load(source).at(options.scale))


def run_recipe(options: argparse.Namespace) -> None:
    machine, found = this_machine(), plan_of(options, str(options.recipe))
    for run in found.runs.values():
        refuse_unready(run)
    for run in found.teachers.values():
        execute(run, machine)
    with machine.world.in_turn():
        build(found.needs, machine)
    for run in found.runs.values():
        execute(run, machine)
        if machine.world.first:
            show(run, machine)


def show(run: Run, machine: Machine) -> None:
    record = record_of(run, machine)
    for name, value in json.loads((record.folder / "summary.json").read_text())["metrics"].items():
        print(f"{name:24} {value}")
    print(f"record      {record.folder}")
    if run.recipe.probe == "train":
        print(f"checkpoint  {model_folder(run, machine)}")


def run_steps(options: argparse.Namespace) -> None:
    found = plan_of(options, options.exhibit)
    known = found.teachers | found.runs
    for run_id in options.run_ids:
        if run_id not in known:
            raise ValueError(f"{options.exhibit} at scale {options.scale} has no run {run_id!r}. See: plan.")
        execute(known[run_id], this_machine())


def answer_tasks(options: argparse.Namespace) -> None:
    machine = this_machine()
    runs: dict[str, Run] = {}
    for exhibit in options.exhibits:
        found = plan_of(options, exhibit)
        runs |= {each.id: each for each in (found.teachers | found.runs).values() if each.recipe.measurement is None}
    if unknown := set(options.run_ids) - runs.keys():
        raise ValueError(f"{', '.join(options.exhibits)} at scale {options.scale} trains no run {min(unknown)!r}.")
    chosen = [run for run in runs.values() if not options.run_ids or run.id in options.run_ids]
    for run, what in answer_later(chosen, machine):
        print(f"{run.id}: {what}", flush=True)


def show_plan(options: argparse.Namespace) -> None:
    from rich.console import Console

    machine, scale, found = this_machine(), scale_of(options, options.exhibit), plan_of(options, options.exhibit)
    if not found.runs:
        raise ValueError(
            f"{options.exhibit} needs no teacher, cache or text: its studies run by themselves, in minutes."
        )
    past = past_runs(scale, machine.results)
    known = gpu(options.gpu) if options.gpu else CPU
    pace = calibrated(known, past) or (known if options.gpu else None)
    what = options.exhibit if options.exhibit.endswith(".toml") else spec.load(options.exhibit).heading
    title = f"{what}. Scale {scale.name}, seeds {', '.join(map(str, seeds(options.seeds)))}"
    # a pipe has no width of its own
    console = Console(width=None if sys.stdout.isatty() else 200)
    estimate_table.show(estimate(found, machine, past), title, scale, pace, console)


def judge_cost(options: argparse.Namespace) -> None:
    judge, machine, total = this_judge(), this_machine(), Errand(0, 0, 0)
    runs = [run for run in plan_of(options, options.exhibit).runs.values() if run.recipe.probe == "judged"]
    if not runs:
        raise ValueError(f"{options.exhibit} has nothing that a judge rates; rskd/table09 has.")
    for run in runs:
        found = outstanding(run, data_for(run, machine.artifacts), machine, judge)
        print(f"{student_of(run).id}: {found.cost(judge)}")
        total += found
    print(f"all: {total.cost(judge)}")


def build_caches(options: argparse.Namespace) -> None:
    machine, found = this_machine(), plan_of(options, options.source)
    if not found.needs:
        raise ValueError(f"{options.source} needs no cache: its targets are dense, one-hot or online.")
    for folder in build(found.needs, machine, part(options.part), options.compression):
        print(folder)


def plan_cache(options: argparse.Namespace) -> None:
    from rich.console import Console

    absolute = options.absolute is not None
    wanted = Wanted(options.absolute if absolute else options.error, absolute)
    tokens(options.tokens)
    at_least_one("--positions", options.positions)
    run, machine = advised_run(options), this_machine()
    data = scored(run, data_for(run, machine.artifacts), machine)
    probs_NV = probabilities(run, data, options.positions, machine)
    title = f"Draws on {len(probs_NV):,} positions of {run.recipe.teacher} over {data.corpus['name']}"
    found = advice(wanted, probs_NV, data.train.length, frequencies(data.train))
    show_offer(found, options.tokens, title, Console(width=None if sys.stdout.isatty() else 200))


def advised_run(options: argparse.Namespace) -> Run:
    """Of the recipe file, or of the teacher and corpus."""
    if (options.source is None) == (options.teacher is None):
        raise ValueError("cache plan wants a recipe.toml, or --teacher (and --corpus): one of the two.")
    if options.source is not None:
        run = next(iter(plan_of(options, options.source).runs.values()))
    else:
        run = Run(
            Recipe(teacher=options.teacher, text=options.corpus), load_scale(options.scale), seeds(options.seeds)[0]
        )
    if run.recipe.teacher == "none":
        raise ValueError(f"{options.source} has no teacher to look at (teacher = 'none').")
    return run


def verify_cache(options: argparse.Namespace) -> None:
    if options.recipe is None:
        problems = verify(options.folder)
    else:
        machine = this_machine()
        need = Need(next(iter(plan_of(options, str(options.recipe)).runs.values())))
        data = scored(need.run, data_for(need.run, machine.artifacts), machine)
        problems = need.problems(options.folder, data, teacher_for(need.run, machine), machine)
    for problem in problems:
        print(problem)
    if problems:
        raise ValueError(f"{len(problems)} problems in {options.folder}. Remove the folder and build the cache again.")
    print("no problem found")


def cache_stats(options: argparse.Namespace) -> None:
    for name, value in stats(options.folder).items():
        print(f"{name:28} {value}")


if __name__ == "__main__":
    sys.exit(main())
