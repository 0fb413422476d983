"""Run: (resolved recipe, scale, seed), and what its words stand for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from replication.corpus import open_corpus
from replication.evaluate.suites import SUITES
from replication.evaluate.task_data import ready
from replication.packing import Packing, pack, validation
from replication.recipe import Recipe, run_id
from replication.record import generator
from replication.scale import Role, Scale
from replication.targets import OneHot
from replication.tokenizer import Tokenizer, open_tokenizer


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
        return self.scale.role("300M" if continues else student)

    def check(self) -> None:
        """Raises ValueError now for what would go wrong later: unknown roles, budgets, lengths, task data."""
        self.settings()
        if self.recipe.probe in SUITES:
            ready(SUITES[self.recipe.probe].tasks)

    @property
    def length(self) -> int:
        """Tokens per sequence."""
        return self.scale.length(self.role.length)

    @property
    def tokenizer(self) -> str:
        """The scale's, unless a model from elsewhere brings its own: a teacher's classes are its tokenizer's tokens."""
        if self.recipe.teacher != "none" and self.teacher is None:
            return self.recipe.teacher
        if self.recipe.student not in self.scale.roles:
            return self.recipe.student
        return self.scale.tokenizer

    @property
    def steps(self) -> int:
        """Optimiser steps. Refuses a budget that is not even one batch."""
        batch = self.role.optimiser.batch * self.length
        steps = self.scale.budget(self.recipe.tokens) // batch
        if steps < 1:
            raise ValueError(
                f"{self.scale.budget(self.recipe.tokens)} tokens are less than one batch of {batch} tokens."
            )
        return steps

    @property
    def teacher(self) -> Run | None:
        """The run that trains this run's teacher; None where the teacher is not one of this suite's."""
        if self.recipe.teacher not in self.scale.roles:
            return None
        return Run(teacher_recipe(self.recipe.teacher, self.recipe.text), self.scale, seed=0)

    def settings(self) -> dict[str, Any]:
        """What the recipe's words stand for at this scale: shown with every table."""
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
        if self.recipe.probe == "martingale":
            found |= {"lengths": self.scale.lengths, "completed_sequences": self.scale.completed_sequences}
        if self.recipe.probe in SUITES:
            found["tasks"] = SUITES[self.recipe.probe].words(self.scale.task_rows)
        return found


def teacher_recipe(role: str, text: str) -> Recipe:
    """A teacher is simply a run: a larger student trained on the text itself."""
    return Recipe(student=role, teacher="none", tokens="teacher", text=text, target=OneHot())


def shape(name: str, role: Role) -> str:
    return f"{name}: {role.family}, {role.layers} layers, width {role.width}, ffn {role.ffn}, {role.heads} heads"


@dataclass(frozen=True)
class Data:
    """The text of a run, as the model reads it."""

    corpus: dict[str, Any]  # name and fingerprint, for the record
    tokenizer: Tokenizer
    train: Packing
    validation: Packing
    repack: Any  # (seed, length) -> Packing of the same documents


def order_of(run: Run, data: Data) -> np.ndarray:
    """The packing's rows in training order, once through; a longer budget goes through them again."""
    return run.recipe.samples(len(data.train), generator(run.seed, "samples")).numpy()


def data_for(run: Run, artifacts: Path) -> Data:
    corpus = open_corpus(run.recipe.text or run.scale.corpus)
    folder = artifacts / "text"
    tokenizer = open_tokenizer(run.tokenizer, corpus, folder)
    return Data(
        corpus={"name": corpus.name, "fingerprint": corpus.fingerprint},
        tokenizer=tokenizer,
        train=pack(corpus, tokenizer, run.seed, run.length, folder),
        validation=validation(corpus, tokenizer, run.length, folder),
        repack=lambda seed, length: pack(corpus, tokenizer, seed, length, folder),
    )
