"""MiniLLM's loss: the policy gradient of the reverse KL, with the tricks of its published code (LMOps/minillm, 2024).

Axis letters: B rows, L positions, V classes. A position's reward is that of the token which follows it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from replication.axes.divergences import ForwardKL, ReverseKL
from replication.axes.targets.base import AnyTarget, precise
from replication.axes.writing import MiniLLM


@dataclass(frozen=True)
class Rollout:
    """What is known of rows since they were written, float32 [B, L]; `wrote_BL` says which labels a model wrote,
    `room_BL` which it could have: those behind the prompt, though the text ended before."""

    log_student_BL: Tensor  # of the label, by the student that wrote
    weight_BL: Tensor
    reward_BL: Tensor
    wrote_BL: Tensor
    room_BL: Tensor


def label_logs(logits_BLV: Tensor, labels_BL: Tensor) -> Tensor:
    """The log probability of each label, [B, L]."""
    return -cross_entropy(precise(logits_BLV).flatten(0, 1), labels_BL.flatten(), reduction="none").view_as(labels_BL)


def rollout(
    log_student_BL: Tensor, log_teacher_BL: Tensor, wrote_BL: Tensor, room_BL: Tensor, settings: MiniLLM
) -> Rollout:
    """The reward is log teacher - log student of the token alone, scaled and clipped; the weight is the student's
    probability over that of the mixture that wrote, of the token alone, too."""
    reward_BL = ((log_teacher_BL - log_student_BL) / settings.scaling).clip(-settings.reward_clip, settings.reward_clip)
    student_BL, teacher_BL = log_student_BL.exp(), log_teacher_BL.exp()
    mixed_BL = (1 - settings.teacher) * student_BL + settings.teacher * teacher_BL
    return Rollout(
        log_student_BL,
        torch.where(wrote_BL, (log_student_BL - mixed_BL.log()).exp(), 0.0),
        torch.where(wrote_BL, reward_BL, 0.0),
        wrote_BL,
        room_BL,
    )


def advantages(reward_BL: Tensor, wrote_BL: Tensor, room_BL: Tensor, discount: float) -> Tensor:
    """The discounted rewards of the tokens to come over the number of these, whitened over the batch, [B, L].

    Mean and variance are those of all places that were there to be written on, as in the code, whose places behind a
    text's end have none of either.
    """
    left_BL = wrote_BL.flip(1).cumsum(1).flip(1)
    found, behind_B = [], torch.zeros_like(reward_BL[:, 0])
    for reward_B in reward_BL.unbind(1)[::-1]:
        behind_B = reward_B + discount * behind_B
        found.append(behind_B)
    mean_BL = torch.stack(found[::-1], 1) / left_BL.clamp_min(1)
    of_room = mean_BL[room_BL]
    return (mean_BL - of_room.mean()) * (of_room.var(unbiased=False) + 1e-8).rsqrt()


def surrogate(log_new_BL: Tensor, rollout: Rollout, advantage_BL: Tensor, clip: float) -> Tensor:
    """PPO's clipped objective, the mean over the tokens that were written; the clip acts on weight times ratio."""
    ratio_BL = ((log_new_BL - rollout.log_student_BL) * rollout.wrote_BL).exp() * rollout.weight_BL
    worse_BL = torch.maximum(-advantage_BL * ratio_BL, -advantage_BL * ratio_BL.clip(1 - clip, 1 + clip))
    return worse_BL[rollout.wrote_BL].mean()


def minillm_loss(
    logits_BLV: Tensor, labels_BL: Tensor, target: AnyTarget, rollout: Rollout, settings: MiniLLM
) -> Tensor:
    """Of a batch whose first half of rows was written and whose second half is text: the surrogate, the reverse KL of
    each written position over all classes, and half cross-entropy, half forward KL on the text.

    The code has the teacher's cross-entropy in place of the forward KL: less its entropy, which the student does not
    change. Holds the logits, [N, V].
    """
    written = len(rollout.wrote_BL)
    half = written * labels_BL.shape[1]
    advantage_BL = advantages(rollout.reward_BL, rollout.wrote_BL, rollout.room_BL, settings.discount)
    log_new_BL = label_logs(logits_BLV[:written], labels_BL[:written])
    wrote_N = rollout.wrote_BL.flatten().nonzero()[:, 0]
    logits_NV = logits_BLV.flatten(0, 1)
    single_step = ReverseKL()(logits_NV[wrote_N], target.rows(wrote_N)).mean()
    taught = ForwardKL()(logits_NV[half:], target.rows(slice(half, None))).mean()
    read = -label_logs(logits_BLV[written:], labels_BL[written:]).mean()
    return (
        surrogate(log_new_BL, rollout, advantage_BL, settings.clip)
        + single_step
        + settings.text * (0.5 * read + 0.5 * taught)
    )
