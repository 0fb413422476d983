"""Positions drawn with replacement, in proportion to a signal: Pos RS-KD and Pos RS-KD* (SE-KD Section 5, App. A, D).

B sequences of L positions, K draws in each.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from replication.axes.policy import Policy, budget, ranked, share
from replication.axes.signals import Signals, known
from replication.axes.targets.base import positive
from replication.axes.targets.drawing import Randomness, draw


@dataclass(frozen=True)
class Drawing(Policy):
    """The draws that both have in common: ceil(keep * L) of a sequence, with replacement.

    App. D's mitigations are fields, none of them in use unless stated: `temperature` draws in proportion to
    signal ** (1 / temperature); `clip` as if no signal were above that quantile of its sequence; `certain` is the share
    of the budget for the positions with the highest signals, once each, of which nothing is drawn any more. A sequence
    without any signal is drawn from evenly.
    """

    keep: float = 0.2
    signal: str = "student_entropy"
    temperature: float = 1.0
    clip: float = 1.0
    certain: float = 0.0
    draws = True

    def __post_init__(self) -> None:
        name = type(self).__name__
        share(f"{name}.keep", self.keep)
        known(f"{name}.signal", self.signal)
        positive(f"{name}.temperature", self.temperature)
        if not 0 < self.clip <= 1:
            raise ValueError(f"{name}.clip is {self.clip}; give the quantile that no signal exceeds, in (0, 1].")
        if not 0 <= self.certain < 1:
            raise ValueError(f"{name}.certain is {self.certain}; give a share of the budget, in [0, 1).")

    @property
    def signals(self) -> tuple[str, ...]:
        return (self.signal,)

    def out(self, values_BL: Tensor) -> Tensor:
        """Positions that are never drawn, whatever their signal, [B, L]."""
        return torch.zeros_like(values_BL, dtype=torch.bool)

    def drawn(self, signals: Signals, generator: Randomness | None) -> tuple[Tensor, Tensor, Tensor]:
        """Which positions are certain, how often each other one was drawn, and its chance at a draw; [B, L] each."""
        assert generator is not None, f"{type(self).__name__} draws: give it a generator"
        values_BL = signals[self.signal].clamp_min(0).double()
        kept = budget(self.keep, values_BL.shape[1])
        sure = min(int(self.certain * kept), kept - 1)
        out_BL = self.out(values_BL)
        first_BS = ranked(values_BL.masked_fill(out_BL, -1.0))[:, :sure]
        sure_BL = torch.zeros_like(values_BL).scatter(1, first_BS, 1.0)
        if self.clip < 1:
            values_BL = values_BL.minimum(values_BL.quantile(self.clip, dim=1, keepdim=True))
        free_BL = ~out_BL & (sure_BL == 0)
        free_BL = free_BL | ~free_BL.any(1, keepdim=True)  # a sequence shorter than what is left out
        log_BL = (values_BL.log() / self.temperature).masked_fill(~free_BL, -torch.inf)
        silent_B1 = log_BL.amax(1, keepdim=True) == -torch.inf
        log_BL = log_BL.masked_fill(silent_B1 & free_BL, 0.0)
        drawn_BK = draw(log_BL, kept - sure, generator)
        counts_BL = torch.zeros_like(values_BL).scatter_add(1, drawn_BK, torch.ones_like(drawn_BK, dtype=torch.float64))
        return sure_BL, counts_BL, log_BL.softmax(1)


@dataclass(frozen=True)
class PositionSampling(Drawing):
    """A position counts as often as it was drawn ("Pos RS-KD"): the mean loss of the draws.

    On average the loss weighted by the signal (App. A). How many are drawn SE-KD does not say: K = ceil(keep * L) with
    repetition, as its proof has K. `first` leaves out so many positions at the beginning of a sequence (App. D).
    """

    first: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.first < 0:
            raise ValueError(f"PositionSampling.first is {self.first}; give a number of positions, at least 0.")

    def out(self, values_BL: Tensor) -> Tensor:
        return (torch.arange(values_BL.shape[1], device=values_BL.device) < self.first).expand_as(values_BL)

    def __call__(self, signals: Signals, progress: float, generator: Randomness | None) -> Tensor:
        sure_BL, counts_BL, _ = self.drawn(signals, generator)
        weights_BL = sure_BL + counts_BL
        return (weights_BL / weights_BL.mean(1, keepdim=True)).to(signals[self.signal].dtype)


@dataclass(frozen=True)
class UnbiasedPositionSampling(Drawing):
    """A draw counts 1 / (K q), q its chance ("Pos RS-KD*"): on average the loss of all positions (App. A).

    So the weights average to one over all draws, not in each. Section 5 leaves N out, which makes the loss N times as
    large. A position whose signal is exactly 0 is never drawn, and lost.
    """

    def __call__(self, signals: Signals, progress: float, generator: Randomness | None) -> Tensor:
        sure_BL, counts_BL, chance_BL = self.drawn(signals, generator)
        draws_B1 = counts_BL.sum(1, keepdim=True)
        weights_BL = sure_BL + counts_BL / (draws_B1 * chance_BL).clamp_min(torch.finfo(torch.float64).tiny)
        return weights_BL.to(signals[self.signal].dtype)
