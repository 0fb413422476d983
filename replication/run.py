"""Run: (resolved recipe, scale, seed), and what its words stand for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from replication.corpus import open_corpus
from replication.evaluate.suites import SUITES
from replication.evaluate.task_data import ready
from replication.instruct.chat import TEMPLATE
from replication.instruct.conversations import open_conversations
from replication.instruct.judge import named_judge
from replication.instruct.packed import SPLITS, Conversations, pack_conversations
from replication.instruct.questions import SETS, questions_ready
from replication.packing import Packing, pack, validation
from replication.recipe import Recipe, run_id
from replication.record import generator
from replication.scale import Optimiser, Role, Scale
from replication.stages import Adapted, Instructed, OtherText, SameText, Untuned
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

    def check(self) -> None:
        """Raises ValueError now for what would go wrong later: unknown roles, budgets, lengths, task data, a judge."""
        self.settings()
        if self.recipe.probe in SUITES:
            ready(SUITES[self.recipe.probe].tasks)
        if self.recipe.probe in ("answers", "judged"):
            questions_ready()

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
        budget = self.scale.budget(self.recipe.lesson.tokens)
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
            found["tasks"] = f"{', '.join(SETS)}; {limit}"
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
    """What the samples are chosen by (`scores.py`): float32 [S], of each row of the training text."""

    values_S: np.ndarray
    fingerprint: str  # of what they follow from: their last digit may depend on the machine


@dataclass(frozen=True)
class Data:
    """The text of a run, as the model reads it."""

    corpus: dict[str, Any]  # name and fingerprint, for the record
    tokenizer: Tokenizer
    train: Packing
    validation: Packing
    repack: Any  # (seed, length) -> Packing of the same documents
    conversations: Conversations | None = None  # of a student that is tuned
    held_out: Conversations | None = None
    scores: Scores | None = None  # where the run's samples go by some

    @property
    def lesson(self) -> Packing | Conversations:
        """What the training steps read."""
        return self.train if self.conversations is None else self.conversations


def order_of(run: Run, data: Data) -> np.ndarray:
    """The lesson's rows in training order, once through; a longer budget goes through them again."""
    samples = run.recipe.lesson.samples
    scores_S = torch.full((len(data.lesson),), torch.nan)
    if samples.score is not None:
        assert data.scores is not None, "what reads the rows of a run has its data scored first (scores.py)"
        scores_S = torch.from_numpy(data.scores.values_S)
    return samples(scores_S, generator(run.seed, "samples")).numpy()


def data_for(run: Run, artifacts: Path) -> Data:
    if isinstance(run.recipe.tuning, Instructed) and run.recipe.probe == "train":  # its probes read none of it again
        return with_conversations(run, run.recipe.tuning, artifacts)
    corpus = open_corpus(run.scale.corpus_of(run.recipe.text))
    folder, background = artifacts / "text", run.recipe.background
    if isinstance(background, SameText) or not run.tokenizer.startswith("bpe:"):
        tokenizer = open_tokenizer(run.tokenizer, corpus, folder)
    else:  # made here, from what the teacher read first
        tokenizer = open_tokenizer(run.tokenizer, open_corpus(run.scale.corpus_of(background.text)), folder)
    return Data(
        corpus={"name": corpus.name, "fingerprint": corpus.fingerprint},
        tokenizer=tokenizer,
        train=pack(corpus, tokenizer, run.seed, run.length, folder),
        validation=validation(corpus, tokenizer, run.length, folder),
        repack=lambda seed, length: pack(corpus, tokenizer, seed, length, folder),
    )


def with_conversations(run: Run, tuning: Instructed, artifacts: Path) -> Data:
    assert run.start is not None
    data = data_for(run.start, artifacts)
    found = open_conversations(run.scale.corpus_of(tuning.text))
    train, held_out = (
        pack_conversations(found, split, data.tokenizer, run.seed, run.length, artifacts / "text") for split in SPLITS
    )
    return replace(
        data,
        corpus={
            **data.corpus,
            "conversations": f"{found.name} ({found.fingerprint})",
            "count": train.count,
            "cut": train.cut,
        },
        tokenizer=replace(data.tokenizer, chat_template=TEMPLATE),
        conversations=train,
        held_out=held_out,
    )
