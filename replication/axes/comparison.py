"""What every divergence has, and those that take a distribution apart at the label: the base of `divergences.py`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from torch import Tensor

from replication.axes.targets.base import AnyTarget, SparseTarget

Compare = Callable[[Tensor, AnyTarget], Tensor]


class Comparison:
    """A point on the alignment axis."""

    whole_batch: ClassVar[bool] = False  # whether it depends on other sequences
    signals: ClassVar[tuple[str, ...]] = ()  # what it asks of all positions before the first is compared


@dataclass(frozen=True)
class Told:
    """Of N positions: the label, and how much each of the two parts of a divergence weighs there, [N, 2]."""

    labels_N: Tensor
    weights_N2: Tensor

    def rows(self, rows: slice | Tensor) -> Told:
        """The same of some positions."""
        return Told(self.labels_N[rows], self.weights_N2[rows])


class AtLabel(Comparison, ABC):
    """A divergence of two parts: the label against all other classes together, and those others among themselves.

    KL is the first plus the teacher's mass of the others times the second (Zhao et al. 2022, Eq. 6).
    """

    @abstractmethod
    def weights(self, confidence_N: Tensor | None, labels_N: Tensor, trained_N: Tensor | None) -> Tensor:
        """How much each part weighs at each position, [N, 2]: the label, the others.

        `confidence_N` is the signal of that name where it is asked for; positions that are not trained count nowhere.
        """

    @abstractmethod
    def compare(self, told: Told, student_logits_NV: Tensor, target: AnyTarget) -> Tensor:
        """One loss per position, [N]."""

    def __call__(self, student_logits_NV: Tensor, target: AnyTarget) -> Tensor:
        raise ValueError(
            f"{type(self).__name__} looks at the label of each position, and none is given: use it in a training, or "
            "ForwardKL."
        )


def told_of(
    divergence: Comparison, labels_N: Tensor, confidence_N: Tensor | None, trained_N: Tensor | None
) -> Told | None:
    """What a divergence of two parts is told of a batch; None for any other."""
    if not isinstance(divergence, AtLabel):
        return None
    return Told(labels_N, divergence.weights(confidence_N, labels_N, trained_N))


def bound(divergence: Compare, told: Told | None) -> Compare:
    """The divergence of student and target alone, of those positions that it has been told of."""
    if told is None or not isinstance(divergence, AtLabel):
        return divergence
    return partial(divergence.compare, told)


def dense_only(divergence: object, target: AnyTarget) -> Tensor:
    if isinstance(target, SparseTarget):
        raise ValueError(
            f"{type(divergence).__name__} compares all classes, and a sparse target has none for most of them. "
            "Use target Full, or a divergence that takes sparse targets: ForwardKL, GhostToken, L1, MSE."
        )
    return target.probs_NV
