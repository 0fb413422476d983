"""The loss of `loss.py` from hidden states and output head, a chunk of positions at a time: no N x V matrix is held.

A chunk's logits become, in place, their own gradient (`logit_gradients.py`), from which the gradients of hidden states
and head follow at once. So the forward pass computes both, a backward pass only hands them on, and three matrix
products are all that touches the vocabulary more than once. Positions of weight zero never meet the head.

Matrix products run in the precision of the surrounding autocast; softmax, loss and the sum of the head's gradient in
float32 (a bf16 softmax loses its tail, and a bf16 sum over chunks its small terms).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from replication.divergences import Divergence, TailAware
from replication.head import Head, Rows, TeacherStates
from replication.logit_gradients import Weights, entropy_, rule_for
from replication.positions import AllPositions, Positions
from replication.targets import AnyTarget, DenseTarget, SparseTarget

Target = AnyTarget | TeacherStates
# bytes of one chunk's logits, and of the positions that are worked on while they are in the processor's cache
CHUNK = {"cpu": 2**28, "cuda": 2**30}
BLOCK = {"cpu": 2**23, "cuda": 2**30}
# rows of the head whose gradient is summed at a time where the products are bfloat16
STRIP = 8192


def distillation_loss(
    hidden_BLD: Tensor,
    head: Head,
    labels_BL: Tensor,
    target: Target,
    divergence: Divergence,
    positions: Positions,
    kd_weight: float,
    ce_weight: float,
) -> Tensor:
    """The scalar loss of a batch, in nats per supervised token, as `loss.distillation_loss` defines it.

    `hidden_BLD` are the student's last hidden states. The graph can be gone through backwards once.
    """
    weight_N = positions(FromHidden(hidden_BLD.detach(), head, labels_BL, target)).flatten()
    if not kd_weight:  # the target is not even looked at
        target = SparseTarget(labels_BL.reshape(-1, 1), torch.zeros_like(weight_N)[:, None])
    work = Work(
        target=replace(target, sequences=len(labels_BL)),
        labels_N=labels_BL.flatten(),
        scale_N=weight_N.to(sums(hidden_BLD.dtype)) / len(weight_N),
        divergence=divergence,
        weights=Weights(kd_weight, ce_weight),
        # a divergence that looks at whole sequences is given all of their positions
        everywhere=isinstance(positions, AllPositions) or isinstance(divergence, TailAware),
    )
    loss: Tensor = FusedLoss.apply(hidden_BLD.flatten(0, 1), head.weight_VD, head.bias_V, work)
    return loss


@dataclass(frozen=True)
class FromHidden:
    """Signals of a batch whose logits are made a chunk at a time (see `positions.Signals`)."""

    hidden_BLD: Tensor
    head: Head
    labels_BL: Tensor
    target: Target

    @torch.no_grad()
    def student_entropy(self) -> Tensor:
        hidden_ND = self.hidden_BLD.flatten(0, 1)
        found_N = hidden_ND.new_empty(len(hidden_ND), dtype=sums(hidden_ND.dtype))
        for chunk in chunks(len(hidden_ND), len(self.head.weight_VD), 1, hidden_ND.device):
            for block, logits_RV in in_cache(self.head(hidden_ND[chunk])):
                found_N[chunk][block] = entropy_(logits_RV)
        return found_N.view(self.labels_BL.shape)

    def confidence(self) -> Tensor:
        return self.target.of(self.labels_BL.flatten(), len(self.head.weight_VD)).view(self.labels_BL.shape)


@dataclass(frozen=True)
class Work:
    """What a batch's loss asks for at each of its N positions; `scale_N` is the share of each in the batch's loss."""

    target: Target
    labels_N: Tensor
    scale_N: Tensor
    divergence: Divergence
    weights: Weights
    everywhere: bool

    def parts(self, classes: int) -> Iterator[tuple[Rows, AnyTarget]]:
        """Positions and their target, a chunk at a time; those of weight zero are left out."""
        device = self.labels_N.device
        if not self.everywhere:
            chosen_M = self.scale_N.nonzero()[:, 0]
            for chunk in chunks(len(chosen_M), classes, 1, device):
                yield chosen_M[chunk], of_rows(self.target, chosen_M[chunk], 1)
            return
        length = len(self.labels_N) // self.target.sequences
        together = length if isinstance(self.divergence, TailAware) else 1
        for chunk in chunks(len(self.labels_N), classes, together, device):
            yield chunk, of_rows(self.target, chunk, (chunk.stop - chunk.start) // together)


class FusedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, work: Work) -> Tensor:
        loss, ctx.gradients = loss_and_gradients(hidden_ND, weight_VD, bias_V, work, ctx.needs_input_grad[:3])
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_loss: Tensor) -> tuple[Tensor | None, ...]:
        # given away, not kept: the head's gradient may then become `weight.grad` itself, without a copy
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            raise RuntimeError("The fused loss hands its gradients on once; use loss.distillation_loss for a second.")
        if of_loss.device.type == "cpu" and float(of_loss) == 1:
            return (*gradients, None)
        return (*(None if part is None else part * of_loss.to(part.dtype) for part in gradients), None)


def loss_and_gradients(
    hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, work: Work, wanted: tuple[bool, ...]
) -> tuple[Tensor, tuple[Tensor | None, ...]]:
    """The batch's loss, and its gradients in hidden states, head and bias where they are wanted."""
    device, classes = hidden_ND.device.type, len(weight_VD)
    precision = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_ND.dtype
    of_hidden_ND = torch.zeros_like(hidden_ND) if wanted[0] else None
    of_weight_VD = HeadGradient(weight_VD) if wanted[1] else None
    of_bias_V = torch.zeros_like(bias_V, dtype=sums(bias_V.dtype)) if bias_V is not None and wanted[2] else None
    loss = torch.zeros((), device=hidden_ND.device, dtype=torch.float64)
    with torch.autocast(device, enabled=False):
        weight_VD = weight_VD.to(precision)
        for rows, target in work.parts(classes):
            hidden_MD = hidden_ND[rows].to(precision)
            logits_MV = hidden_MD @ weight_VD.T
            if bias_V is not None:
                logits_MV += bias_V
            loss += become_gradient_(logits_MV, target, rows, work)
            if of_hidden_ND is not None:
                of_hidden_ND[rows] = (logits_MV @ weight_VD).to(of_hidden_ND.dtype)
            if of_weight_VD is not None:
                of_weight_VD.add(logits_MV, hidden_MD)
            if of_bias_V is not None:
                of_bias_V += logits_MV.sum(0, dtype=of_bias_V.dtype)
            del logits_MV  # before the next chunk's are made
    summed_VD = None if of_weight_VD is None else of_weight_VD.total()
    return loss.to(sums(hidden_ND.dtype)), (of_hidden_ND, summed_VD, of_bias_V)


def become_gradient_(logits_MV: Tensor, target: AnyTarget, rows: Rows, work: Work) -> Tensor:
    """A chunk's share of the loss; its logits are overwritten by their gradient."""
    rule = rule_for(work.divergence, isinstance(target, SparseTarget))
    labels_M, scale_M = work.labels_N[rows], work.scale_N[rows]
    whole = isinstance(work.divergence, TailAware)
    loss = logits_MV.new_zeros((), dtype=torch.float64)
    for block, logits_RV in in_cache(logits_MV, whole):
        scale_R = scale_M[block].to(logits_RV)
        part = target if whole else of_rows(target, block, 1)
        loss_R = rule(logits_RV, part, labels_M[block], work.weights, scale_R)
        loss += torch.where(scale_R == 0, 0.0, loss_R * scale_R).sum(dtype=torch.float64)
        if logits_RV.dtype != logits_MV.dtype:
            logits_MV[block] = logits_RV.to(logits_MV.dtype)
    return loss


class HeadGradient:
    """The sum over chunks of (gradient in the logits)^T @ hidden, in one buffer of at least float32."""

    def __init__(self, weight_VD: Tensor) -> None:
        self.weight_VD = weight_VD
        self.sum_VD: Tensor | None = None

    def add(self, gradient_MV: Tensor, hidden_MD: Tensor) -> None:
        if self.sum_VD is None:  # the first product is the buffer, so that none is filled with zeros
            self.sum_VD = gradient_MV.T @ hidden_MD
            return
        if self.sum_VD.dtype != sums(self.sum_VD.dtype):
            self.sum_VD = self.sum_VD.to(sums(self.sum_VD.dtype))
        if gradient_MV.dtype == self.sum_VD.dtype:
            self.sum_VD.addmm_(gradient_MV.T, hidden_MD)
            return
        # strips of the head: a product in the lower precision is never as large as the head
        for sum_SD, gradient_MS in zip(self.sum_VD.split(STRIP), gradient_MV.split(STRIP, 1), strict=True):
            sum_SD += gradient_MS.T @ hidden_MD

    def total(self) -> Tensor:
        return torch.zeros_like(self.weight_VD) if self.sum_VD is None else self.sum_VD.to(self.weight_VD.dtype)


def chunks(positions: int, classes: int, together: int, device: torch.device) -> Iterator[slice]:
    """Slices of the positions whose float32 logits fit in `CHUNK` bytes, in multiples of `together`."""
    rows = max(1, CHUNK[device.type] // (4 * classes * together)) * together
    for start in range(0, positions, rows):
        yield slice(start, min(start + rows, positions))


def in_cache(logits_MV: Tensor, whole: bool = False) -> Iterator[tuple[slice, Tensor]]:
    """Blocks of a chunk's rows, in at least float32: views where they are that already, else copies."""
    rows = len(logits_MV) if whole else max(1, BLOCK[logits_MV.device.type] // (4 * logits_MV.shape[1]))
    for start in range(0, len(logits_MV), rows):
        block = slice(start, start + rows)
        yield block, logits_MV[block].to(sums(logits_MV.dtype))


def of_rows(target: Target, rows: Rows, sequences: int) -> AnyTarget:
    if isinstance(target, TeacherStates):
        return replace(target.rows(rows), sequences=sequences)
    if isinstance(target, DenseTarget):
        return DenseTarget(target.probs_NV[rows], sequences)
    spread_M = None if target.spread_N is None else target.spread_N[rows]
    return SparseTarget(target.ids_NK[rows], target.weights_NK[rows], spread_M, sequences)


def sums(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32
