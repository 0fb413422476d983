"""What is kept of the teacher at a position: the class axis.

`target(teacher_logits_NV, labels_N, generator)` gives a `SparseTarget` or a `DenseTarget` (`base.py`). The sampled
ones stand in `sampled.py` and `water_filling.py`. Axis letters: N positions, V classes, K kept classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from replication.axes.targets.base import (
    Classes,
    DenseTarget,
    SparseTarget,
    Target,
    at_least_one,
    classes,
    largest,
    log_probs,
    one_hot,
    positive,
)
from replication.axes.targets.drawing import Randomness
from replication.axes.targets.sampled import (
    DRAWS,
)
from replication.axes.targets.storage import Storage, ratios
from replication.axes.targets.water_filling import FILLINGS

COMPLETED = "{} is completed from a TopK cache while training; cache TopK with the same k."


@dataclass(frozen=True)
class OneHot(Target):
    """The ground truth alone: with forward KL this is plain cross-entropy training ("CE")."""

    stored = None

    def __call__(self, teacher_logits_NV: Tensor, labels_N: Tensor, generator: Randomness) -> SparseTarget:
        return one_hot(labels_N)

    def storage(self, vocabulary: int) -> Storage | None:
        raise ValueError("OneHot has nothing to cache: its labels are the text's; run it online (delivery = 'online').")

    def budget(self, vocabulary: int) -> Classes:
        return Classes(1, "exactly")

    def kept(self, probs_NV: Tensor) -> Tensor:
        return torch.ones_like(probs_NV[:, 0])


@dataclass(frozen=True)
class Full(Target):
    """The whole teacher distribution (RS-KD Eq. 1), raised to `exponent` and normalised.

    `exponent` is SALT's rho (Eq. 3), an inverse temperature.
    """

    exponent: float = 1.0
    stored = None

    def __post_init__(self) -> None:
        positive("Full.exponent", self.exponent)

    def __call__(self, teacher_logits_NV: Tensor, labels_N: Tensor, generator: Randomness) -> DenseTarget:
        return DenseTarget(log_probs(teacher_logits_NV, self.exponent).exp())

    def storage(self, vocabulary: int) -> Storage | None:
        raise ValueError(
            "Full keeps every class, which no sparse cache holds: run it online (delivery = 'online'), or cache a "
            "draw, RandomSampling or AdaptiveWaterFilling."
        )

    def budget(self, vocabulary: int) -> Classes:
        return Classes(vocabulary, "exactly")

    def kept(self, probs_NV: Tensor) -> Tensor:
        return (probs_NV > 0).sum(1).to(probs_NV.dtype)

    def squared_error(self, probs_NV: Tensor) -> Tensor | None:
        return torch.zeros_like(probs_NV[:, 0]) if self.exponent == 1 else None


@dataclass(frozen=True)
class TopK(Target):
    """The k largest probabilities, not renormalised (RS-KD Section 2, Eq. 2): biased, and it hides the tail."""

    k: int

    def __post_init__(self) -> None:
        at_least_one("TopK.k", self.k)

    def __call__(self, teacher_logits_NV: Tensor, labels_N: Tensor, generator: Randomness) -> SparseTarget:
        return self.keep(teacher_logits_NV)

    def keep(self, teacher_logits_NV: Tensor) -> SparseTarget:
        return SparseTarget(*largest(teacher_logits_NV, classes("TopK.k", self.k, teacher_logits_NV)))

    def storage(self, vocabulary: int) -> Storage | None:
        return ratios(self.k, length=self.k)

    def lengths(self, kept: SparseTarget) -> Tensor:
        """All k, although the k-th probability of a sharp teacher may underflow to 0."""
        return torch.full_like(kept.ids_NK[:, 0], self.k)

    def budget(self, vocabulary: int) -> Classes:
        return Classes(min(self.k, vocabulary), "exactly")

    def kept(self, probs_NV: Tensor) -> Tensor:
        """All k, those of weight 0 included."""
        return torch.full_like(probs_NV[:, 0], self.k)

    def squared_error(self, probs_NV: Tensor) -> Tensor:
        """The squares of what is left out, the weights being the teacher's own: a bias, the same every time."""
        return probs_NV.square().sum(1) - probs_NV.topk(self.k, dim=1).values.square().sum(1)

    def gradient_error(self, probs_NV: Tensor) -> Tensor:
        """Of weights that sum to the kept mass only (docs/theory.md, 4)."""
        head_NK = probs_NV.topk(self.k, dim=1).values
        mass_N = head_NK.sum(1)
        return (1 - mass_N).square() * head_NK.square().sum(1) + mass_N.square() * self.squared_error(probs_NV)


@dataclass(frozen=True)
class TopP(Target):
    """The fewest largest probabilities that reach mass p, at most `cap` of them (RS-KD Section 2, Table 1 row *50).

    `exponent` below one is the temperature before the softmax of Peng et al., as RS-KD Section 6.4 recreates it.
    """

    p: float
    cap: int
    exponent: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.p <= 1:
            raise ValueError(f"TopP.p is {self.p}; it is a probability mass: give a number in (0, 1].")
        at_least_one("TopP.cap", self.cap)
        positive("TopP.exponent", self.exponent)

    def __call__(self, teacher_logits_NV: Tensor, labels_N: Tensor, generator: Randomness) -> SparseTarget:
        cap = classes("TopP.cap", self.cap, teacher_logits_NV)
        ids_NK, weights_NK = largest(teacher_logits_NV, cap, self.exponent)
        # a class stays while the mass before it has not yet reached p
        wanted_NK = weights_NK.double().cumsum(1) - weights_NK.double() < self.p
        return SparseTarget(ids_NK * wanted_NK, weights_NK * wanted_NK)

    def storage(self, vocabulary: int) -> Storage | None:
        return ratios(self.cap)

    def budget(self, vocabulary: int) -> Classes:
        return Classes(min(self.cap, vocabulary), "at most")


@dataclass(frozen=True)
class SmoothedTopK(Target):
    """Top-K with the residual mass spread equally over all classes (RS-KD Section 3.1)."""

    k: int

    def __post_init__(self) -> None:
        at_least_one("SmoothedTopK.k", self.k)

    @property
    def stored(self) -> TopK:
        return TopK(self.k)

    def complete(self, kept: SparseTarget, labels_N: Tensor) -> SparseTarget:
        return replace(kept, spread_N=residual(kept))

    def storage(self, vocabulary: int) -> Storage | None:
        raise ValueError(COMPLETED.format("SmoothedTopK"))

    def budget(self, vocabulary: int) -> Classes:
        return self.stored.budget(vocabulary)

    def __call__(self, teacher_logits_NV: Tensor, labels_N: Tensor, generator: Randomness) -> SparseTarget:
        return self.complete(self.stored.keep(teacher_logits_NV), labels_N)


@dataclass(frozen=True)
class NaiveFix(Target):
    """Top-K with the residual mass given to the ground truth (RS-KD Section 3.3)."""

    k: int

    def __post_init__(self) -> None:
        at_least_one("NaiveFix.k", self.k)

    @property
    def stored(self) -> TopK:
        return TopK(self.k)

    def complete(self, kept: SparseTarget, labels_N: Tensor) -> SparseTarget:
        rest_N1 = residual(kept)[:, None]
        among_NK = (kept.ids_NK == labels_N[:, None]) & (kept.weights_NK > 0)
        outside_N1 = ~among_NK.any(1, keepdim=True)  # the ground truth needs a slot of its own
        return replace(
            kept,
            ids_NK=torch.cat([kept.ids_NK, labels_N[:, None] * outside_N1], 1),
            weights_NK=torch.cat([kept.weights_NK + rest_N1 * among_NK, rest_N1 * outside_N1], 1),
        )

    def storage(self, vocabulary: int) -> Storage | None:
        raise ValueError(COMPLETED.format("NaiveFix"))

    def budget(self, vocabulary: int) -> Classes:
        return self.stored.budget(vocabulary)

    def __call__(self, teacher_logits_NV: Tensor, labels_N: Tensor, generator: Randomness) -> SparseTarget:
        return self.complete(self.stored.keep(teacher_logits_NV), labels_N)


def residual(kept: SparseTarget) -> Tensor:
    """The teacher's mass outside the kept classes, [N]."""
    return (1 - kept.weights_NK.sum(1)).clamp_min(0)


SAMPLED: tuple[type[Target], ...] = (*DRAWS, *FILLINGS)
WHOLE: tuple[type[Target], ...] = (OneHot, Full, TopK, TopP, SmoothedTopK, NaiveFix)
TARGETS = {cls.__name__: cls for cls in (*WHOLE, *SAMPLED)}
