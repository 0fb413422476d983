"""How the student is compared with the target: the alignment axis.

`divergence(student_logits_NV, target)` gives one loss per position, [N], never reduced. Float64 logits are computed in
float64, everything else in float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from replication.axes.comparison import Comparison, dense_only
from replication.axes.decoupled import AdaptiveTeaching, Decoupled
from replication.axes.targets.base import AnyTarget, DenseTarget, SparseTarget, at_least_one, positive, precise
from replication.axes.targets.blocks import Blocks


@dataclass(frozen=True)
class ForwardKL(Comparison):
    """KL(target || student), the target as it is (RS-KD Eq. 3).

    Its gradient in the logits is (sum of weights) * student - weights (Eq. 4).
    """

    def __call__(self, student_logits_NV: Tensor, target: AnyTarget) -> Tensor:
        logits_NV = precise(student_logits_NV)
        if isinstance(target, DenseTarget):
            probs_NV = target.probs_NV.to(logits_NV)
            return torch.special.xlogy(probs_NV, probs_NV).sum(1) - (probs_NV * logits_NV.log_softmax(-1)).sum(1)
        total_N1 = logits_NV.logsumexp(-1, keepdim=True)
        weights_NK = target.weights_NK.to(logits_NV)
        # log softmax only where the target has weight: nothing of size N x V beyond the log-sum-exp
        log_student_NK = logits_NV.gather(1, target.ids_NK) - total_N1
        loss_N = torch.special.xlogy(weights_NK, weights_NK).sum(1) - (weights_NK * log_student_NK).sum(1)
        if target.spread_N is None:
            return loss_N
        mean_N = logits_NV.mean(1) - total_N1[:, 0]
        return loss_N + self.of_spread(mean_N, weights_NK, target.spread_N.to(logits_NV), logits_NV.shape[1])

    @staticmethod
    def of_spread(mean_log_student_N: Tensor, weights_NK: Tensor, spread_N: Tensor, vocabulary: int) -> Tensor:
        """What a mass spread equally over all classes adds to the loss of the kept ones."""
        each_N1 = spread_N[:, None] / vocabulary
        kept_NK = weights_NK > 0
        both_NK = torch.where(kept_NK, weights_NK + each_N1, 0.0)
        kept_entropy_N = (torch.special.xlogy(both_NK, both_NK) - torch.special.xlogy(weights_NK, weights_NK)).sum(1)
        rest_entropy_N = (vocabulary - kept_NK.sum(1)) * torch.special.xlogy(each_N1, each_N1)[:, 0]
        return kept_entropy_N + rest_entropy_N - spread_N * mean_log_student_N


@dataclass(frozen=True)
class ReverseKL(Comparison):
    """KL(student || teacher) (RS-KD Section 7.4). Infinite for a target with zeros, so it takes dense targets only."""

    def __call__(self, student_logits_NV: Tensor, target: AnyTarget) -> Tensor:
        log_student_NV = precise(student_logits_NV).log_softmax(-1)
        # the smallest normal number: a float32 softmax that underflowed still has a finite logarithm
        log_teacher_NV = dense_only(self, target).to(log_student_NV).clamp_min(torch.finfo(torch.float32).tiny).log()
        return (log_student_NV.exp() * (log_student_NV - log_teacher_NV)).sum(1)


@dataclass(frozen=True)
class ForwardReverseKL(Comparison):
    """A mixture of forward and reverse KL (RS-KD Table 15, "F+R"; the shares are not stated there)."""

    forward_weight: float = 0.5

    def __call__(self, student_logits_NV: Tensor, target: AnyTarget) -> Tensor:
        reverse_N = ReverseKL()(student_logits_NV, DenseTarget(dense_only(self, target)))
        return self.forward_weight * ForwardKL()(student_logits_NV, target) + (1 - self.forward_weight) * reverse_N


@dataclass(frozen=True)
class L1(Comparison):
    """Sum over classes of |student - target| (RS-KD Table 15)."""

    def __call__(self, student_logits_NV: Tensor, target: AnyTarget) -> Tensor:
        student_NV = precise(student_logits_NV).softmax(-1)
        return (student_NV - target.dense(student_NV.shape[1])).abs().sum(1)


@dataclass(frozen=True)
class MSE(Comparison):
    """Sum over classes of (student - target)^2, on probabilities (RS-KD Table 15; the paper does not say on what)."""

    def __call__(self, student_logits_NV: Tensor, target: AnyTarget) -> Tensor:
        student_NV = precise(student_logits_NV).softmax(-1)
        return (student_NV - target.dense(student_NV.shape[1])).square().sum(1)


@dataclass(frozen=True)
class GhostToken(Comparison):
    """Forward KL on the kept classes plus one extra class that holds all other mass (RS-KD Section 3.2, App. A.5)."""

    @staticmethod
    def check(target: AnyTarget) -> SparseTarget:
        """Raises ValueError for a target that leaves nothing to the ghost."""
        if not isinstance(target, SparseTarget):
            raise ValueError(
                "GhostToken stands for the classes a target left out: give it a sparse target such as TopK."
            )
        if target.spread_N is not None:
            raise ValueError("GhostToken holds the residual that SmoothedTopK spreads: give it TopK, or use ForwardKL.")
        return target

    def __call__(self, student_logits_NV: Tensor, target: AnyTarget) -> Tensor:
        target = self.check(target)
        logits_NV = precise(student_logits_NV)
        log_rest_N = left_out(logits_NV, target).logsumexp(-1) - logits_NV.logsumexp(-1)
        ghost_N = (1 - target.weights_NK.to(logits_NV).sum(1)).clamp_min(0)
        # where every class is kept, what is missing to one is rounding, and no class is left to carry it
        ghost_N = ghost_N.masked_fill((target.weights_NK > 0).sum(1) >= logits_NV.shape[1], 0.0)
        return ForwardKL()(logits_NV, target) + torch.special.xlogy(ghost_N, ghost_N) - ghost_N * log_rest_N


@dataclass(frozen=True)
class TailAware(Comparison):
    """Top-K head and tail decoupled; the tail weighted by beta over its mean mass in the sequence (TAD Eq. 3).

    The loss of one position is KL of (head classes, tail as one class) plus beta / mean(tail mass) * tail mass * KL of
    the normalised tails. `target.sequences` says which positions share a mean. A target that keeps its head exactly and
    draws its tail without bias (`HeadAndCountedTail`) gives that gradient on average: it is linear in the tail, and the
    mass is the head's. K may be all classes but one at most; then, and where nothing is left of a tail, this is KL.
    """

    k: int = 10
    beta: float = 2.0
    by_mass: bool = True  # False: the tail's weight is beta itself, which the paper says does not converge (Section 2)

    def __post_init__(self) -> None:
        at_least_one("TailAware.k", self.k)
        positive("TailAware.beta", self.beta)

    def __call__(self, student_logits_NV: Tensor, target: AnyTarget) -> Tensor:
        logits_NV = precise(student_logits_NV)
        head, tail = self.split(target, self.largest(target, logits_NV.shape[1]), logits_NV.dtype)
        mass_N = beyond(tail)
        rest_NV = left_out(logits_NV, head).log_softmax(-1).scatter(1, head.ids_NK, 0.0)
        if isinstance(tail, DenseTarget):
            tail_NX, log_student_NX = tail.probs_NV, rest_NV
        else:
            tail_NX, log_student_NX = tail.weights_NK, rest_NV.gather(1, tail.ids_NK)
        # mass * KL(normalised tails), without dividing by a mass that may be tiny
        tail_N = torch.special.xlogy(tail_NX, tail_NX).sum(1) - torch.special.xlogy(mass_N, mass_N)
        tail_N = tail_N - (tail_NX * log_student_NX).sum(1)
        return GhostToken()(logits_NV, head) + self.shares(mass_N, target.sequences) * tail_N

    def largest(self, target: AnyTarget, vocabulary: int) -> Tensor:
        """The head's classes, [N, k]. Raises ValueError where there are none, or no tail."""
        if self.k >= vocabulary:
            raise ValueError(f"TailAware.k is {self.k} of {vocabulary} classes, so no tail is left; give fewer.")
        if isinstance(target, DenseTarget):
            return Blocks.of(target.probs_NV, self.k).largest(self.k)  # in a quarter of `topk`'s time
        if target.head < self.k:
            raise ValueError(
                f"TailAware.k is {self.k}, and this target keeps {target.head} of the teacher's largest classes as "
                "they are. Use target Full, or HeadAndCountedTail with a k as large at least."
            )
        return target.ids_NK[:, : self.k]

    def split(self, target: AnyTarget, ids_NK: Tensor, dtype: torch.dtype) -> tuple[SparseTarget, AnyTarget]:
        """The head, these classes, and the tail, what the target has beyond them."""
        if isinstance(target, DenseTarget):
            probs_NV = target.probs_NV.to(dtype)
            return SparseTarget(ids_NK, probs_NV.gather(1, ids_NK)), DenseTarget(probs_NV.scatter(1, ids_NK, 0.0))
        weights_NK = target.weights_NK.to(dtype)
        tail = SparseTarget(target.ids_NK[:, self.k :], weights_NK[:, self.k :])
        return SparseTarget(ids_NK, weights_NK[:, : self.k]), tail

    def shares(self, mass_N: Tensor, sequences: int) -> Tensor:
        """The tail's weight, [N]: beta over the mean tail mass of the sequence, 0 in one without any tail."""
        if len(mass_N) % sequences:
            raise ValueError(f"{len(mass_N)} positions are not {sequences} equally long sequences.")
        if not self.by_mass:
            return torch.full_like(mass_N, self.beta)
        mean_S = mass_N.view(sequences, -1).mean(1)
        share_S = torch.where(mean_S > 0, self.beta / mean_S, 0.0)
        return share_S.repeat_interleave(len(mass_N) // sequences)


def beyond(tail: AnyTarget) -> Tensor:
    """The tail's mass, [N]: summed over its own classes, since one minus the head would lose a small one."""
    return (tail.probs_NV if isinstance(tail, DenseTarget) else tail.weights_NK).sum(1)


@dataclass(frozen=True)
class Tempered(Comparison):
    """T^2 KL(teacher at T || student at T): logits over T, in both softmaxes (Hinton et al. 2015; SE-KD App. C).

    T^2 keeps gradients as large as at T = 1. SE-KD does not print it; Hinton et al., whom it cites, do.
    """

    temperature: float = 2.0

    def __post_init__(self) -> None:
        positive("Tempered.temperature", self.temperature)

    def __call__(self, student_logits_NV: Tensor, target: AnyTarget) -> Tensor:
        logits_NV = precise(student_logits_NV)
        # a softmax at T is that at 1 raised to 1 / T and normalised
        powers_NV = dense_only(self, target).to(logits_NV) ** (1 / self.temperature)
        teacher = DenseTarget(powers_NV / powers_NV.sum(1, keepdim=True))
        return self.temperature**2 * ForwardKL()(logits_NV / self.temperature, teacher)


def left_out(logits_NV: Tensor, target: SparseTarget) -> Tensor:
    """The logits with the kept classes at -inf, [N, V]."""
    kept_NK = target.weights_NK > 0
    # an unused slot repeats the first kept class, so that it masks nothing else
    ids_NK = torch.where(kept_NK, target.ids_NK, target.ids_NK[:, :1])
    # a row of nothing but -inf has no gradient; where every class is kept, the caller has no use for the row
    all_kept_N1 = kept_NK.sum(1, keepdim=True) >= logits_NV.shape[1]
    return torch.where(all_kept_N1, logits_NV, logits_NV.scatter(1, ids_NK, -torch.inf))


Divergence = (
    ForwardKL | ReverseKL | ForwardReverseKL | L1 | MSE | GhostToken | TailAware
    | Tempered | Decoupled | AdaptiveTeaching
)  # fmt: skip
DIVERGENCES = {
    cls.__name__: cls
    for cls in (
        ForwardKL, ReverseKL, ForwardReverseKL, L1, MSE, GhostToken, TailAware,
        Tempered, Decoupled, AdaptiveTeaching,
    )
}  # fmt: skip
