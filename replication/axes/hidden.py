"""How far the student's hidden states are from its teacher's: a second term, beside the divergence.

`hidden(student_ND, teacher_ND)` gives term_N, of both models' last hidden states, [N, D] each. What it gives has the
weight of distillation and the weights of positions, as the divergence has: kd_weight * (divergence + term).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import cosine_similarity

from replication.axes.targets.base import precise


@dataclass(frozen=True)
class NoHidden:
    """Nothing: only distributions are compared."""

    def __call__(self, student_ND: Tensor, teacher_ND: Tensor) -> Tensor:
        return precise(student_ND).new_zeros(len(student_ND))


@dataclass(frozen=True)
class Cosine:
    """weight * (1 - cosine of the angle between the two states), as TAD Section 3.2.2 adds it to its Eq. 4.

    DistilBERT's loss (Sanh et al. 2019). TAD prints no weight; one, as of the other terms there, is our reading, and so
    are the last states, behind the final norm: the head reads them.
    Raises ValueError where the two models' widths differ.
    """

    weight: float = 1.0

    def __post_init__(self) -> None:
        if not self.weight > 0:
            raise ValueError(f"Cosine.weight is {self.weight}; give a weight above 0, or leave hidden out.")

    def __call__(self, student_ND: Tensor, teacher_ND: Tensor) -> Tensor:
        widths = student_ND.shape[1], teacher_ND.shape[1]
        if widths[0] != widths[1]:
            raise ValueError(
                f"Hidden Cosine compares states of one width: the student's is {widths[0]}, its teacher's {widths[1]}. "
                "Use a student as wide as its teacher, or leave hidden out."
            )
        return self.weight * (1 - cosine_similarity(precise(student_ND), precise(teacher_ND), dim=1))


Hidden = NoHidden | Cosine
HIDDEN = {cls.__name__: cls for cls in (NoHidden, Cosine)}
