"""Where the axes meet: the loss of one batch, as the papers write it.

loss = mean over positions of weight * (kd_weight * divergence(student, target) + ce_weight * cross-entropy),
as RS-KD Section 6.3, SE-KD Eq. 3 and 4, TAD Eq. 4 and SALT Eq. 4 all have it. `fused.py` gives the same loss without
the logits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from replication.divergences import Divergence
from replication.positions import Positions
from replication.target import AnyTarget, precise


def distillation_loss(
    student_logits_BLV: Tensor,
    labels_BL: Tensor,
    target: AnyTarget,
    divergence: Divergence,
    positions: Positions,
    kd_weight: float,
    ce_weight: float,
) -> Tensor:
    """The scalar loss of a batch, in nats per supervised token. `target` has its N = B * L positions in row order."""
    student_logits_NV = student_logits_BLV.flatten(0, 1)
    labels_N = labels_BL.flatten()
    weight_N = positions(FromLogits(student_logits_BLV.detach(), labels_BL, target)).flatten()

    loss_N = weight_N.new_zeros(())
    if kd_weight:
        loss_N = loss_N + kd_weight * divergence(student_logits_NV, replace(target, sequences=len(labels_BL)))
    if ce_weight:
        loss_N = loss_N + ce_weight * cross_entropy(precise(student_logits_NV), labels_N, reduction="none")
    return (weight_N * loss_N).mean()


@dataclass(frozen=True)
class FromLogits:
    """Signals of a batch whose logits are at hand (see `positions.Signals`)."""

    student_logits_BLV: Tensor
    labels_BL: Tensor
    target: AnyTarget

    def student_entropy(self) -> Tensor:
        # one sequence at a time, so that no second copy of the logits is held
        return torch.stack(
            [torch.special.entr(precise(row_LV).softmax(-1)).sum(-1) for row_LV in self.student_logits_BLV]
        )

    def confidence(self) -> Tensor:
        vocabulary = self.student_logits_BLV.shape[-1]
        return self.target.of(self.labels_BL.flatten(), vocabulary).view_as(self.labels_BL)
