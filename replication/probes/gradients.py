"""How far a sparse target turns the gradient of a batch away from full distillation (RS-KD Section 5.2, Table 3)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from replication.axes.divergences import ForwardKL
from replication.axes.loss import distillation_loss
from replication.axes.positions import AllPositions
from replication.axes.targets.kept import Full
from replication.cost.flops import Cost, Work
from replication.experiment.run import Run, fullkd_student
from replication.machine.device import Machine
from replication.model.decoder import load, logits_of
from replication.training.run_data import Data
from replication.training.supervision import drawn
from replication.training.weights import model_folder, teacher_for

CHUNK = 4  # sequences per backward


def gradients(run: Run, data: Data, machine: Machine) -> tuple[dict[str, float], dict[str, Any]]:
    """Angle (degrees), norm ratio, cosine and relative error against FullKD, over all parameters.

    At the weights of the student that FullKD trained under the same seed, on rows it has not seen. The paper does not
    state its batch, and the answer depends on it, so the batch doubles up to `probe_sequences`: the metrics are the
    largest batch's, the curve `by_tokens` has them all.
    """
    teacher = teacher_for(run, machine)
    student_run = fullkd_student(run)
    folder = model_folder(student_run, machine)
    if not (folder / "config.json").exists():
        raise ValueError(f"The FullKD student {student_run.id} is not trained yet: run it first.")
    student = load(folder).to(machine.device).eval()  # a dropout would be another for each target
    seen = student_run.steps * student_run.role.optimiser.batch
    rows_S = (seen + np.arange(run.scale.probe_sequences)) % len(data.train)
    weights = list(student.parameters())
    full = torch.zeros(sum(weight.numel() for weight in weights), dtype=torch.float64, device=machine.device)
    sparse = torch.zeros_like(full)
    points: list[dict[str, float]] = []

    for start in tqdm(range(0, len(rows_S), CHUNK), desc=run.id, unit="chunk", mininterval=2.0):
        indices_B = rows_S[start : start + CHUNK]
        rows = torch.from_numpy(data.train.rows(indices_B)).to(machine.device)
        tokens_BL, labels_BL = rows[:, :-1], rows[:, 1:]
        with machine.precision():
            with torch.no_grad():
                teacher_BLV = logits_of(teacher, tokens_BL, data.tokenizer.vocabulary)
            student_BLV = logits_of(student, tokens_BL, data.tokenizer.vocabulary)
        everything = drawn(Full(), teacher_BLV, labels_BL, indices_B, run.seed)
        loss = distillation_loss(student_BLV, labels_BL, everything, ForwardKL(), AllPositions(), 1.0, 0.0)
        add(full, len(indices_B), torch.autograd.grad(loss, weights, retain_graph=True))
        kept = drawn(run.recipe.target, teacher_BLV, labels_BL, indices_B, run.seed)
        loss = distillation_loss(student_BLV, labels_BL, kept, run.recipe.divergence, AllPositions(), 1.0, 0.0)
        add(sparse, len(indices_B), torch.autograd.grad(loss, weights))
        done = start + len(indices_B)
        if done == len(rows_S) or (done & (done - 1)) == 0:
            points.append({"tokens": done * data.train.length, **compared(sparse, full)})
    curve = {key: [point[key] for point in points] for key in points[0]}
    return {key: value for key, value in points[-1].items() if key != "tokens"}, {"by_tokens": curve}


def add(total: Tensor, times: int, gradients: tuple[Tensor, ...]) -> None:
    """In place, each in float64 by itself: all at once would take four times the student's memory."""
    for part, gradient in zip(total.split([each.numel() for each in gradients]), gradients, strict=True):
        part += times * gradient.double().flatten()


def compared(sparse: Tensor, full: Tensor) -> dict[str, float]:
    """Two gradients of equal length; `full` is the reference."""
    norm = float(full.norm())
    cosine = float(sparse @ full) / (float(sparse.norm()) * norm)
    return {
        "angle": math.degrees(math.acos(max(-1.0, min(1.0, cosine)))),
        "norm_ratio": float(sparse.norm()) / norm,
        "cosine": cosine,
        "relative_error": float((sparse - full).norm()) / norm,
    }


def work(cost: Cost) -> Work:
    """The student forward once and backward twice: from the sparse target, and from the full one."""
    rows = cost.run.scale.probe_sequences
    return cost.read_by(cost.student, rows) * 5 + cost.read_by(cost.teacher, rows)
