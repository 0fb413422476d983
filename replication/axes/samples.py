"""Which sequences are distilled: the sample axis.

`samples(scores_S, generator)` gives the kept ones of S sequences, in training order. Scores are made before the first
step, by a pass of their own (`training/scores.py`); a method that names none is given NaNs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from replication.axes.signals import ask_target, known


class Selection(ABC):
    """A point on the sample axis."""

    @property
    def score(self) -> str | None:
        """The signal of the student before its first step whose mean over a sequence is the sequence's score."""
        return None

    @abstractmethod
    def __call__(self, scores_S: Tensor, generator: Generator) -> Tensor: ...


@dataclass(frozen=True)
class AllSamples(Selection):
    """Every sequence."""

    def __call__(self, scores_S: Tensor, generator: Generator) -> Tensor:
        return torch.arange(len(scores_S))


@dataclass(frozen=True)
class RandomSamples(Selection):
    """A random share of the sequences, order kept (SE-KD's baseline RandomSmp)."""

    keep: float = 0.2

    def __post_init__(self) -> None:
        share("RandomSamples.keep", self.keep)

    def __call__(self, scores_S: Tensor, generator: Generator) -> Tensor:
        return torch.randperm(len(scores_S), generator=generator)[: number(self.keep, scores_S)].sort().values


@dataclass(frozen=True)
class TopSamples(Selection):
    """The share of the sequences with the highest scores, order kept (SE-KD Section 4, TopSmp).

    A sequence's score is the mean of the frozen student's entropy over its positions (Table 1, after Xu et al. 2023).
    """

    keep: float = 0.2
    signal: str = "student_entropy"

    def __post_init__(self) -> None:
        share("TopSamples.keep", self.keep)
        known("TopSamples.signal", self.signal)
        if ask_target([self.signal]):
            raise ValueError(f"TopSamples.signal is {self.signal!r}; give one that needs no teacher: student_entropy.")

    @property
    def score(self) -> str:
        return self.signal

    def __call__(self, scores_S: Tensor, generator: Generator) -> Tensor:
        # stable: of equal scores the first, on every machine
        ranked_S = scores_S.argsort(descending=True, stable=True)
        return ranked_S[: number(self.keep, scores_S)].sort().values


def number(keep: float, scores_S: Tensor) -> int:
    return max(1, round(keep * len(scores_S)))


def share(field: str, value: float) -> None:
    if not 0 < value <= 1:
        raise ValueError(f"{field} is {value}; give the share of sequences to distil, in (0, 1].")


Samples = AllSamples | RandomSamples | TopSamples
SAMPLES = {cls.__name__: cls for cls in (AllSamples, RandomSamples, TopSamples)}
