"""Where the axes meet: the loss of one batch, as the papers write it.

loss = mean over positions of weight * (kd_weight * divergence(student, target) + ce_weight * cross-entropy),
as RS-KD Section 6.3, SE-KD Eq. 3 and 4, TAD Eq. 4 and SALT Eq. 4 all have it; a term on hidden states is added to the
divergence (`hidden.py`). `fused/loss.py` gives the same loss without the logits.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from replication.axes.comparison import bound, told_of
from replication.axes.divergences import Divergence
from replication.axes.policy import Weighing
from replication.axes.positions import weights
from replication.axes.signals import SIGNALS, Signals
from replication.axes.targets.base import AnyTarget, precise
from replication.axes.targets.drawing import Randomness


def distillation_loss(
    student_logits_BLV: Tensor,
    labels_BL: Tensor,
    target: AnyTarget,
    divergence: Divergence,
    positions: Weighing,
    kd_weight: float,
    ce_weight: float,
    progress: float = 0.0,
    generator: Randomness | None = None,
    beside_N: Tensor | None = None,
    mask_BL: Tensor | None = None,
) -> Tensor:
    """The scalar loss of a batch, in nats per supervised token. `target` has its N = B * L positions in row order.

    `progress` and `generator` are the policy's (`positions.py`); `beside_N` is what `hidden.py` adds to the divergence,
    `mask_BL` what `objectives.py` trains.
    """
    student_logits_NV = student_logits_BLV.flatten(0, 1)
    labels_N = labels_BL.flatten()
    signals = signals_of(wanted_by(positions, divergence), student_logits_BLV.detach(), labels_BL, target)
    weight_N = weights(positions, signals, progress, generator, mask_BL).flatten()

    loss_N = weight_N.new_zeros(())
    if kd_weight:
        told = told_of(divergence, labels_N, signals.flat("confidence"), None if mask_BL is None else mask_BL.flatten())
        compare = bound(divergence, told)
        loss_N = loss_N + kd_weight * compare(student_logits_NV, replace(target, sequences=len(labels_BL)))
        if beside_N is not None:
            loss_N = loss_N + kd_weight * beside_N
    if ce_weight:
        loss_N = loss_N + ce_weight * cross_entropy(precise(student_logits_NV), labels_N, reduction="none")
    return (weight_N * loss_N).mean()


def wanted_by(positions: Weighing, divergence: Divergence) -> tuple[str, ...]:
    """The signals that either asks for, each once."""
    return tuple(dict.fromkeys((*positions.signals, *divergence.signals)))


def signals_of(wanted: tuple[str, ...], student_logits_BLV: Tensor, labels_BL: Tensor, target: AnyTarget) -> Signals:
    """One sequence at a time, so that no second copy of the logits is held."""
    length = labels_BL.shape[1]
    found: dict[str, list[Tensor]] = {name: [] for name in wanted}
    for place, (row_LV, labels_L) in enumerate(zip(student_logits_BLV, labels_BL, strict=True)):
        if wanted:
            seen = precise(row_LV), target.rows(slice(place * length, (place + 1) * length)), labels_L
        for name, parts in found.items():
            parts.append(SIGNALS[name](*seen))
    return Signals(labels_BL, {name: torch.stack(parts) for name, parts in found.items()})
