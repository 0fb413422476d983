"""Does a loss for sparse targets do what it says? Checks of any callable, also of other people's trainers.

`loss(logits_BLV, ids_BLK, weights_BLK, labels_BL)` gives one number, the mean over the trained positions. Row t of ids
and weights belongs to row t of the logits. A weight of 0 is an unused slot; a label of -100 is a position that is not
trained, any other is the next token. A loss that divides by a count over all of a step's batches takes it as `items`.

Each check runs the callable on small batches, differentiates it, and compares with RS-KD's Eq. 4 in float64: the
gradient in the logits of a position is (sum of weights) * student - weights.
"""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

Loss = Callable[..., Tensor]
IGNORED = -100
CLOSE = 1e-3  # of the largest gradient: far above float32's rounding, far below every fault
TINY = 1e-7  # a gradient that is none


@dataclass(frozen=True)
class Batch:
    """What the callable is given."""

    logits_BLV: Tensor
    ids_BLK: Tensor
    weights_BLK: Tensor
    labels_BL: Tensor

    @property
    def trained_BL(self) -> Tensor:
        return self.labels_BL != IGNORED

    def rows(self, rows: slice) -> Batch:
        return Batch(self.logits_BLV[rows], self.ids_BLK[rows], self.weights_BLK[rows], self.labels_BL[rows])


@dataclass(frozen=True)
class Finding:
    """`right` is None where there is nothing to be right about: a choice that the reader should know of."""

    check: str
    right: bool | None
    says: str


VERDICTS = {True: "right", False: "WRONG", None: "note"}


def loss_named(words: str) -> Loss:
    """The callable that "module:function" names. Raises ValueError, one line, where there is none."""
    module, _, name = words.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"No loss {words!r} ({error}). Give MODULE:FUNCTION, as in my_losses:top_k_loss.") from None
    if not callable(found):
        raise ValueError(f"{words} is {found!r}; give a function of logits, ids, weights and labels.")
    return found


def example(mass: float = 1.0, sequences: int = 2, length: int = 6, classes: int = 32, kept: int = 5) -> Batch:
    """The same numbers on every machine: `kept` classes of a position have `mass` in all."""
    random = torch.Generator().manual_seed(20)
    logits_BLV = torch.randn(sequences, length, classes, generator=random) * 2
    ids_BLK = torch.rand(sequences, length, classes, generator=random).topk(kept).indices
    weights_BLK = torch.rand(sequences, length, kept, generator=random) + 0.1
    weights_BLK *= mass / weights_BLK.sum(-1, keepdim=True)
    labels_BL = torch.randint(classes, (sequences, length), generator=random)
    return Batch(logits_BLV, ids_BLK, weights_BLK, labels_BL)


def gradient(loss: Loss, batch: Batch, **more: object) -> tuple[float, Tensor]:
    """What the callable gives, and its gradient in the logits [B, L, V] in float64."""
    logits_BLV = batch.logits_BLV.clone().requires_grad_()
    value = loss(logits_BLV, batch.ids_BLK, batch.weights_BLK, batch.labels_BL, **more)
    (found_BLV,) = torch.autograd.grad(value, logits_BLV)
    return float(value.detach()), found_BLV.double()


def wanted(batch: Batch) -> Tensor:
    """Eq. 4's gradient of the mean over the trained positions, [B, L, V] in float64."""
    student_BLV = batch.logits_BLV.double().softmax(-1)
    weights_BLK = batch.weights_BLK.double()
    each_BLV = weights_BLK.sum(-1, keepdim=True) * student_BLV - spread_out(batch, weights_BLK)
    return averaged(each_BLV, batch)


def spread_out(batch: Batch, weights_BLK: Tensor) -> Tensor:
    return torch.zeros_like(batch.logits_BLV, dtype=torch.float64).scatter_add(-1, batch.ids_BLK, weights_BLK)


def averaged(each_BLV: Tensor, batch: Batch) -> Tensor:
    return each_BLV * batch.trained_BL[..., None] / batch.trained_BL.sum()


def distance(found_BLV: Tensor, wanted_BLV: Tensor) -> float:
    """The largest difference, as a share of the largest gradient; infinite where something is not finite."""
    if not found_BLV.isfinite().all():
        return float("inf")
    return float((found_BLV - wanted_BLV).abs().max() / wanted_BLV.abs().max())


# what a loss may do with the mass that a target lacks
GHOST = (
    "one class has it that stands for all others (ghost token, tail bucket): the kept classes are learnt as they are"
)
MISSING = "it is left out: the kept classes are learnt scaled up to one (RS-KD Section 2.2)"
SCALED = "the kept classes are scaled up to one, and learnt so"
WITHIN = "only the kept classes are compared, both sides scaled to one: nothing is learnt of any other class"


def scale_of(found_BLV: Tensor, wanted_BLV: Tensor) -> float:
    """The factor between the two, by least squares."""
    return float((found_BLV * wanted_BLV).sum() / wanted_BLV.square().sum())


def of_missing_mass(batch: Batch) -> dict[str, Tensor]:
    """What losses do with a target that has lost some of its mass -> the gradient that this gives."""
    student_BLV, weights_BLK = batch.logits_BLV.double().softmax(-1), batch.weights_BLK.double()
    mass_BL1 = weights_BLK.sum(-1, keepdim=True)
    kept_BLV = spread_out(batch, torch.ones_like(weights_BLK)) > 0
    shares_BLV = spread_out(batch, weights_BLK / mass_BL1)
    own_BLV = torch.where(kept_BLV, student_BLV, 0)
    own_BL1 = own_BLV.sum(-1, keepdim=True)
    rest_BLV = torch.where(kept_BLV, 0, student_BLV)
    rest_BLV = (1 - mass_BL1) * rest_BLV / rest_BLV.sum(-1, keepdim=True)
    each = {
        GHOST: student_BLV - spread_out(batch, weights_BLK) - rest_BLV,
        MISSING: mass_BL1 * student_BLV - spread_out(batch, weights_BLK),
        SCALED: student_BLV - shares_BLV,
        WITHIN: own_BLV / own_BL1 - shares_BLV,
    }
    return {words: averaged(gradient_BLV, batch) for words, gradient_BLV in each.items()}


def findings(loss: Loss) -> Iterator[Finding]:
    """Of every check, in an order in which the first that fails explains most. A check that raises has failed."""
    for check in (unbiased, missing, unused, repeated, aligned, ignored, averages, split, follows, coarse, outside):
        name = check.__name__
        try:
            yield replace(check(loss), check=name)
        except Exception as error:  # another's code may raise anything, and what it raised is the finding
            yield Finding(name, False, f"it raised {type(error).__name__}: {' '.join(str(error).split())[:160]}")


def unbiased(loss: Loss) -> Finding:
    batch = example()
    value, found_BLV = gradient(loss, batch)
    off = distance(found_BLV, wanted(batch))
    if off < CLOSE:
        return Finding("", True, "an unbiased draw, whose weights sum to one, gives full distillation's gradient")
    scale = scale_of(found_BLV, wanted(batch))
    if distance(found_BLV / scale, wanted(batch)) < CLOSE:
        return Finding(
            "", False, f"the gradient is {scale:.3g} times what it should be: the mean is over something else"
        )
    words, least = min(
        ((words, distance(found_BLV, each)) for words, each in of_missing_mass(batch).items()), key=lambda pair: pair[1]
    )
    why = words if least < CLOSE else f"it is off by {off:.2g} of its largest entry, in no way known here"
    return Finding("", False, f"not full distillation's gradient even where the weights sum to one: {why}")


def missing(loss: Loss) -> Finding:
    batch = example(mass=0.6)
    _, found_BLV = gradient(loss, batch)
    words, least = min(
        ((words, distance(found_BLV, each)) for words, each in of_missing_mass(batch).items()), key=lambda pair: pair[1]
    )
    if least >= CLOSE:
        return Finding(
            "", False, f"a target that lacks 40 % of its mass is treated in no way known here ({least:.2g} off)"
        )
    right = {GHOST: True, WITHIN: False}.get(words)  # the other two are biased as the target is, and known to be
    return Finding("", right, f"of the mass that a target lacks: {words}")


def unused(loss: Loss) -> Finding:
    batch = example()
    more_BLK = torch.zeros_like(batch.ids_BLK[..., :3])
    wider = replace(
        batch,
        ids_BLK=torch.cat([batch.ids_BLK, more_BLK], -1),
        weights_BLK=torch.cat([batch.weights_BLK, more_BLK.float()], -1),
    )
    off = distance(gradient(loss, wider)[1], gradient(loss, batch)[1])
    if off < CLOSE:
        return Finding("", True, "unused slots change nothing, so that K decides no weight")
    return Finding("", False, f"three unused slots of weight 0 change the gradient by {off:.2g} of its largest entry")


def repeated(loss: Loss) -> Finding:
    """Draws with replacement name a class twice."""
    batch = example()
    twice = replace(
        batch,
        ids_BLK=torch.cat([batch.ids_BLK, batch.ids_BLK[..., :1]], -1),
        weights_BLK=torch.cat(
            [batch.weights_BLK[..., :1] / 2, batch.weights_BLK[..., 1:], batch.weights_BLK[..., :1] / 2], -1
        ),
    )
    off = distance(gradient(loss, twice)[1], gradient(loss, batch)[1])
    if off < CLOSE:
        return Finding("", True, "a class that stands in two slots has both weights")
    return Finding("", False, f"a class that stands in two slots counts otherwise than in one ({off:.2g} off)")


def aligned(loss: Loss) -> Finding:
    batch, at = example(), 2
    other_BLK = batch.weights_BLK.clone()
    other_BLK[:, at] = other_BLK[:, at].flip(-1)
    moved_BLV = gradient(loss, replace(batch, weights_BLK=other_BLK))[1] - gradient(loss, batch)[1]
    rows = moved_BLV.abs().amax((0, 2)).gt(TINY).nonzero().flatten().tolist()
    if rows == [at]:
        return Finding("", True, "row t of the targets is compared with row t of the logits, and with no other")
    return Finding("", False, f"row {at} of the targets is compared with row {', '.join(map(str, rows)) or 'none'}")


def ignored(loss: Loss) -> Finding:
    batch = example()
    labels_BL = batch.labels_BL.clone()
    labels_BL[0, :3] = IGNORED
    labels_BL[1, -1] = IGNORED
    some = replace(batch, labels_BL=labels_BL)
    found_BLV, all_BLV = gradient(loss, some)[1], gradient(loss, batch)[1]
    if found_BLV[~some.trained_BL].abs().max() > TINY:
        return Finding("", False, "positions with the label -100 are trained, too")
    scale = scale_of(found_BLV, averaged(all_BLV, some) * labels_BL.numel())
    if abs(scale - 1) < CLOSE:
        return Finding("", True, "positions with the label -100 give nothing, and the mean is over the others")
    return Finding("", False, f"with a third of the positions left out the gradient is {scale:.3g} times the mean's")


def averages(loss: Loss) -> Finding:
    """Everything twice, as more sequences and as longer ones, halves what each position gives."""
    batch = example()
    alone_BLV = gradient(loss, batch)[1]
    parts = batch.logits_BLV, batch.ids_BLK, batch.weights_BLK, batch.labels_BL
    for axis, words in ((0, "batches of twice as many sequences"), (1, "rows twice as long")):
        twice = Batch(*(torch.cat([part, part], axis) for part in parts))
        scale = scale_of(gradient(loss, twice)[1], torch.cat([alone_BLV, alone_BLV], axis) / 2)
        if abs(scale - 1) >= CLOSE:
            return Finding("", False, f"{words} have {scale:.3g} times the weight: it is no mean over positions")
    return Finding("", True, "rows of any length and batches of any size are averaged alike")


def split(loss: Loss) -> Finding:
    """Accumulation over two unequal batches."""
    if "items" not in inspect.signature(loss).parameters:
        return Finding("", None, "takes no `items`: unequal batches of one step are averaged by whoever calls it")
    batch = example()
    labels_BL = batch.labels_BL.clone()
    labels_BL[0, :4] = IGNORED
    whole, items = replace(batch, labels_BL=labels_BL), int((labels_BL != IGNORED).sum())
    parts_BLV = torch.cat([gradient(loss, whole.rows(slice(row, row + 1)), items=items)[1] for row in (0, 1)])
    off = distance(parts_BLV, gradient(loss, whole, items=items)[1])
    if off < CLOSE:
        return Finding("", True, "a step in two unequal parts is the step at once")
    return Finding("", False, f"a step in two unequal parts differs from the step at once by {off:.2g}")


def follows(loss: Loss) -> Finding:
    """The number that is shown, differentiated numerically, is the gradient that trains."""
    batch, step = example(), 1e-2
    direction_BLV = torch.randn(batch.logits_BLV.shape, generator=torch.Generator().manual_seed(21))
    with torch.no_grad():
        ends = [
            float(
                loss(batch.logits_BLV + sign * step * direction_BLV, batch.ids_BLK, batch.weights_BLK, batch.labels_BL)
            )
            for sign in (1, -1)
        ]
    if not all(map(math.isfinite, ends)):
        return Finding("", False, f"the number shown is {ends[0]}, whatever the gradient is")
    seen = (ends[0] - ends[1]) / (2 * step)
    said = float((gradient(loss, batch)[1] * direction_BLV).sum())
    if abs(seen - said) <= 1e-2 * abs(said):
        return Finding("", True, "the gradient is that of the number shown")
    return Finding("", False, f"the number shown changes {seen / said:.3g} times as fast as the gradient says")


def coarse(loss: Loss) -> Finding:
    """What the classes that are not kept get is small, so that it shows the softmax's own rounding."""
    batch = example(classes=4096)
    rounded = replace(batch, logits_BLV=batch.logits_BLV.bfloat16())
    found_BLV = gradient(loss, rounded)[1]
    exact_BLV = gradient(loss, replace(rounded, logits_BLV=rounded.logits_BLV.float()))[1]
    off = float((found_BLV - exact_BLV).abs().sum() / exact_BLV.abs().sum())
    if off < 2**-8:  # a gradient that is rounded to bfloat16 at the end is off by 2^-10 on average
        return Finding("", True, "bfloat16 logits are compared in float32")
    return Finding("", False, f"bfloat16 logits cost {off:.1%} of the gradient: the softmax is taken in bfloat16")


def outside(loss: Loss) -> Finding:
    """A teacher with more classes than the student, as checkpoints of one family have."""
    batch = example()
    ids_BLK = batch.ids_BLK.clone()
    ids_BLK[0, 0, 0] = batch.logits_BLV.shape[-1] + 3
    try:
        value, _ = gradient(loss, replace(batch, ids_BLK=ids_BLK))
    except (IndexError, RuntimeError, ValueError):
        return Finding("", True, "a class that the student does not have is refused")
    return Finding("", False, f"a class that the student does not have is accepted, in silence (loss {value:.3g})")
