"""What is kept of the teacher at a position: the class axis.

`target(teacher_logits_NV, labels_N, generator)` gives a `SparseTarget` or a `DenseTarget`. Axis letters: N positions,
V classes, K kept classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from replication.draws import Randomness, counted, draw, refuse_broken, softmax_by_rows


@dataclass(frozen=True)
class SparseTarget:
    """K classes and their weights at N positions; unused slots have weight 0 (and id 0).

    Weights need not sum to one: vanilla top-K keeps the teacher's probabilities, so their sum is the kept mass.
    """

    ids_NK: Tensor
    weights_NK: Tensor
    spread_N: Tensor | None = None  # mass spread equally over all V classes
    sequences: int = 1  # the N positions are this many equally long sequences

    def dense(self, vocabulary: int) -> Tensor:
        """The same target over all classes, [N, V]."""
        full_NV = self.weights_NK.new_zeros(len(self.ids_NK), vocabulary)
        full_NV.scatter_add_(1, self.ids_NK, self.weights_NK)
        return full_NV if self.spread_N is None else full_NV + self.spread_N[:, None] / vocabulary

    def of(self, labels_N: Tensor, vocabulary: int) -> Tensor:
        """The target's weight on one class per position, [N]."""
        weight_N = (self.weights_NK * (self.ids_NK == labels_N[:, None])).sum(1)
        return weight_N if self.spread_N is None else weight_N + self.spread_N / vocabulary


@dataclass(frozen=True)
class DenseTarget:
    """A probability for every class, [N, V] float32."""

    probs_NV: Tensor
    sequences: int = 1

    def dense(self, vocabulary: int) -> Tensor:
        assert self.probs_NV.shape[1] == vocabulary
        return self.probs_NV

    def of(self, labels_N: Tensor, vocabulary: int) -> Tensor:
        assert self.probs_NV.shape[1] == vocabulary
        return self.probs_NV.gather(1, labels_N[:, None])[:, 0]


AnyTarget = SparseTarget | DenseTarget


class Target:
    """A point on the class axis. Subclasses are frozen dataclasses; their fields are the method's hyper-parameters."""

    def __call__(self, teacher_logits_NV: Tensor, labels_N: Tensor, generator: Randomness) -> AnyTarget:
        raise NotImplementedError

    @property
    def stored(self) -> Target | None:
        """What a cache holds for this target; None where there is nothing sparse to store."""
        return self

    def complete(self, kept: SparseTarget, labels_N: Tensor) -> SparseTarget:
        """This target, from what the cache holds of it."""
        return kept


@dataclass(frozen=True)
class OneHot(Target):
    """The ground truth alone: with forward KL this is plain cross-entropy training ("CE")."""

    stored = None

    def __call__(self, teacher_logits_NV: Tensor, labels_N: Tensor, generator: Randomness) -> SparseTarget:
        return one_hot(labels_N)


def one_hot(labels_N: Tensor) -> SparseTarget:
    return SparseTarget(labels_N[:, None], torch.ones(len(labels_N), 1, device=labels_N.device))


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

    def __call__(self, teacher_logits_NV: Tensor, labels_N: Tensor, generator: Randomness) -> SparseTarget:
        return self.complete(self.stored.keep(teacher_logits_NV), labels_N)


@dataclass(frozen=True)
class RandomSampling(Target):
    """Draws with replacement from the proposal teacher ** exponent, weighted by teacher / proposal, normalised.

    RS-KD Section 4; `exponent` is its tau. At exponent 1 the weights are counts / draws: exactly unbiased. At any other
    exponent the ratios are normalised by their own sum, which is biased at finite `draws` (of order 1 / draws).
    """

    draws: int = 50
    exponent: float = 1.0

    def __post_init__(self) -> None:
        at_least_one("RandomSampling.draws", self.draws)
        if not 0 <= self.exponent < float("inf"):
            raise ValueError(
                f"RandomSampling.exponent is {self.exponent}; the proposal is teacher ** exponent: give a number >= 0."
            )

    def __call__(self, teacher_logits_NV: Tensor, labels_N: Tensor, generator: Randomness) -> SparseTarget:
        ids_NK, counts_NK = counted(draw(teacher_logits_NV, self.draws, generator, self.exponent))
        if self.exponent == 1:
            return SparseTarget(ids_NK, counts_NK / self.draws)
        # log teacher - log proposal, up to a number of the row that normalising takes out again
        log_ratio_NK = (1 - self.exponent) * teacher_logits_NV.gather(1, ids_NK).float()
        # the largest ratio is taken out before exp: uniform proposals give ratios over many orders of magnitude
        log_ratio_NK = log_ratio_NK.masked_fill(counts_NK == 0, -torch.inf)
        weights_NK = counts_NK * (log_ratio_NK - log_ratio_NK.amax(1, keepdim=True)).exp()
        # float64: how many unused slots there are, which is the batch's doing, must not move a rounding
        sum_N1 = weights_NK.sum(1, keepdim=True, dtype=torch.float64)
        return SparseTarget(ids_NK, (weights_NK / sum_N1).float())


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


def residual(kept: SparseTarget) -> Tensor:
    """The teacher's mass outside the kept classes, [N]."""
    return (1 - kept.weights_NK.sum(1)).clamp_min(0)


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


TARGETS = {cls.__name__: cls for cls in (OneHot, Full, TopK, TopP, SmoothedTopK, NaiveFix, RandomSampling)}
