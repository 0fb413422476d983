"""Probabilities with the sums of their blocks: from one pass over the classes, where points fall and which are largest.

Inverse transform by block sums: a point finds its block in the running sum of the blocks, and only blocks that are hit
are looked at class by class. No class is larger than its block, so that the largest stand in the heaviest blocks.

Axis letters: R positions, V classes, D points, K kept, M items: B blocks of W classes, then the classes that fill none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

# blocks that are searched for each class that is wanted: too few for 6 % of the rows at most under Zipf laws of
# exponents 0.8 to 2, shuffled, at V = 100,278
HEAVY = 1.5
EACH = 8  # classes in a group, of which only the largest is looked at


@dataclass(frozen=True)
class Blocks:
    """Rows of probabilities, which need not sum to one, and what each item of them sums to."""

    probs_RV: Tensor
    width: int
    mass_RM: Tensor

    @classmethod
    def of(cls, probs_RV: Tensor, draws: int) -> Blocks:
        """In blocks that suit so many draws of each row."""
        width = block_width(probs_RV.shape[1], draws)
        blocks = probs_RV.shape[1] // width
        mass_RB = probs_RV[:, : blocks * width].unflatten(1, (blocks, width)).sum(2)
        return cls(probs_RV, width, torch.cat([mass_RB, probs_RV[:, blocks * width :]], 1))

    @property
    def blocks(self) -> int:
        return self.probs_RV.shape[1] // self.width

    @cached_property
    def total_R1(self) -> Tensor:
        """The sum of each row, float64."""
        # the masses are rounded already: adding them up in float64 would take a copy of them all
        return self.mass_RM.sum(1, keepdim=True).double()

    def rows(self, rows_X: Tensor) -> Blocks:
        """A copy of some rows."""
        return Blocks(self.probs_RV[rows_X], self.width, self.mass_RM[rows_X])

    def classes_of(self, block_RX: Tensor) -> Tensor:
        """The classes of some blocks, side by side, [R, X * W]."""
        within_W = torch.arange(self.width, device=block_RX.device)
        return (block_RX[:, :, None] * self.width + within_W).flatten(1)

    def at(self, points_RD: Tensor) -> Tensor:
        """The classes on which float64 points in [0, 1) fall in the running sum, [R, D]; sorted where the points are.

        Never a class without probability, whatever the point.
        """
        item_RD, along_RD = located(self.mass_RM, points_RD)
        block_RD = item_RD.clamp_max(self.blocks - 1)
        probs_RDW = self.probs_RV.gather(1, self.classes_of(block_RD)).unflatten(1, (-1, self.width))
        step_RD = placed(probs_RDW, along_RD[:, :, None])[0][:, :, 0]
        behind_RD = item_RD + self.blocks * (self.width - 1)
        return torch.where(item_RD < self.blocks, block_RD * self.width + step_RD, behind_RD)

    def largest(self, k: int) -> Tensor:
        """The k largest classes, descending, [R, K]. The host waits for a GPU once."""
        heavy = int(HEAVY * k)
        if 2 * heavy * self.width > self.probs_RV.shape[1]:
            return largest_ids(self.probs_RV, k)
        mass_RH, block_RH = self.mass_RM[:, : self.blocks].topk(heavy + 1, dim=1)
        left_C = torch.arange(self.blocks * self.width, self.probs_RV.shape[1], device=block_RH.device)
        among_RX = torch.cat([self.classes_of(block_RH[:, :-1]), left_C.expand(len(block_RH), -1)], 1)
        found = self.probs_RV.gather(1, among_RX).topk(k, dim=1)
        ids_RK = among_RX.gather(1, found.indices)
        # no class is larger than its block's sum, rounding included
        unsure_U = (found.values[:, -1] < mass_RH[:, -1]).nonzero()[:, 0]
        if len(unsure_U):
            ids_RK[unsure_U] = largest_ids(self.probs_RV[unsure_U], k)
        return ids_RK

    def head(self, k: int) -> tuple[Tensor, Tensor]:
        """The k largest classes, descending, and their shares of the row's sum; [R, K] each."""
        ids_RK = self.largest(k)
        return ids_RK, self.probs_RV.gather(1, ids_RK) / self.total_R1.to(self.probs_RV)

    def without(self, ids_RK: Tensor, number_R1: Tensor | None = None) -> Blocks:
        """The same where ids_RK, or only the first `number` of a row, have no probability.

        `probs_RV` is overwritten.
        """
        if number_R1 is None:
            number_R1 = torch.full_like(ids_RK[:, :1], ids_RK.shape[1])
        # slots beyond a row's number repeat its first class, so that no other class is overwritten
        ids_RK = torch.where(torch.arange(ids_RK.shape[1], device=ids_RK.device) < number_R1, ids_RK, ids_RK[:, :1])
        first_R1 = self.probs_RV.gather(1, ids_RK[:, :1]).masked_fill_(number_R1 > 0, 0.0)
        self.probs_RV.scatter_(1, ids_RK, first_R1.expand_as(ids_RK))
        # summed again: to subtract a large class from its block's sum would lose the small ones
        block_RK = (ids_RK // self.width).clamp_max(self.blocks - 1)
        mass_RK = (
            self.probs_RV.gather(1, self.classes_of(block_RK)).unflatten(1, (block_RK.shape[1], self.width)).sum(2)
        )
        mass_RM = self.mass_RM.scatter(1, block_RK, mass_RK)
        mass_RM[:, self.blocks :] = self.probs_RV[:, self.blocks * self.width :]
        return Blocks(self.probs_RV, self.width, mass_RM)


def block_width(classes: int, draws: int) -> int:
    """About as much work in finding the blocks that are hit as in looking through them."""
    return max(1, math.isqrt(classes // draws))


def room(classes: int, draws: int) -> int:
    """About how many numbers a row takes while its points are looked for: its probabilities, and the blocks hit."""
    return classes + 6 * draws * block_width(classes, max(1, draws))


def located(mass_XM: Tensor, points_XD: Tensor) -> tuple[Tensor, Tensor]:
    """In which item each point in [0, 1) falls, and how far along that item it stands, in [0, 1]; [..., D] each."""
    item_XD, place_XD, upto_XM = placed(mass_XM, points_XD)
    end_XD = upto_XM.gather(-1, item_XD)
    start_XD = torch.where(item_XD > 0, upto_XM.gather(-1, (item_XD - 1).clamp_min(0)), 0)
    return item_XD, (place_XD - start_XD) / (end_XD - start_XD)


def placed(mass_XM: Tensor, points_XD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """In which item each point in [0, 1) falls, its place in the running sum of the masses, and that sum.

    The points are scaled to the masses' own sum: it need not be one, and a place along an item may round to 1.
    """
    # float64: a float32 running sum over 10^5 classes does not end at one and starves the tail
    upto_XM = mass_XM.cumsum(-1, dtype=torch.float64)
    total_X1 = upto_XM[..., -1:]
    # right=True never lands on mass zero; the largest float below the total never falls off the end
    place_XD = torch.minimum(points_XD * total_X1, total_X1.nextafter(torch.zeros_like(total_X1)))
    # only NaN stands beyond the last item, until its row is refused
    item_XD = torch.searchsorted(upto_XM, place_XD, right=True).clamp_max(mass_XM.shape[-1] - 1)
    return item_XD, place_XD, upto_XM


def largest_ids(probs_RV: Tensor, k: int) -> Tensor:
    """The k largest classes, descending, whatever the sums: half the time of a topk where there are many.

    They stand in the k groups with the largest peaks, or are left over.
    """
    groups = probs_RV.shape[1] // EACH
    if groups < k:
        return probs_RV.topk(k, dim=1).indices
    # a group's members stand `groups` apart: their maximum runs along the memory
    peak_RG = probs_RV[:, : EACH * groups].unflatten(1, (EACH, groups)).amax(1)
    best_RK1 = peak_RG.topk(k, dim=1, sorted=False).indices[:, :, None]
    member_E = torch.arange(0, EACH * groups, groups, device=probs_RV.device)
    left_C = torch.arange(EACH * groups, probs_RV.shape[1], device=probs_RV.device)
    among_RC = torch.cat([(best_RK1 + member_E).flatten(1), left_C.expand(len(probs_RV), -1)], 1)
    return among_RC.gather(1, probs_RV.gather(1, among_RC).topk(k, dim=1).indices)
