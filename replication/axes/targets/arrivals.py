"""Arrivals: each class arrives at random times, at the rate of its probability; the first different ones are kept.

What a draw without replacement is made of (`sampled.WithoutReplacement`). N positions, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from replication.axes.targets.blocks import Blocks
from replication.axes.targets.drawing import Randomness, exponential, softmax_by_rows, uniform


def first_arrivals(logits_NV: Tensor, classes: int, generator: Randomness) -> tuple[Tensor, Tensor, Tensor]:
    """The first so many different classes where each arrives at random times with its probability as rate.

    Their ids, probabilities and times of arrival, [N, K] each, in that order; float64: a float32 time has no small
    values, which is where rare classes win. Where there are fewer classes the last times are infinite. The largest
    classes, which would arrive over and over, are given a time each; the others arrive in rounds, each without the
    classes seen before, whose rates do not concern the others.
    """
    heads, draws = min(max(1, 2 * classes // 5), logits_NV.shape[1]), 9 * classes // 8
    wait_NH = exponential(generator, len(logits_NV), heads, logits_NV.device)
    rounds: list[tuple[Tensor, Tensor]] = []
    parts = []

    def a_round(number: int, rows: slice) -> tuple[Tensor, Tensor]:
        """Points and waits of these rows; drawn for all rows, so that none depends on which others need another."""
        if number == len(rounds):
            shape = generator, len(logits_NV), draws, logits_NV.device
            rounds.append((uniform(*shape), exponential(*shape)))
        return rounds[number][0][rows], rounds[number][1][rows]

    for rows, probs_RV in softmax_by_rows(logits_NV, 1.0, draws):
        blocks = Blocks.of(probs_RV, draws)
        total_R1 = blocks.total_R1  # a float32 softmax's own
        ids_RH = blocks.largest(heads)
        probs_RH = probs_RV.gather(1, ids_RH)
        times_RH = (wait_NH[rows] / probs_RH).masked_fill(probs_RH == 0, torch.inf)
        rest = blocks.without(ids_RH)
        ids_RD, times_RD, now_R1 = arrivals(rest, *a_round(0, rows))
        ids_RK, times_RK = earliest(torch.cat([ids_RH, ids_RD], 1), torch.cat([times_RH, times_RD], 1), classes)
        # until then others may arrive
        open_O, number = (times_RK[:, -1:] > now_R1).nonzero()[:, 0], 1
        while len(open_O):
            old_OK, times_OK = ids_RK[open_O], times_RK[open_O]
            # an empty slot stands for the first one again
            left = rest.rows(open_O).without(torch.where(times_OK.isfinite(), old_OK, old_OK[:, :1]))
            points_RD, waits_RD = a_round(number, rows)
            ids_OD, times_OD, after_O1 = arrivals(left, points_RD[open_O], waits_RD[open_O])
            times_OX = torch.cat([times_OK, now_R1[open_O] + times_OD], 1)
            ids_RK[open_O], times_RK[open_O] = earliest(torch.cat([old_OK, ids_OD], 1), times_OX, classes)
            now_R1[open_O] += after_O1
            open_O, number = open_O[times_RK[open_O, -1] > now_R1[open_O, 0]], number + 1
        probs_RV.scatter_(1, ids_RH, probs_RH)
        probs_RK = probs_RV.gather(1, ids_RK).masked_fill(times_RK.isinf(), 0.0)
        parts.append((ids_RK, probs_RK / total_R1, times_RK * total_R1))
    ids_NK, probs_NK, times_NK = (torch.cat(part) for part in zip(*parts, strict=True))
    return ids_NK, probs_NK, times_NK


def arrivals(blocks: Blocks, points_RD: Tensor, waits_RD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Classes and when they arrive, [R, D] each, never where that is a repetition; and the time of the last, [R, 1].

    Where nothing has a probability, nothing ever arrives, and all times are infinite.
    """
    times_RD = (waits_RD.cumsum(1) / blocks.total_R1).masked_fill(blocks.total_R1 == 0, torch.inf)
    ids_RD, order_RD = blocks.at(points_RD).sort(dim=1, stable=True)
    again_RD = pad(ids_RD[:, 1:] == ids_RD[:, :-1], (1, 0))
    return ids_RD, times_RD.gather(1, order_RD).masked_fill(again_RD, torch.inf), times_RD[:, -1:]


def earliest(ids_RX: Tensor, times_RX: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    times_RK, first_RK = times_RX.topk(classes, dim=1, largest=False)
    return ids_RX.gather(1, first_RK), times_RK
