"""Which positions are supervised, and how strongly: the position axis.

`positions(signals, progress, generator)` gives weight_BL; weights average to one (those that correct for a draw: over
all draws), so that the loss is the plain mean of weight * loss. `signals` are those that the policy names
(`signals.py`); `progress` is the share of training already done, in [0, 1); a policy that `draws` gets a generator, of
a step's own random streams.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from replication.axes.calibrated_thresholds import RecentThreshold
from replication.axes.policy import Policy, Weighing, at, budget, highest, ranked, share
from replication.axes.position_sampling import PositionSampling, UnbiasedPositionSampling
from replication.axes.signals import Signals, known
from replication.axes.targets.base import at_least_one
from replication.axes.targets.drawing import Randomness, Streams, uniform


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
    2021, from whom SE-KD has it); with `own` "excluded" after the batch is judged, as SE-KD's code has it, and while
    the queue is empty each sequence has its top fraction. A sequence may have any number of chosen positions. All of a
    batch weigh the same: SE-KD normalises by sequence everywhere but here, and does not say by what it does here.
    """

    keep: float = 0.2
    queue: int = 30_000
    signal: str = "student_entropy"
    own: str = "included"
    whole_batch = True

    def __post_init__(self) -> None:
        share("GlobalThreshold.keep", self.keep)
        at_least_one("GlobalThreshold.queue", self.queue)
        known("GlobalThreshold.signal", self.signal)
        if self.own not in ("included", "excluded"):
            raise ValueError(f"GlobalThreshold.own is {self.own!r}; give 'included' or 'excluded'.")

    @property
    def signals(self) -> tuple[str, ...]:
        return (self.signal,)

    def begun(self, device: torch.device) -> RecentThreshold:
        return RecentThreshold(self.signal, self.keep, self.queue, device, self.own == "included")

    def __call__(self, signals: Signals, progress: float, generator: Randomness | None) -> Tensor:
        """The weights at the first step, when nothing has been seen yet."""
        return self.begun(signals.labels_BL.device)(signals, progress, generator)


@dataclass(frozen=True)
class TopStandardised(Policy):
    """As TopFraction, by the sum of two signals' z-scores in the sequence, in place of the plain sum that SE-KD has.

    The deviation is the population's, over the sequence; a signal that does not vary there counts nothing.
    """

    keep: float = 0.2
    signal: str = "student_entropy"
    plus: str = "kl"

    def __post_init__(self) -> None:
        share("TopStandardised.keep", self.keep)
        known("TopStandardised.signal", self.signal)
        known("TopStandardised.plus", self.plus)

    @property
    def signals(self) -> tuple[str, ...]:
        return self.signal, self.plus

    def __call__(self, signals: Signals, progress: float, generator: Randomness | None) -> Tensor:
        return highest(standardised(signals[self.signal]) + standardised(signals[self.plus]), self.keep)


@dataclass(frozen=True)
class Curriculum(Policy):
    """In each sequence ceil(keep * L) positions of neighbouring ranks, from the lowest signal to the highest.

    SE-KD Section 5 and Table 9: 4,000 steps, of the 9,766 that 80M tokens are (`until`); from then on it is
    TopFraction. That the window moves linearly, rank by rank, is what the authors' code does; the paper does not say.
    """

    keep: float = 0.2
    until: float = 4000 / 9766
    signal: str = "student_entropy"

    def __post_init__(self) -> None:
        share("Curriculum.keep", self.keep)
        if not 0 < self.until <= 1:
            raise ValueError(f"Curriculum.until is {self.until}; give the share of training that it takes, in (0, 1].")
        known("Curriculum.signal", self.signal)

    @property
    def signals(self) -> tuple[str, ...]:
        return (self.signal,)

    def __call__(self, signals: Signals, progress: float, generator: Randomness | None) -> Tensor:
        values_BL = signals[self.signal]
        kept = budget(self.keep, values_BL.shape[1])
        begin = math.floor((values_BL.shape[1] - kept) * min(1.0, progress / self.until))
        return at(ranked(values_BL, descending=False)[:, begin : begin + kept], values_BL)


@dataclass(frozen=True)
class Bucket(Policy):
    """In each sequence the positions whose rank by the signal lies between two shares of it; at least one.

    A policy of SE-KD's code (percentiles 70 to 80 of the score) that its paper does not mention.
    """

    low: float = 0.7
    high: float = 0.8
    signal: str = "student_entropy"

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high <= 1:
            raise ValueError(f"Bucket.low and high are {self.low} and {self.high}; give 0 <= low < high <= 1.")
        known("Bucket.signal", self.signal)

    @property
    def signals(self) -> tuple[str, ...]:
        return (self.signal,)

    def __call__(self, signals: Signals, progress: float, generator: Randomness | None) -> Tensor:
        values_BL = signals[self.signal]
        begin = min(budget(self.low, values_BL.shape[1]), values_BL.shape[1] - 1)
        end = max(begin + 1, budget(self.high, values_BL.shape[1]))
        return at(ranked(values_BL, descending=False)[:, begin:end], values_BL)


@dataclass(frozen=True)
class SignalWeights(Policy):
    """Every position, in proportion to its signal in the sequence: weighted distillation (SE-KD App. A, Table 1).

    What `PositionSampling` is on average over its draws. A sequence without any signal has equal weights.
    """

    signal: str = "student_entropy"

    def __post_init__(self) -> None:
        known("SignalWeights.signal", self.signal)

    @property
    def signals(self) -> tuple[str, ...]:
        return (self.signal,)

    def __call__(self, signals: Signals, progress: float, generator: Randomness | None) -> Tensor:
        values_BL = signals[self.signal].clamp_min(0)
        mean_B1 = values_BL.mean(1, keepdim=True)
        return torch.where(mean_B1 > 0, values_BL / mean_B1, 1.0)


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


def standardised(values_BL: Tensor) -> Tensor:
    """z-scores within each sequence; zeros where nothing varies."""
    apart_BL = values_BL - values_BL.mean(1, keepdim=True)
    return apart_BL / apart_BL.square().mean(1, keepdim=True).sqrt().clamp_min(torch.finfo(values_BL.dtype).tiny)


Positions = (
    AllPositions | TopFraction | GlobalThreshold | RandomFraction | HardTokens | Responses
    | TopStandardised | Curriculum | Bucket | SignalWeights | PositionSampling | UnbiasedPositionSampling
)  # fmt: skip
POSITIONS = {
    cls.__name__: cls
    for cls in (
        AllPositions, TopFraction, GlobalThreshold, RandomFraction, HardTokens, Responses,
        TopStandardised, Curriculum, Bucket, SignalWeights, PositionSampling, UnbiasedPositionSampling,
    )
}  # fmt: skip
