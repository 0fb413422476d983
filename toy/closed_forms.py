"""Closed forms: each divergence's gradient in the logits, and where it is zero.

Student probabilities p [M, 1, V] and targets w [1, O, V] give gradients [M, O, V]. Eq. 4, A.5 and Eq. 6 are the
papers'; those of the other divergences are ours, from RS-KD A.1 (dp_i / dx_j = p_i (1{i = j} - p_j)).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from replication.axes.divergences import L1, MSE, ForwardKL, ForwardReverseKL, GhostToken, ReverseKL, TailAware


def forward_kl(p: Tensor, w: Tensor, divergence: ForwardKL) -> Tensor:
    """RS-KD Eq. 4: Eq. 1 where the weights sum to one, Eq. 2 and 5 for top-K."""
    return w.sum(-1, keepdim=True) * p - w


def ghost_token(p: Tensor, w: Tensor, divergence: GhostToken) -> Tensor:
    """RS-KD A.5, the last pair of cases."""
    kept = w > 0
    head, student_head = w.sum(-1, keepdim=True), (p * kept).sum(-1, keepdim=True)
    return torch.where(kept, p - w, (head - student_head) / (1 - student_head) * p)


def tail_aware(p: Tensor, w: Tensor, divergence: TailAware) -> Tensor:
    """TAD Eq. 5 in the head, Eq. 6 in the tail."""
    tail = torch.ones_like(w).scatter(-1, w.topk(divergence.k).indices, 0.0)
    mass, student_mass = (w * tail).sum(-1, keepdim=True), (p * tail).sum(-1, keepdim=True)
    return p - w + tail * (divergence.beta / mass - 1) * (p * mass / student_mass - w)


def reverse_kl(p: Tensor, w: Tensor, divergence: Any) -> Tensor:
    return through_softmax(p, (p / w).log())


def forward_reverse_kl(p: Tensor, w: Tensor, divergence: ForwardReverseKL) -> Tensor:
    share = divergence.forward_weight
    return share * (w.sum(-1, keepdim=True) * p - w) + (1 - share) * reverse_kl(p, w, divergence)


def l1(p: Tensor, w: Tensor, divergence: L1) -> Tensor:
    return through_softmax(p, (p - w).sign())


def mse(p: Tensor, w: Tensor, divergence: MSE) -> Tensor:
    return through_softmax(p, 2 * (p - w))


def through_softmax(p: Tensor, slope: Tensor) -> Tensor:
    """A slope in the probabilities as one in the logits: p_j (slope_j - sum_i p_i slope_i)."""
    return p * (slope - (p * slope).sum(-1, keepdim=True))


GRADIENTS: dict[type, Callable[[Tensor, Tensor, Any], Tensor]] = {
    ForwardKL: forward_kl,
    GhostToken: ghost_token,
    TailAware: tail_aware,
    ReverseKL: reverse_kl,
    ForwardReverseKL: forward_reverse_kl,
    L1: l1,
    MSE: mse,
}


def rest(divergence: object, dense_OV: Tensor, chances_O: Tensor) -> tuple[Tensor, Tensor] | None:
    """A distribution at which the mean gradient is zero, and which classes' shares there are free, both [V].

    Forward KL: the mean target over its sum (RS-KD A.4). Ghost token: the target on K, the tail free but for its sum
    (A.5), here shared equally. Every other divergence: the target itself where that is a distribution; else None.
    """
    mean_V = chances_O @ dense_OV
    bound_V = torch.zeros_like(mean_V, dtype=torch.bool)
    if isinstance(divergence, ForwardKL):
        return mean_V / mean_V.sum(), bound_V
    if len(dense_OV) > 1:
        return None
    if isinstance(divergence, GhostToken):
        free_V = mean_V == 0
        return torch.where(free_V, (1 - mean_V.sum()) / free_V.sum(), mean_V), free_V
    known = type(divergence) in GRADIENTS and abs(float(mean_V.sum()) - 1) < 1e-6
    return (mean_V / mean_V.sum(), bound_V) if known else None
