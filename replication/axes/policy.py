"""What every policy of `positions.py` is, and what many of them do: a number of positions from a share of a row."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from fractions import Fraction
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from replication.axes.signals import Signals, ask_target
from replication.axes.targets.drawing import Randomness


class Weighing(Protocol):
    """What gives a step's positions their weights: a policy or, of one that has a state, that state."""

    @property
    def signals(self) -> tuple[str, ...]: ...

    @property
    def whole_batch(self) -> bool: ...

    def __call__(self, signals: Signals, progress: float, generator: Randomness | None) -> Tensor: ...

    @property
    def state(self) -> dict[str, Tensor]: ...


class Policy(ABC):
    """A point on the position axis."""

    whole_batch: ClassVar[bool] = False  # whether a position's weight depends on other sequences
    draws: ClassVar[bool] = False  # whether it takes random numbers

    @property
    def signals(self) -> tuple[str, ...]:
        """The names of those it wants; each costs a look at the whole vocabulary, so nothing is computed unasked."""
        return ()

    @abstractmethod
    def __call__(self, signals: Signals, progress: float, generator: Randomness | None) -> Tensor: ...

    @property
    def asks_target(self) -> bool:
        """Whether a position's weight depends on the target."""
        return ask_target(self.signals)

    def begun(self, device: torch.device) -> Weighing:
        """What a training calls at its steps: this policy or, of one that learns from step to step, its state."""
        return self

    @property
    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps of it."""
        return {}


def budget(keep: float, length: int) -> int:
    """ceil(keep * length) positions; 0.07 * 100 is 7, which floats make 7.000000000000001."""
    return math.ceil(Fraction(str(keep)) * length)


def ranked(values_BL: Tensor, descending: bool = True) -> Tensor:
    """Each sequence's positions in the order of their values; of equal ones the earlier first, on every machine."""
    return values_BL.argsort(dim=1, descending=descending, stable=True)


def at(places_BK: Tensor, values_BL: Tensor) -> Tensor:
    """Weights of these positions in each sequence, which share the weight of all."""
    length = values_BL.shape[1]
    return torch.zeros_like(values_BL).scatter(1, places_BK, length / places_BK.shape[1])


def highest(values_BL: Tensor, keep: float) -> Tensor:
    """Weights of the ceil(keep * L) positions with the highest values in each sequence."""
    return at(ranked(values_BL)[:, : budget(keep, values_BL.shape[1])], values_BL)


def share(field: str, value: float) -> None:
    if not 0 < value <= 1:
        raise ValueError(f"{field} is {value}; give the share of positions to supervise, in (0, 1].")
