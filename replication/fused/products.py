"""The products of hidden states and output head: logits, and what a gradient in the logits is to each of the two.

They run in one precision; what is added up of them is at least float32 (a bf16 sum loses its small terms). A head in
another precision is converted a strip of rows at a time: a copy of it would cost more to make than to use.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from replication.machine.memory import spacious

# rows of the head that are converted together: few enough for a processor's cache, many enough to fill a GPU
STRIP = {"cpu": 2**10, "cuda": 2**13}
# rows of the head in one product where nothing is converted. On a CPU, for few positions, products of 512 rows take an
# eighth less time than products of 4,096 rows; one product of all rows takes longest
WHOLE = {"cpu": 2**9, "cuda": 2**30}


class Products:
    """Of one batch with its head. N positions come M at a time; S rows of the head are a strip."""

    def __init__(self, weight_VD: Tensor, bias_V: Tensor | None, precision: torch.dtype) -> None:
        device = weight_VD.device.type
        # a GPU has the room for a copy, and would wait for every strip
        self.weight_VD = weight_VD.to(precision) if device == "cuda" else weight_VD
        self.bias_V, self.precision, self.given = bias_V, precision, weight_VD.dtype
        self.room_NV: Tensor | None = None
        self.sum_VD: Tensor | None = None
        self.whole = self.weight_VD.dtype == precision
        self.rows = STRIP[device]
        # used again for every strip: fresh memory of this size costs as much as the products
        strip = (0 if precision == sums(precision) else self.rows, weight_VD.shape[1])
        self.narrow_SD = weight_VD.new_empty(strip, dtype=precision)
        self.wide_SD = weight_VD.new_empty(strip, dtype=sums(precision))

    def strips(self) -> Iterator[tuple[slice, Tensor]]:
        """The head in the precision of the products."""
        rows = WHOLE[self.weight_VD.device.type] if self.whole else self.rows
        for start in range(0, len(self.weight_VD), rows):
            strip = slice(start, start + rows)
            weight_SD = self.weight_VD[strip]
            yield strip, weight_SD if self.whole else self.narrow_SD[: len(weight_SD)].copy_(weight_SD)

    def logits(self, hidden_MD: Tensor) -> Tensor:
        """[M, V], where the logits of the M before stood."""
        if self.room_NV is None or len(self.room_NV) < len(hidden_MD):
            self.room_NV = self.room(len(hidden_MD))
        logits_MV = self.room_NV[: len(hidden_MD)]
        for strip, weight_SD in self.strips():
            torch.mm(hidden_MD, weight_SD.T, out=logits_MV[:, strip])
        if self.bias_V is not None:
            logits_MV += self.bias_V
        return logits_MV

    def room(self, positions: int) -> Tensor:
        """For the logits of so many. One that grew would leave the smaller one behind, for the step to come."""
        return spacious((positions, len(self.weight_VD)), self.precision, self.weight_VD.device)

    def of_hidden(self, gradient_MV: Tensor) -> Tensor:
        """The gradient in the hidden states, [M, D], from that in their logits."""
        if self.whole:
            return gradient_MV @ self.weight_VD
        shape = (len(gradient_MV), self.weight_VD.shape[1])
        summed_MD = self.weight_VD.new_zeros(shape, dtype=sums(self.precision))
        for strip, weight_SD in self.strips():
            summed_MD += gradient_MV[:, strip] @ weight_SD
        return summed_MD

    def of_bias(self, gradient_MV: Tensor) -> Tensor:
        """The gradient in the bias, [V]."""
        return gradient_MV.sum(0, dtype=sums(self.precision))

    def add_of_head(self, gradient_MV: Tensor, hidden_MD: Tensor) -> None:
        """To `sum_VD`, the gradient in the head over all chunks, goes that of this one."""
        if first := self.sum_VD is None:
            self.sum_VD = spacious(self.weight_VD.shape, sums(self.precision), hidden_MD.device)
        assert self.sum_VD is not None
        if self.precision == self.sum_VD.dtype:
            beta = 0 if first else 1  # 0: what stands there is not read
            torch.addmm(self.sum_VD, gradient_MV.T, hidden_MD, beta=beta, out=self.sum_VD)
            return
        # never a product as large as the head
        for sum_SD, gradient_MS in zip(self.sum_VD.split(self.rows), gradient_MV.split(self.rows, 1), strict=True):
            product_SD = torch.mm(gradient_MS.T, hidden_MD, out=self.narrow_SD[: len(sum_SD)])
            if first:
                sum_SD.copy_(product_SD)
            else:
                sum_SD += self.wide_SD[: len(sum_SD)].copy_(product_SD)

    def of_head(self) -> Tensor:
        """The gradient in the head, [V, D], in the head's own precision."""
        if self.sum_VD is None:
            return torch.zeros_like(self.weight_VD, dtype=self.given)
        return self.sum_VD.to(self.given)


def sums(dtype: torch.dtype) -> torch.dtype:
    """The precision in which numbers of `dtype` are added up."""
    return torch.float64 if dtype == torch.float64 else torch.float32
