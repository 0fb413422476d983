"""How many different classes a number of draws finds (RS-KD App. C, Figure 5)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from replication.axes.targets.base import SparseTarget
from replication.cache.writer import BATCH
from replication.cost.flops import Cost, Work
from replication.experiment.run import Run
from replication.machine.device import Machine
from replication.model.decoder import logits_of
from replication.training.run_data import Data
from replication.training.supervision import drawn
from replication.training.weights import teacher_for


@torch.no_grad()
def draws(run: Run, data: Data, machine: Machine) -> tuple[dict[str, float], dict[str, Any]]:
    """Mean kept classes per position on the first training rows that fit one teacher batch."""
    teacher = teacher_for(run, machine)
    indices_B = np.arange(min(BATCH, len(data.train)))
    rows = torch.from_numpy(data.train.rows(indices_B)).to(machine.device)
    with machine.precision():
        logits_BLV = logits_of(teacher, rows[:, :-1], data.tokenizer.vocabulary)
    target = drawn(run.recipe.target, logits_BLV, rows[:, 1:], indices_B, run.seed)
    if not isinstance(target, SparseTarget):
        raise ValueError(f"The probe 'draws' counts kept classes; {type(run.recipe.target).__name__} keeps them all.")
    kept_N = (target.weights_NK > 0).sum(1).double()
    return {"unique_classes": float(kept_N.mean())}, {}


def work(cost: Cost) -> Work:
    return cost.read_by(cost.teacher, BATCH)
