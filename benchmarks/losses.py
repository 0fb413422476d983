"""Head and loss, forward and backward: the fused loss, and what computes the same without it.

A step is made by `step(name, sizes)`: inputs first, then a function of no arguments, which leaves its gradients in
`hidden_ND.grad` and `weight_VD.grad`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn import functional as F

from replication.axes.divergences import Divergence, ForwardKL, GhostToken, TailAware
from replication.axes.positions import AllPositions, Positions, TopFraction
from replication.axes.targets.base import SparseTarget, one_hot, precise
from replication.fused.head import Head, TeacherStates
from replication.fused.loss import Target, fused_loss


@dataclass(frozen=True)
class Sizes:
    positions: int
    classes: int = 100_278
    width: int = 1024
    kept: int = 12
    precision: str = "float32"  # or "bfloat16": of the matrix products, as under autocast

    @property
    def tiny(self) -> Sizes:
        return replace(self, positions=8, classes=64, width=16, kept=min(self.kept, 4))


@dataclass(frozen=True)
class Inputs:
    """One batch of one sequence, and a teacher as wide as the student."""

    sizes: Sizes
    hidden_ND: Tensor
    weight_VD: Tensor
    labels_N: Tensor
    target: SparseTarget
    teacher: TeacherStates | None

    def precision(self) -> torch.autocast:
        device, low = self.hidden_ND.device.type, self.sizes.precision == "bfloat16"
        return torch.autocast(device, dtype=torch.bfloat16, enabled=low)

    @property
    def dense_teacher(self) -> TeacherStates:
        assert self.teacher is not None
        return self.teacher


def inputs(sizes: Sizes, teacher: bool = True, seed: int = 0, dtype: torch.dtype = torch.float32) -> Inputs:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    random = torch.Generator(device).manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random, device=device, dtype=dtype)

    n, v, d = sizes.positions, sizes.classes, sizes.width
    labels_N = torch.randint(v, (n,), generator=random, device=device)
    # different classes, far apart
    apart_K = torch.arange(sizes.kept, device=device) * (v // sizes.kept)
    ids_NK = (torch.randint(v, (n, 1), generator=random, device=device) + apart_K) % v
    weights_NK = torch.rand(n, sizes.kept, generator=random, device=device, dtype=dtype)
    low = torch.bfloat16 if sizes.precision == "bfloat16" else dtype
    return Inputs(
        sizes,
        normal(n, d).requires_grad_(),
        (normal(v, d) * d**-0.5).requires_grad_(),
        labels_N,
        SparseTarget(ids_NK, weights_NK / weights_NK.sum(1, keepdim=True)),
        TeacherStates(normal(n, d).to(low), Head((normal(v, d) * 3 * d**-0.5).to(low))) if teacher else None,
    )


# ours


KL, EVERYWHERE = ForwardKL(), AllPositions()


def fused(given: Inputs, target: Target, divergence: Divergence = KL, positions: Positions = EVERYWHERE) -> Tensor:
    hidden_BLD, labels_BL = given.hidden_ND[None], given.labels_N[None]
    return fused_loss(hidden_BLD, Head(given.weight_VD), labels_BL, target, divergence, positions, 1.0, 0.0)


# theirs


def logits_of(given: Inputs) -> Tensor:
    return F.linear(given.hidden_ND, given.weight_VD)


def listed_kl(student_logits_NV: Tensor, target_NV: Tensor) -> Tensor:
    """RS-KD App. K, `distillation_loss`; averaged over positions, as is meant."""
    return F.kl_div(F.log_softmax(precise(student_logits_NV), dim=-1), target_NV, reduction="batchmean")


def listed_sparse(given: Inputs) -> Tensor:
    """RS-KD App. K, `create_prob`: the kept classes scattered into a row of all."""
    student_logits_NV = logits_of(given)
    target_NV = torch.zeros_like(student_logits_NV, dtype=given.target.weights_NK.dtype)
    target_NV.scatter_(1, given.target.ids_NK, given.target.weights_NK)
    return listed_kl(student_logits_NV, target_NV)


def listed_full(given: Inputs) -> Tensor:
    with torch.no_grad():
        teacher = given.dense_teacher
        teacher_NV = F.softmax(F.linear(teacher.hidden_ND, teacher.head.weight_VD).float(), dim=-1)
    return listed_kl(logits_of(given), teacher_NV)


def linear_cross_entropy(given: Inputs) -> Tensor:
    options = torch.nn.LinearCrossEntropyOptions()
    return F.linear_cross_entropy(given.hidden_ND, given.weight_VD, given.labels_N, options=options)


def liger(given: Inputs) -> Tensor:
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

    return liger_fused_linear_cross_entropy(given.hidden_ND, given.weight_VD, given.labels_N)


def cut_cross_entropy(given: Inputs) -> Tensor:
    from cut_cross_entropy import linear_cross_entropy

    return linear_cross_entropy(given.hidden_ND.bfloat16(), given.weight_VD.bfloat16(), given.labels_N)


RSKD, ONE_HOT, FULL, GHOST, TAD = "RS-KD", "one-hot", "FullKD", "ghost token", "TAD"
SEKD = "RS-KD at 20 % of positions"
CROSS_ENTROPY, LISTED, LISTED_FULL = "cross_entropy on full logits", "App. K", "App. K, FullKD"
LINEAR_CROSS_ENTROPY, LIGER, CUT = "F.linear_cross_entropy, chunked", "Liger-Kernel", "cut-cross-entropy"
PRODUCTS = "three matrix products"

Loss = Callable[[Inputs], Tensor]
OURS: dict[str, Loss] = {
    RSKD: lambda given: fused(given, given.target),
    ONE_HOT: lambda given: fused(given, one_hot(given.labels_N)),
    FULL: lambda given: fused(given, given.dense_teacher),
    GHOST: lambda given: fused(given, given.target, GhostToken()),
    TAD: lambda given: fused(given, given.dense_teacher, TailAware(k=given.sizes.kept)),
    SEKD: lambda given: fused(given, given.target, positions=TopFraction(0.2)),
}
THEIRS: dict[str, Loss] = {
    CROSS_ENTROPY: lambda given: F.cross_entropy(logits_of(given), given.labels_N),
    LINEAR_CROSS_ENTROPY: linear_cross_entropy,
    LISTED: listed_sparse,
    LISTED_FULL: listed_full,
    LIGER: liger,
    CUT: cut_cross_entropy,
}
LOSSES = OURS | THEIRS
DENSE = {FULL, TAD, LISTED_FULL}


def missing(name: str) -> str | None:
    """Why a contender does not run here."""
    module = {LIGER: "liger_kernel", CUT: "cut_cross_entropy"}.get(name)
    if module and not torch.cuda.is_available():
        return "runs on a GPU only"
    if module and find_spec(module) is None:
        return f"not installed ({module})"
    if name == LINEAR_CROSS_ENTROPY and not hasattr(F, "linear_cross_entropy"):
        return f"not in PyTorch {torch.__version__}"
    return None


def step(name: str, sizes: Sizes) -> Callable[[], object]:
    return step_on(name, inputs(sizes, name in DENSE))


def step_on(name: str, given: Inputs) -> Callable[[], object]:
    return products(given) if name == PRODUCTS else partial(through, LOSSES[name], given)


def through(loss: Loss, given: Inputs) -> Tensor:
    given.hidden_ND.grad = given.weight_VD.grad = None
    with given.precision():
        value = loss(given)
    value.backward()
    return value.detach()


def products(given: Inputs) -> Callable[[], object]:
    """The floor: logits, and a gradient in logits carried to hidden states and head; nothing between them."""
    precision = torch.bfloat16 if given.sizes.precision == "bfloat16" else given.hidden_ND.dtype
    hidden_ND, weight_VD = given.hidden_ND.detach().to(precision), given.weight_VD.detach().to(precision)

    def three() -> tuple[Tensor, Tensor]:
        logits_NV = hidden_ND @ weight_VD.T
        return logits_NV @ weight_VD, logits_NV.T @ hidden_ND

    return three


def doubled(given: Inputs) -> Inputs:
    """The same in float64, without its teacher."""
    target = replace(given.target, weights_NK=given.target.weights_NK.double())
    hidden_ND, weight_VD = (part.detach().double().requires_grad_() for part in (given.hidden_ND, given.weight_VD))
    return replace(given, hidden_ND=hidden_ND, weight_VD=weight_VD, target=target, teacher=None)


def error(given: Inputs, exact: Inputs) -> float:
    """The larger relative error, by norm, of the two gradients that steps on each have left."""
    errors = []
    for one, other in ((given.hidden_ND.grad, exact.hidden_ND.grad), (given.weight_VD.grad, exact.weight_VD.grad)):
        assert one is not None and other is not None
        errors.append(float((one.double() - other).norm() / other.norm()))
    return max(errors)
