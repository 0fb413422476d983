"""How much of which loss at this step: the time axis.

`schedule(progress)` gives (kd_weight, ce_weight) at `progress`, the share of training already done, in [0, 1).
"""

from __future__ import annotations

from dataclasses import dataclass


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


Schedule = Constant | TwoStage | WarmupStableDecay
SCHEDULES = {cls.__name__: cls for cls in (Constant, TwoStage, WarmupStableDecay)}
