"""Which positions are supervised, and how strongly: the position axis.

`positions(signals)` gives weight_BL; weights average to one, so that the loss is the plain mean of weight * loss.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, Protocol

import torch
from torch import Tensor


class Signals(Protocol):
    """What a policy may ask of a batch; each costs a pass over the vocabulary, so nothing is computed unasked."""

    @property
    def labels_BL(self) -> Tensor: ...

    def student_entropy(self) -> Tensor:
        """Nats, [B, L]."""

    def confidence(self) -> Tensor:
        """The target's weight on the ground truth, [B, L]."""


class Policy:
    """A point on the position axis."""

    whole_batch: ClassVar[bool] = False  # whether a position's weight depends on other sequences
    asks_target: ClassVar[bool] = False  # whether it depends on the target


@dataclass(frozen=True)
class AllPositions(Policy):
    """Every position, equally."""

    def __call__(self, signals: Signals) -> Tensor:
        return torch.ones(signals.labels_BL.shape, device=signals.labels_BL.device)


@dataclass(frozen=True)
class TopFraction(Policy):
    """In each sequence the ceil(keep * L) positions of highest student entropy (SE-KD Eq. 4 and 6)."""

    keep: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.keep <= 1:
            raise ValueError(f"TopFraction.keep is {self.keep}; give the share of positions to supervise, in (0, 1].")

    def __call__(self, signals: Signals) -> Tensor:
        entropy_BL = signals.student_entropy()
        length = entropy_BL.shape[1]
        kept = math.ceil(Fraction(str(self.keep)) * length)  # 0.07 * 100 is 7, which floats make 7.000000000000001
        chosen = entropy_BL.topk(kept, dim=1).indices
        return torch.zeros_like(entropy_BL).scatter(1, chosen, length / kept)


@dataclass(frozen=True)
class HardTokens(Policy):
    """The `hard` share of the batch in which the target trusts the ground truth least gets `ratio` times the weight.

    RS-KD Section 6.3's "LR ratio": a learning rate per token is a weight per token. The mean weight stays one. The
    percentile that separates easy from hard is not stated there; one half is our reading.
    """

    ratio: float = 2.0
    hard: float = 0.5
    whole_batch = True
    asks_target = True

    def __post_init__(self) -> None:
        if not 0 < self.ratio < math.inf:
            raise ValueError(f"HardTokens.ratio is {self.ratio}; give the weight of hard over easy tokens, above 0.")
        if not 0 < self.hard < 1:
            raise ValueError(f"HardTokens.hard is {self.hard}; give the share of hard tokens, between 0 and 1.")

    def __call__(self, signals: Signals) -> Tensor:
        confidence_BL = signals.confidence()
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

    asks_target = True

    def __call__(self, signals: Signals) -> Tensor:
        said_BL = (signals.confidence() > 0).float()
        return said_BL / said_BL.mean(1, keepdim=True).clamp_min(torch.finfo(said_BL.dtype).tiny)


Positions = AllPositions | TopFraction | HardTokens | Responses
POSITIONS = {cls.__name__: cls for cls in (AllPositions, TopFraction, HardTokens, Responses)}
