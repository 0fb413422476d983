"""What TAD says of its teachers: their mass beyond the K largest, and how often the next token is not their first guess
(TAD Figure 2)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from replication.axes.targets.base import precise
from replication.cost.flops import Cost, Work
from replication.experiment.run import Run
from replication.machine.device import Machine
from replication.model.decoder import logits_of
from replication.training.run_data import Data
from replication.training.weights import teacher_for

HEADS = (1, 5, 10, 20)  # K
BATCH = 8  # sequences


def ready(run: Run) -> None:
    """ValueError, one line, for a run without a teacher."""
    if run.recipe.teacher == "none":
        raise ValueError(f"Run {run.id} has no teacher (teacher = 'none'), and its tail is what is measured: name one.")


@torch.no_grad()
def tail(run: Run, data: Data, machine: Machine) -> tuple[dict[str, float], dict[str, Any]]:
    """`tail_mass_<K>`, the mean of one minus the K largest probabilities, and `mismatch`, how often the next token is
    not the most probable one; fractions, over as many held-out rows as students are evaluated on.

    Each seed reads other rows, as far as there are any. A K of as many classes as there are, or more, is absent.
    ValueError where the teacher is not trained yet.
    """
    teacher, vocabulary = teacher_for(run, machine), data.tokenizer.vocabulary
    rows_R = (np.arange(run.scale.evaluation_sequences) + run.seed * run.scale.evaluation_sequences) % len(
        data.validation
    )
    heads = [head for head in HEADS if head < vocabulary]
    places, sums, missed, seen = torch.tensor(heads) - 1, torch.zeros(len(heads), dtype=torch.float64), 0, 0
    for start in range(0, len(rows_R), BATCH):
        rows = torch.from_numpy(data.validation.rows(rows_R[start : start + BATCH])).to(machine.device)
        with machine.precision():
            logits_BLV = logits_of(teacher, rows[:, :-1], vocabulary)
        for logits_LV, labels_L in zip(logits_BLV, rows[:, 1:], strict=True):
            top = precise(logits_LV).softmax(-1).topk(max(heads), dim=1)
            mass_LK = top.values.double().cumsum(1).cpu()
            sums += (1 - mass_LK[:, places]).clamp_min(0).sum(0)
            missed += int((top.indices[:, 0] != labels_L).sum())
        seen += rows[:, 1:].numel()
    found = {f"tail_mass_{head}": float(mass) / seen for head, mass in zip(heads, sums, strict=True)}
    return found | {"mismatch": missed / seen}, {}


def work(cost: Cost) -> Work:
    return cost.read_by(cost.teacher, cost.run.scale.evaluation_sequences)
