"""Figure 2a of RS-KD: what the mean sparse target makes of a Zipf teacher (App. B, toy listing of App. K)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from replication.record import generator
from replication.targets import (
    AnyTarget,
    Full,
    RandomSampling,
    SmoothedTopK,
    SparseTarget,
    Target,
    TopK,
    TopP,
    at_least_one,
    draw,
    positive,
)

FIXED = (Full, TopK, TopP, SmoothedTopK)  # the same in every round: one round says all
SHOWN = 50  # classes in the curve, and on their own in `l1_bias_grouped`
CHUNK = 2_000_000  # teacher probabilities at a time

Metrics = dict[str, float]
Curves = dict[str, dict[str, list[float]]]


@dataclass(frozen=True)
class Setting:
    """The teacher gives class i = 1, 2, ... a probability proportional to 1 / i ** exponent."""

    target: Target
    vocabulary: int = 100_000
    exponent: float = 1.0
    rounds: int = 1000

    def __post_init__(self) -> None:
        at_least_one("vocabulary", self.vocabulary)
        at_least_one("rounds", self.rounds)
        positive("exponent", self.exponent)

    @property
    def log_teacher(self) -> Tensor:
        """Log-probabilities, [V] float64."""
        ranks = torch.arange(1, self.vocabulary + 1, dtype=torch.float64)
        return (-self.exponent * ranks.log()).log_softmax(0)


@dataclass
class Sums:
    """Totals over rounds, in float64. Every target is divided by its own sum, which is what a student fits."""

    teacher_V: Tensor
    target_V: Tensor
    error: float = 0.0
    kept: float = 0.0
    rounds: int = 0

    def add(self, target: AnyTarget) -> None:
        ids_NK, weights_NK = entries(target, len(self.teacher_V))
        weights_NK = weights_NK.double()
        weights_NK = weights_NK / weights_NK.sum(1, keepdim=True)
        self.target_V += torch.bincount(ids_NK.flatten(), weights_NK.flatten(), minlength=len(self.teacher_V))
        # a class without a slot is off by all of its probability; an unused slot adds that and takes it away again
        teacher_NK = self.teacher_V[ids_NK]
        self.error += float((weights_NK - teacher_NK).abs().sum() + (1 - teacher_NK.sum(1)).sum())
        kept = target.weights_NK if isinstance(target, SparseTarget) else target.probs_NV
        self.kept += int((kept > 0).sum())
        self.rounds += len(ids_NK)


def run(setting: Setting, seed: int) -> tuple[Metrics, Curves]:
    """What the target keeps of the teacher over the rounds.

    Metrics: `l1_bias`, the L1 distance of the mean target to the teacher, sampling noise included;
    `l1_bias_grouped`, the same where the classes beyond the first 50 count by octaves of their rank, which takes most
    of that noise away; `l1_error`, the mean over rounds of one target's L1 distance; `unique_classes`, kept per round;
    for random sampling also `expected_unique_classes`. Curve `targets`, the first 50 classes: `class` (from 1),
    `teacher`, `mean_target`. Raises ValueError for a target that does not fit the vocabulary.
    """
    teacher_V = setting.log_teacher.exp()
    sums = Sums(teacher_V, torch.zeros_like(teacher_V))
    for target in targets(setting, seed):
        sums.add(target)
    mean_V = sums.target_V / sums.rounds
    metrics = {
        "l1_bias": float((mean_V - teacher_V).abs().sum()),
        "l1_bias_grouped": float((grouped(mean_V) - grouped(teacher_V)).abs().sum()),
        "l1_error": sums.error / sums.rounds,
        "unique_classes": sums.kept / sums.rounds,
    }
    if isinstance(setting.target, RandomSampling):
        metrics["expected_unique_classes"] = expected_unique_classes(setting.log_teacher, setting.target)
    shown = min(SHOWN, setting.vocabulary)
    columns: dict[str, Any] = {"class": list(range(1, shown + 1))}
    columns |= {"teacher": teacher_V[:shown].tolist(), "mean_target": mean_V[:shown].tolist()}
    return metrics, {"targets": columns}


def targets(setting: Setting, seed: int) -> Iterator[AnyTarget]:
    """The target of every round, many rounds at a time; of one round where all are equal."""
    logits_V = setting.log_teacher.float()
    rounds = 1 if isinstance(setting.target, FIXED) else setting.rounds
    # the ground truth of each round; sorted, which no sum over rounds sees
    labels_N = draw(setting.log_teacher.exp()[None], rounds, generator(seed, "zipf", "labels"))[0]
    draws = generator(seed, "zipf", "draws")
    for labels_C in labels_N.split(max(1, CHUNK // setting.vocabulary)):
        yield setting.target(logits_V.expand(len(labels_C), -1), labels_C, draws)


def entries(target: AnyTarget, vocabulary: int) -> tuple[Tensor, Tensor]:
    """Class ids and weights, [N, K]; K is the vocabulary where every class has a weight."""
    if isinstance(target, SparseTarget) and target.spread_N is None:
        return target.ids_NK, target.weights_NK
    weights_NV = target.dense(vocabulary)
    return torch.arange(vocabulary).expand_as(weights_NV), weights_NV


def grouped(values_V: Tensor) -> Tensor:
    """The first 50 classes, then sums over 51 to 100, 101 to 200, 201 to 400, ..."""
    ranks = torch.arange(len(values_V), dtype=torch.float64) / SHOWN
    group_V = torch.where(ranks < 1, ranks * SHOWN, SHOWN + ranks.clamp_min(1).log2().floor()).round().long()
    return torch.bincount(group_V, values_V)


def expected_unique_classes(log_teacher_V: Tensor, target: RandomSampling) -> float:
    """Sum over classes of the chance to be drawn at least once, 1 - (1 - proposal) ** draws."""
    proposal_V = (target.exponent * log_teacher_V).softmax(0)
    return float(-(target.draws * (-proposal_V).log1p()).expm1().sum())
