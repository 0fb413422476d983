"""Which positions are supervised, and how strongly: the position axis.

`positions(signals, progress, generator)` gives weight_BL; weights average to one, so that the loss is the plain mean of
weight * loss. `signals` are those that the policy names (`signals.py`); `progress` is the share of training already
done, in [0, 1); a policy that `draws` gets a generator, of a step's own random streams.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from replication.axes.calibrated_thresholds import RecentThreshold
from replication.axes.signals import Signals, ask_target, known
from replication.axes.targets.base import at_least_one
from replication.axes.targets.drawing import Randomness, Streams, uniform


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


@dataclass(frozen=True)
class AllPositions(Policy):
    """Every position, equally."""

    def __call__(self, signals: Signals, progress: float, generator: Randomness | None) -> Tensor:
        return torch.ones(signals.labels_BL.shape, device=signals.labels_BL.device)


@dataclass(frozen=True)
class TopFraction(Policy):
    """In each sequence the ceil(keep * L) positions where the signal is highest (SE-KD Eq. 4 and 6)."""

    keep: float = 0.2
    signal: str = "student_entropy"

    def __post_init__(self) -> None:
        share("TopFraction.keep", self.keep)
        known("TopFraction.signal", self.signal)

    @property
    def signals(self) -> tuple[str, ...]:
        return (self.signal,)

    def __call__(self, signals: Signals, progress: float, generator: Randomness | None) -> Tensor:
        return highest(signals[self.signal], self.keep)


@dataclass(frozen=True)
class GlobalThreshold(Policy):
    """The positions whose signal reaches a threshold learnt from its last `queue` values ("GLS", SE-KD Section 5).

    The threshold is the (1 - keep) quantile of the queue, to which a batch's values are added first (so in Wang et al.
    2021, from whom SE-KD has it). A sequence may have any number of chosen positions. All of a batch weigh the same:
    SE-KD normalises by sequence everywhere but here, and does not say by what it does here.
    """

    keep: float = 0.2
    queue: int = 30_000
    signal: str = "student_entropy"
    whole_batch = True

    def __post_init__(self) -> None:
        share("GlobalThreshold.keep", self.keep)
        at_least_one("GlobalThreshold.queue", self.queue)
        known("GlobalThreshold.signal", self.signal)

    @property
    def signals(self) -> tuple[str, ...]:
        return (self.signal,)

    def begun(self, device: torch.device) -> RecentThreshold:
        return RecentThreshold(self.signal, self.keep, self.queue, device)

    def __call__(self, signals: Signals, progress: float, generator: Randomness | None) -> Tensor:
        """The weights at the first step, when nothing has been seen yet."""
        return self.begun(signals.labels_BL.device)(signals, progress, generator)


@dataclass(frozen=True)
class RandomFraction(Policy):
    """In each sequence ceil(keep * L) positions at random, anew at every step (SE-KD's baseline RandomPos)."""

    keep: float = 0.2
    draws = True

    def __post_init__(self) -> None:
        share("RandomFraction.keep", self.keep)

    def __call__(self, signals: Signals, progress: float, generator: Randomness | None) -> Tensor:
        assert generator is not None, "RandomFraction draws: give it a generator"
        sequences, length = signals.labels_BL.shape
        return highest(uniform(generator, sequences, length, signals.labels_BL.device), self.keep).float()


@dataclass(frozen=True)
class HardTokens(Policy):
    """The `hard` share of the batch in which the target trusts the ground truth least gets `ratio` times the weight.

    RS-KD Section 6.3's "LR ratio": a learning rate per token is a weight per token. The mean weight stays one. The
    percentile that separates easy from hard is not stated there; one half is our reading.
    """

    ratio: float = 2.0
    hard: float = 0.5
    whole_batch = True

    def __post_init__(self) -> None:
        if not 0 < self.ratio < math.inf:
            raise ValueError(f"HardTokens.ratio is {self.ratio}; give the weight of hard over easy tokens, above 0.")
        if not 0 < self.hard < 1:
            raise ValueError(f"HardTokens.hard is {self.hard}; give the share of hard tokens, between 0 and 1.")

    @property
    def signals(self) -> tuple[str, ...]:
        return ("confidence",)

    def __call__(self, signals: Signals, progress: float, generator: Randomness | None) -> Tensor:
        confidence_BL = signals["confidence"]
        hard_N = confidence_BL.flatten().argsort(stable=True)[: round(self.hard * confidence_BL.numel())]
        weight_N = torch.ones_like(confidence_BL).flatten()
        weight_N[hard_N] = self.ratio
        return (weight_N / weight_N.mean()).view_as(confidence_BL)


@dataclass(frozen=True)
class Responses(Policy):
    """In each sequence the positions whose label the target has, equally: of packed conversations, their responses.

    Every sequence weighs the same, as where each is a micro-batch of its own, so that no split of a batch matters. One
    without such a position weighs nothing.
    """

    @property
    def signals(self) -> tuple[str, ...]:
        return ("confidence",)

    def __call__(self, signals: Signals, progress: float, generator: Randomness | None) -> Tensor:
        said_BL = (signals["confidence"] > 0).float()
        return said_BL / said_BL.mean(1, keepdim=True).clamp_min(torch.finfo(said_BL.dtype).tiny)


def weights(
    positions: Weighing,
    signals: Signals,
    progress: float,
    generator: Randomness | None,
    mask_BL: Tensor | None = None,
) -> Tensor:
    """The policy's weight_BL; where only some positions are trained, those of the mask, it is shown no others.

    The others weigh 0 and the average stays one. A policy that compares the whole batch sees what is trained of it as
    one sequence, any other sees each row's by itself, so that every row weighs the same.
    """
    if mask_BL is None:
        return positions(signals, progress, generator)
    sequences = len(mask_BL)
    streams = generator.each if isinstance(generator, Streams) else (generator,) * sequences
    rows = [slice(None)] if positions.whole_batch else [slice(row, row + 1) for row in range(sequences)]
    found = []
    for row, stream in zip(rows, streams, strict=False):
        mask_RL = mask_BL[row]
        weight_1M = positions(signals.where(row, mask_RL), progress, stream)
        scale = mask_RL.numel() / weight_1M.numel()
        found.append(weight_1M.new_zeros(mask_RL.shape).masked_scatter(mask_RL, weight_1M * scale))
    return torch.cat(found)


def highest(values_BL: Tensor, keep: float) -> Tensor:
    """Weights of the ceil(keep * L) positions with the highest values in each sequence."""
    length = values_BL.shape[1]
    kept = math.ceil(Fraction(str(keep)) * length)  # 0.07 * 100 is 7, which floats make 7.000000000000001
    return torch.zeros_like(values_BL).scatter(1, values_BL.topk(kept, dim=1).indices, length / kept)


def share(field: str, value: float) -> None:
    if not 0 < value <= 1:
        raise ValueError(f"{field} is {value}; give the share of positions to supervise, in (0, 1].")


Positions = AllPositions | TopFraction | GlobalThreshold | RandomFraction | HardTokens | Responses
POSITIONS = {
    cls.__name__: cls
    for cls in (AllPositions, TopFraction, GlobalThreshold, RandomFraction, HardTokens, Responses)
}  # fmt: skip
