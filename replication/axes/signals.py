"""Signals: what a policy of `positions.py` may know of a position, one number each.

`signal(student_logits_RV, target, labels_R)` gives signal_R, of any R positions; `loss.py` and `fused/loss.py` take all
that a policy wants in one pass. Logits are float32 or float64. `fused/loss.py` makes nothing that no wanted signal is
listed for: the logits are then on PyTorch's meta device, which has their shape and no numbers, and the target is None.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from replication.axes.targets.base import AnyTarget

Signal = Callable[[Tensor, Any, Tensor], Tensor]


def student_entropy(student_logits_RV: Tensor, target: None, labels_R: Tensor) -> Tensor:
    """H(student), nats (SE-KD Section 4). The log-sum-exp less the mean logit: no logarithm of every class."""
    probs_RV = student_logits_RV.softmax(-1)
    total_R = student_logits_RV.amax(-1) - probs_RV.amax(-1).log()  # the largest probability is exp(top - total)
    return total_R - probs_RV.mul_(student_logits_RV).nansum(-1)  # a class that a model rules out is 0 * -inf


def student_entropy_bfloat16(student_logits_RV: Tensor, target: None, labels_R: Tensor) -> Tensor:
    """The same by bfloat16 products in place of float32 ones, as far as no other signal needs those; not SE-KD's."""
    return student_entropy(student_logits_RV, target, labels_R)


def confidence(student_logits_RV: Tensor, target: AnyTarget, labels_R: Tensor) -> Tensor:
    """The target's weight on the ground truth (RS-KD Section 6.3)."""
    return target.of(labels_R, student_logits_RV.shape[1])


# the signals that look at the student's logits, and those that look at the target; one may be both
OF_STUDENT: tuple[Signal, ...] = (student_entropy, student_entropy_bfloat16)
OF_TARGET: tuple[Signal, ...] = (confidence,)
SIGNALS: dict[str, Signal] = {signal.__name__: signal for signal in (*OF_STUDENT, *OF_TARGET)}
# those for which `fused/loss.py` may make float32 logits by bfloat16 products, in less than half the time
IN_BFLOAT16: tuple[Signal, ...] = (student_entropy_bfloat16,)


@dataclass(frozen=True)
class Signals:
    """The wanted signals of B sequences of L positions: `signals["student_entropy"]` is [B, L]."""

    labels_BL: Tensor
    found: Mapping[str, Tensor]

    def __getitem__(self, name: str) -> Tensor:
        return self.found[name]

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


def served_by_bfloat16(names: Iterable[str]) -> bool:
    """Whether bfloat16 products will do for all of these signals."""
    return all(SIGNALS[name] in IN_BFLOAT16 for name in names if SIGNALS[name] in OF_STUDENT)


def known(field: str, name: str) -> None:
    if name not in SIGNALS:
        raise ValueError(f"{field} is {name!r}; give a signal: {', '.join(sorted(SIGNALS))}.")
