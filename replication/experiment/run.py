"""Run: (resolved recipe, scale, seed), and what its words stand for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from replication.axes.targets.kept import OneHot
from replication.experiment.identity import run_id
from replication.experiment.lineage import (
    Adapted,
    Continued,
    Early,
    Instructed,
    OtherText,
    Pretrained,
    SameText,
    Untuned,
)
from replication.experiment.measurements import BEYOND, BUDGETS
from replication.experiment.recipe import Recipe
from replication.experiment.scale import Role, Scale


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
        """The student's shape and training settings. A checkpoint that is no role is trained as role 300M is."""
        student = self.recipe.student
        continues = student not in self.scale.roles and ("/" in student or Path(student).exists())
        role = self.scale.role("300M" if continues else student)
        if isinstance(self.recipe.tuning, Untuned):
            return role
        return role.model_copy(update={"optimiser": self.scale.tuner})

    @property
    def length(self) -> int:
        """Tokens per sequence."""
        return self.scale.length(self.role.length)

    @property
    def tokenizer(self) -> str:
        """The scale's, unless a model from elsewhere brings its own: a teacher's classes are its tokenizer's tokens."""
        if self.recipe.teacher != "none" and not self.scale.trains(self.recipe.teacher):
            return self.recipe.teacher
        if not self.scale.trains(self.recipe.student):
            return self.recipe.student
        return self.scale.tokenizer

    @property
    def steps(self) -> int:
        """Optimiser steps that are taken."""
        return self.recipe.training_recipe.stop.of(self.horizon)

    @property
    def horizon(self) -> int:
        """Optimiser steps of the schedules, of which the run may stop early. Refuses less than one batch."""
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
            before = OtherText(background.text) if self.scale.trains(teacher) else SameText()
            how = as_posed(self.recipe) | reading(self.recipe)
            adapted = Recipe(teacher, "none", background.tokens, text, target=OneHot(), background=before, **how)
            return Run(adapted, self.scale, seed=0)
        if not self.scale.trains(teacher):
            return None
        read = text if isinstance(background, SameText) else background.text
        return Run(teacher_recipe(teacher, read, self.recipe, self.recipe.teacher_tokens), self.scale, seed=0)

    @property
    def start(self) -> Run | None:
        """The run from whose weights this one goes on; None where it begins afresh or from a given checkpoint."""
        recipe = self.recipe
        if isinstance(recipe.tuning, Instructed):
            return self.untuned
        if self.pretraining is not None:
            return self.pretraining
        if isinstance(recipe.initial, Continued):
            before = Pretrained(recipe.initial.pretraining)
            text, tokens = recipe.initial.text, recipe.initial.tokens
            return Run(replace(recipe, text=text, tokens=tokens, initial=before), self.scale, self.seed)
        if recipe.teacher == "none" and isinstance(recipe.background, OtherText) and self.scale.trains(recipe.student):
            return Run(teacher_recipe(recipe.student, recipe.background.text, recipe), self.scale, seed=0)
        return None

    @property
    def pretraining(self) -> Run | None:
        """The run that makes a trained model of the student before it is distilled; None where nothing is to do."""
        recipe = self.recipe
        if not isinstance(recipe.initial, Pretrained) or not self.scale.trains(recipe.student):
            return None
        if self.tokenizer != self.scale.tokenizer:
            raise ValueError(
                f"Initial Pretrained: {recipe.student!r} would be pretrained with the scale's tokenizer, and teacher "
                f"{recipe.teacher!r} brings another. Give a role as teacher, or a checkpoint of that tokenizer as "
                "student."
            )
        own = recipe.initial.text == "student's"
        text = recipe.text if own else getattr(recipe.background, "text", recipe.text)
        how = as_posed(recipe) | reading(recipe)
        pretrained = Recipe(recipe.student, "none", recipe.initial.tokens, text, target=OneHot(), **how)
        return Run(pretrained, self.scale, self.seed)

    @property
    def stage(self) -> int:
        """Sequences that are read before `samples.until` of the training is done, those of a last step included."""
        until = self.recipe.training_recipe.samples.until
        return self.role.optimiser.batch * sum(step / self.horizon < until for step in range(self.horizon))

    @property
    def scorers(self) -> dict[str, Run | str]:
        """What scores the samples, by what it is: runs, or checkpoints; of a student the run that it goes on from.

        ValueError where it cannot be made.
        """
        found: dict[str, Run | str] = {}
        samples = self.recipe.training_recipe.samples
        for reader in samples.readers:
            if reader.what == "student" and self.start is not None:
                found["student"] = self.start
            elif reader.what == "teacher":
                found["teacher"] = self.teacher or self.recipe.teacher
            elif reader.what == "early":
                found["early"] = reader.name or self.early(reader.share)
            elif reader.what == "reference":
                trains = self.scale.trains(reader.name)
                found["reference"] = self.beginner(reader.name, reader.tokens) if trains else reader.name
        return found

    def early(self, share: float) -> Run:
        """The teacher's own run, stopped early."""
        if self.teacher is None:
            raise ValueError(
                f"Samples {type(self.recipe.samples).__name__} are chosen by an early checkpoint of the teacher, and "
                f"{self.recipe.teacher!r} is no role that is trained here: give samples = {{ ..., scorer = ... }}, a "
                "checkpoint of less training (a folder, or a Hugging Face name)."
            )
        return replace(self.teacher, recipe=replace(self.teacher.recipe, stop=Early(share)))

    def beginner(self, role: str, tokens: str) -> Run:
        """A run that trains a role on the first rows that this run would read, which it then leaves out."""
        if self.tokenizer != self.scale.tokenizer:
            raise ValueError(
                f"{role!r} would be trained with the scale's tokenizer, and {self.tokenizer!r} brings another. Give a "
                "checkpoint of that tokenizer (a folder, or a Hugging Face name), or a role as teacher."
            )
        recipe = Recipe(role, "none", tokens, self.recipe.text, target=OneHot(), **reading(self.recipe))
        return Run(recipe, self.scale, self.seed)

    @property
    def untuned(self) -> Run:
        return Run(replace(self.recipe, tuning=Untuned()), self.scale, self.seed)

    def settings(self) -> dict[str, Any]:
        """What the recipe's words stand for at this scale, as each part of it says: shown with every table."""
        recipe = self.recipe
        if isinstance(recipe.tuning, Instructed):
            return self.untuned.settings() | recipe.tuning.settings(self.scale, self.steps, self.length)
        found = self.of_student() | self.of_teacher() | recipe.background.settings(self.scale) | self.of_samples()
        if self.pretraining is not None:
            found["pretrained_for"] = self.scale.budget(self.pretraining.recipe.tokens)
        if isinstance(recipe.initial, Continued):
            found["continued"] = recipe.initial.settings(self.scale)
        return found if recipe.measurement is None else found | recipe.measurement.settings(self.scale)

    def of_student(self) -> dict[str, Any]:
        recipe, role = self.recipe, self.role
        # a model from elsewhere brings its tokenizer, and so its classes
        foreign = role.vocabulary is not None and self.tokenizer == self.scale.tokenizer
        if foreign and not (recipe.measurement and recipe.measurement.computed):
            raise ValueError(
                f"Role {recipe.student!r} of scale {self.scale.name!r} has {role.vocabulary:,} classes of another "
                "tokenizer than the scale's: it is there to be costed (probe = 'cost'), not to be trained."
            )
        return {
            "student": shape(recipe.student, role) if self.scale.trains(recipe.student) else recipe.student,
            "tokens": self.steps * role.optimiser.batch * self.length,
            "steps": self.steps,
            "batch": role.optimiser.batch,
            "length": self.length,
            "tokenizer": f"another, of {role.vocabulary:,} classes" if foreign else self.tokenizer,
            "optimiser": role.optimiser.settings(),
            "evaluation_sequences": self.scale.evaluation_sequences,
        }

    def of_samples(self) -> dict[str, Any]:
        samples, found = self.recipe.samples, dict[str, Any]()
        if samples.pool:
            found["pool"] = self.scale.budget(samples.pool)
        if samples.until < 1:
            found["first_stage"] = self.stage * self.length
        for what, scorer in self.scorers.items():
            if what in ("student", "teacher"):
                continue
            if isinstance(scorer, str):
                found[what] = scorer
            else:
                tokens = scorer.steps * scorer.role.optimiser.batch * scorer.length
                found |= {what: shape(scorer.recipe.student, scorer.role), f"{what}_tokens": tokens}
        return found

    def of_teacher(self) -> dict[str, Any]:
        name = self.recipe.teacher
        if self.teacher is not None:
            tokens = self.scale.budget(self.recipe.teacher_tokens)
            return {"teacher": shape(name, self.teacher.role), "teacher_tokens": tokens}
        return {} if name == "none" else {"teacher": name}


def teacher_recipe(role: str, text: str, of: Recipe, tokens: str = "teacher") -> Recipe:
    """A teacher is simply a run: another student trained on the text itself, which it reads as its student does."""
    return Recipe(role, "none", tokens, text, target=OneHot(), **as_posed(of), **reading(of))


def reading(recipe: Recipe) -> dict[str, Any]:
    """How text becomes tokens: the same for a student and all that it is compared with."""
    return {"begin": recipe.begin, "special": recipe.special, "vocabulary": recipe.vocabulary}


def as_posed(recipe: Recipe) -> dict[str, Any]:
    """A model that is put rewritten rows has been trained on such rows."""
    return {"objective": recipe.objective} if recipe.objective.rewrites else {}


def shape(name: str, role: Role) -> str:
    return f"{name}: {role.family}, {role.layers} layers, width {role.width}, ffn {role.ffn}, {role.heads} heads"


@dataclass(frozen=True, eq=False)
class Scores:
    """What the samples are chosen by (`training/scores.py`): float32 [P], of each row of the pool."""

    values_P: np.ndarray
    fingerprint: str  # of what they follow from: their last digit may depend on the machine
    readers: Mapping[str, str] = field(default_factory=dict)  # what scored them -> its fingerprint


def students(run: Run) -> list[Run]:
    """The runs whose trained weights a probe reads, or from whose weights a run goes on."""
    if run.recipe.measurement is None:
        return [] if run.start is None else [run.start]
    match run.recipe.measurement.student:
        case "none":
            return []
        case "own":
            return [student_of(run)]
        case "FullKD":
            return [fullkd_student(run)]
        case "budgets":
            return [with_budget(run, word) for word in (*BUDGETS, BEYOND)]


def student_of(run: Run) -> Run:
    """The student that a probe's recipe trains: the same recipe without the probe."""
    return Run(replace(run.recipe, probe="train"), run.scale, run.seed)


def with_budget(run: Run, tokens: str) -> Run:
    """The student that a probe's recipe trains, for another budget."""
    return student_of(replace(run, recipe=replace(run.recipe, tokens=tokens)))


def fullkd_student(run: Run) -> Run:
    """The student at whose weights Table 3 compares gradients: trained by FullKD under the same seed, from the same
    beginning."""
    recipe = run.recipe
    how = {"teacher_tokens": recipe.teacher_tokens, "initial": recipe.initial} | as_posed(recipe) | reading(recipe)
    same = Recipe(recipe.student, recipe.teacher, recipe.tokens, recipe.text, **how)
    return Run(same, run.scale, run.seed)
