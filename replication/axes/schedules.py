"""How much of which loss at this step: the time axis.

`schedule(progress)` gives (kd_weight, ce_weight) at `progress`, the share of training already done, in [0, 1).
"""

from __future__ import annotations

from dataclasses import dataclass

from replication.axes.let_go import Pace, Watching
from replication.axes.targets.base import at_least_one


@dataclass(frozen=True)
class Constant:
    """The same weights throughout. RS-KD Section 6.3: ce_weight = alpha, kd_weight = 1 - alpha; TAD Eq. 4: one each."""

    kd_weight: float = 1.0
    ce_weight: float = 0.0

    def __call__(self, progress: float) -> tuple[float, float]:
        return self.kd_weight, self.ce_weight


@dataclass(frozen=True)
class TwoStage:
    """SALT Algorithm 1: (1 - omega) CE + omega KD up to `until`, plain cross-entropy after (36K of 208K steps)."""

    omega: float = 0.667
    until: float = 36 / 208

    def __post_init__(self) -> None:
        for name, value in (("omega", self.omega), ("until", self.until)):
            if not 0 <= value <= 1:
                raise ValueError(f"TwoStage.{name} is {value}; give a share between 0 and 1.")

    def __call__(self, progress: float) -> tuple[float, float]:
        return (self.omega, 1 - self.omega) if progress < self.until else (0.0, 1.0)


@dataclass(frozen=True)
class LetGo:
    """As TwoStage, but the first stage ends when the student has come down to its teacher: ours, SALT has a fixed step.

    Without distillation a student is off by its variance, a student of the teacher alone by the teacher's bias; where
    the second exceeds the first, a label is worth more (ours/figure21's rule, at omega = 1/2). Both are excess risks,
    and the truth's own entropy drops out of their difference: it is the student's loss on labels minus the teacher's.
    xi_t alone cannot say it: distilling takes (1 - omega) ** 2 of its last variance from any teacher (Eq. 68). Every
    so many steps the batch's own labels are looked at, which the student sees for the first time in the first epoch;
    the mean over the last `looks` decides.
    """

    omega: float = 0.667
    every: int = 8  # steps from look to look
    looks: int = 5
    margin: float = 0.0  # nats that the student may still be behind

    def __post_init__(self) -> None:
        if not 0 <= self.omega <= 1:
            raise ValueError(f"LetGo.omega is {self.omega}; give a share between 0 and 1.")
        at_least_one("LetGo.every", self.every)
        at_least_one("LetGo.looks", self.looks)

    def __call__(self, progress: float) -> tuple[float, float]:
        """As long as it holds on: at most throughout."""
        return self.omega, 1 - self.omega


def begun(schedule: Schedule) -> Pace:
    """What a training calls at its steps."""
    if isinstance(schedule, LetGo):
        return Watching(schedule, schedule.every, schedule.looks, schedule.margin)
    return Pace(schedule)


@dataclass(frozen=True)
class LinearDecay:
    """As TwoStage, but omega falls linearly to 0 from `start` on to `until` (SALT App. K: 32K to 36K of 208K steps)."""

    omega: float = 0.667
    start: float = 32 / 208
    until: float = 36 / 208

    def __post_init__(self) -> None:
        name = type(self).__name__
        if not 0 <= self.omega <= 1:
            raise ValueError(f"{name}.omega is {self.omega}; give a share between 0 and 1.")
        if not 0 <= self.start < self.until <= 1:
            raise ValueError(f"{name} falls from {self.start} to {self.until}; give two shares that rise in [0, 1].")

    def __call__(self, progress: float) -> tuple[float, float]:
        kd_weight = self.omega * left(progress, self.start, self.until)
        return kd_weight, 1 - kd_weight


@dataclass(frozen=True)
class LinearRatioDecay(LinearDecay):
    """As LinearDecay, but what falls linearly is the ratio of the two weights, omega / (1 - omega) (SALT App. K)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.omega == 1:
            raise ValueError("LinearRatioDecay.omega is 1, whose ratio has no end: give a share below 1.")

    def __call__(self, progress: float) -> tuple[float, float]:
        ratio = self.omega / (1 - self.omega) * left(progress, self.start, self.until)
        return ratio / (1 + ratio), 1 / (1 + ratio)


def left(progress: float, start: float, until: float) -> float:
    """How much of a weight is left that falls linearly between two shares of the training."""
    return 1.0 if progress < start else 0.0 if progress >= until else (until - progress) / (until - start)


@dataclass(frozen=True)
class WarmupStableDecay:
    """KD weight rises linearly to `peak`, stays, and falls linearly to zero; cross-entropy takes the rest.

    The schedule by which RS-KD Section 6.4 recreates Peng et al.; the shares of warm-up and decay are not stated there.
    """

    peak: float = 0.9
    warmup: float = 0.1
    decay: float = 0.1

    def __post_init__(self) -> None:
        for name, value in (("peak", self.peak), ("warmup", self.warmup), ("decay", self.decay)):
            if not 0 <= value <= 1:
                raise ValueError(f"WarmupStableDecay.{name} is {value}; give a share between 0 and 1.")

    def __call__(self, progress: float) -> tuple[float, float]:
        rising = progress / self.warmup if progress < self.warmup else 1.0
        falling = (1 - progress) / self.decay if progress > 1 - self.decay else 1.0
        kd_weight = self.peak * min(rising, falling)
        return kd_weight, 1 - kd_weight


Schedule = Constant | TwoStage | LetGo | LinearDecay | LinearRatioDecay | WarmupStableDecay
SCHEDULES = {cls.__name__: cls for cls in (Constant, TwoStage, LetGo, LinearDecay, LinearRatioDecay, WarmupStableDecay)}
