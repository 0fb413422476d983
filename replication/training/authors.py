"""Supervisions whose tokens a model writes: the student at each step, the teacher once, or both in turns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from replication.axes.writing import MiniLLM, Writing
from replication.data.tokenizer import Tokenizer
from replication.machine.device import Machine
from replication.model.decoder import logits_of
from replication.training.policy import Rollout, label_logs, rollout
from replication.training.prompts import Prompts, chances, prompts_of
from replication.training.supervision import Batch, Supervision
from replication.training.teacher_texts import TeacherTexts
from replication.training.writing import Writers

WholeStep = Callable[[int], tuple[np.ndarray, np.ndarray, Tensor]]  # step -> rows_B, epochs_B, rows_BX


@dataclass(frozen=True)
class Author:
    """Writes on at rows: models, where they begin, and the stream that decides."""

    writers: Writers
    prompts: Prompts
    seed: int
    machine: Machine

    def write(self, rows_B: np.ndarray, visits_B: np.ndarray, rows_BX: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(tokens [B, X], which of them were written, the first of each row that could have been [B]).

        Behind a row's end stand ends of text that nobody wrote.
        """
        chance_BX = chances(self.seed, rows_B, visits_B, rows_BX.shape[1], rows_BX.device)
        rows_BX, begin_B = self.prompts.cut(rows_BX, chance_BX[:, 0])
        found = []
        with self.machine.precision():
            at_once = self.writers.at_once(rows_BX.shape[1], rows_BX.device)
            for some in torch.arange(len(rows_BX), device=rows_BX.device).split(at_once):
                found.append(self.writers.write(rows_BX[some], begin_B[some], chance_BX[some, 1:]))
        tokens, wrote = zip(*found, strict=True)
        return torch.cat(tokens), torch.cat(wrote), begin_B


def author_of(
    writing: Writing,
    models: list[PreTrainedModel],
    shares: tuple[float, ...],
    tokenizer: Tokenizer,
    seed: int,
    machine: Machine,
) -> Author:
    prompts = prompts_of(writing, tokenizer, machine.device)
    writers = Writers(
        models, tokenizer.vocabulary, prompts.stop, shares, writing.temperature, writing.top_p, writing.most
    )
    return Author(writers, prompts, seed, machine)


@dataclass(frozen=True)
class FromStudent:
    """The student's own words at this step, about which the teacher is asked; nothing else is trained on."""

    author: Author
    beside: Supervision

    def __call__(self, rows_B: np.ndarray, epochs_B: np.ndarray, tokens_BL: Tensor, labels_BL: Tensor) -> Batch:
        tokens_BX, wrote_BX, _ = self.author.write(rows_B, epochs_B, whole_rows(tokens_BL, labels_BL))
        last = int(wrote_BX.any(0).nonzero().max()) + 1  # nobody reads behind the longest text
        given = self.beside(rows_B, epochs_B, tokens_BX[:, : last - 1], tokens_BX[:, 1:last])
        return replace(given, mask_BL=wrote_BX[:, 1:last])


@dataclass(frozen=True)
class FromTeacherTexts:
    """The teacher's words, written before training."""

    texts: TeacherTexts
    beside: Supervision

    def __call__(self, rows_B: np.ndarray, epochs_B: np.ndarray, tokens_BL: Tensor, labels_BL: Tensor) -> Batch:
        tokens_BX, wrote_BX = (torch.from_numpy(part).to(labels_BL.device) for part in self.texts.rows(rows_B))
        given = self.beside(rows_B, epochs_B, tokens_BX[:, :-1], tokens_BX[:, 1:])
        return replace(given, mask_BL=wrote_BX[:, 1:])


class FromRollouts:
    """MiniLLM: every `turn` steps student and teacher write a few batches, which the steps that follow go through.

    `rows_of(step)` gives the rows of a step and how they read; `state` is what a checkpoint keeps of what was written.
    """

    def __init__(
        self,
        author: Author,
        settings: MiniLLM,
        beside: Supervision,
        rows_of: WholeStep,
        batch: int,
        length: int,
    ) -> None:
        self.author, self.settings, self.beside, self.rows_of = author, settings, beside, rows_of
        self.batch, self.place = batch, 0
        shape, device = (settings.batches * batch, length), author.machine.device
        self.state: dict[str, Tensor] = {
            "tokens": torch.zeros(shape[0], length + 1, dtype=torch.int64, device=device),
            **{name: torch.zeros(shape, device=device) for name in ("log_student_BL", "weight_BL", "reward_BL")},
            **{name: torch.zeros(shape, dtype=torch.bool, device=device) for name in ("wrote_BL", "room_BL")},
        }

    def at(self, step: int) -> None:
        """Before a step: at the first of a turn the texts are written."""
        self.place = step % self.settings.batches
        if step % self.settings.turn == 0:
            batches = [self.rows_of(step + number) for number in range(self.settings.batches)]
            rows_B, visits_B = (np.concatenate([batch[part] for batch in batches]) for part in (0, 1))
            self.written(rows_B, visits_B, torch.cat([batch[2] for batch in batches]))

    @torch.no_grad()
    def written(self, rows_R: np.ndarray, visits_R: np.ndarray, rows_RX: Tensor) -> None:
        """The texts of a turn, and what both models think of them, a batch at a time."""
        tokens_RX, wrote_RX, begin_R = self.author.write(rows_R, visits_R, rows_RX)
        room_RX = torch.arange(tokens_RX.shape[1], device=begin_R.device) >= begin_R[:, None]
        self.state["tokens"].copy_(tokens_RX)
        student, teacher = self.author.writers.models
        for number in range(self.settings.batches):
            place = self.rows(number)
            logs = [self.logs(model, tokens_RX[place]) for model in (student, teacher)]
            found = rollout(logs[0], logs[1], wrote_RX[place, 1:], room_RX[place, 1:], self.settings)
            for name, value in vars(found).items():
                self.state[name][place] = value.to(self.state[name].dtype)

    def logs(self, model: PreTrainedModel, tokens_BX: Tensor) -> Tensor:
        with self.author.machine.precision():
            logits_BLV = logits_of(model, tokens_BX[:, :-1], self.author.writers.vocabulary)
        return label_logs(logits_BLV, tokens_BX[:, 1:])

    def rows(self, number: int) -> slice:
        return slice(number * self.batch, (number + 1) * self.batch)

    def __call__(self, rows_B: np.ndarray, epochs_B: np.ndarray, tokens_BL: Tensor, labels_BL: Tensor) -> Batch:
        """The texts first, then the rows themselves."""
        place = self.rows(self.place)
        written_BX = self.state["tokens"][place]
        kept: dict[str, Any] = {name: self.state[name][place] for name in self.state if name != "tokens"}
        both = torch.cat([written_BX[:, :-1], tokens_BL]), torch.cat([written_BX[:, 1:], labels_BL])
        given = self.beside(np.concatenate([rows_B, rows_B]), np.concatenate([epochs_B, epochs_B]), *both)
        return replace(given, rollout=Rollout(**kept))


def whole_rows(tokens_BL: Tensor, labels_BL: Tensor) -> Tensor:
    """Inputs and labels as the rows that they were, [B, L + 1]."""
    return torch.cat([tokens_BL, labels_BL[:, -1:]], 1)
