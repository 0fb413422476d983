"""Replay: make a logged run again, its first steps or all of a probe, and compare; nothing of it is kept."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from replication.experiment.lineage import Early
from replication.experiment.recipe import parse
from replication.experiment.run import Run, students
from replication.experiment.scale import load_scale
from replication.machine.device import Machine, has_bfloat16
from replication.model.decoder import fingerprint, load
from replication.probes.module import deed_of
from replication.records.agreement import TOLERANCE, WHOLE, WORDS, Verdict, by_name, number, of_numbers
from replication.records.promote import WEIGHTS
from replication.records.record import STEPS, Record
from replication.training.inputs import inputs_of_text
from replication.training.loop import FIRST
from replication.training.needs import Need
from replication.training.run_data import Data, data_for
from replication.training.scores import scored
from replication.training.teacher_pass import build
from replication.training.training import Training, supervision_of
from replication.training.weights import model_folder, teacher_for

LATEST = 40  # the last step that is made again of a record that did not log each of its first ones


class NotHereError(ValueError):
    """Something that the run read is not here, or is another one."""


@dataclass(frozen=True)
class Logged:
    """A record's folder, and what it holds."""

    folder: Path
    config: dict[str, Any]

    @property
    def run_id(self) -> str:
        return self.folder.name

    @property
    def steps(self) -> list[dict[str, Any]]:
        """Those to compare: the first ones where each was logged, else what there is of the beginning."""
        lines = Record(self.folder).lines(STEPS)
        each = [line for line in lines if line["step"] <= FIRST]
        return each or [line for line in lines if line["step"] <= LATEST]

    @property
    def metrics(self) -> dict[str, float]:
        found = json.loads((self.folder / "summary.json").read_text())["metrics"]
        return {name: number(value) for name, value in found.items()}

    def run(self) -> Run:
        """The run that the record is of. NotHereError where its words mean something else by now."""
        run = Run(parse(self.config["changed"]), load_scale(self.config["scale"]), self.config["seed"])
        if run.id != self.run_id:
            raise NotHereError(f"its recipe is run {run.id} by now")
        settings = json.loads(json.dumps(run.settings()))
        if other := [key for key in settings | self.config["settings"] if settings.get(key) != self.settings.get(key)]:
            raise NotHereError(f"scale {run.scale.name} gives its words other sizes by now ({', '.join(other)})")
        return run

    @property
    def settings(self) -> dict[str, Any]:
        return dict(self.config["settings"])

    @property
    def seconds(self) -> float:
        """How long the whole run took; where nobody noted it, too long."""
        return float(json.loads((self.folder / "summary.json").read_text())["machine"].get("seconds", math.inf))


def logged(folder: Path) -> Logged:
    return Logged(folder, json.loads((folder / "config.json").read_text()))


def replay(record: Logged, machine: Machine) -> Verdict:
    """Of a record that is not a toy's. What stands in its way is the verdict's reason, never an exception."""
    tried = []
    try:
        run = record.run()
        for products in products_of(record):
            if products == "bfloat16" and not has_bfloat16(machine.device):
                raise NotHereError("its products were in bfloat16, for which this processor has no instructions")
            with scratch(replace(machine, autocast=products == "bfloat16")) as here:
                find_models(record, run, machine, here)
                tried.append(trained_again(record, run, here) if trains(run) else measured_again(record, run, here))
    except (ValueError, FileNotFoundError) as error:
        tried.append(Verdict(record.run_id, "cannot", str(error)))
    best = max(tried, key=lambda verdict: WORDS.index(verdict.word))
    if best.word == "differs" and any(
        str(value).startswith("unrecorded") for value in record.config["inputs"].values()
    ):
        return Verdict(best.run_id, "cannot", f"nobody noted which teacher it read; with the one here: {best.why}")
    return best


def products_of(record: Logged) -> list[str]:
    """The precision that the record states; both where an older record states none."""
    stated = record.config.get("precision", {}).get("products", "float32")
    return ["float32", "bfloat16"] if stated == "unrecorded" else [stated]


def trains(run: Run) -> bool:
    return run.recipe.measurement is None


@contextmanager
def scratch(machine: Machine) -> Iterator[Machine]:
    """The same machine with temporary folders for all but the text."""
    with TemporaryDirectory() as name:
        text = machine.artifacts / "text"
        text.mkdir(parents=True, exist_ok=True)
        (Path(name) / "text").symlink_to(text.resolve())
        yield replace(machine, artifacts=Path(name), results=Path(name) / "results")


def find_models(record: Logged, run: Run, machine: Machine, here: Machine) -> None:
    """Puts the models that the run read where it will look for them `here`. NotHereError where one is not to be had."""
    if run.recipe.measurement and not run.recipe.measurement.taught:
        return
    wanted = [(run.teacher, "teacher")] if run.teacher is not None else []
    wanted += [(other, "start") for other in (students(run) if not trains(run) else [run.start] if run.start else [])]
    wanted += [(each, what) for what, each in run.scorers.items() if isinstance(each, Run) and what != "teacher"]
    for other, what in wanted:
        assert other is not None
        stated = record.config["inputs"].get(what, "unrecorded")
        folders = [model_folder(other, machine), record.folder.parent / other.id / WEIGHTS]
        present = {fingerprint(load(each)): each for each in reversed(folders) if (each / "config.json").exists()}
        if stated.startswith("unrecorded") and present:
            stated = next(reversed(present))
        if stated not in present:
            known = f"here it is {', '.join(present)}" if present else "it is not trained here"
            raise NotHereError(f"its {what}, {other.id}, was {stated}, and {known}")
        place = model_folder(other, here)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(present[stated].resolve())


def text_of(record: Logged, run: Run, machine: Machine) -> Data:
    """NotHereError where it is another text, split or packed in another way."""
    data = scored(run, data_for(run, machine.artifacts), machine)
    now = {"corpus": data.corpus["fingerprint"], **inputs_of_text(data)}
    then = {"corpus": record.config["corpus"]["fingerprint"], **record.config["inputs"]}
    for what, value in now.items():
        if then.get(what, value) != value:
            raise NotHereError(f"its {what} was {then[what]}, and here it is {value}")
    return data


def trained_again(record: Logged, run: Run, machine: Machine) -> Verdict:
    """The first steps, with a cache of only what they read."""
    if not record.steps:
        raise NotHereError("it logged none of its first steps")
    last = record.steps[-1]["step"]
    data = text_of(record, run, machine)
    teacher = teacher_for(run, machine) if run.recipe.teacher != "none" else None
    beginning = replace(run, recipe=replace(run.recipe, stop=Early(last / run.horizon)))
    if run.recipe.reads_cache:
        build([Need(beginning)], machine)
    training = Training(run, data, teacher, machine, supervision_of(beginning, data, teacher, machine))
    for what in ("teacher", "start"):  # those that no run of the suite trained were not looked at yet
        then, now = record.config["inputs"].get(what, "unrecorded"), training.inputs.get(what)
        if not then.startswith("unrecorded") and now != then:
            raise NotHereError(f"its {what} was {then}, and here it is {now}")
    lines = []
    for step in range(1, last + 1):
        loss, gradient_norm, _ = training.advance()
        lines.append({"step": step, "loss": loss, "gradient_norm": gradient_norm})
    products = "bfloat16" if machine.autocast else "float32"
    return of_numbers(
        record.run_id, by_name(record.steps), by_name(lines), TOLERANCE[products], "numbers of first steps"
    )


def measured_again(record: Logged, run: Run, machine: Machine) -> Verdict:
    """All of a probe."""
    asked, deed = run.recipe.measurement, deed_of(run.recipe.probe)
    assert asked is not None
    if asked.timed:
        raise NotHereError("it is timed, and no second run takes as long")
    metrics, _ = deed(run) if asked.computed else deed(run, text_of(record, run, machine), machine)
    return of_numbers(record.run_id, record.metrics, metrics, WHOLE, "metrics")
