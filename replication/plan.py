"""Plan: the runs behind an exhibit, in the order they depend on each other."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from paper_tables import spec
from replication.caching import Need
from replication.evaluate.suites import SUITES
from replication.recipe import Recipe, parse
from replication.run import Run
from replication.scale import Scale

OF_STUDENTS = ("martingale", "speculative", *SUITES, "answers", "judged")  # probes of a trained student
DOWNLOADED = (*SUITES, "answers")  # whose questions are a download
UNTAUGHT = ("throughput", "cost")  # probes of what a step takes, which the teacher's weights do not change


@dataclass
class Plan:
    """Every run once, by id: equal rows of different exhibits are one run."""

    teachers: dict[str, Run] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)

    def add(self, run: Run) -> None:
        if run.teacher is not None and run.recipe.probe not in UNTAUGHT:
            self.teachers |= {each.id: each for each in [*students(run.teacher), run.teacher]}
        for student in students(run):
            self.add(student)
        self.runs[run.id] = run

    @property
    def needs(self) -> list[Need]:
        """The caches that these runs read."""
        return [Need(run) for run in self.runs.values() if run.recipe.reads_cache]


def students(run: Run) -> list[Run]:
    """The runs whose trained weights a probe reads, or from whose weights a run goes on."""
    if run.recipe.probe == "gradients":
        return [fullkd_student(run)]
    if run.recipe.probe == "train":
        return [] if run.start is None else [run.start]
    return [student_of(run)] if run.recipe.probe in OF_STUDENTS else []


def fullkd_student(run: Run) -> Run:
    """The student at whose weights Table 3 compares gradients: trained by FullKD under the same seed."""
    recipe = run.recipe
    return Run(Recipe(recipe.student, recipe.teacher, recipe.tokens, recipe.text), run.scale, run.seed)


def student_of(run: Run) -> Run:
    """The student that a probe's recipe trains: the same recipe without the probe."""
    return Run(replace(run.recipe, probe="train"), run.scale, run.seed)


def plan(exhibits: Iterable[str], scale: Scale, seeds: Iterable[int]) -> Plan:
    """Raises ValueError naming exhibit and row for a recipe that does not make sense."""
    found = Plan()
    for name in exhibits:
        exhibit = spec.load(name)
        if exhibit.status == "published":
            raise ValueError(f"{name} cannot be run yet: {exhibit.why}")
        for seed in seeds:
            for row in exhibit.rows:
                for recipe in recipes_of(exhibit, row):
                    try:
                        found.add(Run(parse(recipe), scale, seed))
                    except ValueError as error:
                        raise ValueError(f"{name}.toml, row {row.label!r}: {error}") from None
    return found


def recipes_of(exhibit: spec.Exhibit, row: spec.Row) -> list[dict[str, object]]:
    """The recipes behind the row's cells, each once."""
    found: list[dict[str, object]] = []
    for column in exhibit.columns:
        recipe = exhibit.recipe_of_cell(row, column)
        if recipe is not None and "toy" not in recipe and recipe not in found and asked_for(exhibit, column):
            found.append(recipe)
    return found


def asked_for(exhibit: spec.Exhibit, column: spec.Column) -> bool:
    """Downstream tasks are a download, so beside other columns they are run only where TASK_DATA names their data; a
    judge costs money, so it is asked only where JUDGE_URL says where it is."""
    if column.probe == "judged":
        return bool(os.environ.get("JUDGE_URL"))
    alone = all(other.probe in (*DOWNLOADED, "judged") for other in exhibit.columns)
    return column.probe not in DOWNLOADED or alone or bool(os.environ.get("TASK_DATA"))
