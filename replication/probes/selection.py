"""What choosing positions does to a batch's gradient: how far it is from full distillation's, by chance and by bias.

In the manner of RS-KD Table 3 (`gradients.py`), for the position axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel

from replication.axes.comparison import bound, told_of
from replication.axes.divergences import ForwardKL
from replication.axes.loss import signals_of, wanted_by
from replication.axes.positions import TopFraction, weights
from replication.axes.signals import Signals
from replication.axes.targets.base import AnyTarget
from replication.axes.targets.drawing import Streams
from replication.axes.targets.kept import Full
from replication.cost.flops import Cost, Work
from replication.experiment.run import Run, fullkd_student
from replication.machine.device import Machine
from replication.model.decoder import load, logits_of
from replication.probes.gradients import add, compared
from replication.training.run_data import Data, order_of
from replication.training.supervision import drawn, stream
from replication.training.weights import model_folder, starting_point, teacher_for


@dataclass
class Tally:
    """Gradients of a batch, summed over what has been read of it: of all positions, of those chosen, of the latter on
    average over the policy's draws; and how many positions are supervised, how many of the highest, how many again."""

    full: Tensor
    chosen: Tensor
    expected: Tensor
    positions: int = 0
    supervised: int = 0
    highest: int = 0
    covered: int = 0
    again: int = 0  # supervised by the other student's signals as well

    def found(self) -> dict[str, float]:
        bias = compared(self.expected, self.full)
        return {
            **compared(self.chosen, self.full),
            "bias": bias["relative_error"],
            "bias_angle": bias["angle"],
            "noise": float((self.chosen - self.expected).norm() / self.full.norm()),
            "share": float(self.chosen @ self.full / self.full.square().sum()) * self.supervised / self.positions,
            "overlap": self.again / self.supervised,
            "unique_positions": self.supervised / self.positions,
            "coverage": self.covered / self.highest,
        }


def selection(run: Run, data: Data, machine: Machine) -> tuple[dict[str, float], dict[str, Any]]:
    """Angle (degrees), norm ratio, cosine and relative error of the chosen positions' gradient against FullKD's.

    Of its mean over the policy's draws the same are `bias` (the error) and `bias_angle`; `noise` is what is left.
    `unique_positions` is the share of positions that are supervised; `share` how much of FullKD's gradient, along
    itself, comes from them; `coverage` how many of those of highest entropy, which TopFraction takes, are among them;
    `overlap` how many of them are so for both students. One is that which FullKD left under the same seed, on rows new
    to it; the other, `_before`, that from which it began. The policy is asked as at that time of a training.
    """
    teacher, student_run = teacher_for(run, machine), fullkd_student(run)
    folder = model_folder(student_run, machine)
    if not (folder / "config.json").exists():
        raise ValueError(f"The FullKD student {student_run.id} is not trained yet: run it first.")
    students = {"": load(folder), "_before": starting_point(student_run, data, machine)}
    students = {name: model.to(machine.device).eval() for name, model in students.items()}
    order = order_of(student_run, data)
    batch = run.role.optimiser.batch
    seen = student_run.steps * batch
    rows_S = order[(seen + np.arange(run.scale.probe_sequences)) % len(order)]
    tallies = {name: empty(model) for name, model in students.items()}
    states = {name: run.recipe.positions.begun(machine.device) for name in students}

    for start in tqdm(range(0, len(rows_S), batch), desc=run.id, unit="batch", mininterval=2.0):
        indices_B = rows_S[start : start + batch]
        rows = torch.from_numpy(data.training_rows.rows(indices_B)).to(machine.device)
        tokens_BL, labels_BL = rows[:, :-1], rows[:, 1:]
        with machine.precision(), torch.no_grad():
            teacher_BLV = logits_of(teacher, tokens_BL, data.tokenizer.vocabulary)
        target = drawn(run.recipe.target, teacher_BLV, labels_BL, indices_B, run.seed)
        everything = drawn(Full(), teacher_BLV, labels_BL, indices_B, run.seed)
        streams = Streams(tuple(stream(machine.device, run.seed, "positions", 0, int(row)) for row in indices_B))
        taken: dict[str, Tensor] = {}
        for name, model in students.items():
            with machine.precision():
                student_BLV = logits_of(model, tokens_BL, data.tokenizer.vocabulary)
            wanted = dict.fromkeys((*wanted_by(run.recipe.positions, run.recipe.divergence), "student_entropy"))
            signals = signals_of(tuple(wanted), student_BLV.detach(), labels_BL, target)
            progress = 0.0 if name else 1.0
            weight_BL = weights(states[name], signals, progress, streams)
            mean_BL = run.recipe.positions.expected(signals, progress)
            losses = student_BLV.flatten(0, 1), labels_BL.flatten()
            count(tallies[name], list(model.parameters()), run, losses, target, everything, signals, weight_BL, mean_BL)
            taken[name] = weight_BL > 0
        for tally in tallies.values():
            tally.again += int((taken[""] & taken["_before"]).sum())
    metrics = {f"{key}{name}": value for name, tally in tallies.items() for key, value in tally.found().items()}
    return metrics, {}


def empty(model: PreTrainedModel) -> Tally:
    size, device = sum(weight.numel() for weight in model.parameters()), next(model.parameters()).device
    full, chosen, expected = torch.zeros(3, size, dtype=torch.float64, device=device)
    return Tally(full, chosen, expected)


def count(
    tally: Tally,
    parameters: list[Tensor],
    run: Run,
    student: tuple[Tensor, Tensor],
    target: AnyTarget,
    everything: AnyTarget,
    signals: Signals,
    weight_BL: Tensor,
    mean_BL: Tensor | None,
) -> None:
    """A batch's share; where the mean over draws is not known, what was drawn stands for it."""
    logits_NV, labels_N = student
    divergence = run.recipe.divergence
    told = told_of(divergence, labels_N, signals.flat("confidence"), None)
    full, own_N = ForwardKL()(logits_NV, everything).mean(), bound(divergence, told)(logits_NV, target)
    sequences = len(weight_BL)
    gradients = torch.autograd.grad(full, parameters, retain_graph=True)
    add(tally.full, sequences, gradients)
    chosen = torch.autograd.grad((weight_BL.flatten() * own_N).mean(), parameters, retain_graph=True)
    add(tally.chosen, sequences, chosen)
    if mean_BL is not None:
        chosen = torch.autograd.grad((mean_BL.flatten() * own_N).mean(), parameters)
    add(tally.expected, sequences, chosen)
    taken_BL, highest_BL = weight_BL > 0, TopFraction()(signals, 0.0, None) > 0
    tally.positions += taken_BL.numel()
    tally.supervised += int(taken_BL.sum())
    tally.highest += int(highest_BL.sum())
    tally.covered += int((taken_BL & highest_BL).sum())


def work(cost: Cost) -> Work:
    """Two students forward once and backward three times; the teacher forward once."""
    rows = cost.run.scale.probe_sequences
    return cost.read_by(cost.student, rows) * 14 + cost.read_by(cost.teacher, rows)
