"""The output head, and a dense teacher given as hidden states and head: logits are made a chunk at a time."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from replication.axes.targets.base import DenseTarget, log_probs

Rows = slice | Tensor


@dataclass(frozen=True)
class Scaling:
    """What some families do to the product of states and head: logits are cap * tanh(by * product / cap).

    Without a cap they are by * product: Granite, Cohere and Falcon-H1 scale, Gemma 2 and RecurrentGemma cap.
    """

    by: float = 1.0
    cap: float | None = None

    def apply_(self, product_NV: Tensor) -> Tensor:
        """Products become logits, in place; not for autograd."""
        if self.by != 1:
            product_NV.mul_(self.by)
        return product_NV if self.cap is None else product_NV.div_(self.cap).tanh_().mul_(self.cap)

    def slope(self, logits_NV: Tensor) -> Tensor | float:
        """The derivative of these logits in their products."""
        return self.by if self.cap is None else (logits_NV / self.cap).square_().sub_(1).mul_(-self.by)


PLAIN = Scaling()


@dataclass(frozen=True)
class Head:
    """A linear map from hidden states to the tokenizer's classes, and what the family does to its product."""

    weight_VD: Tensor
    bias_V: Tensor | None = None
    scaling: Scaling = PLAIN

    def __call__(self, hidden_ND: Tensor) -> Tensor:
        """[N, V] logits, in the precision of the surrounding autocast."""
        return self.scaling.apply_(torch.nn.functional.linear(hidden_ND, self.weight_VD, self.bias_V))


@dataclass(frozen=True)
class TeacherStates:
    """A `DenseTarget` that is not there yet: the teacher's last hidden states, [N, D], and its head.

    `exponent` as in `kept.Full`.
    """

    hidden_ND: Tensor
    head: Head
    exponent: float = 1.0
    sequences: int = 1
    layers: tuple[Tensor, ...] = ()  # the states behind its layers, [N, D] each, as far as they are handed on

    def rows(self, rows: Rows) -> DenseTarget:
        """The probabilities of some positions, [len(rows), V]."""
        with torch.no_grad():
            return DenseTarget(log_probs(self.head(self.hidden_ND[rows]), self.exponent).exp_())

    def whole(self) -> DenseTarget:
        return replace(self.rows(slice(None)), sequences=self.sequences)

    def dense(self, vocabulary: int) -> Tensor:
        return self.whole().dense(vocabulary)
