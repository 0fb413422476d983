"""A threshold learnt from the signal's recent values: the state of `positions.GlobalThreshold` while it trains."""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from torch import Tensor

from replication.axes.policy import highest
from replication.axes.signals import Signals
from replication.axes.targets.drawing import Randomness


class RecentThreshold:
    """The threshold that a share `keep` of the last `queue` values reach; if `own`, the batch's among them.

    `state` is all that a resumed run needs; loading a checkpoint overwrites it in place.
    """

    whole_batch = True

    def __init__(self, signal: str, keep: float, queue: int, device: torch.device, own: bool = True) -> None:
        self.signals, self.share, self.keep, self.own = (signal,), keep, Fraction(str(keep)), own
        # float64 holds float32 values and float64 ones as they are, so that a value equals itself in the queue
        self.recent_Q = torch.zeros(queue, dtype=torch.float64, device=device)  # a ring: the oldest are overwritten
        self.count = torch.zeros((), dtype=torch.int64)  # of all values so far

    @property
    def state(self) -> dict[str, Tensor]:
        return {"recent_Q": self.recent_Q, "count": self.count}

    def __call__(self, signals: Signals, progress: float, generator: Randomness | None) -> Tensor:
        values_BL = signals[self.signals[0]]
        if self.own:
            self.remember(values_BL.flatten())
        if int(self.count):
            chosen_BL = (values_BL >= self.threshold).float()
        else:
            chosen_BL = (highest(values_BL, self.share) > 0).float()
        if not self.own:
            self.remember(values_BL.flatten())
        return chosen_BL / chosen_BL.mean().clamp_min(torch.finfo(chosen_BL.dtype).tiny)

    def remember(self, values_N: Tensor) -> None:
        size, seen = len(self.recent_Q), int(self.count)
        last_M = values_N[-size:].to(self.recent_Q)
        places_M = torch.arange(seen + len(values_N) - len(last_M), seen + len(values_N), device=last_M.device) % size
        self.recent_Q[places_M] = last_M
        self.count += len(values_N)

    @property
    def threshold(self) -> Tensor:
        """Of n values in the queue, the ceil(keep * n)-th largest."""
        filled = self.recent_Q[: int(self.count)]
        return filled.topk(math.ceil(self.keep * len(filled))).values[-1]
