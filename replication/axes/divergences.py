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
    the normalised tails. `target.sequences` says which positions share a mean.
    """

    k: int = 10
    beta: float = 2.0
    whole_sequence = True

    def __post_init__(self) -> None:
        at_least_one("TailAware.k", self.k)
        positive("TailAware.beta", self.beta)

    def __call__(self, student_logits_NV: Tensor, target: AnyTarget) -> Tensor:
        logits_NV = precise(student_logits_NV)
        head, tail_NV, share_N = self.head_and_tail(dense_only(self, target).to(logits_NV), target.sequences)
        mass_N = tail_NV.sum(1)
        log_student_NV = left_out(logits_NV, head).log_softmax(-1).scatter(1, head.ids_NK, 0.0)
        # mass * KL(normalised tails), without dividing by a mass that may be tiny
        tail_N = torch.special.xlogy(tail_NV, tail_NV).sum(1) - torch.special.xlogy(mass_N, mass_N)
        tail_N = tail_N - (tail_NV * log_student_NV).sum(1)
        return GhostToken()(logits_NV, head) + share_N * tail_N

    def head_and_tail(self, teacher_NV: Tensor, sequences: int) -> tuple[SparseTarget, Tensor, Tensor]:
        """The top k, the teacher without them [N, V], and beta over the mean tail mass of a position's sequence [N]."""
        if self.k >= teacher_NV.shape[1]:
            raise ValueError(
                f"TailAware.k is {self.k} of {teacher_NV.shape[1]} classes, so no tail is left; give fewer."
            )
        if len(teacher_NV) % sequences:
            raise ValueError(f"{len(teacher_NV)} positions are not {sequences} equally long sequences.")
        top = teacher_NV.topk(self.k, dim=-1)
        tail_NV = teacher_NV.scatter(1, top.indices, 0.0)
        mean_S = tail_NV.sum(1).view(sequences, -1).mean(1)
        share_N = (self.beta / mean_S).repeat_interleave(len(teacher_NV) // sequences)
        return SparseTarget(top.indices, top.values), tail_NV, share_N


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
