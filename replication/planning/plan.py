"""Plan: the runs behind an exhibit, in the order they depend on each other."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field

from paper_tables import spec
from replication.experiment.measurements import PROBES
from replication.experiment.recipe import parse
from replication.experiment.run import Run, students
from replication.experiment.scale import Scale
from replication.experiment.suites import SUITES
from replication.training.needs import Need


@dataclass
class Plan:
    """Every run once, by id: equal rows of different exhibits are one run.

    `teachers` are what is trained before a cache is made: also models that are distilled later, or only score samples:
    by which rows are chosen that are cached.
    """

    teachers: dict[str, Run] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)

    def add(self, run: Run) -> None:
        if run.teacher is not None and (run.recipe.measurement is None or run.recipe.measurement.taught):
            self.teachers |= {each.id: each for each in [*students(run.teacher), run.teacher]}
        for scorer in run.scorers.values() if run.recipe.measurement is None or run.recipe.measurement.taught else ():
            if isinstance(scorer, Run):
                self.teachers |= {each.id: each for each in [*students(scorer), scorer]}
        for student in students(run):
            if student == run.pretraining:
                self.teachers[student.id] = student
            else:
                self.add(student)
        self.runs[run.id] = run

    @property
    def needs(self) -> list[Need]:
        """The caches that these runs read."""
        return [Need(run) for run in self.runs.values() if run.recipe.reads_cache]


def plan(exhibits: Iterable[str], scale: Scale, seeds: Iterable[int]) -> Plan:
    """Raises ValueError naming exhibit and row for a recipe that does not make sense."""
    found = Plan()
    for name in exhibits:
        exhibit = spec.load(name)
        if exhibit.status == "published":
            raise ValueError(f"{name} cannot be run yet: {exhibit.why}")
        for seed in seeds:
            for row in exhibit.rows:
                for recipe in recipes_of(exhibit, row, scale):
                    try:
                        found.add(Run(parse(recipe), scale, seed))
                    except ValueError as error:
                        raise ValueError(f"{name}.toml, row {row.label!r}: {error}") from None
    return found


def recipes_of(exhibit: spec.Exhibit, row: spec.Row, scale: Scale) -> list[dict[str, object]]:
    """The recipes behind the row's cells at this scale, each once."""
    found: list[dict[str, object]] = []
    for column in exhibit.columns:
        recipe = exhibit.recipe_of_cell(row, column)
        if recipe is None or "toy" in recipe:
            continue
        if at_hand(column, scale):
            recipe = {key: value for key, value in recipe.items() if key != "probe"}
        elif not asked_for(exhibit, column):
            continue
        if recipe not in found:
            found.append(recipe)
    return found


def at_hand(column: spec.Column, scale: Scale) -> bool:
    """Whether the column is filled by what a training itself leaves: the scale's own tasks, where TASK_DATA names none
    of the papers'."""
    return column.probe in SUITES and bool(scale.tasks) and not os.environ.get("TASK_DATA")


def asked_for(exhibit: spec.Exhibit, column: spec.Column) -> bool:
    """Downstream tasks are a download, so beside other columns they are run only where TASK_DATA names their data; a
    judge costs money, so it is asked only where JUDGE_URL says where it is."""
    wanted = outside(column)
    if wanted == "JUDGE_URL":
        return bool(os.environ.get(wanted))
    return not wanted or bool(os.environ.get(wanted)) or all(outside(other) for other in exhibit.columns)


def outside(column: spec.Column) -> str:
    """The variable that says where what the column's probe needs is to be had; "" where it needs nothing from there."""
    return PROBES[column.probe].outside if column.probe in PROBES else ""
