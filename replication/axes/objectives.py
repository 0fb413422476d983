"""Which prediction problem a row of text is: a transform between packing and student.

`objective(rows_BX, generator)` turns packed rows, int64 [B, L + 1], into inputs, labels and a mask of what is trained.
One that `draws` gets a random stream for each visit to a row, whatever the batch. Held-out text is always next-token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from replication.axes.targets.drawing import Randomness, uniform


@dataclass(frozen=True)
class Posed:
    """Rows as they are put to a student: int64 [B, L] each, and whether a position is trained, None where all are."""

    tokens_BL: Tensor
    labels_BL: Tensor
    mask_BL: Tensor | None = None


@dataclass(frozen=True)
class NextToken:
    """Each token from those before it (UL2's causal LM)."""

    draws: ClassVar[bool] = False

    def __call__(self, rows_BX: Tensor, generator: Randomness | None) -> Posed:
        return Posed(rows_BX[:, :-1], rows_BX[:, 1:])


@dataclass(frozen=True)
class PrefixLM:
    """As NextToken, but the first tokens of a row are only read: one of the four tasks of SALT's mixture (UL2).

    The prefix is `mean` of the row long on average, a quarter in SALT (its paragraph "Pre-training data"). How it is
    distributed is not stated; uniform from nothing to twice the mean is our reading. UL2's students see the whole
    prefix from each of its tokens; ours, which are causal everywhere, do not.
    """

    mean: float = 0.25
    draws: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.mean <= 0.5:
            raise ValueError(f"PrefixLM.mean is {self.mean}; give the mean share of a row that is prefix, in (0, 0.5].")

    def __call__(self, rows_BX: Tensor, generator: Randomness | None) -> Posed:
        assert generator is not None, "PrefixLM draws: give it a generator"
        sequences, length = len(rows_BX), rows_BX.shape[1] - 1
        most = round(2 * self.mean * length)
        prefix_B1 = (uniform(generator, sequences, 1, rows_BX.device) * (most + 1)).floor()
        token_L = torch.arange(1, length + 1, device=rows_BX.device)  # which one each position predicts
        return Posed(rows_BX[:, :-1], rows_BX[:, 1:], token_L >= prefix_B1)


Objective = NextToken | PrefixLM
OBJECTIVES = {cls.__name__: cls for cls in (NextToken, PrefixLM)}
