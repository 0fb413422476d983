"""The command line: run recipes, build and check caches, plan exhibits."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import sys
import textwrap
from contextlib import nullcontext
from pathlib import Path
from typing import get_args

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while torch loads: nothing to save, and no traceback

from tqdm import tqdm

from paper_tables import spec
from replication.axes.conformance import VERDICTS, findings, loss_named
from replication.axes.targets.base import at_least_one
from replication.cache.manifest import Compression, read_manifest
from replication.cache.part import part
from replication.cache.shard import BUILD
from replication.cache.stats import stats
from replication.cache.verify import faults, refuse_damaged
from replication.data.packing import frequencies
from replication.evaluate.judged.asking import Errand, this_judge
from replication.execution.execute import execute
from replication.experiment.recipe import parse, read, seeds
from replication.experiment.run import Run, student_of
from replication.experiment.scale import Scale, load_scale
from replication.machine.alone import alone
from replication.machine.device import Machine, this_machine
from replication.machine.processes import leave
from replication.machine.refused import told
from replication.planning import estimate_table, inspection
from replication.planning.cache_advice import Wanted, advice, look_at, tokens
from replication.planning.cache_advice import show as show_offer
from replication.planning.estimate import estimate
from replication.planning.machine_speed import CPU, calibrated, gpu
from replication.planning.past_runs import past_runs
from replication.planning.plan import Plan, plan
from replication.probes.judged import outstanding
from replication.probes.module import refuse_unready
from replication.records.record import record_of
from replication.records.shown import shown
from replication.training.answers import answer_later
from replication.training.needs import Need
from replication.training.replaced import settle
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

CALLED = "of (logits_BLV, ids_BLK, weights_BLK, labels_BL), and items if it divides by a count: the mean over positions"


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        options.action(options)
    except (ValueError, OSError) as error:
        # one line that says what to do, below any progress bar; a traceback would bury it
        words = told(error) if isinstance(error, OSError) else error
        tqdm.write(f"error: {words}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        tqdm.write("stopped; the same command goes on from what is saved", file=sys.stderr)
        return 130
    finally:
        leave()
    return 0


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m replication", description=__doc__)
    actions = top.add_subparsers(required=True, metavar="ACTION")

    one = actions.add_parser("run", help="train or measure one recipe file, with the teacher and cache it needs")
    one.add_argument("recipe", type=place)
    sizes(one)
    again(one)
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

    seen = actions.add_parser(
        "inspect", help="what the suite sees in a model or a recipe file, would do with it, and would refuse"
    )
    seen.add_argument("source", help="a folder, a Hugging Face name, a role of the scale, or a recipe.toml")
    sizes(seen)
    seen.set_defaults(action=inspect)

    sound = actions.add_parser(
        "conform", help="what is right and wrong with a loss for sparse targets, anybody's: mass, shift, masks, sums"
    )
    sound.add_argument("loss", metavar="MODULE:FUNCTION", help=CALLED)
    sound.set_defaults(action=conform)

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
    built = verbs.add_parser(
        "build", help="every cache that a recipe file or an exhibit needs, in one teacher pass; mends damaged ones"
    )
    built.add_argument("source", help="a recipe.toml, or an exhibit such as rskd/table06")
    built.add_argument(
        "--part", default="1/1", help="2/4: only this job's shards, of four; then build the rest without"
    )
    built.add_argument(
        "--compression", choices=get_args(Compression), help="of each sequence, alone; if left out, as begun, or none"
    )
    sizes(built)
    built.set_defaults(action=build_caches)
    checked = verbs.add_parser("verify", help="checksums; with --recipe also alignment and a recomputed sample")
    checked.add_argument("folder", type=place)
    checked.add_argument("--recipe", type=place, help="the recipe the cache was built for")
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
    advised.add_argument(
        "--positions", type=int, help="how many of the text are looked at (4096; fewer of a large vocabulary)"
    )
    sizes(advised)
    advised.set_defaults(action=plan_cache)
    counted = verbs.add_parser("stats", help="bytes per token, unique classes")
    counted.add_argument("folder", type=place)
    counted.set_defaults(action=cache_stats)
    return top


def place(word: str) -> Path:
    return Path(word).expanduser()


def sizes(action: argparse.ArgumentParser) -> None:
    action.add_argument("--scale", default="laptop", help="smoke, laptop, h100, paper, or a .toml file")
    action.add_argument("--seeds", nargs="+", default=["0"], help="0 1 2, or 0,1,2")


def again(action: argparse.ArgumentParser) -> None:
    action.add_argument(
        "--again",
        action="store_true",
        help="make anew what was made of a text, tokenizer or model that was replaced since; the old is kept aside",
    )


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
    inspection.refuse([*found.teachers.values(), *found.runs.values()], machine)
    with machine.world.in_turn():
        settle([*found.teachers.values(), *found.runs.values()], machine, options.again)
    for run in found.teachers.values():
        by_one(run, machine)
    with machine.world.in_turn():
        build([need for need in found.needs if not record_of(need.run, machine).done], machine, again=options.again)
    for run in found.runs.values():
        by_one(run, machine)
        if machine.world.first:
            show(run, machine)


def by_one(run: Run, machine: Machine) -> None:
    """Execute it. ValueError where another process does: two would write into one record."""
    writes = machine.world.first and not record_of(run, machine).done
    with alone(machine.artifacts / run.scale.name / "running" / run.id) if writes else nullcontext():
        execute(run, machine)


def show(run: Run, machine: Machine) -> None:
    record = record_of(run, machine)
    summary = json.loads((record.folder / "summary.json").read_text())
    for line in shown(summary, record.config["settings"]):
        print(line)
    print(f"record      {record.folder}")
    if run.recipe.probe == "train":
        print(f"checkpoint  {model_folder(run, machine)}")


def run_steps(options: argparse.Namespace) -> None:
    machine, found = this_machine(), plan_of(options, options.exhibit)
    known = found.teachers | found.runs
    for run_id in options.run_ids:
        if run_id not in known:
            raise ValueError(f"{options.exhibit} at scale {options.scale} has no run {run_id!r}. See: plan.")
    for line in inspection.refusals_of(machine):
        raise ValueError(line)
    for run_id in options.run_ids:
        by_one(known[run_id], machine)


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
    inspection.refuse([*found.teachers.values(), *found.runs.values()], machine, here=False)
    past = past_runs(scale, machine.results)
    known = gpu(options.gpu) if options.gpu else CPU
    pace = calibrated(known, past) or (known if options.gpu else None)
    what = options.exhibit if options.exhibit.endswith(".toml") else spec.load(options.exhibit).heading
    title = f"{what}. Scale {scale.name}, seeds {', '.join(map(str, seeds(options.seeds)))}"
    # a pipe has no width of its own
    console = Console(width=None if sys.stdout.isatty() else 200)
    estimate_table.show(estimate(found, machine, past), title, scale, pace, console)


def inspect(options: argparse.Namespace) -> None:
    machine, scale = this_machine(), load_scale(options.scale)
    if options.source.endswith(".toml"):
        told = inspection.of_recipe(plan_of(options, options.source), machine, past_runs(scale, machine.results))
    else:
        told = inspection.of_model(os.path.expanduser(options.source), scale, machine)
    width = shutil.get_terminal_size((120, 24)).columns
    for label, words in told:
        print(textwrap.fill(words, width, initial_indent=f"{label:13}", subsequent_indent=" " * 13), flush=True)


def conform(options: argparse.Namespace) -> None:
    sys.path.insert(0, "")  # as `python file.py` finds what stands beside it
    wrong = 0
    for each in findings(loss_named(options.loss)):
        wrong += each.right is False
        print(f"{VERDICTS[each.right]:6} {each.check:9} {each.says}", flush=True)
    if wrong:
        raise ValueError(f"{options.loss}: {wrong} of its checks found something wrong.")


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
    inspection.refuse((need.run for need in found.needs), machine)
    for folder in build(found.needs, machine, part(options.part), options.compression, finished=True):
        print(folder)


def plan_cache(options: argparse.Namespace) -> None:
    from rich.console import Console

    absolute = options.absolute is not None
    wanted = Wanted(options.absolute if absolute else options.error, absolute)
    tokens(options.tokens)
    if options.positions is not None:
        at_least_one("--positions", options.positions)
    run, machine = advised_run(options), this_machine()
    inspection.refuse([run], machine, here=False)
    data = scored(run, data_for(run, machine.artifacts), machine)
    positions, every = look_at(options.positions, data.tokenizer.vocabulary)
    length = len(range(0, data.train.length, every))
    if options.positions is None:  # nobody asked for more than the text has
        positions = min(positions, len(data.train) * length)
    probs_NV = probabilities(run, data, positions, machine, every)
    title = f"Draws on {len(probs_NV):,} positions of {run.recipe.teacher} over {data.corpus['name']}"
    found = advice(wanted, probs_NV, length, frequencies(data.train))
    show_offer(found, options.tokens, title, Console(width=None if sys.stdout.isatty() else 200))


def advised_run(options: argparse.Namespace) -> Run:
    """Of the recipe file, or of the teacher and corpus."""
    if (options.source is None) == (options.teacher is None):
        raise ValueError("cache plan wants a recipe.toml, or --teacher (and --corpus): one of the two.")
    if options.source is not None:
        run = next(iter(plan_of(options, options.source).runs.values()))
    else:
        recipe = parse({"teacher": options.teacher, "text": options.corpus})
        run = Run(recipe, load_scale(options.scale), seeds(options.seeds)[0])
    if run.recipe.teacher == "none":
        raise ValueError(f"{options.source} has no teacher to look at (teacher = 'none').")
    return run


def verify_cache(options: argparse.Namespace) -> None:
    """What is not good is one of three: no cache or another run's (a ValueError); damaged; wrong from the beginning."""
    folder, machine, again = options.folder, this_machine(), BUILD
    manifest = read_manifest(folder)
    need = None if options.recipe is None else need_of(options, folder, machine)
    if need is not None and need.folder(machine).resolve() == folder.resolve():
        stated = [str(options.recipe), "--scale", options.scale, "--seeds", *options.seeds]
        again = f"python -m replication cache build {shlex.join(stated)}"
    if damaged := manifest.damage(folder):
        print(*damaged.values(), sep="\n")
        files = "1 file is" if len(damaged) == 1 else f"{len(damaged)} files are"
        raise ValueError(f"{files} missing or damaged in {folder}; to write that again, and nothing else: {again}")
    if need is None:
        problems = faults(folder)
    else:
        data = scored(need.run, data_for(need.run, machine.artifacts), machine)
        problems = need.problems(folder, data, teacher_for(need.run, machine), machine)
    if problems:
        print(*problems, sep="\n")
        raise ValueError(f"{folder} was written like this, so remove it; to build it anew: {again}")
    print("no problem found")


def need_of(options: argparse.Namespace, folder: Path, machine: Machine) -> Need:
    """The recipe's cache in this folder; its first one, where none of its seeds has it there."""
    needs = list(plan_of(options, str(options.recipe)).needs)
    if not needs:
        raise ValueError(f"{options.recipe} needs no cache: its targets are dense, one-hot or online.")
    return next((need for need in needs if need.folder(machine).resolve() == folder.resolve()), needs[0])


def cache_stats(options: argparse.Namespace) -> None:
    refuse_damaged(options.folder)
    for name, value in stats(options.folder).items():
        print(f"{name:28} {value}")


if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())
