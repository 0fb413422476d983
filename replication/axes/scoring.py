"""What a sequence is worth to a selection of samples: numbers of each position, and the sequence's score from them.

A score names the models that it reads. `told(logits, labels_R)` says of any R positions what the score wants to know,
told_RM; `logits` has for each model, by what it is, [R, V] in float32 or float64. `of(told_BLM)` makes of whole
sequences their scores, score_B. `training/scores.py` finds the models, and holds logits of a chunk of positions at a
time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from replication.axes.divergences import ForwardKL
from replication.axes.signals import student_entropy
from replication.axes.targets.base import DenseTarget

LEAST = 1e-6  # nats: what a ratio divides by at least
NOTHING_LEARNABLE = -1.0  # below every median of losses


@dataclass(frozen=True)
class Reader:
    """A model by which samples are scored.

    The student before its first step, the teacher, the teacher when it had done a `share` of its training ("early"),
    or another model ("reference"): one of a `name` that is no role is a checkpoint; a role is trained for `tokens`.
    """

    what: Literal["student", "teacher", "early", "reference"]
    name: str = ""
    tokens: str = ""
    share: float = 1.0


STUDENT, TEACHER = Reader("student"), Reader("teacher")


class Score(ABC):
    """How sequences are scored."""

    @property
    @abstractmethod
    def readers(self) -> tuple[Reader, ...]: ...

    @abstractmethod
    def told(self, logits: Mapping[str, Tensor], labels_R: Tensor) -> Tensor: ...

    def of(self, told_BLM: Tensor) -> Tensor:
        """The mean, where nothing else is said."""
        return told_BLM[..., 0].mean(1)


@dataclass(frozen=True)
class StudentEntropy(Score):
    """The mean of the student's entropy (SE-KD Table 1, after Xu et al. 2023)."""

    @property
    def readers(self) -> tuple[Reader, ...]:
        return (STUDENT,)

    def told(self, logits: Mapping[str, Tensor], labels_R: Tensor) -> Tensor:
        return student_entropy(logits["student"], None, labels_R)[:, None]


@dataclass(frozen=True)
class Divergence(Score):
    """The mean of KL(teacher || student) (SE-KD Table 7)."""

    @property
    def readers(self) -> tuple[Reader, ...]:
        return STUDENT, TEACHER

    def told(self, logits: Mapping[str, Tensor], labels_R: Tensor) -> Tensor:
        return ForwardKL()(logits["student"], DenseTarget(logits["teacher"].softmax(-1)))[:, None]


@dataclass(frozen=True)
class LossRatio(Score):
    """The student's loss on the sequence over the teacher's (SE-KD Section 2 and Table 7, after He et al. 2025).

    `by_position`: the mean of the positions' ratios instead, as in SE-KD's published code, where the few tokens that
    the teacher is sure of decide.
    """

    by_position: bool = False

    @property
    def readers(self) -> tuple[Reader, ...]:
        return STUDENT, TEACHER

    def told(self, logits: Mapping[str, Tensor], labels_R: Tensor) -> Tensor:
        return torch.stack([losses(logits[what], labels_R) for what in ("student", "teacher")], 1)

    def of(self, told_BLM: Tensor) -> Tensor:
        if self.by_position:
            return (told_BLM[..., 0] / (told_BLM[..., 1] + LEAST)).mean(1)
        mean_BM = told_BLM.mean(1)
        return mean_BM[:, 0] / mean_BM[:, 1].clamp_min(LEAST)


@dataclass(frozen=True)
class Difference(Score):
    """The mean of log p(token) of the teacher less that of a reference model (Gu et al. 2025, MiniPLM)."""

    reference: Reader

    @property
    def readers(self) -> tuple[Reader, ...]:
        return TEACHER, self.reference

    def told(self, logits: Mapping[str, Tensor], labels_R: Tensor) -> Tensor:
        return (losses(logits["reference"], labels_R) - losses(logits["teacher"], labels_R))[:, None]


@dataclass(frozen=True)
class MedianLoss(Score):
    """The median of an early teacher's losses on tokens that are among its k most probable (SALT Eq. 10).

    Losses on other tokens are removed, as the text has it, or are `zeros`, as the formula has it. Of an even number
    the median is the mean of the middle two. A sequence without such a token is the last one.
    """

    k: int
    early: Reader
    zeros: bool = False

    @property
    def readers(self) -> tuple[Reader, ...]:
        return (self.early,)

    def told(self, logits: Mapping[str, Tensor], labels_R: Tensor) -> Tensor:
        logits_RV = logits["early"]
        inside_R = among_first(self.k, logits_RV, labels_R)
        return torch.stack([losses(logits_RV, labels_R), inside_R.to(logits_RV)], 1)

    def of(self, told_BLM: Tensor) -> Tensor:
        if self.zeros:
            return told_BLM.prod(-1).quantile(0.5, dim=1)
        kept = [row_LM[row_LM[:, 1] > 0, 0] for row_LM in told_BLM]
        nothing = told_BLM.new_tensor(NOTHING_LEARNABLE)
        return torch.stack([row_K.quantile(0.5) if len(row_K) else nothing for row_K in kept])


@dataclass(frozen=True)
class TopAccuracy(Score):
    """The share of tokens that are among an early teacher's k most probable (SALT Eq. 70)."""

    k: int
    early: Reader

    @property
    def readers(self) -> tuple[Reader, ...]:
        return (self.early,)

    def told(self, logits: Mapping[str, Tensor], labels_R: Tensor) -> Tensor:
        return among_first(self.k, logits["early"], labels_R).to(logits["early"])[:, None]


def losses(logits_RV: Tensor, labels_R: Tensor) -> Tensor:
    """-log p(label), nats."""
    return cross_entropy(logits_RV, labels_R, reduction="none")


def among_first(k: int, logits_RV: Tensor, labels_R: Tensor) -> Tensor:
    """Whether the label is one of the k most probable classes; of equally probable ones the first come first."""
    own_R1 = logits_RV.gather(1, labels_R[:, None])
    earlier_RV = torch.arange(logits_RV.shape[1], device=logits_RV.device) < labels_R[:, None]
    before_RV = (logits_RV > own_R1) | ((logits_RV == own_R1) & earlier_RV)
    return before_RV.sum(1) < k
