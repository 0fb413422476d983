"""Drawing classes from logits: points in [0, 1) from random streams, and the classes that they fall on.

Inverse transform by block sums: a row's probabilities are summed block by block, a point finds its block in the running
sum of the blocks, and only blocks that are hit are summed class by class. A sampler with points of its own calls `at`.

Axis letters: N positions, R of them at a time, V classes, D draws, M items (blocks of W classes), K kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

# probabilities held at a time: few enough for a CPU's last cache, so many that its threads seldom wait for each other,
# and on a GPU many enough to fill it (not yet measured)
ON_CPU, ON_GPU = 2**23, 2**26
EACH = 8  # classes in a group, of which only the largest is looked at


@dataclass(frozen=True)
class Streams:
    """A random stream for each of several equally long sequences: taken together they are drawn as each would be alone.

    Stands wherever a generator does.
    """

    each: tuple[Generator, ...]


Randomness = Generator | Streams


def draw(logits_NV: Tensor, draws: int, generator: Randomness, exponent: float = 1.0) -> Tensor:
    """Class ids drawn with replacement from softmax(exponent * logits), sorted within each row, [N, draws]."""
    # sorted points fall on sorted classes, and are found faster
    return at(logits_NV, uniform(generator, len(logits_NV), draws, logits_NV.device).sort(1)[0], exponent)


def uniform(generator: Randomness, rows: int, draws: int, device: torch.device) -> Tensor:
    """Independent points in [0, 1), float64 [rows, draws]; of Streams, each sequence's rows from its own."""
    streams = generator.each if isinstance(generator, Streams) else (generator,)
    assert rows % len(streams) == 0, f"{rows} rows are not {len(streams)} equally long sequences"
    share = rows // len(streams)
    return torch.cat([torch.rand(share, draws, dtype=torch.float64, device=device, generator=each) for each in streams])


def at(logits_NV: Tensor, points_ND: Tensor, exponent: float = 1.0) -> Tensor:
    """The classes on which float64 points in [0, 1) fall in the running sum of softmax(exponent * logits), [N, D].

    Never a class without probability, whatever the point. Logits are read once and no second [N, V] is made. Not yet
    measured on a GPU, whose running sums need not rise with every item: there "never" is up to 1e-16 of the mass.
    Raises ValueError where a row has no distribution.
    """
    draws = points_ND.shape[1]
    width = block_width(logits_NV.shape[1], draws)
    ids_ND = torch.empty_like(points_ND, dtype=torch.int64)
    for rows, probs_RV in softmax_by_rows(logits_NV, exponent, beside=draws):
        ids_ND[rows] = classes_at(probs_RV, points_ND[rows], width)
    return ids_ND


def block_width(classes: int, draws: int) -> int:
    """Twice as many blocks to look through as classes in the blocks that are hit, which cost about twice as much."""
    return max(1, math.isqrt(classes // (2 * draws)))


def classes_at(probs_RV: Tensor, points_RD: Tensor, width: int) -> Tensor:
    """The classes on which the points fall, [R, D]."""
    blocks = probs_RV.shape[1] // width
    probs_RMW, left_RV = probs_RV[:, : blocks * width].unflatten(1, (blocks, width)), probs_RV[:, blocks * width :]
    # the classes that fill no block stand one by one behind the blocks
    mass_RM = torch.cat([probs_RMW.sum(2), left_RV], 1)
    item_RD, along_RD = located(mass_RM, points_RD)
    begin_RD = item_RD.clamp_max(blocks - 1) * width
    hit_RDW = (begin_RD[:, :, None] + torch.arange(width, device=begin_RD.device)).flatten(1)
    step_RD1 = placed(probs_RV.gather(1, hit_RDW).unflatten(1, (-1, width)), along_RD[:, :, None])[0]
    return torch.where(item_RD < blocks, begin_RD + step_RD1[:, :, 0], item_RD + blocks * (width - 1))


def outside(probs_RV: Tensor, ids_RK: Tensor, taken_RK: Tensor, points_RD: Tensor) -> Tensor:
    """The classes on which the points fall without those of ids_RK that are `taken`, [R, D]; their probs are zeroed."""
    probs_RV.scatter_(1, ids_RK, probs_RV.gather(1, ids_RK).masked_fill_(taken_RK, 0.0))
    return classes_at(probs_RV, points_RD, block_width(probs_RV.shape[1], points_RD.shape[1]))


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


@torch.no_grad()
def softmax_by_rows(logits_NV: Tensor, exponent: float, beside: int = 0) -> Iterator[tuple[slice, Tensor]]:
    """softmax(exponent * logits) as (rows, [R, V]), float32 or better, in a buffer that the next rows overwrite.

    They sum to one within a few float32 roundings only. `beside`: numbers that the caller holds for each row. After the
    last rows: ValueError if one of all had no distribution.
    """
    positions, classes = logits_NV.shape
    dtype = torch.promote_types(logits_NV.dtype, torch.float32)
    size = min(positions, max(1, held(logits_NV.device) // max(classes, beside)))
    buffer_RV = torch.empty(size, classes, dtype=dtype, device=logits_NV.device)
    scaled_RV = buffer_RV if exponent == 1 else torch.empty_like(buffer_RV)
    some_N = torch.empty(positions, dtype=dtype, device=logits_NV.device)
    for start in range(0, positions, size):
        rows = slice(start, min(start + size, positions))
        logits_RV, probs_RV = logits_NV[rows], buffer_RV[: rows.stop - start]
        if exponent != 1:
            # at exponent 0 too a class that is ruled out stays so: 0 * -inf would be NaN
            power = max(exponent, 1e-30)
            logits_RV = scaled_RV[: rows.stop - start].copy_(logits_RV).mul_(power)
        torch.softmax(logits_RV, -1, dtype=dtype, out=probs_RV)
        some_N[rows] = probs_RV[:, 0]  # a softmax is NaN throughout or nowhere
        yield rows, probs_RV
    refuse_broken(some_N)


def held(device: torch.device) -> int:
    return ON_CPU if device.type == "cpu" else ON_GPU


def refuse_broken(by_position_N: Tensor) -> None:
    """ValueError for the first position that is not finite; on a GPU the one wait."""
    if not bool(torch.isfinite(by_position_N).all()):
        position = int((~torch.isfinite(by_position_N)).nonzero()[0, 0])
        raise ValueError(
            f"Teacher logits at position {position} are not a distribution (NaN or infinite). "
            "Check the teacher's precision: bfloat16 or float32 instead of float16 often mends it."
        )


def head_of(probs_RV: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest classes and their probabilities, descending; a float32 softmax is divided by its own sum."""
    ids_RK = largest_ids(probs_RV, k)
    return ids_RK, probs_RV.gather(1, ids_RK) / probs_RV.sum(1, keepdim=True)


def largest_ids(probs_RV: Tensor, k: int) -> Tensor:
    """The k largest classes, descending: half the time of a topk where there are many.

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


def counted(sorted_ids_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Unique ids and how often each was drawn, [N, K] each; unused slots are id 0, count 0."""
    first_ND = torch.ones_like(sorted_ids_ND, dtype=torch.bool)
    first_ND[:, 1:] = sorted_ids_ND[:, 1:] != sorted_ids_ND[:, :-1]
    slot_ND = first_ND.cumsum(1) - 1
    ids_ND = torch.zeros_like(sorted_ids_ND).scatter_(1, slot_ND, sorted_ids_ND)
    counts_ND = torch.zeros(sorted_ids_ND.shape, device=sorted_ids_ND.device)
    counts_ND.scatter_add_(1, slot_ND, torch.ones_like(counts_ND))
    kept = int(slot_ND[:, -1].max()) + 1
    return ids_ND[:, :kept], counts_ND[:, :kept]
