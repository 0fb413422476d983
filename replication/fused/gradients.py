"""Loss and gradient of a few positions, in place: logits come in, their gradients are left where they were.

Each divergence of the papers whose gradient has a closed form has a rule here; `by_autograd` serves the others. All are
`rule(logits_RV, target, labels_R, weights, scale_R) -> loss_R`: the loss in nats, unscaled; the gradient of
scale * loss. R positions, at least float32. `axes/divergences.py` is the definition, tests hold the two together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.special import xlogy

from replication.axes.comparison import Compare, Told, bound
from replication.axes.divergences import Divergence, ForwardKL, GhostToken, TailAware, beyond
from replication.axes.targets.base import AnyTarget, DenseTarget, SparseTarget

MASKED = -1e30  # finite, so that 0 * MASKED is 0; its exponential is 0


@dataclass(frozen=True)
class Weights:
    """Of the divergence and of the cross-entropy in the loss."""

    kd: float
    ce: float


# (logits_RV, target, labels_R, weights, scale_R); each rule takes the targets that `rule_for` gives it
Rule = Callable[[Tensor, Any, Tensor, Weights, Tensor], Tensor]


@dataclass(frozen=True)
class Tails:
    """What follows from whole sequences for `TailAware`, at N positions: the head's classes, the weight of the tail."""

    ids_NK: Tensor
    share_N: Tensor

    def rows(self, rows: slice | Tensor) -> Tails:
        return Tails(self.ids_NK[rows], self.share_N[rows])


def rule_for(divergence: Divergence, sparse: bool, told: Told | None = None, tails: Tails | None = None) -> Rule:
    """The rule of the positions of which `told` and `tails` speak, where the divergence wants to know any."""
    match divergence, sparse:
        case ForwardKL(), True:
            return sparse_kl_
        case ForwardKL(), False:
            return dense_kl_
        case GhostToken(), True:
            return ghost_token_
        case TailAware(), _ if tails is not None:
            return partial(tail_aware_, divergence, tails)
    return partial(by_autograd_, bound(divergence, told))


def sparse_kl_(logits_RV: Tensor, target: SparseTarget, labels_R: Tensor, weights: Weights, scale_R: Tensor) -> Tensor:
    """Forward KL to K classes: (sum of weights) * student - weights (RS-KD Eq. 4)."""
    kept_RK, ids_RK = target.weights_NK.to(logits_RV), target.ids_NK
    chosen_RK, truth_R = logits_RV.gather(1, ids_RK), logits_RV.gather(1, labels_R[:, None])[:, 0]
    mean_R = None if target.spread_N is None else logits_RV.mean(1)
    total_R = softmax_(logits_RV)
    loss_R = xlogy(kept_RK, kept_RK).sum(1) - (kept_RK * (chosen_RK - total_R[:, None])).sum(1)
    mass_R = kept_RK.sum(1)
    if target.spread_N is not None and mean_R is not None:
        spread_R, classes = target.spread_N.to(logits_RV), logits_RV.shape[1]
        loss_R += ForwardKL.of_spread(mean_R - total_R, kept_RK, spread_R, classes)
        mass_R = mass_R + spread_R
    loss_R = weights.kd * loss_R + weights.ce * (total_R - truth_R)
    logits_RV.mul_(((weights.kd * mass_R + weights.ce) * scale_R)[:, None])
    logits_RV.scatter_add_(1, ids_RK, -(weights.kd * kept_RK * scale_R[:, None]))
    if target.spread_N is not None:
        logits_RV.sub_((weights.kd * spread_R / classes * scale_R)[:, None])
    take_truth_(logits_RV, labels_R, weights, scale_R)
    return loss_R


def dense_kl_(logits_RV: Tensor, target: DenseTarget, labels_R: Tensor, weights: Weights, scale_R: Tensor) -> Tensor:
    """Forward KL to a whole distribution: student - teacher (RS-KD Eq. 1)."""
    probs_RV = target.probs_NV.to(logits_RV)
    truth_R, dot_R = logits_RV.gather(1, labels_R[:, None])[:, 0], torch.linalg.vecdot(probs_RV, logits_RV)
    total_R = softmax_(logits_RV)
    mass_R = probs_RV.sum(1)
    loss_R = weights.kd * (xlogy(probs_RV, probs_RV).sum(1) - dot_R + mass_R * total_R)
    logits_RV.mul_(((weights.kd * mass_R + weights.ce) * scale_R)[:, None])
    logits_RV.addcmul_(probs_RV, (-weights.kd * scale_R)[:, None])
    take_truth_(logits_RV, labels_R, weights, scale_R)
    return loss_R + weights.ce * (total_R - truth_R)


def ghost_token_(
    logits_RV: Tensor, target: SparseTarget, labels_R: Tensor, weights: Weights, scale_R: Tensor
) -> Tensor:
    """K classes and one for the rest (RS-KD App. A.5)."""
    GhostToken.check(target)
    return head_and_rest_(logits_RV, target, labels_R, weights, scale_R, torch.zeros_like(scale_R))[0]


def tail_aware_(
    divergence: TailAware,
    tails: Tails,
    logits_RV: Tensor,
    target: AnyTarget,
    labels_R: Tensor,
    weights: Weights,
    scale_R: Tensor,
) -> Tensor:
    """Ghost token on the head, and KL of the normalised tails, weighted by sequence (TAD Eq. 3 and 6)."""
    head, tail = divergence.split(target, tails.ids_NK, logits_RV.dtype)
    mass_R, pull_R = beyond(tail), weights.kd * tails.share_N.to(logits_RV)
    if isinstance(tail, DenseTarget):
        tail_RX, dot_R = tail.probs_NV, torch.linalg.vecdot(tail.probs_NV, logits_RV)
    else:
        tail_RX, dot_R = tail.weights_NK, (tail.weights_NK * logits_RV.gather(1, tail.ids_NK)).sum(1)
    loss_R, rest_R = head_and_rest_(logits_RV, head, labels_R, weights, scale_R, pull_R * mass_R)
    if isinstance(tail, DenseTarget):
        logits_RV.addcmul_(tail_RX, (-pull_R * scale_R)[:, None])
    else:
        logits_RV.scatter_add_(1, tail.ids_NK, tail_RX * (-pull_R * scale_R)[:, None])
    return loss_R + pull_R * (xlogy(tail_RX, tail_RX).sum(1) - xlogy(mass_R, mass_R) - dot_R + mass_R * rest_R)


def head_and_rest_(
    logits_RV: Tensor, head: SparseTarget, labels_R: Tensor, weights: Weights, scale_R: Tensor, pull_R: Tensor
) -> tuple[Tensor, Tensor]:
    """The ghost token's loss and its gradient, to which pull * (student normalised over the rest) is added.

    Also the log-sum-exp of the rest. It is normalised by itself: one minus the head would lose it where it is small.
    """
    kept_RK, used_RK = head.weights_NK.to(logits_RV), head.weights_NK > 0
    # an unused slot repeats the first kept class, so that it masks nothing else
    ids_RK = torch.where(used_RK, head.ids_NK, head.ids_NK[:, :1])
    chosen_RK, truth_R = logits_RV.gather(1, ids_RK), logits_RV.gather(1, labels_R[:, None])[:, 0]
    rest_R = softmax_(logits_RV.scatter_(1, ids_RK, MASKED))
    total_R = torch.logaddexp(rest_R, chosen_RK.masked_fill(~used_RK, -torch.inf).logsumexp(1))
    log_chosen_RK, log_rest_R = chosen_RK - total_R[:, None], rest_R - total_R
    ghost_R = (1 - kept_RK.sum(1)).clamp_min(0)
    # where every class is kept, what is missing to one is rounding, and no class is left to carry it
    ghost_R = ghost_R.masked_fill(used_RK.sum(1) >= logits_RV.shape[1], 0.0)
    loss_R = xlogy(kept_RK, kept_RK).sum(1) - (kept_RK * log_chosen_RK).sum(1)
    loss_R = weights.kd * (loss_R + xlogy(ghost_R, ghost_R) - ghost_R * log_rest_R) + weights.ce * (total_R - truth_R)
    mass_R = weights.kd * (kept_RK.sum(1) + ghost_R) + weights.ce
    logits_RV.mul_(((log_rest_R.exp() * mass_R - weights.kd * ghost_R + pull_R) * scale_R)[:, None])
    on_head_RK = (mass_R[:, None] * log_chosen_RK.exp() - weights.kd * kept_RK) * used_RK
    logits_RV.scatter_add_(1, ids_RK, on_head_RK * scale_R[:, None])
    take_truth_(logits_RV, labels_R, weights, scale_R)
    return loss_R, rest_R


def by_autograd_(
    divergence: Compare, logits_RV: Tensor, target: AnyTarget, labels_R: Tensor, weights: Weights, scale_R: Tensor
) -> Tensor:
    """Any divergence, by its definition."""
    with torch.enable_grad():
        leaf_RV = logits_RV.detach().requires_grad_(True)
        loss_R = weights.kd * divergence(leaf_RV, target)
        if weights.ce:
            loss_R = loss_R + weights.ce * cross_entropy(leaf_RV, labels_R, reduction="none")
        (gradient_RV,) = torch.autograd.grad((loss_R * scale_R).sum(), leaf_RV)
    logits_RV.copy_(gradient_RV)
    return loss_R.detach()


def softmax_(logits_RV: Tensor) -> Tensor:
    """Logits become probabilities; gives their log-sum-exp, [R]."""
    top_R = logits_RV.amax(1)
    torch.softmax(logits_RV, -1, out=logits_RV)
    return top_R - logits_RV.amax(1).log()  # the largest probability is exp(top - total), and at least 1 / V


def take_truth_(gradient_RV: Tensor, labels_R: Tensor, weights: Weights, scale_R: Tensor) -> None:
    if weights.ce:
        gradient_RV.scatter_add_(1, labels_R[:, None], (-weights.ce * scale_R)[:, None])
