"""Run: (resolved recipe, scale, seed), and what its words stand for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from replication.axes.targets.kept import OneHot
from replication.experiment.identity import run_id
from replication.experiment.lineage import Adapted, Instructed, OtherText, SameText, Untuned
from replication.experiment.measurements import OF_STUDENTS, named_judge
from replication.experiment.recipe import Recipe
from replication.experiment.scale import Optimiser, Role, Scale
from replication.experiment.suites import INSTRUCTION_SETS, SUITES


@dataclass(frozen=True)
class Run:
    recipe: Recipe
    scale: Scale
    seed: int

    @cached_property
    def id(self) -> str:
        return run_id(self.recipe, self.scale.name, self.seed)

    @property
    def role(self) -> Role:
        """The student's shape and training settings. A checkpoint to continue from is trained as role 300M is."""
        student = self.recipe.student
        continues = student not in self.scale.roles and ("/" in student or Path(student).exists())
        role = self.scale.role("300M" if continues else student)
        if isinstance(self.recipe.tuning, Untuned):
            return role
        return role.model_copy(update={"optimiser": self.tuner})

    @property
    def tuner(self) -> Optimiser:
        if self.scale.tuning is None:
            raise ValueError(
                f"Scale {self.scale.name!r} does not say how students are tuned: add tuning = {{ peak_rate = ..., "
                "final_rate = ..., warmup = ..., batch = ... }."
            )
        return self.scale.tuning

    @property
    def length(self) -> int:
        """Tokens per sequence."""
        return self.scale.length(self.role.length)

    @property
    def tokenizer(self) -> str:
        """The scale's, unless a model from elsewhere brings its own: a teacher's classes are its tokenizer's tokens."""
        if self.recipe.teacher not in ("none", *self.scale.roles):
            return self.recipe.teacher
        if self.recipe.student not in self.scale.roles:
            return self.recipe.student
        return self.scale.tokenizer

    @property
    def steps(self) -> int:
        """Optimiser steps. Refuses a budget that is not even one batch."""
        batch = self.role.optimiser.batch * self.length
        budget = self.scale.budget(self.recipe.training_recipe.tokens)
        if budget < batch:
            raise ValueError(f"{budget} tokens are less than one batch of {batch} tokens.")
        return budget // batch

    @property
    def teacher(self) -> Run | None:
        """The run that trains this run's teacher; None where the teacher is not one of this suite's."""
        teacher, text, background = self.recipe.teacher, self.recipe.text, self.recipe.background
        if teacher != "none" and isinstance(background, Adapted):
            before = OtherText(background.text) if teacher in self.scale.roles else SameText()
            adapted = Recipe(teacher, "none", background.tokens, text, target=OneHot(), background=before)
            return Run(adapted, self.scale, seed=0)
        if teacher not in self.scale.roles:
            return None
        read = text if isinstance(background, SameText) else background.text
        return Run(teacher_recipe(teacher, read), self.scale, seed=0)

    @property
    def start(self) -> Run | None:
        """The run from whose weights this one goes on; None where it begins afresh or from a given checkpoint."""
        recipe = self.recipe
        if isinstance(recipe.tuning, Instructed):
            return Run(replace(recipe, tuning=Untuned()), self.scale, self.seed)
        if recipe.teacher == "none" and isinstance(recipe.background, OtherText) and recipe.student in self.scale.roles:
            return Run(teacher_recipe(recipe.student, recipe.background.text), self.scale, seed=0)
        return None

    def settings(self) -> dict[str, Any]:
        """What the recipe's words stand for at this scale: shown with every table."""
        if isinstance(self.recipe.tuning, Instructed):
            text = self.scale.corpus_of(self.recipe.tuning.text)
            tuned = {"text": text, "steps": self.steps, "length": self.length, "optimiser": self.tuner.model_dump()}
            return Run(replace(self.recipe, tuning=Untuned()), self.scale, self.seed).settings() | {"tuned_on": tuned}
        role = self.role
        if role.vocabulary is not None and self.recipe.probe != "cost":
            raise ValueError(
                f"Role {self.recipe.student!r} of scale {self.scale.name!r} has {role.vocabulary:,} classes of another "
                "tokenizer than the scale's: it is there to be costed (probe = 'cost'), not to be trained."
            )
        found: dict[str, Any] = {
            "student": shape(self.recipe.student, role)
            if self.recipe.student in self.scale.roles
            else self.recipe.student,
            "tokens": self.steps * role.optimiser.batch * self.length,
            "steps": self.steps,
            "batch": role.optimiser.batch,
            "length": self.length,
            "tokenizer": self.tokenizer if role.vocabulary is None else f"another, of {role.vocabulary:,} classes",
            "optimiser": role.optimiser.model_dump(),
            "evaluation_sequences": self.scale.evaluation_sequences,
        }
        if self.teacher is not None:
            found["teacher"] = shape(self.recipe.teacher, self.teacher.role)
            found["teacher_tokens"] = self.scale.budget("teacher")
        elif self.recipe.teacher != "none":
            found["teacher"] = self.recipe.teacher
        if not isinstance(self.recipe.background, SameText):
            found["teacher_read"] = self.scale.corpus_of(self.recipe.background.text)
        if isinstance(self.recipe.background, Adapted):
            found["adapted_for"] = self.scale.budget(self.recipe.background.tokens)
        if self.recipe.probe == "martingale":
            found |= {"lengths": self.scale.lengths, "completed_sequences": self.scale.completed_sequences}
        if self.recipe.probe in SUITES:
            found["tasks"] = SUITES[self.recipe.probe].words(self.scale.task_rows)
        if self.recipe.probe in ("answers", "judged"):
            limit = "all questions" if self.scale.task_rows is None else f"at most {self.scale.task_rows:,} of each set"
            found["tasks"] = f"{', '.join(INSTRUCTION_SETS)}; {limit}"
        if self.recipe.probe == "judged":
            found["judge"] = named_judge()
        return found


def teacher_recipe(role: str, text: str) -> Recipe:
    """A teacher is simply a run: a larger student trained on the text itself."""
    return Recipe(student=role, teacher="none", tokens="teacher", text=text, target=OneHot())


def shape(name: str, role: Role) -> str:
    return f"{name}: {role.family}, {role.layers} layers, width {role.width}, ffn {role.ffn}, {role.heads} heads"


@dataclass(frozen=True, eq=False)
class Scores:
    """What the samples are chosen by (`training/scores.py`): float32 [S], of each row of the training text."""

    values_S: np.ndarray
    fingerprint: str  # of what they follow from: their last digit may depend on the machine


def students(run: Run) -> list[Run]:
    """The runs whose trained weights a probe reads, or from whose weights a run goes on."""
    if run.recipe.probe == "gradients":
        return [fullkd_student(run)]
    if run.recipe.probe == "train":
        return [] if run.start is None else [run.start]
    return [student_of(run)] if run.recipe.probe in OF_STUDENTS else []


def student_of(run: Run) -> Run:
    """The student that a probe's recipe trains: the same recipe without the probe."""
    return Run(replace(run.recipe, probe="train"), run.scale, run.seed)


def fullkd_student(run: Run) -> Run:
    """The student at whose weights Table 3 compares gradients: trained by FullKD under the same seed."""
    recipe = run.recipe
    return Run(Recipe(recipe.student, recipe.teacher, recipe.tokens, recipe.text), run.scale, run.seed)
