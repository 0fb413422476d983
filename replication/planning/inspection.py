"""Inspection: what the suite sees in a model or a recipe, what it would do with it, and what it would refuse."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from replication.cost.flops import Cost
from replication.cost.shape import shape_of_checkpoint
from replication.experiment.recipe import parse
from replication.experiment.run import Run, shape
from replication.experiment.scale import Scale
from replication.machine.device import Machine
from replication.machine.memory import total_memory
from replication.machine.refused import refuse_unwritable, told
from replication.planning.estimate import estimate
from replication.planning.estimate_table import count, si
from replication.planning.past_runs import Past
from replication.planning.plan import Plan
from replication.records.record import record_of
from replication.training.before import Seen, fingerprint_at, named, open_models, refusals, specials_at

Told = tuple[str, str]  # a word, and what is to be said of it


def refuse(runs: Iterable[Run], machine: Machine, here: bool = True) -> None:
    """ValueError, one line, for the first thing that would stop one of these runs.

    Done runs are not looked at. `here`: they are to run now, on this machine.
    """
    alike = {Run(run.recipe, run.scale, 0).id: run for run in runs if not record_of(run, machine).done}
    for run in alike.values():
        for line in refusals(run):
            raise ValueError(line)
        if here:
            for line in refusals_here(run, machine):
                raise ValueError(line)
            open_models(run)


def refusals_here(run: Run, machine: Machine) -> Iterator[str]:
    """A line for each thing of this machine that would stop the run."""
    yield from refusals_of(machine)
    least, there = least_bytes(run, machine), total_memory()
    if least > there:
        yield (
            f"A step of {run.id} takes {si(least, 'B')} of memory at least, and this machine has {si(there, 'B')}. "
            "Give a smaller student or a smaller --scale, or share the student: SHARDED=1 torchrun --nproc-per-node ..."
        )


def refusals_of(machine: Machine) -> Iterator[str]:
    """A line for each folder that cannot be written."""
    for folder in (machine.results, machine.artifacts):
        try:
            refuse_unwritable(folder)
        except OSError as error:
            yield told(error)


def least_bytes(run: Run, machine: Machine) -> float:
    """Memory that a step surely takes in this process: weights, gradients, moments; the weights of a teacher beside it.

    0 where nothing is trained, and where nobody says how many classes there are.
    """
    if run.recipe.measurement is not None:
        return 0
    try:
        cost = Cost(run)
        student = 16 * cost.student.parameters / (machine.world.size if machine.sharded else 1)
        return student + (2 * cost.teacher.parameters if cost.asks_teacher and cost.teacher else 0)
    except ValueError:
        return 0


def of_model(name: str, scale: Scale, machine: Machine) -> Iterator[Told]:
    """A model as teacher and as student of the scale. ValueError for what is none.

    Its fingerprint comes last: all weights are read for it.
    """
    student = as_student(name, scale)
    if name in scale.roles:
        yield "role", f"{shape(name, student.role)}; rows of {student.length:,} tokens"
        yield "memory", memory_of(student)
        yield from verdict("as student", student, machine)
        return
    teacher = Run(parse({"teacher": name}), scale, 0)
    if line := named(Seen(teacher)):
        raise ValueError(line)
    Seen(teacher).models  # noqa: B018 (a model that cannot be read is no model to speak of)
    yield from told_or_refused(seen_in(name, student))
    yield from told_or_refused(("memory", memory_of(each)) for each in [student])
    yield from verdict("as teacher", teacher, machine)
    yield from verdict("as student", student, machine)
    yield from told_or_refused(("fingerprint", fingerprint_at(each)) for each in [name])


def as_student(name: str, scale: Scale) -> Run:
    return Run(parse({"student": name, "teacher": "none", "target": "OneHot"}), scale, 0)


def of_recipe(found: Plan, machine: Machine, past: list[Past]) -> Iterator[Told]:
    """What its run would read and do, in order."""
    run = list(found.runs.values())[-1]
    for what, name in (("teacher", run.recipe.teacher), ("student", run.recipe.student)):
        if name in run.scale.roles:
            yield what, shape(name, run.scale.role(name))
        elif name != "none":
            yield what, name
            yield from told_or_refused(seen_in(name, run))
    yield "text", run.scale.corpus_of(run.recipe.text)
    yield "rows", f"{run.length:,} tokens; {run.role.optimiser.batch} rows a step, {run.steps:,} steps"
    yield from told_or_refused(to_do(found, machine, past))
    yield from told_or_refused(("memory", memory_of(each)) for each in [run])
    yield from verdict("run", run, machine)


def to_do(found: Plan, machine: Machine, past: list[Past]) -> Iterator[Told]:
    for line in estimate(found, machine, past):
        read = f", {count(line.tokens)} tokens" if line.tokens else ""
        left = f", {si(line.disk, 'B')} on disk" if line.disk else ""
        yield line.kind, f"{'done' if line.done else 'to do'}: {line.name}{read}{left}"


def seen_in(name: str, run: Run) -> Iterator[Told]:
    """A model from elsewhere, beside the tokenizer that the run takes."""
    seen = Seen(run)
    model, size = seen.from_elsewhere(name), shape_of_checkpoint(name)
    assert model is not None
    yield "family", f"{model.family}, {size.layers} layers, width {size.width:,}, {count(size.parameters)} parameters"
    yield "head", model.head
    reach = "no limit stated" if model.reach is None else f"rows of up to {model.reach:,} tokens"
    yield "positions", f"{reach}; rows of scale {run.scale.name} have {run.length:,}"
    yield "precision", f"{model.precision or 'not known before its weights are read'}; a student trains in float32"
    yield "width", f"{model.classes:,} classes; {tokens_of(seen)}"


def tokens_of(seen: Seen) -> str:
    """The run's tokenizer, in words."""
    if seen.tokenizer is None:
        return f"tokenizer {seen.run.tokenizer}, made of the text"
    end = seen.tokenizer.backend.id_to_token(seen.tokenizer.end_of_text)
    found = f"{seen.tokenizer.vocabulary:,} tokens, a text ends with {end!r}"
    if seen.run.tokenizer.endswith((".json", ".json.gz")):  # which says no more
        return found
    return f"{found}; special: {specials_at(seen.run.tokenizer)}"


def memory_of(run: Run) -> str:
    cost = Cost(run)
    whole = cost.held_bytes + cost.sequences * cost.sequence_bytes
    return (
        f"a step of {cost.sequences} rows takes about {si(whole, 'B')} (AT_ONCE=1: "
        f"{si(cost.held_bytes + cost.sequence_bytes, 'B')}); this machine has {si(total_memory(), 'B')}"
    )


def verdict(words: str, run: Run, machine: Machine) -> Iterator[Told]:
    lines = [*refusals(run), *refusals_here(run, machine)]
    yield words, "refused" if lines else "nothing stands in the way"
    for line in lines:
        yield "", line


def told_or_refused(lines: Iterable[Told]) -> Iterator[Told]:
    try:
        yield from lines
    except ValueError as error:
        yield "refused", str(error)
