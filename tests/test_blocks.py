"""Blocks: the largest are the largest, what is taken out is out and nothing else moves, a head is found whole."""

from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor

from replication.axes.targets import blocks as module
from replication.axes.targets.blocks import Blocks, largest_ids
from replication.axes.targets.water_filling import AdaptiveWaterFilling, WaterFilling, head_and_tail, levelled

POINTS = torch.linspace(0, 1, 101, dtype=torch.float64)[None]


def rows(name: str, classes: int, number: int = 24) -> Tensor:
    """Probabilities in rows of falling flatness, [R, V] float32; no two alike within a row but of "flat"."""
    random = Generator().manual_seed(classes)
    rank_V, power_R1 = torch.arange(1, classes + 1), torch.linspace(0.3, 3, number)[:, None]
    zipf_RV = (-power_R1 * rank_V.log()).softmax(1)
    shuffle_RV = torch.rand(number, classes, generator=random).argsort(1)
    return {
        "shuffled": zipf_RV.gather(1, shuffle_RV),
        "ordered": zipf_RV,  # the largest share few blocks
        "flat": torch.full((number, classes), 1 / classes),
        "sparse": zipf_RV.gather(1, shuffle_RV).where(shuffle_RV < 9, 0.0),
    }[name]


@pytest.mark.parametrize("name", ["shuffled", "ordered", "flat", "sparse"])
@pytest.mark.parametrize("classes", [5, 40, 161, 5000, 20_011])
@pytest.mark.parametrize("k", [1, 5, 20])
def test_the_largest_are_the_largest(name: str, classes: int, k: int) -> None:
    probs_RV, k = rows(name, classes), min(k, classes)
    ids_RK, shares_RK = Blocks.of(probs_RV, 2 * k).head(k)
    expected_RK = probs_RV.topk(k, dim=1).values
    assert torch.equal(probs_RV.gather(1, ids_RK), expected_RK)
    assert all(len(set(row)) == k for row in ids_RK.tolist())
    torch.testing.assert_close(shares_RK, expected_RK / probs_RV.sum(1, keepdim=True), rtol=1e-5, atol=0)


def test_rows_whose_largest_share_blocks_are_searched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """And no others; of shuffled classes with a teacher's sharpness hardly any."""
    searched = []

    def spy(probs_RV: Tensor, k: int) -> Tensor:
        searched.append(len(probs_RV))
        return largest_ids(probs_RV, k)

    monkeypatch.setattr(module, "largest_ids", spy)
    Blocks.of(rows("flat", 20_000), 30).largest(15)
    assert searched == [24]
    searched.clear()
    sharp_RV = rows("shuffled", 20_000)[8:]
    Blocks.of(sharp_RV, 30).largest(15)
    assert sum(searched) <= 2
    searched.clear()
    Blocks.of(torch.cat([sharp_RV[:3], rows("flat", 20_000)[:2]]), 30).largest(15)
    assert 2 <= sum(searched) <= 3


@pytest.mark.parametrize("classes", [5, 161, 20_011])
def test_what_is_taken_is_never_drawn_and_the_rest_keeps_its_shares(classes: int) -> None:
    probs_RV = rows("shuffled", classes)
    ids_RK = largest_ids(probs_RV, 4)
    # one of the classes that fill no block too
    ids_RK[:, 1] = torch.where((ids_RK == classes - 1).any(1), ids_RK[:, 1], classes - 1)
    number_R1 = torch.arange(len(probs_RV))[:, None] % 5
    # what stands beyond is not looked at, whatever it repeats
    given_RK = torch.where(torch.arange(4) < number_R1, ids_RK, ids_RK[:, 1:2])
    wanted_RV = probs_RV.clone()
    for row, number in enumerate(number_R1[:, 0].tolist()):
        wanted_RV[row, ids_RK[row, :number]] = 0.0
    points_RD = POINTS.expand(len(probs_RV), -1)
    expected = Blocks.of(wanted_RV.clone(), 8).at(points_RD)
    given = Blocks.of(probs_RV.clone(), 8)
    part = given.rows(torch.tensor([3, 1])).without(given_RK[[3, 1]], number_R1[[3, 1]])
    assert torch.equal(given.probs_RV, probs_RV)  # of a copy
    left = given.without(given_RK, number_R1)
    assert torch.equal(left.probs_RV, wanted_RV) and torch.equal(left.at(points_RD), expected)
    assert torch.equal(part.at(points_RD[:2]), expected[[3, 1]])
    # a small class beside a large one that is gone keeps its share to the last digits
    torch.testing.assert_close(left.total_R1, wanted_RV.sum(1, keepdim=True, dtype=torch.float64), rtol=1e-6, atol=0)
    nothing = Blocks.of(probs_RV.clone(), 8).without(ids_RK[:, :0])
    assert torch.equal(nothing.at(points_RD), Blocks.of(probs_RV, 8).at(points_RD))
    every = Blocks.of(probs_RV.clone(), 8).without(ids_RK)
    assert torch.equal(every.at(points_RD), Blocks.of(probs_RV.scatter(1, ids_RK, 0.0), 8).at(points_RD))


@pytest.mark.parametrize("target", [WaterFilling(9), WaterFilling(1), AdaptiveWaterFilling(0.04)], ids=str)
@pytest.mark.parametrize("name", ["shuffled", "ordered", "flat", "sparse"])
@pytest.mark.parametrize("classes", [7, 161, 20_011])
def test_the_head_is_the_one_among_all_that_may_be_wanted(
    target: WaterFilling | AdaptiveWaterFilling, name: str, classes: int
) -> None:
    """Heads of every length: the rows run from flat to sharp."""
    probs_RV = rows(name, classes)
    most = min(target.most if isinstance(target, AdaptiveWaterFilling) else target.classes, classes)
    blocks = Blocks.of(probs_RV, most)
    ids_RK, shares_RK, head_R1, tail_R1 = head_and_tail(target, blocks, most)
    largest_RK = blocks.head(most)[1]
    expected = levelled(largest_RK, target.wanted(largest_RK))
    assert torch.equal(head_R1, expected[0]) and torch.equal(tail_R1, expected[1])
    in_head_RK = torch.arange(most) < head_R1
    assert torch.equal(shares_RK * in_head_RK, largest_RK * in_head_RK)
    assert torch.equal(probs_RV.gather(1, ids_RK) * in_head_RK, probs_RV.topk(most, dim=1).values * in_head_RK)
