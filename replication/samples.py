"""Which sequences are distilled: the sample axis.

`samples(sequences, generator)` gives the kept sequence indices, in training order.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor


@dataclass(frozen=True)
class AllSamples:
    """Every sequence."""

    def __call__(self, sequences: int, generator: Generator) -> Tensor:
        return torch.arange(sequences)


@dataclass(frozen=True)
class RandomSamples:
    """A random share of the sequences, order kept (SE-KD's baseline RandomSmp)."""

    keep: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.keep <= 1:
            raise ValueError(f"RandomSamples.keep is {self.keep}; give the share of sequences to distil, in (0, 1].")

    def __call__(self, sequences: int, generator: Generator) -> Tensor:
        kept = max(1, round(self.keep * sequences))
        return torch.randperm(sequences, generator=generator)[:kept].sort().values


Samples = AllSamples | RandomSamples
SAMPLES = {cls.__name__: cls for cls in (AllSamples, RandomSamples)}
