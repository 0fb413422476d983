"""Where the axes meet: the loss of one batch.

loss = mean over positions of weight * (kd_weight * divergence(student, target) + ce_weight * cross-entropy),
as RS-KD Section 6.3, SE-KD Eq. 3 and 4, TAD Eq. 4 and SALT Eq. 4 all have it.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor
from torch.nn.functional import cross_entropy

from replication.divergences import Divergence, precise
from replication.positions import Positions
from replication.targets import AnyTarget


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
    sequences, length, vocabulary = student_logits_BLV.shape
    student_logits_NV = student_logits_BLV.reshape(-1, vocabulary)
    labels_N = labels_BL.reshape(-1)
    weight_N = positions(student_logits_BLV.detach(), target.of(labels_N, vocabulary).view(sequences, length)).reshape(
        -1
    )

    loss_N = weight_N.new_zeros(())
    if kd_weight:
        loss_N = loss_N + kd_weight * divergence(student_logits_NV, replace(target, sequences=sequences))
    if ce_weight:
        loss_N = loss_N + ce_weight * cross_entropy(precise(student_logits_NV), labels_N, reduction="none")
    return (weight_N * loss_N).mean()
