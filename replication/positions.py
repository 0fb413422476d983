"""Which positions are supervised, and how strongly: the position axis.

`positions(student_logits_BLV, teacher_confidence_BL)` gives weight_BL; weights average to one, so that the loss is the
plain mean of weight * loss.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor


@dataclass(frozen=True)
class AllPositions:
    """Every position, equally."""

    def __call__(self, student_logits_BLV: Tensor, teacher_confidence_BL: Tensor) -> Tensor:
        return torch.ones(student_logits_BLV.shape[:2], device=student_logits_BLV.device)


@dataclass(frozen=True)
class TopFraction:
    """In each sequence the ceil(keep * L) positions of highest student entropy (SE-KD Eq. 4 and 6)."""

    keep: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.keep <= 1:
            raise ValueError(f"TopFraction.keep is {self.keep}; give the share of positions to supervise, in (0, 1].")

    def __call__(self, student_logits_BLV: Tensor, teacher_confidence_BL: Tensor) -> Tensor:
        length = student_logits_BLV.shape[1]
        kept = math.ceil(Fraction(str(self.keep)) * length)  # 0.07 * 100 is 7, which floats make 7.000000000000001
        chosen = entropy(student_logits_BLV).topk(kept, dim=1).indices
        return torch.zeros_like(teacher_confidence_BL).scatter(1, chosen, length / kept)


@dataclass(frozen=True)
class HardTokens:
    """The `hard` share of the batch in which the target trusts the ground truth least gets `ratio` times the weight.

    RS-KD Section 6.3's "LR ratio": a learning rate per token is a weight per token. The mean weight stays one. The
    percentile that separates easy from hard is not stated there; one half is our reading.
    """

    ratio: float = 2.0
    hard: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.ratio < math.inf:
            raise ValueError(f"HardTokens.ratio is {self.ratio}; give the weight of hard over easy tokens, above 0.")
        if not 0 < self.hard < 1:
            raise ValueError(f"HardTokens.hard is {self.hard}; give the share of hard tokens, between 0 and 1.")

    def __call__(self, student_logits_BLV: Tensor, teacher_confidence_BL: Tensor) -> Tensor:
        confidence_N = teacher_confidence_BL.flatten()
        hard = round(self.hard * len(confidence_N))
        weight_N = torch.ones_like(confidence_N)
        weight_N[confidence_N.argsort(stable=True)[:hard]] = self.ratio
        return (weight_N / weight_N.mean()).view_as(teacher_confidence_BL)


@torch.no_grad()
def entropy(logits_BLV: Tensor) -> Tensor:
    """Nats per position, [B, L], one sequence at a time so that no second copy of the logits is held."""
    return torch.stack([torch.special.entr(row_LV.float().softmax(-1)).sum(-1) for row_LV in logits_BLV])


Positions = AllPositions | TopFraction | HardTokens
POSITIONS = {cls.__name__: cls for cls in (AllPositions, TopFraction, HardTokens)}
