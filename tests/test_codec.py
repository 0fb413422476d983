"""The codecs: exact counts, near-exact ratios, ids of any vocabulary, bits without gaps."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from replication.axes.targets.base import Target
from replication.cache import ratio
from replication.cache.bits import Bits
from replication.cache.choose import codec_for, codec_named, codec_of
from replication.cache.codec import Codec, Rows
from replication.cache.counts import CountsCodec
from replication.cache.planes import Planes
from replication.cache.ratio import RatioCodec
from tests.cases import EXAMPLES

POSITIONS = 600
HALF_STEP = 0.006127  # (1 - 1/16 + ln(2 ** 14) / 16) / 126 / 2: half the distance of two linear ratios among 128


def counted_rows(vocabulary: int, draws: int, skew: float, seed: int = 0, positions: int = POSITIONS) -> Rows:
    """Multinomial draws from Zipf teachers over `vocabulary` classes, as ids, counts / draws and lengths."""
    rng = np.random.default_rng(seed)
    drawn_LD = np.minimum(rng.zipf(skew, (positions, draws)), vocabulary) - 1
    rows = [np.unique(drawn, return_counts=True) for drawn in drawn_LD]
    lengths_L = np.array([len(ids) for ids, _ in rows])
    ids_LK = np.zeros((positions, lengths_L.max()), np.int64)
    weights_LK = np.zeros(ids_LK.shape, np.float32)
    for place, (ids, counts) in enumerate(rows):
        ids_LK[place, : len(ids)] = (ids * 7919 + place) % vocabulary  # spread over all ids
        weights_LK[place, : len(ids)] = counts.astype(np.float32) / np.float32(draws)
    return ids_LK, weights_LK, lengths_L


def softmax_rows(k: int, deviation: float, seed: int = 0, vocabulary: int = 5000) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(size=(POSITIONS, vocabulary)) * deviation
    probs = np.exp(logits - logits.max(1, keepdims=True))
    return -np.sort(-probs / probs.sum(1, keepdims=True), axis=1)[:, :k]


def zipf_rows(k: int, vocabulary: int = 100_000) -> np.ndarray:
    exponents = np.random.default_rng(1).uniform(0.8, 2.5, POSITIONS)[:, None]
    normaliser = np.array([(np.arange(1, vocabulary + 1) ** -exponent).sum() for exponent in exponents[::20, 0]])
    exponents = np.repeat(exponents[::20], 20, 0)
    return np.arange(1, k + 1) ** -exponents / np.repeat(normaliser, 20)[:, None]


TEACHERS = {
    "flat": softmax_rows(50, 1),
    "usual": softmax_rows(50, 3),
    "sharp": softmax_rows(50, 6),
    "zipf": zipf_rows(50),
}


def some_ids(weights_LK: np.ndarray, vocabulary: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, vocabulary, weights_LK.shape)


@pytest.mark.parametrize("width", [8, 19, 23, 24, 25, 31, 57])
@pytest.mark.parametrize("count", [1, 7, 8, 9, 1000])
def test_bits_have_no_gaps(width: int, count: int) -> None:
    codes = np.random.default_rng(width).integers(0, 2**width, count, dtype=np.uint64)
    counts = [count // 3, 0, count - count // 3]
    blocks = Bits(width).pack(codes, counts)
    for block, part in zip(blocks, np.split(codes, np.cumsum(counts)[:-1]), strict=True):
        assert len(block) == -(-len(part) * width // 8)
        number = sum(int(code) << (width * place) for place, code in enumerate(part))
        assert block == number.to_bytes(len(block), "little")
    np.testing.assert_array_equal(Bits(width).unpack(blocks), codes)


@pytest.mark.parametrize("width", [8, 18, 24, 25, 39])
@pytest.mark.parametrize("rising", [False, True])
def test_planes_hold_any_codes(width: int, rising: bool) -> None:
    codes = np.random.default_rng(width).integers(0, 2**width, 50, dtype=np.uint64)
    counts = [20, 0, 30]
    layout = Planes(width, 7, rising)
    blocks = layout.pack(codes, counts)
    assert [layout.count(block) for block in blocks] == counts
    np.testing.assert_array_equal(layout.unpack(blocks), codes)
    np.testing.assert_array_equal(layout.unpack(blocks[2:]), codes[20:])  # a block needs none of the others
    assert len(layout.unpack([])) == 0


def test_rising_ids_and_few_numerators_take_fewer_bytes() -> None:
    ids_LK, weights_LK, lengths_L = counted_rows(50_304, 50, 1.3)
    order_LK = np.argsort(np.where(weights_LK > 0, ids_LK, 60_000), axis=1)
    codec = CountsCodec(50_304, 50)
    rows = np.take_along_axis(ids_LK, order_LK, 1), np.take_along_axis(weights_LK, order_LK, 1), lengths_L
    codes = codec.codes(*(part[None] for part in rows))
    packed, unsorted, rising = (
        sum(map(len, layout.pack(*codes))) for layout in (codec.bits, Planes(codec.width, 7, False), codec.planes)
    )
    assert rising < 0.9 * unsorted < 0.9 * packed


@pytest.mark.parametrize(
    ("vocabulary", "bits"),
    [(4096, 12), (50_304, 16), (65_536, 16), (65_537, 17), (100_000, 17), (128_256, 17), (131_072, 17), (131_073, 18)]
    + [(151_936, 18), (262_144, 18), (262_145, 19)],
)
def test_id_width_follows_the_vocabulary(vocabulary: int, bits: int) -> None:
    codec = CountsCodec(vocabulary, 3)
    assert codec.id_bits == bits
    edges = sorted({0, 1, 65_535, 131_071, 131_072, 151_935, vocabulary - 1} & set(range(vocabulary)))
    ids_LK = np.array([[first, second] for first in edges for second in edges if first != second])
    weights_LK = np.tile(np.array([1 / 3, 2 / 3], np.float32), (len(ids_LK), 1))
    lengths_L = np.full(len(ids_LK), 2)
    np.testing.assert_array_equal(codec.decode(codec.encode(ids_LK, weights_LK, lengths_L))[0], ids_LK)


@pytest.mark.parametrize("wrong", [-1, 151_936, 2**18, 2**40])
@pytest.mark.parametrize("codec", [CountsCodec(151_936, 2), RatioCodec(151_936, length=2, cap=2)])
def test_ids_are_never_masked(codec: Codec, wrong: int) -> None:
    with pytest.raises(ValueError, match=f"Class id {wrong} is outside the vocabulary of 151936"):
        codec.encode([[5, wrong]], [[0.5, 0.5]], [2])


@pytest.mark.parametrize(("draws", "skew"), [(1, 2.0), (3, 2.0), (50, 1.3), (50, 3.0), (127, 1.2), (127, 9.0)])
def test_counts_come_back_exactly(draws: int, skew: float) -> None:
    ids_LK, weights_LK, lengths_L = counted_rows(100_000, draws, skew)
    codec = CountsCodec(100_000, draws)
    block = codec.encode(ids_LK, weights_LK, lengths_L)
    decoded_ids_LK, decoded_weights_LK, decoded_lengths_L = codec.decode(block)
    assert len(block) == 3 * lengths_L.sum() == 3 * codec.bits.count(block)
    assert decoded_weights_LK.dtype == np.float32
    np.testing.assert_array_equal(decoded_ids_LK, ids_LK)
    np.testing.assert_array_equal(decoded_weights_LK, weights_LK)
    np.testing.assert_array_equal(decoded_lengths_L, lengths_L)


def test_counts_refuse_what_they_cannot_hold() -> None:
    with pytest.raises(ValueError, match="1 to 127 draws, not 128; use the ratio codec"):
        CountsCodec(1000, 128)
    with pytest.raises(ValueError, match="1 to 127 draws, not 0"):
        CountsCodec(1000, 0)
    for weights in ([0.5, 0.49], [0.52, 0.44], [1.0, 0.0], [float("nan"), 0.5]):
        with pytest.raises(ValueError, match="counts / 50 that sum to one"):
            CountsCodec(1000, 50).encode([[1, 2]], [weights], [2])


@pytest.mark.parametrize("codec", [CountsCodec(1000, 50), RatioCodec(1000, length=None, cap=4)])
def test_no_row_is_lost_silently(codec: Codec) -> None:
    with pytest.raises(ValueError, match="Weights beyond a position's length"):
        codec.encode([[1, 2]], [[0.5, 0.5]], [1])
    with pytest.raises(ValueError, match="keeps 0 classes"):
        codec.encode([[1, 2]], [[0.0, 0.0]], [0])
    with pytest.raises(ValueError, match="keeps 3 classes"):
        codec.encode([[1, 2]], [[0.5, 0.5]], [3])
    with pytest.raises(ValueError, match="do not fit"):
        codec.encode([[1, 2]], [[0.5, 0.25, 0.25]], [2])


@pytest.mark.parametrize("k", [1, 12, 50])
@pytest.mark.parametrize("teacher", TEACHERS)
def test_ratio_error_is_near_zero(teacher: str, k: int) -> None:
    true_LK = TEACHERS[teacher][:, :k]
    ids_LK = some_ids(true_LK, 100_000)
    codec = RatioCodec(100_000, length=k, cap=k)
    decoded_ids_LK, decoded_LK, lengths_L = codec.decode(codec.encode(ids_LK, true_LK, np.full(POSITIONS, k)))
    np.testing.assert_array_equal(decoded_ids_LK, ids_LK)
    assert (lengths_L == k).all()
    error_LK = decoded_LK - true_LK
    # half a step of the weight before (decoded), and where that was stored too small, that one's error
    before_LK = np.concatenate([np.ones((POSITIONS, 1)), decoded_LK[:, :-1]], 1)
    error_before_LK = np.concatenate([np.zeros((POSITIONS, 1)), np.abs(error_LK[:, :-1])], 1)
    assert (np.abs(error_LK) <= np.maximum(HALF_STEP * before_LK, error_before_LK) + 1e-7).all()
    assert np.abs(error_LK / true_LK).max() < 16 * HALF_STEP  # the knee is at 1 / 16: relative error there and below
    if k > 1:
        assert np.abs(error_LK).sum() / true_LK.sum() < 0.013
        assert np.abs(error_LK / true_LK).mean() < 0.0075
        assert abs((error_LK / true_LK).mean()) < 5e-4
        assert abs(error_LK.sum() / true_LK.sum()) < 1e-3


@pytest.mark.parametrize("grid", [ratio.FIXED, ratio.INNER, ratio.LAST], ids=["fixed", "inner", "last"])
def test_the_nearest_level_is_the_nearest(grid: ratio.Grid) -> None:
    rng = np.random.default_rng(0)
    middles = (grid.levels[1:] + grid.levels[:-1]) / 2
    edges = [middles, np.nextafter(middles, 0), np.nextafter(middles, 2), grid.levels, [0, 5e-324, 1e-30, 1.5, 1e300]]
    ratio_A = np.concatenate([rng.random(5000), np.exp(-20 * rng.random(5000)), *edges, [np.inf]])
    found_A = grid.nearest(ratio_A)
    assert found_A[-1] == 0
    distance_AC = np.abs(grid.levels - ratio_A[:-1, None])
    distance_A = distance_AC[np.arange(len(ratio_A) - 1), found_A[:-1]]
    np.testing.assert_allclose(distance_A, distance_AC.min(1), rtol=1e-12)  # at a middle, either neighbour


def test_errors_do_not_accumulate() -> None:
    """At ratios of 0.95 an open loop is off by up to 0.6 % more with each class: tens of percent at the 300th."""
    true_LK = np.repeat(0.05 * 0.95 ** np.arange(300)[None], 50, 0) * np.linspace(0.7, 1, 50)[:, None]
    codec = RatioCodec(1000, length=300, cap=300)
    decoded_LK = codec.decode(codec.encode(some_ids(true_LK, 1000), true_LK, np.full(50, 300)))[1]
    assert np.abs(decoded_LK / true_LK - 1)[:, 10:].max() < 0.008


@pytest.mark.parametrize("teacher", TEACHERS)
@pytest.mark.parametrize("normalised", [False, True])
def test_rows_of_any_length(teacher: str, normalised: bool) -> None:
    true_LK = TEACHERS[teacher].copy()
    lengths_L = np.random.default_rng(0).integers(1, 51, POSITIONS)
    lengths_L[:3] = 1, 50, 2
    true_LK[np.arange(50) >= lengths_L[:, None]] = 0
    if normalised:
        true_LK /= true_LK.sum(1, keepdims=True)
    ids_LK = some_ids(true_LK, 151_936) * (true_LK > 0)
    codec = RatioCodec(151_936, length=None, cap=50, normalised=normalised)
    block = codec.encode(ids_LK, true_LK, lengths_L)
    decoded_ids_LK, decoded_LK, decoded_lengths_L = codec.decode(block)
    assert len(block) == -(-25 * lengths_L.sum() // 8)
    np.testing.assert_array_equal(decoded_lengths_L, lengths_L)
    np.testing.assert_array_equal(decoded_ids_LK, ids_LK)
    assert (np.abs(decoded_LK - true_LK) <= codec.tolerance(true_LK, lengths_L)).all()
    assert np.abs(decoded_LK - true_LK).sum() / true_LK.sum() < 0.02
    assert abs((decoded_LK - true_LK).sum() / true_LK.sum()) < 0.002
    if normalised:
        np.testing.assert_allclose(decoded_LK.sum(1), 1, atol=1e-6)
        assert (decoded_LK[lengths_L == 1, 0] == 1).all()


def test_tolerance_is_no_blank_cheque() -> None:
    true_LK = TEACHERS["usual"][:, :12]
    codec = RatioCodec(5000, length=12, cap=12)
    assert (codec.tolerance(true_LK, np.full(POSITIONS, 12)) < 0.1 * true_LK + 1e-5).all()


def test_rows_in_any_order_come_back_sorted() -> None:
    ids_LK, weights_LK, _ = [[3, 8, 5]], [[0.25, 0.0, 0.5]], None
    ids, weights, lengths = RatioCodec(10, length=None, cap=3).decode(
        RatioCodec(10, length=None, cap=3).encode(ids_LK, weights_LK, [2])
    )
    assert ids.tolist() == [[5, 3]] and lengths.tolist() == [2]
    np.testing.assert_allclose(weights, [[0.5, 0.25]], rtol=0.04)


@pytest.mark.parametrize("k", [1, 3, 12])
def test_a_longer_row_begins_with_the_shorter(k: int) -> None:
    true_LK = TEACHERS["zipf"]
    ids_LK = some_ids(true_LK, 100_000)

    def cached(kept: int) -> Rows:
        codec = RatioCodec(100_000, length=kept, cap=kept)
        return codec.decode(codec.encode(ids_LK[:, :kept], true_LK[:, :kept], np.full(POSITIONS, kept)))

    for longer, shorter in zip(cached(50)[:2], cached(k)[:2], strict=True):
        np.testing.assert_array_equal(longer[:, :k], shorter)


def test_extreme_rows_stay_finite() -> None:
    rows = np.array([[1.0] + [0.0] * 99, [1.0, 1e-38] + [1e-45] * 98, [1e-6] * 100, [0.01] * 100])
    codec = RatioCodec(262_144, length=100, cap=100)
    decoded = codec.decode(codec.encode(some_ids(rows, 262_144), rows, np.full(4, 100)))[1]
    assert np.isfinite(decoded).all()
    assert np.abs(decoded - rows).max() < 1e-3
    assert decoded[0, 0] == decoded[1, 0] == 1
    np.testing.assert_allclose(decoded[2:, 12:], rows[2:, 12:], rtol=0.007)  # equal weights recover from the first one


@pytest.mark.parametrize("weights", [[float("nan"), 0.1], [1.2, 0.1], [0.5, -0.1], [float("inf"), 0.1]])
def test_ratio_refuses_what_is_no_probability(weights: list[float]) -> None:
    with pytest.raises(ValueError, match=r"stores probabilities|Weights beyond"):
        RatioCodec(1000, length=2, cap=2).encode([[1, 2]], [weights], [2])


def test_ratio_refuses_rows_that_it_was_not_made_for() -> None:
    with pytest.raises(ValueError, match="keeps 1 classes where each must keep 2"):
        RatioCodec(1000, length=2, cap=2).encode([[1, 0]], [[0.5, 0]], [1])
    with pytest.raises(ValueError, match="more than the cap of 2"):
        RatioCodec(1000, length=None, cap=2).encode([[1, 2, 3]], [[0.5, 0.2, 0.1]], [3])
    with pytest.raises(ValueError, match="do not sum to one"):
        RatioCodec(1000, length=None, cap=2, normalised=True).encode([[1, 2]], [[0.5, 0.2]], [2])
    with pytest.raises(ValueError, match="cap is 1001"):
        RatioCodec(1000, length=None, cap=1001)


@pytest.mark.parametrize("codec", [CountsCodec(100_000, 50), RatioCodec(100_000, length=None, cap=50)])
def test_a_cut_block_is_noticed(codec: Codec) -> None:
    block = codec.encode(*counted_rows(100_000, 50, 1.5, positions=20))
    with pytest.raises(ValueError, match="damaged"):
        codec.decode(block[:-3])


def test_several_sequences_at_once_are_the_same_blocks() -> None:
    codec = CountsCodec(50_304, 50)
    ids_NK, weights_NK, lengths_N = counted_rows(50_304, 50, 1.5, positions=60)
    stacked = ids_NK.reshape(4, 15, -1), weights_NK.reshape(4, 15, -1), lengths_N.reshape(4, 15)
    blocks = codec.encode_many(*stacked)
    assert blocks == [codec.encode(*(part[row] for part in stacked)) for row in range(4)]
    for part, decoded in zip(stacked, codec.decode_many(blocks), strict=True):
        np.testing.assert_array_equal(decoded, part)
    narrow = stacked[0].astype(np.uint16), stacked[1].astype(np.float64), stacked[2].astype(np.uint8)
    assert codec.encode_many(*narrow) == blocks


def test_codec_for_each_target() -> None:
    sampling = {"draws": 50, "exponent": 1.0}
    assert codec_for("RandomSampling", sampling, 100_000) == CountsCodec(100_000, 50)
    assert codec_for("TopK", {"k": 12}, 4096) == RatioCodec(4096, length=12, cap=12)
    top_p = codec_for("TopP", {"p": 0.98, "cap": 100, "exponent": 1.0}, 4096)
    assert top_p == RatioCodec(4096, length=None, cap=100)
    for fields, cap in (({"draws": 128, "exponent": 1.0}, 128), ({"draws": 50, "exponent": 0.8}, 50)):
        codec = codec_for("RandomSampling", fields, 4096)
        assert codec == RatioCodec(4096, length=None, cap=cap, normalised=True)
        assert codec_named(codec.name, 4096, codec.parameters) == codec
    assert codec_for("RandomSampling", {"draws": 5000, "exponent": 1.0}, 4096).parameters["cap"] == 4096


@pytest.mark.parametrize("target", EXAMPLES.values(), ids=EXAMPLES)
def test_a_target_has_a_codec_or_says_why_not(target: Target) -> None:
    name = type(target).__name__
    try:
        codec = codec_of(target, 4096)
    except ValueError as error:
        assert name in str(error) and "\n" not in str(error)
        assert "run it online" in str(error) or "cache TopK with the same k" in str(error)
    else:
        assert codec == codec_for(name, asdict(target), 4096) == codec_named(codec.name, 4096, codec.parameters)


@pytest.mark.parametrize(
    ("target", "fields", "match"),
    [
        ("NaiveFix", {"k": 12}, "NaiveFix is completed from a TopK cache"),
        ("SmoothedTopK", {"k": 12}, "cache TopK"),
        ("Full", {}, "Full keeps every class"),
        ("OneHot", {}, "labels are the text's"),
        ("Stratified", {"draws": 128}, "Counts of 128 draws cannot be cached: a cache holds up to 127"),
        ("Ghost", {"k": 12}, "Unknown target 'Ghost'. Known: OneHot, Full, TopK"),
        ("TopK", {"classes": 12}, "TopK does not have the fields"),
    ],
)
def test_what_cannot_be_cached_says_why(target: str, fields: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match) as caught:
        codec_for(target, fields, 1000)
    assert "\n" not in str(caught.value)


def test_decoding_keeps_up_with_training() -> None:
    """The aim is 10 million classes a second on one core; a tenth of that fails, whatever else is running."""
    codec = CountsCodec(100_000, 50)
    ids_NK, weights_NK, lengths_N = counted_rows(100_000, 50, 1.5, positions=4096)
    blocks = codec.encode_many(*(part.reshape(16, 256, *part.shape[1:]) for part in (ids_NK, weights_NK, lengths_N)))
    seconds = []
    for _ in range(5):
        begin = time.perf_counter()
        codec.decode_many(blocks)
        seconds.append(time.perf_counter() - begin)
    assert lengths_N.sum() / min(seconds) > 1e6
