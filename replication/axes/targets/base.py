"""A target: what is kept of the teacher at a position, whole or in a few classes; and what makes one.

Axis letters: N positions, V classes, K kept classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from replication.axes.targets.drawing import Randomness, refuse_broken, softmax_by_rows
from replication.axes.targets.storage import Storage


@dataclass(frozen=True)
class SparseTarget:
    """K classes and their weights at N positions; unused slots have weight 0 (and id 0).

    Weights need not sum to one: vanilla top-K keeps the teacher's probabilities, so their sum is the kept mass.
    """

    ids_NK: Tensor
    weights_NK: Tensor
    spread_N: Tensor | None = None  # mass spread equally over all V classes
    sequences: int = 1  # the N positions are this many equally long sequences
    head: int = 0  # the first so many slots are the teacher's largest classes, as they are and falling

    def dense(self, vocabulary: int) -> Tensor:
        """The same target over all classes, [N, V]."""
        full_NV = self.weights_NK.new_zeros(len(self.ids_NK), vocabulary)
        full_NV.scatter_add_(1, self.ids_NK, self.weights_NK)
        return full_NV if self.spread_N is None else full_NV + self.spread_N[:, None] / vocabulary

    def rows(self, rows: slice | Tensor) -> SparseTarget:
        """The same of some positions."""
        spread_M = None if self.spread_N is None else self.spread_N[rows]
        return SparseTarget(self.ids_NK[rows], self.weights_NK[rows], spread_M, head=self.head)

    def of(self, labels_N: Tensor, vocabulary: int) -> Tensor:
        """The target's weight on one class per position, [N]."""
        weight_N = (self.weights_NK * (self.ids_NK == labels_N[:, None])).sum(1)
        return weight_N if self.spread_N is None else weight_N + self.spread_N / vocabulary


@dataclass(frozen=True)
class DenseTarget:
    """A probability for every class, [N, V]; at least float32."""

    probs_NV: Tensor
    sequences: int = 1

    def dense(self, vocabulary: int) -> Tensor:
        assert self.probs_NV.shape[1] == vocabulary
        return self.probs_NV

    def rows(self, rows: slice | Tensor) -> DenseTarget:
        """The same of some positions."""
        return DenseTarget(self.probs_NV[rows])

    def of(self, labels_N: Tensor, vocabulary: int) -> Tensor:
        assert self.probs_NV.shape[1] == vocabulary
        return self.probs_NV.gather(1, labels_N[:, None])[:, 0]


AnyTarget = SparseTarget | DenseTarget


@dataclass(frozen=True)
class Classes:
    """How many classes of a position are kept, on average, and how that is known."""

    mean: float
    known: str  # "exactly", "by law", "at most"


class Target(ABC):
    """A point on the class axis. Subclasses are frozen dataclasses; their fields are the method's hyper-parameters.

    Only `__call__` must be written. What else is known of a method stands beside it: how a cache holds it, how many
    classes it keeps, how far it is off. Nothing outside the class has to be told of a new one.
    """

    @abstractmethod
    def __call__(self, teacher_logits_NV: Tensor, labels_N: Tensor, generator: Randomness) -> AnyTarget: ...

    # how a cache holds it

    @property
    def stored(self) -> Target | None:
        """What a cache holds for this target; None where there is nothing sparse to store."""
        return self

    def storage(self, vocabulary: int) -> Storage | None:
        """The codec that gives its rows back; None where no codec stores its weights, so that it runs online.

        Raises ValueError, which says why and what to do, where a cache makes no sense at all.
        """
        return None

    def lengths(self, kept: SparseTarget) -> Tensor:
        """How many of a position's slots a cache stores, [N] int64."""
        return (kept.weights_NK > 0).sum(1)

    def complete(self, kept: SparseTarget, labels_N: Tensor) -> SparseTarget:
        """This target, from what the cache holds of it."""
        return kept

    # how many classes it keeps, and how far it is off

    def budget(self, vocabulary: int) -> Classes:
        """The classes that its store keeps of a position, before any probability is known."""
        return Classes(vocabulary, "at most")

    def kept(self, probs_NV: Tensor) -> Tensor | None:
        """How many different classes are kept, [N], the mean over draws; None where no closed form is known."""
        return None

    def squared_error(self, probs_NV: Tensor) -> Tensor | None:
        """The mean over draws of the sum over classes of (weight - probability)^2, [N]; None without a closed form."""
        return None

    def gradient_error(self, probs_NV: Tensor) -> Tensor | None:
        """Mean squared error of the gradient in the logits at a student that equals the teacher, [N].

        That of the target where its weights sum to one (docs/theory.md, 4): a method of other sums, whose squared error
        has a closed form, gives this one as well.
        """
        return self.squared_error(probs_NV)


def one_hot(labels_N: Tensor) -> SparseTarget:
    return SparseTarget(labels_N[:, None], torch.ones(len(labels_N), 1, device=labels_N.device))


def largest(logits_NV: Tensor, k: int, exponent: float = 1.0) -> tuple[Tensor, Tensor]:
    """The k largest classes of softmax(exponent * logits) and their probabilities, [N, k] each, without its [N, V].

    Raises ValueError where a row has no distribution.
    """
    ids_NK = logits_NV.topk(k, dim=-1).indices
    return ids_NK, torch.cat(
        [
            (probs_RV.gather(1, ids_NK[rows]) / probs_RV.sum(1, keepdim=True)).float()
            for rows, probs_RV in softmax_by_rows(logits_NV, exponent)
        ]
    )


def precise(logits_NV: Tensor) -> Tensor:
    """In float32, or in float64 where they are that already: a bf16 softmax loses its tail."""
    return logits_NV if logits_NV.dtype == torch.float64 else logits_NV.float()


def log_probs(logits_NV: Tensor, exponent: float = 1.0) -> Tensor:
    """log softmax of exponent * logits in float32 (a bf16 softmax loses its tail).

    Raises ValueError where a row has no distribution: NaN, +inf, or no finite logit.
    """
    logits_NV = logits_NV.float() * exponent if exponent != 1 else logits_NV.float()
    total_N1 = logits_NV.logsumexp(-1, keepdim=True)
    refuse_broken(total_N1[:, 0])
    return logits_NV - total_N1


def at_least_one(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} is {value!r}; give a whole number of at least 1.")


def positive(name: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} is {value!r}; give a positive finite number.")


def classes(name: str, wanted: int, logits_NV: Tensor) -> int:
    if wanted > logits_NV.shape[-1]:
        raise ValueError(f"{name} is {wanted}, but the teacher has {logits_NV.shape[-1]} classes; give at most that.")
    return wanted
