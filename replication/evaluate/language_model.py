"""LM loss, calibration and agreement with the teacher, on held-out rows, in one pass."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from replication.machine import Machine
from replication.model import logits_of
from replication.packing import Packing

BINS = 15  # equal-width bins of top-1 confidence; RS-KD does not state its number


@dataclass
class Calibration:
    """Top-1 confidence against accuracy, accumulated over batches (Guo et al. 2017)."""

    count: Tensor = field(default_factory=lambda: torch.zeros(BINS, dtype=torch.float64))
    confidence: Tensor = field(default_factory=lambda: torch.zeros(BINS, dtype=torch.float64))
    accuracy: Tensor = field(default_factory=lambda: torch.zeros(BINS, dtype=torch.float64))

    def add(self, confidence_N: Tensor, correct_N: Tensor) -> None:
        # bins are (0, 1/15], (1/15, 2/15], ...
        bin_N = (confidence_N.double() * BINS).ceil().long().clamp(1, BINS).cpu() - 1
        self.count.index_add_(0, bin_N, torch.ones_like(bin_N, dtype=torch.float64))
        self.confidence.index_add_(0, bin_N, confidence_N.double().cpu())
        self.accuracy.index_add_(0, bin_N, correct_N.double().cpu())

    def error(self) -> float:
        """Expected calibration error, a fraction: mean over tokens of |accuracy - confidence| of their bin."""
        return float((self.accuracy - self.confidence).abs().sum() / self.count.sum())

    def curve(self) -> dict[str, list[Any]]:
        filled = self.count > 0
        share = self.count[filled]
        return {
            "confidence": (self.confidence[filled] / share).tolist(),
            "accuracy": (self.accuracy[filled] / share).tolist(),
            "count": share.long().tolist(),
        }


@dataclass
class Tally:
    """Sums over the tokens seen so far."""

    tokens: int = 0
    nats: float = 0.0
    same_top: int = 0
    accepted: float = 0.0
    calibration: Calibration = field(default_factory=Calibration)

    def add(self, student_logits_NV: Tensor, labels_N: Tensor, teacher_logits_NV: Tensor | None) -> None:
        log_student_NV = student_logits_NV.float().log_softmax(-1)
        self.tokens += len(labels_N)
        self.nats += float(-log_student_NV.gather(1, labels_N[:, None]).double().sum())
        top = log_student_NV.max(-1)
        self.calibration.add(top.values.exp(), top.indices == labels_N)
        if teacher_logits_NV is not None:
            teacher_NV = teacher_logits_NV.float().softmax(-1)
            self.same_top += int((teacher_NV.argmax(-1) == top.indices).sum())
            # the chance that speculative decoding accepts a student's draft token: sum over classes of min
            self.accepted += float(torch.minimum(teacher_NV, log_student_NV.exp()).double().sum())

    def metrics(self, with_teacher: bool) -> dict[str, float]:
        found = {"lm_loss": self.nats / self.tokens, "ece": self.calibration.error()}
        if with_teacher:
            found |= {"agreement": self.same_top / self.tokens, "acceptance": self.accepted / self.tokens}
        return found


@torch.no_grad()
def evaluate(
    student: PreTrainedModel,
    teacher: PreTrainedModel | None,
    held_out: Packing,
    sequences: int,
    vocabulary: int,
    machine: Machine,
) -> tuple[dict[str, float], dict[str, Any]]:
    """Metrics and curves on the first `sequences` held-out rows (all of them if there are fewer)."""
    student.eval()
    tally = Tally()
    for indices_B in np.array_split(np.arange(min(sequences, len(held_out))), max(1, sequences // 16)):
        if not len(indices_B):
            continue
        rows = torch.from_numpy(held_out.rows(indices_B)).to(machine.device)
        with machine.precision():
            logits_NV = logits_of(student, rows[:, :-1], vocabulary).flatten(0, 1)
            teacher_NV = None if teacher is None else logits_of(teacher, rows[:, :-1], vocabulary).flatten(0, 1)
        tally.add(logits_NV, rows[:, 1:].flatten(), teacher_NV)
    return tally.metrics(teacher is not None), {"reliability": tally.calibration.curve()}
