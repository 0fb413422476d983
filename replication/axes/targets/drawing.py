"""Drawing classes from logits: points in [0, 1) from random streams, and the classes that they fall on (`blocks.py`).

A sampler with points of its own calls `at`.

Axis letters: N positions, R of them at a time, V classes, D draws, K kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from replication.axes.targets.blocks import Blocks, room
from replication.machine.memory import spacious

# probabilities held at a time: so few that what is made of them stays in a CPU's cache (fresh memory takes twice the
# time), so many that its threads seldom wait for each other, and on a GPU many enough to fill it (not yet measured)
ON_CPU, ON_GPU = 2**22, 2**26


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
    return at(logits_NV, ascending(generator, len(logits_NV), draws, logits_NV.device), exponent)


def uniform(generator: Randomness, rows: int, draws: int, device: torch.device) -> Tensor:
    """Independent points in [0, 1), float64 [rows, draws]; of Streams, each sequence's rows from its own."""
    streams = generator.each if isinstance(generator, Streams) else (generator,)
    assert rows % len(streams) == 0, f"{rows} rows are not {len(streams)} equally long sequences"
    share = rows // len(streams)
    return torch.cat([torch.rand(share, draws, dtype=torch.float64, device=device, generator=each) for each in streams])


def exponential(generator: Randomness, rows: int, draws: int, device: torch.device) -> Tensor:
    """Independent waits of mean one, float64 [rows, draws]; streams as `uniform`'s."""
    return (-uniform(generator, rows, draws, device)).log1p().neg()


def ascending(generator: Randomness, rows: int, draws: int, device: torch.device) -> Tensor:
    """Independent points in [0, 1), sorted within each row, float64 [rows, draws]; in a third of a sort's time.

    They lie between each other as arrivals do between the first and one more than are wanted (Devroye 1986, chapter V);
    the last may round to one.
    """
    time_NX = exponential(generator, rows, draws + 1, device).cumsum(1)
    return time_NX[:, :-1] / time_NX[:, -1:]


def at(logits_NV: Tensor, points_ND: Tensor, exponent: float = 1.0) -> Tensor:
    """The classes on which float64 points in [0, 1) fall in the running sum of softmax(exponent * logits), [N, D].

    Never a class without probability, whatever the point. Logits are read once and no second [N, V] is made. Not yet
    measured on a GPU, whose running sums need not rise with every item: there "never" is up to 1e-16 of the mass.
    Raises ValueError where a row has no distribution.
    """
    draws = points_ND.shape[1]
    ids_ND = torch.empty_like(points_ND, dtype=torch.int64)
    for rows, probs_RV in softmax_by_rows(logits_NV, exponent, draws):
        ids_ND[rows] = Blocks.of(probs_RV, draws).at(points_ND[rows])
    return ids_ND


@torch.no_grad()
def softmax_by_rows(logits_NV: Tensor, exponent: float, draws: int = 0) -> Iterator[tuple[slice, Tensor]]:
    """softmax(exponent * logits) as (rows, [R, V]), float32 or better, in a buffer that the next rows overwrite.

    They sum to one within a few float32 roundings only. `draws`: how many the caller makes in each. After
    the last rows: ValueError if one of all had no distribution.
    """
    positions, classes = logits_NV.shape
    dtype = torch.promote_types(logits_NV.dtype, torch.float32)
    size = min(positions, max(1, held(logits_NV.device) // room(classes, draws)))
    buffer_RV = spacious((size, classes), dtype, logits_NV.device)
    some_N = torch.empty(positions, dtype=dtype, device=logits_NV.device)
    for start in range(0, positions, size):
        rows = slice(start, min(start + size, positions))
        logits_RV, probs_RV = logits_NV[rows], buffer_RV[: rows.stop - start]
        if exponent != 1 or logits_RV.dtype != dtype:
            # in place: a softmax into another precision makes a copy first, in fresh memory
            logits_RV = probs_RV.copy_(logits_RV)
        if exponent != 1:
            # at exponent 0 too a class that is ruled out stays so: 0 * -inf would be NaN
            logits_RV.mul_(max(exponent, 1e-30))
        torch.softmax(logits_RV, -1, out=probs_RV)
        some_N[rows] = probs_RV[:, 0]  # a softmax is NaN throughout or nowhere
        yield rows, probs_RV
    refuse_broken(some_N)


def held(device: torch.device) -> int:
    return ON_CPU if device.type == "cpu" else ON_GPU


def refuse_broken(by_position_N: Tensor) -> None:
    """ValueError for the first position that is not finite; only here the host waits for a GPU."""
    if not bool(torch.isfinite(by_position_N).all()):
        position = int((~torch.isfinite(by_position_N)).nonzero()[0, 0])
        raise ValueError(
            f"Teacher logits at position {position} are not a distribution (NaN or infinite). "
            "Check the teacher's precision: bfloat16 or float32 instead of float16 often mends it."
        )


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
