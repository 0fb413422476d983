"""A batch's loss from the states and output heads of student and teacher, in the ways that SE-KD's App. H compares.

`Flow` is what a user would write in plain PyTorch, as App. H describes it; students are trained by `fused/loss.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from replication.axes.divergences import ForwardKL
from replication.axes.positions import AllPositions, Positions, TopFraction
from replication.axes.signals import Signals
from replication.fused.head import Head, TeacherStates
from replication.fused.loss import fused_loss

AT_ONCE = 128  # positions of every sequence whose logits are made for their entropy; as in the authors' code


@dataclass(frozen=True)
class Given:
    """What the bodies leave of a batch."""

    states_BLD: Tensor
    head: Head
    labels_BL: Tensor
    teacher: TeacherStates


def given_of(states_BLD: Tensor, head: Head, labels_BL: Tensor, teacher_BLD: Tensor, teacher: Head) -> Given:
    hidden_ND = teacher_BLD.flatten(0, 1).to(teacher.weight_VD.dtype)
    fixed = Head(teacher.weight_VD.detach(), teacher.bias_V, teacher.scaling)
    return Given(states_BLD, head, labels_BL, TeacherStates(hidden_ND, fixed, sequences=len(labels_BL)))


Rows = Tensor | slice
Asked = Callable[[Rows], Tensor]  # positions -> the teacher's logits there


@dataclass(frozen=True)
class Flow:
    """Full distillation, or the `keep` share of each sequence's positions where the student's entropy is highest.

    `chunked`: the entropy is made of the states, a chunk of positions at a time, else of all logits at hand. `student`,
    `teacher`: its logits are made at the chosen positions only, else everywhere.
    """

    keep: float = 0.2
    chunked: bool = True
    student: bool = False
    teacher: bool = False

    def __call__(self, given: Given, asked: Asked | None = None) -> Tensor:
        """The loss; `asked` where the teacher's logits come from elsewhere."""
        states_ND = given.states_BLD.flatten(0, 1)
        logits_NV = None if self.chunked else given.head(states_ND)
        rows = self.chosen(given, logits_NV)
        teacher_MV = asked(rows) if asked else self.of_teacher(given, rows)
        if self.student:
            return kl(given.head(states_ND[rows]), teacher_MV)
        return kl((given.head(states_ND) if logits_NV is None else logits_NV)[rows], teacher_MV)

    @torch.no_grad()
    def chosen(self, given: Given, logits_NV: Tensor | None) -> Rows:
        """The positions in the loss; a slice where all logits are used as they are."""
        if not self.chunked and self.keep == 1:
            return slice(None)
        if logits_NV is None:
            parts = [entropy(given.head(part_BLD)) for part_BLD in given.states_BLD.split(AT_ONCE, 1)]
            entropy_BL = torch.cat(parts, 1)
        else:
            entropy_BL = entropy(logits_NV).view(given.labels_BL.shape)
        signals = Signals(given.labels_BL, {"student_entropy": entropy_BL})
        return TopFraction(self.keep)(signals, 0.0, None).flatten().nonzero()[:, 0]

    @torch.no_grad()
    def of_teacher(self, given: Given, rows: Rows) -> Tensor:
        """Its logits at these positions."""
        states_ND, head = given.teacher.hidden_ND, given.teacher.head
        return head(states_ND[rows]) if self.teacher else head(states_ND)[rows]


def entropy(logits: Tensor) -> Tensor:
    log_probs = F.log_softmax(logits.float(), -1)
    return -(log_probs.exp() * log_probs).sum(-1)


def kl(student_MV: Tensor, teacher_MV: Tensor) -> Tensor:
    return F.kl_div(F.log_softmax(student_MV.float(), -1), F.softmax(teacher_MV.float(), -1), reduction="batchmean")


# the rows of Table 16
FLOWS = {
    "full_default": Flow(1.0, chunked=False),
    "full_chunked": Flow(1.0),
    "full_teacher": Flow(1.0, teacher=True),
    "default": Flow(chunked=False),
    "chunked": Flow(),
    "teacher": Flow(teacher=True),
    "student": Flow(student=True),
    "both": Flow(student=True, teacher=True),
}
OURS: dict[str, Positions] = {
    "full_ours": AllPositions(),
    "ours": TopFraction(),
    "ours_bfloat16": TopFraction(signal="student_entropy_bfloat16"),
}


def loss(name: str, given: Given, asked: Asked | None = None) -> Tensor:
    """The loss by this name, in `FLOWS` or `OURS`; ours asks nobody for the teacher's logits."""
    if name in FLOWS:
        return FLOWS[name](given, asked)
    rest = given.labels_BL, given.teacher, ForwardKL(), OURS[name], 1.0, 0.0
    return fused_loss(given.states_BLD, given.head, *rest)
