"""Rows as sets: water-filling's codec, ids coded against a unigram law; every layout gives back what was drawn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Generator

from replication.axes.targets.base import SparseTarget, Target
from replication.axes.targets.sampled import RandomSampling, Stratified, Systematic
from replication.axes.targets.water_filling import AdaptiveWaterFilling, WaterFilling
from replication.cache import fields
from replication.cache.choose import codec_for, codec_named, codec_of
from replication.cache.codec import SetCodec
from replication.cache.counts import CountsCodec
from replication.cache.law import Law, law_of
from replication.cache.unigram import Unigram
from replication.cache.water_filling import FillingCodec
from tests.cases import and_others

SEQUENCES, LENGTH = 3, 40
SETS = [
    method
    for method in and_others(
        [RandomSampling(50), Stratified(20), Systematic(127), WaterFilling(1), WaterFilling(20), WaterFilling(300),
         AdaptiveWaterFilling(0.3), AdaptiveWaterFilling(0.02)]
    )
    if method.storage(500) is not None and isinstance(codec_of(method, 500), SetCodec)
]  # fmt: skip


def frequencies(vocabulary: int) -> np.ndarray:
    """Zipf's, in no order; a fifth of the classes do not occur."""
    found = (1e6 / np.arange(1, vocabulary + 1)).astype(np.int64)
    found[-vocabulary // 5 :] = 0
    return np.random.default_rng(0).permutation(found)


def drawn(method: Target, vocabulary: int, seed: int = 0) -> SparseTarget:
    """Positions from almost one-hot to flat, most probable where the text is."""
    random = Generator().manual_seed(seed)
    slope_V = torch.from_numpy(np.log(frequencies(vocabulary) + 0.1)).float()
    logits_NV = slope_V + 2 * torch.randn(SEQUENCES * LENGTH, vocabulary, generator=random)
    logits_NV *= torch.linspace(0, 3, len(logits_NV))[:, None]
    target = method(logits_NV, torch.zeros(len(logits_NV), dtype=torch.long), random)
    assert isinstance(target, SparseTarget)
    return target


def parts(method: Target, vocabulary: int) -> tuple[SetCodec, tuple[np.ndarray, np.ndarray, np.ndarray], SparseTarget]:
    """The codec of a target, and B sequences of it."""
    target = drawn(method, vocabulary)
    codec = codec_of(method, vocabulary)
    assert isinstance(codec, SetCodec)
    ids_BLK = target.ids_NK.view(SEQUENCES, LENGTH, -1).numpy()
    weights_BLK = target.weights_NK.view(ids_BLK.shape).numpy()
    return codec, (ids_BLK, weights_BLK, (weights_BLK > 0).sum(2)), target


@pytest.mark.parametrize("vocabulary", [500, 70_000])
@pytest.mark.parametrize("method", SETS, ids=str)
def test_every_layout_gives_back_what_was_drawn(method: Target, vocabulary: int) -> None:
    """To the last bit of each weight: what is cached is what would be trained on online."""
    codec, rows, target = parts(method, vocabulary)
    layouts = (codec.bits, codec.planes, Unigram(codec, law_of(frequencies(vocabulary), codec.usual), LENGTH))
    for layout in layouts:
        blocks = layout.pack(*codec.codes(*rows))
        ids_BLK, weights_BLK, lengths_BL = codec.rows(layout.unpack(blocks), SEQUENCES)
        np.testing.assert_array_equal(lengths_BL, rows[2])
        assert sum(map(layout.count, blocks)) == lengths_BL.sum()
        shape = SEQUENCES * LENGTH, -1
        found = SparseTarget(torch.from_numpy(ids_BLK.reshape(shape)), torch.from_numpy(weights_BLK.reshape(shape)))
        assert torch.equal(found.dense(vocabulary), target.dense(vocabulary))
        alone = codec.rows(layout.unpack(blocks[1:2]), 1)  # a block needs none of the others
        most = alone[0].shape[2]
        np.testing.assert_array_equal(alone[0][0], ids_BLK[1, :, :most])
        np.testing.assert_array_equal(alone[1][0], weights_BLK[1, :, :most])


@pytest.mark.parametrize("method", SETS, ids=str)
def test_the_order_within_a_row_does_not_show(method: Target) -> None:
    codec, (ids_BLK, weights_BLK, lengths_BL), _ = parts(method, 500)
    layout = Unigram(codec, law_of(frequencies(500), codec.usual), LENGTH)
    most = ids_BLK.shape[2]
    order_BLK = np.argsort(np.random.default_rng(0).random(ids_BLK.shape) + (weights_BLK == 0), axis=2)
    other = (np.take_along_axis(part, order_BLK, 2) for part in (ids_BLK, weights_BLK))
    assert most == 1 or (order_BLK != np.arange(most)).any()
    assert layout.pack(*codec.codes(*other, lengths_BL)) == layout.pack(*codec.codes(ids_BLK, weights_BLK, lengths_BL))


def test_bytes_stay_near_the_entropy() -> None:
    """Sets of draws from the law itself, with their counts: the floor is that of ids without order, and of counts."""
    vocabulary, draws, positions = 50_000, 50, 512
    counts_V = frequencies(vocabulary)
    share_V = (counts_V + 0.5) / (counts_V + 0.5).sum()
    drawn_LD = np.random.default_rng(1).choice(vocabulary, (positions, draws), p=share_V)
    rows = [np.unique(drawn_D, return_counts=True) for drawn_D in drawn_LD]
    lengths_L = np.array([len(ids) for ids, _ in rows])
    ids_LK, weights_LK = np.zeros((positions, lengths_L.max()), np.int64), np.zeros((positions, lengths_L.max()))
    for place, (ids, counts) in enumerate(rows):
        ids_LK[place, : len(ids)], weights_LK[place, : len(ids)] = ids, counts / draws
    codec = CountsCodec(vocabulary, draws)
    layout = Unigram(codec, law_of(counts_V, codec.usual), positions)
    (block,) = layout.pack(*codec.codes(ids_LK[None], weights_LK[None], lengths_L[None]))
    # a multiset of draws from the law: what a coder that knows the law needs, counts included
    floor = -np.log2(share_V[drawn_LD]).sum() - positions * math.lgamma(draws + 1) / math.log(2)
    floor += sum(math.lgamma(count + 1) for _, counts in rows for count in counts.tolist()) / math.log(2)
    packed = len(codec.encode(ids_LK, weights_LK, lengths_L))
    assert floor < 8 * len(block) < 1.25 * floor
    assert len(block) < 0.6 * packed


@pytest.mark.parametrize(("method", "smallest"), [(WaterFilling(20), 0.75), (AdaptiveWaterFilling(0.04), 0.75)])
def test_the_tail_of_water_filling_has_no_weights(method: Target, smallest: float) -> None:
    """A class costs its id and little more than a bit."""
    codec, rows, _ = parts(method, 70_000)
    layout = Unigram(codec, law_of(np.ones(70_000), codec.usual), LENGTH)  # a law that says nothing
    size, kept = sum(map(len, layout.pack(*codec.codes(*rows)))), rows[2].sum()
    numbers = codec.numbers(codec.split(codec.codes(*rows)[0])[1])
    assert (numbers == 0).mean() > 0.5
    assert size < smallest * kept * codec.width / 8


# the law


@pytest.mark.parametrize("vocabulary", [2, 3, 63, 64, 65, 50_304])
@pytest.mark.parametrize("kept", [0.3, 5, 60, 1e9])
def test_cells_cover_every_rank_once(vocabulary: int, kept: float) -> None:
    law = law_of(frequencies(vocabulary), kept)
    assert sorted(law.order_V.tolist()) == list(range(vocabulary))
    assert (np.diff(frequencies(vocabulary)[law.order_V]) <= 0).all()
    np.testing.assert_array_equal(law.rank_V[law.order_V], np.arange(vocabulary))
    ends = law.begins_C + (1 << law.widths_C)
    np.testing.assert_array_equal(law.begins_C[1:], ends[:-1])
    assert law.begins_C[-1] < vocabulary <= ends[-1]
    assert law.cell_V[0] == 0 and law.cell_V[-1] == len(law.widths_C) - 1


def test_a_cell_is_expected_to_be_hit_once() -> None:
    counts_V = np.sort(frequencies(50_304))[::-1] + 0.5
    law = law_of(frequencies(50_304), 20)
    expected_C = 20 * np.add.reduceat(counts_V, law.begins_C) / counts_V.sum()
    wide = law.widths_C > 0
    assert expected_C[wide].max() <= 1 and np.median(expected_C[wide]) > 0.5


# numbers of different widths


@pytest.mark.parametrize("count", [0, 1, 7, 500])
@pytest.mark.parametrize("widest", [1, 13, 32])
def test_fields_have_no_gaps(count: int, widest: int) -> None:
    rng = np.random.default_rng(count)
    widths = rng.integers(0, widest + 1, count)
    values = [int(rng.integers(0, 1 << width)) if width else 0 for width in widths]
    raw = fields.packed(np.array(values, np.uint64), widths)
    number, place = 0, 0
    for value, width in zip(values, widths.tolist(), strict=True):
        number |= value << place
        place += width
    assert raw == number.to_bytes(-(-place // 8), "little")
    assert fields.unpacked(raw, widths).tolist() == values
    with pytest.raises(ValueError, match="damaged"):
        fields.unpacked(raw + b"\0", widths)


# refusals


@pytest.mark.parametrize(
    "weights",
    [
        [0.5, 0.25, 0.125],
        [0.5, 0.3, 0.2],
        [float("nan"), 0.5, 0.5],
        [0.5, 0.75, -0.25],
        [1.5, 1.5, -2.0],
        [0.5, 0.5, 1e-9],
    ],
)
def test_filling_refuses_what_it_cannot_hold(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="multiples of 1 / 16 and equal shares"):
        FillingCodec(100, 16, 4).encode([[1, 2, 3]], [weights], [3])


def test_filling_holds_any_equal_shares() -> None:
    """Whole or not, beside whole heads of any size, in any order; a weight of nothing is no class."""
    rows = [[1, 0, 0, 0], [0.25, 0.25, 0.25, 0.25], [1 / 3, 1 / 3, 1 / 3, 0], [0.75, 0, 0.125, 0.125],
            [1 / 16, 13 / 16, 1 / 16, 1 / 16], [1 / 48, 0.9375, 1 / 48, 1 / 48]]  # fmt: skip
    weights_LK = np.array(rows, np.float32)
    ids_LK = np.arange(1, 25).reshape(6, 4) * (weights_LK > 0)
    codec = FillingCodec(100, 16, 4)
    ids, weights, lengths = codec.decode(codec.encode(ids_LK, weights_LK, (weights_LK > 0).sum(1)))
    for place, row in enumerate(weights_LK):
        assert dict(zip(ids_LK[place][row > 0], row[row > 0], strict=True)) == dict(
            zip(ids[place, : lengths[place]], weights[place, : lengths[place]], strict=True)
        )


def test_codecs_of_the_draws() -> None:
    assert codec_for("WaterFilling", {"classes": 20}, 4096) == FillingCodec(4096, WaterFilling(20).parts, 20)
    adaptive = AdaptiveWaterFilling(0.03)
    codec = codec_for("AdaptiveWaterFilling", {"level": 0.03}, 4096)
    assert codec == FillingCodec(4096, adaptive.parts, adaptive.most)
    assert codec_named(codec.name, 4096, codec.parameters) == codec
    for name in ("HeadAndSampledTail", "WithoutReplacement"):
        with pytest.raises(ValueError, match=f"{name} has weights that no codec stores; run it online"):
            codec_for(name, {}, 4096)
    with pytest.raises(ValueError, match="1000 classes in 4000 parts cannot be cached"):
        codec_for("WaterFilling", {"classes": 1000}, 4096)


@pytest.mark.parametrize("method", [RandomSampling(50), AdaptiveWaterFilling(0.05)], ids=str)
def test_damage_is_noticed_or_decodes(method: Target) -> None:
    """Whatever bit is flipped or byte is cut: one clear error, or rows that are well formed."""
    codec, rows, _ = parts(method, 500)
    layout = Unigram(codec, law_of(frequencies(500), codec.usual), LENGTH)
    block = layout.pack(*codec.codes(*rows))[0]
    rng, found = np.random.default_rng(0), 0
    damaged = [block[:-1], block[:5], block[:4], block + b"\1"]
    for _ in range(400):
        place = int(rng.integers(len(block)))
        damaged.append(block[:place] + bytes([block[place] ^ 1 << int(rng.integers(8))]) + block[place + 1 :])
    for each in damaged:
        try:
            ids_BLK, weights_BLK, _ = codec.rows(layout.unpack([each]), 1)
        except ValueError as error:
            assert "damaged" in str(error) or "not as many" in str(error)
            found += 1
        else:
            assert 0 <= ids_BLK.min() and ids_BLK.max() < 500 and np.isfinite(weights_BLK).all()
    assert found > 100


def test_a_law_of_other_classes_is_another_file() -> None:
    first, second = law_of(frequencies(500), 20), law_of(frequencies(500)[::-1], 20)
    assert first.fingerprint != second.fingerprint
    assert Law(first.order_V, first.widths_C).fingerprint == first.fingerprint
