"""Which sequences are distilled: the sample axis.

`samples(scores_P, stage, generator)` gives the kept ones of the P sequences of a pool, in training order. The pool is
the training text, or its first `pool` tokens (a word of the scale), in training order; how much of what is kept is read
is the recipe's `tokens`, as ever: where a fifth of the pool is to be read once, that is a fifth of the pool's tokens.
Scores are made before the first step, by a pass of their own over the pool (`scoring.py`, `training/scores.py`); a
method that has none is given NaNs. SALT's methods choose for a first stage only, of `stage` sequences.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from replication.axes.scoring import (
    Difference,
    Divergence,
    LossRatio,
    MedianLoss,
    Reader,
    Score,
    StudentEntropy,
    TopAccuracy,
)
from replication.axes.targets.base import at_least_one


class Selection(ABC):
    """A point on the sample axis."""

    @property
    def pool(self) -> str:
        """Of how many tokens it chooses; "": of all of the text."""
        return ""

    @property
    def until(self) -> float:
        """The share of training in which only the kept ones are read; then the others of the pool are, in order."""
        return 1.0

    @property
    def score(self) -> Score | None:
        """By which it chooses."""
        return None

    @property
    def readers(self) -> tuple[Reader, ...]:
        """The models that it reads."""
        return () if self.score is None else self.score.readers

    @abstractmethod
    def __call__(self, scores_P: Tensor, stage: int, generator: Generator) -> Tensor: ...


@dataclass(frozen=True)
class AllSamples(Selection):
    """Every sequence."""

    def __call__(self, scores_P: Tensor, stage: int, generator: Generator) -> Tensor:
        return torch.arange(len(scores_P))


@dataclass(frozen=True)
class RandomSamples(Selection):
    """A random share of the sequences, order kept (SE-KD's baseline RandomSmp)."""

    keep: float = 0.2
    pool: str = ""

    def __post_init__(self) -> None:
        share("RandomSamples.keep", self.keep)

    def __call__(self, scores_P: Tensor, stage: int, generator: Generator) -> Tensor:
        return torch.randperm(len(scores_P), generator=generator)[: number(self.keep, scores_P)].sort().values


SCORES: dict[str, Score] = {
    "student_entropy": StudentEntropy(),
    "ce_ratio": LossRatio(),
    "mean_ce_ratio": LossRatio(by_position=True),
    "kl": Divergence(),
}


@dataclass(frozen=True)
class TopSamples(Selection):
    """The share of the sequences with the highest scores, order kept (SE-KD Section 4, TopSmp).

    By the frozen student's entropy, the ratio of the student's loss to the teacher's or, "mean_ce_ratio", the mean of
    the positions' ratios, or the divergence of the student from the teacher (Table 7).
    """

    keep: float = 0.2
    signal: str = "student_entropy"
    pool: str = ""

    def __post_init__(self) -> None:
        share("TopSamples.keep", self.keep)
        if self.signal not in SCORES:
            raise ValueError(f"TopSamples.signal is {self.signal!r}; give one of {', '.join(sorted(SCORES))}.")

    @property
    def score(self) -> Score:
        return SCORES[self.signal]

    def __call__(self, scores_P: Tensor, stage: int, generator: Generator) -> Tensor:
        return highest(number(self.keep, scores_P), scores_P)


@dataclass(frozen=True)
class DifferenceSamples(Selection):
    """The share that the teacher finds most likely beside what a reference model does, order kept (MiniPLM).

    `reference` is trained for `reference_tokens` where it is a role: on the first rows of the student's own text, which
    are then in no pool, so that it scores nothing that it has read.
    """

    keep: float = 0.5
    pool: str = ""
    reference: str = "MiniLLM/MiniPLM-Qwen-104M-ref"
    reference_tokens: str = "5B"

    def __post_init__(self) -> None:
        share("DifferenceSamples.keep", self.keep)

    @property
    def score(self) -> Score:
        return Difference(Reader("reference", self.reference, self.reference_tokens))

    def __call__(self, scores_P: Tensor, stage: int, generator: Generator) -> Tensor:
        return highest(number(self.keep, scores_P), scores_P)


@dataclass(frozen=True)
class ChallengingSamples(Selection):
    """SALT's first stage reads those that are hard for an early teacher and learnable (Section 4, SALT-DS, Eq. 10).

    They are as many as the stage reads, of the highest `MedianLoss`. Losses on tokens beyond the k most probable are
    "removed", as the text has it, or "zeros", as the formula has it. The early teacher is the teacher after a share of
    its training, 26K of 208K steps, or the checkpoint `scorer`; what it has read of this text is in no pool.
    """

    k: int = 10
    until: float = 36 / 208
    outside: str = "removed"
    pool: str = ""
    early: float = 26 / 208
    scorer: str = ""

    def __post_init__(self) -> None:
        of_stage(self)
        if self.outside not in ("removed", "zeros"):
            raise ValueError(f"ChallengingSamples.outside is {self.outside!r}; give 'removed' or 'zeros'.")

    @property
    def score(self) -> Score:
        return MedianLoss(self.k, Reader("early", self.scorer, share=self.early), self.outside == "zeros")

    def __call__(self, scores_P: Tensor, stage: int, generator: Generator) -> Tensor:
        return highest(stage, scores_P)


@dataclass(frozen=True)
class EasySamples(Selection):
    """The first stage reads of the share whose tokens an early teacher predicts best (SALT App. M, BaselineEZ, Eq. 70).

    The early teacher as in `ChallengingSamples`.
    """

    k: int = 10
    keep: float = 0.4
    until: float = 36 / 208
    pool: str = ""
    early: float = 26 / 208
    scorer: str = ""

    def __post_init__(self) -> None:
        of_stage(self)
        share("EasySamples.keep", self.keep)

    @property
    def score(self) -> Score:
        return TopAccuracy(self.k, Reader("early", self.scorer, share=self.early))

    def __call__(self, scores_P: Tensor, stage: int, generator: Generator) -> Tensor:
        return highest(number(self.keep, scores_P), scores_P)


def highest(count: int, scores_P: Tensor) -> Tensor:
    """In training order. Stable: of equal scores the first, on every machine."""
    return scores_P.argsort(descending=True, stable=True)[:count].sort().values


def number(keep: float, scores_P: Tensor) -> int:
    return max(1, round(keep * len(scores_P)))


def share(field: str, value: float) -> None:
    if not 0 < value <= 1:
        raise ValueError(f"{field} is {value}; give the share of sequences to distil, in (0, 1].")


def of_stage(chosen: ChallengingSamples | EasySamples) -> None:
    name = type(chosen).__name__
    at_least_one(f"{name}.k", chosen.k)
    for field, value in (("until", chosen.until), ("early", chosen.early)):
        if not 0 < value <= 1:
            raise ValueError(f"{name}.{field} is {value}; give a share of training, in (0, 1].")


Samples = AllSamples | RandomSamples | TopSamples | DifferenceSamples | ChallengingSamples | EasySamples
SAMPLES = {
    cls.__name__: cls
    for cls in (AllSamples, RandomSamples, TopSamples, DifferenceSamples, ChallengingSamples, EasySamples)
}
