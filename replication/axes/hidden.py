"""How far the student's hidden states are from its teacher's: a second term, beside the divergence.

`hidden(student_SND, teacher_SND)` gives term_N, of S hidden states of either model at each of N positions, [S, N, D]:
the last ones, or those behind every layer of the student and the layers of the teacher that stand for them. What it
gives has the weights of distillation and of positions, as the divergence has: kd_weight * (divergence + term).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import cosine_similarity

from replication.axes.targets.base import precise

LAYERS = ("last", "every")


@dataclass(frozen=True)
class NoHidden:
    """Nothing: only distributions are compared."""

    layers: ClassVar[str] = "last"

    def __call__(self, student_SND: Tensor, teacher_SND: Tensor) -> Tensor:
        return precise(student_SND).new_zeros(student_SND.shape[1])


@dataclass(frozen=True)
class Cosine:
    """weight * (1 - cosine of the angle between the two states), as TAD Section 3.2.2 adds it to its Eq. 4.

    DistilBERT's loss (Sanh et al. 2019), which compares the last states, behind the final norm: the head reads them.
    TAD prints no weight; one, as of the other terms there, is our reading. `layers` "every": the mean over the
    student's layers, the last of which is compared with the teacher's last, the others at even distances before it.
    Raises ValueError where the two models' widths differ.
    """

    weight: float = 1.0
    layers: str = "last"

    def __post_init__(self) -> None:
        if self.layers not in LAYERS:
            raise ValueError(f"Cosine.layers is {self.layers!r}. Known: {', '.join(LAYERS)}.")
        if not self.weight > 0:
            raise ValueError(f"Cosine.weight is {self.weight}; give a weight above 0, or leave hidden out.")

    def __call__(self, student_SND: Tensor, teacher_SND: Tensor) -> Tensor:
        widths = student_SND.shape[-1], teacher_SND.shape[-1]
        if widths[0] != widths[1]:
            raise ValueError(
                f"Hidden Cosine compares states of one width: the student's is {widths[0]}, its teacher's {widths[1]}. "
                "Use a student as wide as its teacher, or leave hidden out."
            )
        return self.weight * (1 - cosine_similarity(precise(student_SND), precise(teacher_SND), dim=-1)).mean(0)


Hidden = NoHidden | Cosine
HIDDEN = {cls.__name__: cls for cls in (NoHidden, Cosine)}
