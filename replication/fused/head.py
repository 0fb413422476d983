"""The output head, and a dense teacher given as hidden states and head: logits are made a chunk at a time."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from replication.axes.targets.base import DenseTarget, log_probs

Rows = slice | Tensor


@dataclass(frozen=True)
class Head:
    """A linear map from hidden states to the tokenizer's classes."""

    weight_VD: Tensor
    bias_V: Tensor | None = None

    def __call__(self, hidden_ND: Tensor) -> Tensor:
        """[N, V] logits, in the precision of the surrounding autocast."""
        return torch.nn.functional.linear(hidden_ND, self.weight_VD, self.bias_V)


@dataclass(frozen=True)
class TeacherStates:
    """A `DenseTarget` that is not there yet: the teacher's last hidden states, [N, D], and its head.

    `exponent` as in `kept.Full`.
    """

    hidden_ND: Tensor
    head: Head
    exponent: float = 1.0
    sequences: int = 1

    def rows(self, rows: Rows) -> DenseTarget:
        """The probabilities of some positions, [len(rows), V]."""
        with torch.no_grad():
            return DenseTarget(log_probs(self.head(self.hidden_ND[rows]), self.exponent).exp_())

    def whole(self) -> DenseTarget:
        return replace(self.rows(slice(None)), sequences=self.sequences)

    def dense(self, vocabulary: int) -> Tensor:
        return self.whole().dense(vocabulary)
