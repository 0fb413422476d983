"""Which supervision a run has whose tokens a model writes, made of the run's own."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import torch
from transformers import PreTrainedModel

from replication.axes.writing import MiniLLM, SeqKD
from replication.experiment.identity import plain
from replication.experiment.run import Run
from replication.machine.device import Machine
from replication.model.decoder import fingerprint
from replication.training.authors import FromRollouts, FromStudent, FromTeacherTexts, WholeStep, author_of
from replication.training.run_data import Data
from replication.training.supervision import Supervision
from replication.training.teacher_texts import TeacherTexts, teacher_texts


def authored(
    run: Run,
    data: Data,
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    machine: Machine,
    beside: Supervision,
    order: np.ndarray,
    rows_of: WholeStep,
) -> Supervision:
    """`beside` is the run's supervision of tokens that are given. ValueError where the student is in parts."""
    writing, tokenizer = run.recipe.writing, data.tokenizer
    if isinstance(writing, SeqKD):
        return FromTeacherTexts(texts_of(run, data, teacher, machine, writing, order), beside)
    if machine.sharded:
        raise ValueError(
            f"Writing {type(writing).__name__} reads with the whole student at every step: run it with SHARDED=0."
        )
    if isinstance(writing, MiniLLM):
        shares = (1 - writing.teacher, writing.teacher)
        author = author_of(writing, [student, teacher], shares, tokenizer, run.seed, machine)
        return FromRollouts(author, writing, beside, rows_of, run.role.optimiser.batch, run.length)
    return FromStudent(author_of(writing, [student], (1.0,), tokenizer, run.seed, machine), beside)


def texts_of(
    run: Run, data: Data, teacher: PreTrainedModel, machine: Machine, writing: SeqKD, order: np.ndarray
) -> TeacherTexts:
    """What the teacher writes for this run's rows; processes take turns, and the first finds them lacking."""
    author = author_of(writing, [teacher], (1.0,), data.tokenizer, run.seed, machine)
    packing = data.training_rows
    decides = [fingerprint(teacher), packing.fingerprint, plain(writing), run.seed, bool(machine.autocast)]
    name = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]

    def write(rows_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows_BX = torch.from_numpy(packing.rows(rows_B)).to(machine.device)
        tokens_BX, wrote_BX, _ = author.write(rows_B, np.zeros_like(rows_B), rows_BX)
        return tokens_BX.cpu().numpy(), wrote_BX.cpu().numpy()

    with machine.world.in_turn():
        folder = machine.artifacts / run.scale.name / "written" / f"s{run.seed}-{name}"
        return teacher_texts(folder, order[: run.steps * run.role.optimiser.batch], len(packing), write)
