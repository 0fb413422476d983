"""The loss of `axes/loss.py` from hidden states and output head, a chunk of positions at a time: no N x V matrix.

A chunk's logits become, in place, their own gradient (`gradients.py`), from which the gradients of hidden states
and head follow at once. So the forward pass computes both, a backward pass only hands them on, and three matrix
products are all that touches the vocabulary more than once. Positions of weight zero never meet the head.

Matrix products run in the precision of the surrounding autocast; softmax, loss and the sum of the head's gradient in
float32 (a bf16 softmax loses its tail, and a bf16 sum over chunks its small terms).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from replication.axes.comparison import Told, told_of
from replication.axes.divergences import Divergence, ForwardKL, TailAware, beyond
from replication.axes.loss import wanted_by
from replication.axes.policy import Weighing
from replication.axes.positions import AllPositions, weights
from replication.axes.signals import SIGNALS, Signals, ask_student, ask_target, served_by_bfloat16
from replication.axes.targets.base import AnyTarget, DenseTarget, SparseTarget, precise
from replication.axes.targets.drawing import Randomness, refuse_broken
from replication.fused.gradients import Tails, Weights, rule_for
from replication.fused.head import PLAIN, Head, Rows, Scaling, TeacherStates
from replication.fused.products import Products, sums

Target = AnyTarget | TeacherStates
# bytes of one chunk's logits, and of the positions that are worked on while they are in the processor's cache
CHUNK = {"cpu": 2**26, "cuda": 2**30}
# times as many on a CPU in less than float32: there the head is converted for every chunk
NARROW = 1.25
BLOCK = {"cpu": 2**22, "cuda": 2**30}


def fused_loss(
    hidden_BLD: Tensor,
    head: Head,
    labels_BL: Tensor,
    target: Target,
    divergence: Divergence,
    positions: Weighing,
    kd_weight: float,
    ce_weight: float,
    progress: float = 0.0,
    generator: Randomness | None = None,
    beside_N: Tensor | None = None,
    mask_BL: Tensor | None = None,
) -> Tensor:
    """The scalar loss of a batch, in nats per supervised token, as `axes.loss.distillation_loss` defines it.

    `hidden_BLD` are the student's last hidden states. The graph can be gone through backwards once.
    """
    signals = fused_signals_of(wanted_by(positions, divergence), hidden_BLD.detach(), head, labels_BL, target)
    weight_N = weights(positions, signals, progress, generator, mask_BL).flatten()
    if not kd_weight:  # the target is not even looked at, and by no divergence that would refuse its stand-in
        divergence = ForwardKL()
        target = SparseTarget(labels_BL.reshape(-1, 1), torch.zeros_like(weight_N)[:, None])
    labels_N, trained_N = labels_BL.flatten(), None if mask_BL is None else mask_BL.flatten()
    work = Work(
        target=replace(target, sequences=len(labels_BL)),
        labels_N=labels_N,
        scale_N=weight_N.to(sums(hidden_BLD.dtype)) / len(weight_N),
        divergence=divergence,
        told=told_of(divergence, labels_N, signals.flat("confidence"), trained_N),
        weights=Weights(kd_weight, ce_weight),
        scaling=head.scaling,
        everywhere=isinstance(positions, AllPositions) and mask_BL is None,
    )
    loss: Tensor = FusedLoss.apply(hidden_BLD.flatten(0, 1), head.weight_VD, head.bias_V, work)
    if beside_N is None or not kd_weight:
        return loss
    return loss + kd_weight * (weight_N * beside_N).mean()


@torch.no_grad()
def fused_signals_of(
    wanted: tuple[str, ...], hidden_BLD: Tensor, head: Head, labels_BL: Tensor, target: Target
) -> Signals:
    """All in one pass over the vocabulary, a chunk of positions at a time, of those models that are looked at."""
    hidden_ND, labels_N, classes = hidden_BLD.flatten(0, 1), labels_BL.flatten(), len(head.weight_VD)
    precision = precision_of(hidden_ND)
    low = precision == torch.float32 and served_by_bfloat16(wanted)
    if low:
        precision = torch.bfloat16
    products = Products(head.weight_VD, head.bias_V, precision) if ask_student(wanted) else None
    found: dict[str, list[Tensor]] = {name: [] for name in wanted}
    with torch.autocast(hidden_ND.device.type, enabled=False):
        # the head is converted for every chunk, and nothing else takes memory now: so twice as large ones
        for chunk in chunks(len(hidden_ND), classes, hidden_ND.device, precision, 1 + low) if wanted else ():
            known = target.rows(chunk) if ask_target(wanted) else None
            if products is None:
                blocks = iter([(slice(None), torch.empty(chunk.stop - chunk.start, classes, device="meta"))])
            else:
                blocks = in_cache(products.logits(hidden_ND[chunk].to(precision)))
            for block, logits_RV in blocks:
                if products is not None:
                    head.scaling.apply_(logits_RV)
                seen = logits_RV, None if known is None else known.rows(block), labels_N[chunk][block]
                for name, parts in found.items():
                    parts.append(SIGNALS[name](*seen))
    return Signals(labels_BL, {name: torch.cat(parts).view(labels_BL.shape) for name, parts in found.items()})


@dataclass(frozen=True)
class Work:
    """What a batch's loss asks for at each of its N positions; `scale_N` is the share of each in the batch's loss."""

    target: Target
    labels_N: Tensor
    scale_N: Tensor
    divergence: Divergence
    told: Told | None
    weights: Weights
    scaling: Scaling
    everywhere: bool

    def parts(self, classes: int, precision: torch.dtype) -> Iterator[tuple[Rows, Part, Tails | None]]:
        """Positions, their target and what is known of their tails, a chunk at a time; none of weight zero."""
        device, tails = self.labels_N.device, None
        chosen_M = None if self.everywhere else self.scale_N.nonzero()[:, 0]
        pieces = list(chunks(len(self.labels_N if chosen_M is None else chosen_M), classes, device, precision))
        every = pieces
        if isinstance(self.divergence, TailAware) and chosen_M is not None:
            every = list(chunks(len(self.labels_N), classes, device, precision))
        part = self.part_of(max((piece.stop - piece.start for piece in every), default=1))
        if isinstance(self.divergence, TailAware):
            tails = self.tails(self.divergence, part, every, classes)
        for piece in pieces:
            rows = piece if chosen_M is None else chosen_M[piece]
            yield rows, part(rows), None if tails is None else tails.rows(rows)

    def tails(
        self, divergence: TailAware, part: Callable[[Rows], Part], pieces: Sequence[slice], classes: int
    ) -> Tails:
        """From a pass over the target alone, which ends with the first piece: there the next one begins.

        A teacher that is given by its states is multiplied with its head twice for all other pieces. To hold what it
        said would take [N, V]; to add up what beta(X) weighs by itself, another two products.
        """
        found: list[tuple[Tensor, Tensor]] = []
        step = max(1, BLOCK[self.labels_N.device.type] // (4 * classes))
        for piece in reversed(pieces):
            target, of_piece = part(piece), list[tuple[Tensor, Tensor]]()
            for start in range(0, piece.stop - piece.start, step):
                block = target.rows(slice(start, start + step))
                ids_RK = divergence.largest(block, classes)
                of_piece.append((ids_RK, beyond(divergence.split(block, ids_RK, sums(self.scale_N.dtype))[1])))
            found = of_piece + found
        ids_NK, mass_N = (torch.cat(each) for each in zip(*found, strict=True))
        return Tails(ids_NK, divergence.shares(mass_N, self.target.sequences))

    def part_of(self, most: int) -> Callable[[Rows], Part]:
        """Positions, so many at most -> their target; a teacher's logits in place of those before."""
        return Taught(self.target, most) if isinstance(self.target, TeacherStates) else self.target.rows


class Taught:
    """A teacher's logits at some positions at a time; the last ones stay."""

    def __init__(self, states: TeacherStates, most: int) -> None:
        self.states = states
        self.products = Products(states.head.weight_VD, states.head.bias_V, states.hidden_ND.dtype)
        self.products.room_NV = self.products.room(most)
        self.there: tuple[Rows, TeacherLogits] | None = None

    def __call__(self, rows: Rows) -> TeacherLogits:
        if self.there is None or self.there[0] is not rows:
            logits_NV = self.products.logits(self.states.hidden_ND[rows])
            logits = TeacherLogits(self.states.head.scaling.apply_(logits_NV), self.states.exponent)
            self.there = rows, logits
        return self.there[1]


@dataclass(frozen=True)
class TeacherLogits:
    """A dense target of which only the logits are there yet."""

    logits_NV: Tensor
    exponent: float

    def rows(self, rows: Rows) -> DenseTarget:
        probs_RV = torch.softmax(precise(self.logits_NV[rows]) * self.exponent, -1)
        refuse_broken(probs_RV[:, 0])
        return DenseTarget(probs_RV)


Part = AnyTarget | TeacherLogits


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
            raise RuntimeError(
                "The fused loss hands its gradients on once; use axes.loss.distillation_loss for a second."
            )
        if of_loss.device.type == "cpu" and float(of_loss) == 1:
            return (*gradients, None)
        return (*(None if part is None else part * of_loss.to(part.dtype) for part in gradients), None)


def loss_and_gradients(
    hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, work: Work, wanted: tuple[bool, ...]
) -> tuple[Tensor, tuple[Tensor | None, ...]]:
    """The batch's loss, and its gradients in hidden states, head and bias where they are wanted."""
    precision = precision_of(hidden_ND)
    products = Products(weight_VD, bias_V, precision)
    of_hidden_ND = torch.zeros_like(hidden_ND) if wanted[0] else None
    of_bias_V = torch.zeros_like(bias_V, dtype=sums(bias_V.dtype)) if bias_V is not None and wanted[2] else None
    loss = torch.zeros((), device=hidden_ND.device, dtype=torch.float64)
    with torch.autocast(hidden_ND.device.type, enabled=False):
        for rows, target, tails in work.parts(len(weight_VD), precision):
            hidden_MD = hidden_ND[rows].to(precision)
            logits_MV = products.logits(hidden_MD)
            loss += become_gradient_(logits_MV, target, rows, work, tails)
            if of_hidden_ND is not None:
                of_hidden_ND[rows] = products.of_hidden(logits_MV).to(of_hidden_ND.dtype)
            if of_bias_V is not None:
                of_bias_V += products.of_bias(logits_MV)
            if wanted[1]:
                products.add_of_head(logits_MV, hidden_MD)
    of_weight_VD = products.of_head() if wanted[1] else None
    return loss.to(sums(hidden_ND.dtype)), (of_hidden_ND, of_weight_VD, of_bias_V)


def become_gradient_(logits_MV: Tensor, target: Part, rows: Rows, work: Work, tails: Tails | None) -> Tensor:
    """A chunk's share of the loss; its logits are overwritten by their gradient."""
    told = None if work.told is None else work.told.rows(rows)
    labels_M, scale_M = work.labels_N[rows], work.scale_N[rows]
    sparse = isinstance(target, SparseTarget)
    loss = scale_M.new_zeros((), dtype=torch.float64)
    for block, logits_RV in in_cache(logits_MV):
        slope = work.scaling.slope(work.scaling.apply_(logits_RV))
        scale_R = scale_M[block].to(logits_RV)
        known = None if told is None else told.rows(block), None if tails is None else tails.rows(block)
        rule = rule_for(work.divergence, sparse, *known)
        loss_R = rule(logits_RV, target.rows(block), labels_M[block], work.weights, scale_R)
        if work.scaling != PLAIN:
            logits_RV.mul_(slope)
        loss += torch.where(scale_R == 0, 0.0, loss_R * scale_R).sum(dtype=torch.float64)
        if logits_RV.dtype != logits_MV.dtype:
            logits_MV[block] = logits_RV
    return loss


def precision_of(hidden_ND: Tensor) -> torch.dtype:
    """Of matrix products with these."""
    device = hidden_ND.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_ND.dtype


def chunks(
    positions: int, classes: int, device: torch.device, precision: torch.dtype, times: int = 1
) -> Iterator[slice]:
    """Slices of the positions, of about equal size, whose logits fit in so many times `CHUNK` bytes."""
    size = times * CHUNK[device.type] * (NARROW if device.type == "cpu" and precision.itemsize < 4 else 1)
    most = max(1, int(size / (precision.itemsize * classes)))
    rows = -(-positions // -(-positions // most)) if positions else 1
    for start in range(0, positions, rows):
        yield slice(start, min(start + rows, positions))


def in_cache(logits_MV: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Blocks of a chunk's rows, in at least float32: views where they are that already, else copies in one place."""
    positions, classes = logits_MV.shape
    rows = max(1, BLOCK[logits_MV.device.type] // (4 * classes))
    view = logits_MV.dtype == sums(logits_MV.dtype)
    room_RV = torch.empty(0 if view else rows, classes, dtype=sums(logits_MV.dtype), device=logits_MV.device)
    for start in range(0, positions, rows):
        block = slice(start, min(start + rows, positions))
        yield block, logits_MV[block] if view else room_RV[: block.stop - start].copy_(logits_MV[block])
