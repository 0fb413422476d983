"""Descent: plain gradient descent on the logits of many students at once, and its paths as curves.

Axis letters: T steps, M students, O outcomes, V classes, R students x outcomes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from replication.axes.divergences import Divergence, ForwardKL
from replication.axes.targets.base import DenseTarget, Target
from replication.axes.targets.drawing import draw
from replication.seeds import generator
from toy.outcomes import Outcomes, gradients, only

QUIET, LOOK = 1e-11, 50  # descent is over when no gradient is larger; steps from one look to the next
STRIDE, POINTS = 0.02, 250  # L1 distance between the recorded points of a path, and how many at most
SAMPLED = 200  # steps of the path that draws its targets


def descent(logits_MV: Tensor, given: Outcomes, divergence: Divergence, step: float, steps: int) -> Tensor:
    """The logits before the first step and after each, [T, M, V]; fewer than asked for where all have come to rest."""
    classes = logits_MV.shape[1]
    if isinstance(divergence, ForwardKL):
        # its gradient is linear in the target (RS-KD Eq. 4), so that the mean target's is the mean gradient
        given = only(DenseTarget(given.mean(classes)[None]))
    target = given.times(len(logits_MV))  # once, not at every step
    path = [logits_MV]
    for taken in range(steps):
        rows_RV = path[-1].repeat_interleave(len(given.chances_O), 0).requires_grad_()
        (gradient_RV,) = torch.autograd.grad(divergence(rows_RV, target).sum(), rows_RV)
        mean_MV = given.average(gradient_RV.view(len(logits_MV), -1, classes))
        if taken % LOOK == 0 and float(mean_MV.abs().max()) < QUIET:
            break
        path.append(path[-1] - size(step, steps, taken) * mean_MV)
    return torch.stack(path)


def size(step: float, steps: int, taken: int) -> float:
    """The step after as many: constant, then falling by a million over the last quarter."""
    over = 4 * taken / steps - 3
    return float(step * 10 ** (-6 * max(0.0, over)))


def sampled(
    logits_1V: Tensor, target: Target, teacher_logits_V: Tensor, divergence: Divergence, step: float, seed: int
) -> Tensor:
    """Descent that draws a ground truth and a target at every step, [T, 1, V]."""
    labels_T1 = draw(teacher_logits_V.expand(SAMPLED, -1), 1, generator(seed, "fields", "labels"))
    draws = generator(seed, "fields", "draws")
    path = [logits_1V]
    for label_1 in labels_T1:
        once = only(target(teacher_logits_V[None], label_1, draws))
        path.append(path[-1] - step * gradients(path[-1], once, divergence)[:, 0])
    return torch.stack(path)


def paths(probs_TMV: Tensor) -> dict[str, list[Any]]:
    """Points a stride apart, and the last one of every path."""
    columns: dict[str, list[Any]] = {"start": [], "step": [], "p1": [], "p2": []}
    for start, path_TV in enumerate(probs_TMV.unbind(1)):
        kept, far = [0], torch.ones(1)
        while len(far) and len(kept) < POINTS:
            far = ((path_TV[kept[-1] :] - path_TV[kept[-1]]).abs().sum(1) >= STRIDE).nonzero()
            kept += (kept[-1] + far[:1, 0]).tolist()
        kept += [len(path_TV) - 1] * (kept[-1] < len(path_TV) - 1)
        columns["start"] += [start] * len(kept)
        columns["step"] += kept
        columns["p1"] += rounded(path_TV[kept, 0])
        columns["p2"] += rounded(path_TV[kept, 1])
    return columns


def rounded(values: Tensor) -> list[float]:
    """To what a picture can show."""
    return [round(value, 5) for value in values.tolist()]
