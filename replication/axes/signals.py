"""Signals: what a policy of `positions.py` may know of a position, one number each.

`signal(student_logits_RV, target, labels_R)` gives signal_R, of any R positions; `loss.py` and `fused/loss.py` take all
that a policy wants in one pass. Logits are float32 or float64. `fused/loss.py` makes nothing that no wanted signal is
listed for: the logits are then on PyTorch's meta device, which has their shape and no numbers, and the target is None.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from replication.axes.divergences import ForwardKL, ReverseKL
from replication.axes.targets.base import AnyTarget, DenseTarget

NEEDS_WHOLE = (
    "Signal {} looks at the teacher's probability of every class, and a sparse target has none for most of them. Use "
    "target Full, or a signal that does without: student_entropy, student_ce, kl, confidence."
)
Signal = Callable[[Tensor, Any, Tensor], Tensor]


def student_entropy(student_logits_RV: Tensor, target: None, labels_R: Tensor) -> Tensor:
    """H(student), nats (SE-KD Section 4)."""
    probs_RV = student_logits_RV.softmax(-1)
    return torch.special.entr(probs_RV, out=probs_RV).sum(-1)


def confidence(student_logits_RV: Tensor, target: AnyTarget, labels_R: Tensor) -> Tensor:
    """The target's weight on the ground truth (RS-KD Section 6.3)."""
    return target.of(labels_R, student_logits_RV.shape[1])


def student_ce(student_logits_RV: Tensor, target: None, labels_R: Tensor) -> Tensor:
    """The student's cross-entropy on the label, nats (SE-KD Table 1, after Wang et al. 2021)."""
    return cross_entropy(student_logits_RV, labels_R, reduction="none")


def teacher_entropy(student_logits_RV: Tensor, target: AnyTarget, labels_R: Tensor) -> Tensor:
    """H(teacher), nats (SE-KD Table 1)."""
    return torch.special.entr(whole("teacher_entropy", target).to(student_logits_RV.dtype)).sum(-1)


def teacher_ce(student_logits_RV: Tensor, target: AnyTarget, labels_R: Tensor) -> Tensor:
    """The teacher's cross-entropy on the label, nats (SE-KD Table 1, after Zhong et al. 2024)."""
    probs_RV = whole("teacher_ce", target)
    label_R = probs_RV.gather(1, labels_R[:, None])[:, 0].to(student_logits_RV.dtype)
    return -label_R.clamp_min(torch.finfo(torch.float32).tiny).log()


def kl(student_logits_RV: Tensor, target: AnyTarget, labels_R: Tensor) -> Tensor:
    """KL(target || student), nats; of a sparse target on its classes, as the loss has it (SE-KD Table 1, Eq. 3)."""
    return ForwardKL()(student_logits_RV, target)


def reverse_kl(student_logits_RV: Tensor, target: AnyTarget, labels_R: Tensor) -> Tensor:
    """KL(student || teacher), nats (SE-KD Table 1)."""
    return ReverseKL()(student_logits_RV, DenseTarget(whole("reverse_kl", target)))


def entropy_plus_kl(student_logits_RV: Tensor, target: AnyTarget, labels_R: Tensor) -> Tensor:
    """KL(teacher || student) + H(student), nats: the plain sum (SE-KD Table 1); `TopStandardised` has z-scores."""
    dense = DenseTarget(whole("entropy_plus_kl", target))
    return student_entropy(student_logits_RV, None, labels_R) + kl(student_logits_RV, dense, labels_R)


def ce_ratio(student_logits_RV: Tensor, target: AnyTarget, labels_R: Tensor) -> Tensor:
    """Student's over teacher's cross-entropy on the label (SE-KD Table 1, after He et al. 2025).

    Where the teacher is certain the ratio is over the least that tells a float32 probability from one.
    """
    whole("ce_ratio", target)
    of_teacher_R = teacher_ce(student_logits_RV, target, labels_R).clamp_min(torch.finfo(torch.float32).eps)
    return student_ce(student_logits_RV, None, labels_R) / of_teacher_R


def ce_ratio_plus_entropy(student_logits_RV: Tensor, target: AnyTarget, labels_R: Tensor) -> Tensor:
    """CE ratio + H(student): the plain sum, although only the second has a unit (SE-KD Table 1)."""
    whole("ce_ratio_plus_entropy", target)
    return ce_ratio(student_logits_RV, target, labels_R) + student_entropy(student_logits_RV, None, labels_R)


# the signals that look at the student's logits, and those that look at the target; one may be both
OF_BOTH: tuple[Signal, ...] = (kl, reverse_kl, entropy_plus_kl, ce_ratio, ce_ratio_plus_entropy)
OF_STUDENT: tuple[Signal, ...] = (student_entropy, student_ce, *OF_BOTH)
OF_TARGET: tuple[Signal, ...] = (confidence, teacher_entropy, teacher_ce, *OF_BOTH)
# those that need a probability of every class
OF_WHOLE: tuple[Signal, ...] = tuple(one for one in OF_TARGET if one not in (confidence, kl))
SIGNALS: dict[str, Signal] = {signal.__name__: signal for signal in (*OF_STUDENT, *OF_TARGET)}


@dataclass(frozen=True)
class Signals:
    """The wanted signals of B sequences of L positions: `signals["student_entropy"]` is [B, L]."""

    labels_BL: Tensor
    found: Mapping[str, Tensor]

    def __getitem__(self, name: str) -> Tensor:
        return self.found[name]

    def flat(self, name: str) -> Tensor | None:
        """Of all positions in row order, [N]; None where it was not wanted."""
        return self.found[name].flatten() if name in self.found else None

    def where(self, rows: slice, mask_RL: Tensor) -> Signals:
        """Of those positions of these rows that the mask has, as one sequence."""
        parts = {name: values_BL[rows][mask_RL][None] for name, values_BL in self.found.items()}
        return Signals(self.labels_BL[rows][mask_RL][None], parts)


def ask_student(names: Iterable[str]) -> bool:
    """Whether any of these signals looks at the student's logits."""
    return any(SIGNALS[name] in OF_STUDENT for name in names)


def ask_target(names: Iterable[str]) -> bool:
    """Whether any of these signals looks at the target."""
    return any(SIGNALS[name] in OF_TARGET for name in names)


def ask_whole(names: Iterable[str]) -> list[str]:
    """Those of these signals that need the teacher's probability of every class."""
    return [name for name in names if SIGNALS[name] in OF_WHOLE]


def whole(name: str, target: AnyTarget) -> Tensor:
    if not isinstance(target, DenseTarget):
        raise ValueError(NEEDS_WHOLE.format(name))
    return target.probs_NV


def known(field: str, name: str) -> None:
    if name not in SIGNALS:
        raise ValueError(f"{field} is {name!r}; give a signal: {', '.join(sorted(SIGNALS))}.")
