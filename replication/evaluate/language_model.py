"""LM loss, calibration and agreement with the teacher on held-out rows, in one pass that holds no N x V matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from replication.axes.targets.base import precise
from replication.data.packing import Packing
from replication.evaluate.calibration import Calibration, Mean, brier
from replication.fused.head import Scaling
from replication.fused.loss import chunks, in_cache
from replication.machine.device import Machine
from replication.model.decoder import logits_of
from replication.model.output_head import head_of, hidden_of, scaling_of

BATCH = 16  # sequences
SPANS = 16  # of positions, since what a model knows depends on how much it has read
COMPARED = ("agreement", "acceptance", "kl")  # with the teacher; `kl` is KL(teacher || student), nats a token


class Tally:
    """What the tokens seen so far say of a student's probabilities, by sequence and by span of positions."""

    def __init__(self, sequences: int = 1, spans: int = 1) -> None:
        self.nats, self.brier = Mean(sequences), Mean(sequences)
        self.accuracy = Mean(sequences)
        self.agreement, self.acceptance, self.kl = Mean(sequences), Mean(sequences), Mean(sequences)
        self.top, self.full = Calibration(sequences), Calibration(sequences)
        self.span_nats, self.span_top = Mean(spans), Calibration(spans)
        self.compared = False

    def add(
        self,
        student_logits_NV: Tensor,
        labels_N: Tensor,
        teacher_logits_NV: Tensor | None = None,
        sequence_N: Tensor | None = None,
        span_N: Tensor | None = None,
    ) -> None:
        log_student_NV = precise(student_logits_NV).log_softmax(-1)
        nats_N, top = -log_student_NV.gather(1, labels_N[:, None])[:, 0], log_student_NV.max(-1)
        if teacher_logits_NV is not None:
            log_teacher_NV = precise(teacher_logits_NV).log_softmax(-1)
            teacher_NV = log_teacher_NV.exp()
            self.kl.add((teacher_NV * log_teacher_NV.sub_(log_student_NV)).sum(-1, dtype=torch.float64), sequence_N)
        student_NV = log_student_NV.exp_()
        self.nats.add(nats_N, sequence_N)
        self.brier.add(brier(student_NV, labels_N), sequence_N)
        self.accuracy.add(top.indices == labels_N, sequence_N)
        self.top.add(top.values.exp(), top.indices == labels_N, sequence_N)
        self.full.add_all(student_NV, labels_N, sequence_N)
        self.span_nats.add(nats_N, span_N)
        self.span_top.add(top.values.exp(), top.indices == labels_N, span_N)
        if teacher_logits_NV is not None:
            self.compared = True
            self.agreement.add(teacher_NV.argmax(-1) == top.indices, sequence_N)
            # the chance that speculative decoding accepts a student's draft token: sum over classes of min
            self.acceptance.add(torch.minimum(teacher_NV, student_NV).sum(-1, dtype=torch.float64), sequence_N)

    def metrics(self) -> dict[str, float]:
        found = {
            "lm_loss": self.nats.value(),
            "accuracy": self.accuracy.value(),
            "ece": self.top.error(),
            "full_ece": self.full.error(),
            "brier": self.brier.value(),
        }
        if self.compared:
            found |= {each: getattr(self, each).value() for each in COMPARED}
        return found

    def intervals(self) -> dict[str, list[float]]:
        """[low, high] of each metric: 95 %, over sequences."""
        found = {
            "lm_loss": self.nats.interval(),
            "accuracy": self.accuracy.interval(),
            "ece": self.top.interval(),
            "full_ece": self.full.interval(),
            "brier": self.brier.interval(),
        }
        if self.compared:
            found |= {each: getattr(self, each).interval() for each in COMPARED}
        return found


class Predicted:
    """A model's logits at the N positions of a batch, made for a slice of them at a time.

    Where they are no products of hidden states and a head they are made at once.
    """

    def __init__(self, model: PreTrainedModel, tokens_BL: Tensor, vocabulary: int, scaling: Scaling | None) -> None:
        made = logits_of(model, tokens_BL, vocabulary) if scaling is None else hidden_of(model, tokens_BL)
        self.made_NX = made.flatten(0, 1)
        self.head = None if scaling is None else head_of(model, vocabulary, scaling)

    def logits(self, rows: slice) -> Tensor:
        return self.made_NX[rows] if self.head is None else self.head(self.made_NX[rows])


def evaluate(
    student: PreTrainedModel,
    teacher: PreTrainedModel | None,
    held_out: Packing,
    sequences: int,
    vocabulary: int,
    machine: Machine,
) -> tuple[dict[str, float], dict[str, Any]]:
    """Metrics and curves on the first `sequences` held-out rows (all of them if there are fewer)."""
    tally = tallied(student, teacher, held_out, sequences, vocabulary, machine)
    by_position = {
        "first": firsts(held_out.length),
        "lm_loss": tally.span_nats.values(),
        "ece": tally.span_top.errors(),
    }
    curves = {
        "reliability": tally.top.curve(),
        "full_reliability": tally.full.curve(),
        "intervals": tally.intervals(),
        "by_position": by_position,
    }
    return tally.metrics(), curves


def firsts(length: int) -> list[int]:
    """The first position of each span."""
    spans = min(SPANS, length)
    return [-(-span * length // spans) for span in range(spans)]


@torch.no_grad()
def tallied(
    student: PreTrainedModel,
    teacher: PreTrainedModel | None,
    held_out: Packing,
    sequences: int,
    vocabulary: int,
    machine: Machine,
) -> Tally:
    """What the first `sequences` held-out rows say; a student that is being trained goes on with that afterwards."""
    was_training = student.training
    models = [student.eval(), *([] if teacher is None else [teacher])]
    scalings = [scaling_of(model, vocabulary) for model in models]
    at_once = 1 if None in scalings else BATCH
    total, length = min(sequences, len(held_out)), held_out.length
    spans, pairs = min(SPANS, length), list(zip(models, scalings, strict=True))
    tally = Tally(total, spans)
    for start in range(0, total, at_once):
        indices_B = np.arange(start, min(start + at_once, total))
        rows = torch.from_numpy(held_out.rows(indices_B)).to(machine.device)
        labels_N = rows[:, 1:].flatten()
        place_N = torch.arange(len(labels_N), device=machine.device)
        with machine.precision():
            predicted = [Predicted(model, rows[:, :-1], vocabulary, scaling) for model, scaling in pairs]
            for chunk in chunks(len(labels_N), vocabulary, machine.device, torch.float32):
                for parts in zip(*(in_cache(one.logits(chunk)) for one in predicted), strict=True):
                    place_R = place_N[chunk][parts[0][0]]
                    logits_RV = [logits for _, logits in parts]
                    span_R = place_R % length * spans // length
                    teacher_RV = logits_RV[1] if len(logits_RV) > 1 else None
                    tally.add(logits_RV[0], labels_N[place_R], teacher_RV, start + place_R // length, span_R)
    student.train(was_training)
    return tally
