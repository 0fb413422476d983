"""Gradients as a toy: where every target and divergence pushes a softmax student, and where that ends.

One position, a teacher that is known, a student that is its logits and nothing else: the student of RS-KD Eq. 1, 2,
A.4, A.5 and A.7 and of TAD Section 2.1. Axis letters: M states, O outcomes of a random target, V classes, T steps.
Targets are those of `replication`, in float32, whose rounding (1e-8) is the floor of what is measured beyond 3 classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from replication.axes.divergences import Divergence, ForwardKL
from replication.axes.targets.base import DenseTarget, Target, at_least_one, positive
from replication.axes.targets.kept import Full
from replication.seeds import generator
from toy.closed_forms import GRADIENTS, rest
from toy.descent import descent, paths, rounded, sampled, size
from toy.outcomes import Outcomes, gradients, only, outcomes

GRID = 18  # the states of 3 classes: a lattice with as many steps along an edge
STATES = 200  # random states of more classes, about the teacher
SPREAD = 1.5  # the deviation of a random student's logits
PORTRAIT = ((90, 5, 5), (5, 90, 5), (5, 5, 90), (48, 48, 4), (48, 4, 48), (4, 48, 48), (4, 76, 20), (4, 20, 76))
NEAR = 0.01  # the L1 distance at which a student has arrived

Metrics = dict[str, float]
Curves = dict[str, dict[str, list[Any]]]


@dataclass(frozen=True)
class Setting:
    """Plain gradient descent. Its step dies out over the last quarter: a slope of constant size (L1) never rests."""

    target: Target
    divergence: Divergence = ForwardKL()
    teacher: str = "0.6 0.3 0.1"  # probabilities, most probable first; or "zipf 20"
    head: int = 1  # most probable classes that a metric calls the head
    step: float = 0.25  # small enough for paths that follow the field, where beta 5 makes it steep too
    steps: int = 3000
    starts: int = 24  # random students

    def __post_init__(self) -> None:
        at_least_one("steps", self.steps)
        at_least_one("starts", self.starts)
        at_least_one("head", self.head)
        positive("step", self.step)
        if self.head >= len(self.logits_V):
            raise ValueError(f"head is {self.head}; teacher {self.teacher!r} has no class left for a tail.")

    @property
    def logits_V(self) -> Tensor:
        return probabilities(self.teacher).log()

    @property
    def teacher_V(self) -> Tensor:
        """What the target Full keeps, in float64: no rounding stands between a target and its teacher."""
        target = Full()(self.logits_V[None], torch.zeros(1, dtype=torch.long), torch.Generator())
        return target.dense(len(self.logits_V))[0].double()


def probabilities(teacher: str) -> Tensor:
    """[V] float64. Raises ValueError, one line, for anything but falling probabilities and 'zipf V'."""
    words = teacher.replace(",", " ").split()
    if len(words) == 2 and words[0] == "zipf" and words[1].isdecimal() and int(words[1]) > 1:
        powers_V = 1 / torch.arange(1, int(words[1]) + 1, dtype=torch.float64)
        return powers_V / powers_V.sum()
    try:
        probs_V = torch.tensor([float(word) for word in words], dtype=torch.float64)
    except ValueError:
        probs_V = torch.zeros(0, dtype=torch.float64)
    falling = len(probs_V) > 1 and bool((probs_V > 0).all() and (probs_V.diff() <= 0).all())
    if not falling or abs(float(probs_V.sum()) - 1) > 1e-9:
        raise ValueError(f"teacher is {teacher!r}; give falling probabilities with sum 1 ('0.6 0.3 0.1') or 'zipf 20'.")
    return probs_V


def run(setting: Setting, seed: int) -> tuple[Metrics, Curves]:
    """The field over the states (a lattice for 3 classes, else random), and descents from random starts.

    Metrics of the field, gradients in the logits: `closed_form_error`, the largest deviation of automatic
    differentiation from the closed form; `gradient_bias`, of the mean gradient from FullKD's, `head_bias`, the same in
    the head alone; `gradient_noise`, the root mean square of one outcome's deviation from the mean; and where the
    student's head is heavier than the teacher's: `tail_push`, the mean norm of the tail's gradient over FullKD's,
    `tail_stronger`, the share of states where it is at least FullKD's, `tail_rises`, where descent lets the tail's mass
    grow. Metrics of the ends: `distance`, the mean L1 distance to the teacher; `rest_distance`, the largest to the
    closed-form point (or set) of rest; `rest_gradient`, the largest gradient there; `residual`, the largest gradient
    norm at an end; `upscaling`, the most probable class over the teacher's; `spread`, the largest range of a class's
    probability over the ends; `time_to_teacher`, the mean time (steps times their size) to an L1 distance of 0.01,
    absent where a start never gets there. Curves: `ends` (`class`, `teacher`, `rest`, `end`: the mean over starts);
    for 3 classes `field` (probabilities `p1`, `p2`, their velocities `v1`, `v2`), `paths` (`start`, `step`, `p1`,
    `p2`), and where targets are random `sampled`, a path that draws them. Raises ValueError for targets that cannot be
    enumerated.
    """
    teacher_V = setting.teacher_V
    given = outcomes(setting.target, setting.logits_V, teacher_V)
    logits_MV = states(setting, seed)
    by_outcome_MOV = gradients(logits_MV, given, setting.divergence)
    mean_MV = given.average(by_outcome_MOV)
    metrics = of_field(setting, logits_MV, mean_MV)
    noise_MO = (by_outcome_MOV - mean_MV[:, None]).square().sum(-1)
    metrics["gradient_noise"] = float((noise_MO @ given.chances_O).mean().sqrt())
    if type(setting.divergence) in GRADIENTS:
        form = GRADIENTS[type(setting.divergence)]
        printed_MOV = form(logits_MV.softmax(-1)[:, None], given.dense(len(teacher_V))[None], setting.divergence)
        metrics["closed_form_error"] = float((by_outcome_MOV - printed_MOV).abs().max())
    starts_MV = SPREAD * normal(setting.starts, len(teacher_V), seed, "starts")
    portrait_MV = torch.tensor(PORTRAIT, dtype=torch.float64).log() if len(teacher_V) == 3 else starts_MV[:0]
    path_TMV = descent(torch.cat([starts_MV, portrait_MV]), given, setting.divergence, setting.step, setting.steps)
    ends, curve = of_ends(setting, given, path_TMV[:, : setting.starts])
    curves: Curves = {"ends": curve}
    if len(teacher_V) == 3:
        curves["field"] = field(logits_MV, mean_MV)
        curves["paths"] = paths(path_TMV[:, setting.starts :].softmax(-1))
        if len(given.chances_O) > 1:
            drawn_T1V = sampled(
                portrait_MV[:1], setting.target, setting.logits_V, setting.divergence, setting.step, seed
            )
            curves["sampled"] = paths(drawn_T1V.softmax(-1))
    return metrics | ends, curves


def states(setting: Setting, seed: int) -> Tensor:
    """Student logits, [M, V]."""
    classes = len(setting.logits_V)
    if classes != 3:
        return setting.logits_V + SPREAD * normal(STATES, classes, seed, "states")
    # off the edges, where a logit is infinite
    lattice = [(i + 1 / 3, j + 1 / 3, GRID - i - j + 1 / 3) for i in range(GRID + 1) for j in range(GRID + 1 - i)]
    return torch.tensor(lattice, dtype=torch.float64).log()


def normal(rows: int, classes: int, seed: int, purpose: str) -> Tensor:
    return torch.randn(rows, classes, dtype=torch.float64, generator=generator(seed, "fields", purpose))


def velocity(probs_MV: Tensor, gradient_MV: Tensor) -> Tensor:
    """How the probabilities move while the logits go down the gradient: dp_i = p_i (dx_i - sum_j p_j dx_j)."""
    return -probs_MV * (gradient_MV - (probs_MV * gradient_MV).sum(-1, keepdim=True))


def of_field(setting: Setting, logits_MV: Tensor, mean_MV: Tensor) -> Metrics:
    teacher_V, head, probs_MV = setting.teacher_V, setting.head, logits_MV.softmax(-1)
    full_MV = gradients(logits_MV, only(DenseTarget(teacher_V[None])), ForwardKL())[:, 0]
    heavy_M = probs_MV[:, :head].sum(1) > teacher_V[:head].sum()
    metrics = {
        "gradient_bias": float((mean_MV - full_MV).abs().max()),
        "head_bias": float((mean_MV - full_MV)[:, :head].abs().max()),
    }
    if not bool(heavy_M.any()):
        return metrics
    own_H, fulls_H = (field_MV[heavy_M, head:].norm(dim=1) for field_MV in (mean_MV, full_MV))
    growth_H = velocity(probs_MV, mean_MV)[heavy_M, head:].sum(1)
    return metrics | {
        "tail_push": float(own_H.mean() / fulls_H.mean()),
        "tail_stronger": float((own_H >= fulls_H * (1 - 1e-6)).double().mean()),
        "tail_rises": float((growth_H > 0).double().mean()),
    }


def of_ends(setting: Setting, given: Outcomes, path_TMV: Tensor) -> tuple[Metrics, dict[str, list[Any]]]:
    teacher_V, classes = setting.teacher_V, len(setting.logits_V)
    probs_TMV = path_TMV.softmax(-1)
    ends_MV = probs_TMV[-1]
    distance_TM = (probs_TMV - teacher_V).abs().sum(-1)
    last_MV = given.average(gradients(path_TMV[-1], given, setting.divergence))
    metrics = {
        "distance": float(distance_TM[-1].mean()),
        "upscaling": float(ends_MV[:, 0].mean() / teacher_V[0]),
        "spread": float((ends_MV.amax(0) - ends_MV.amin(0)).max()),
        "residual": float(last_MV.norm(dim=1).max()),
    }
    if bool((distance_TM[-1] < NEAR).all()):
        sizes = [size(setting.step, setting.steps, taken) for taken in range(len(path_TMV))]
        steps_T = torch.tensor(sizes, dtype=torch.float64)
        metrics["time_to_teacher"] = float((steps_T[:, None] * (distance_TM >= NEAR)).sum(0).mean())
    curve: dict[str, list[Any]] = {"class": list(range(1, classes + 1)), "teacher": teacher_V.tolist()}
    curve["end"] = ends_MV.mean(0).tolist()
    found = rest(setting.divergence, given.dense(classes), given.chances_O)
    if found is not None:
        rest_V, free_V = found
        # an impossible class: a logit whose exponential is zero
        there_1V = rest_V.log().clamp_min(-800.0)[None]
        there_MV = given.average(gradients(there_1V, given, setting.divergence))
        apart_MV = ends_MV - rest_V
        free_M = (apart_MV * free_V).sum(1).abs()
        metrics["rest_distance"] = float(((apart_MV * ~free_V).abs().sum(1) + free_M).max())
        metrics["rest_gradient"] = float(there_MV.abs().max())
        curve["rest"] = rest_V.tolist()
    return metrics, curve


def field(logits_MV: Tensor, gradient_MV: Tensor) -> dict[str, list[Any]]:
    probs_MV = logits_MV.softmax(-1)
    moving_MV = velocity(probs_MV, gradient_MV)
    columns = {"p1": probs_MV[:, 0], "p2": probs_MV[:, 1], "v1": moving_MV[:, 0], "v2": moving_MV[:, 1]}
    return {name: rounded(values) for name, values in columns.items()}
