"""Draws by block sums: against a running sum of all classes in float64, at every width, at the ends and in the tail."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, kstest
from test_unbiased import exact, zipf_logits
from torch import Generator, Tensor

from replication.axes.targets import drawing
from replication.axes.targets.base import SparseTarget
from replication.axes.targets.blocks import block_width, located
from replication.axes.targets.drawing import Streams, ascending, at, counted, draw, softmax_by_rows, uniform
from replication.axes.targets.kept import TopK
from replication.axes.targets.sampled import RandomSampling
from replication.training.supervision import drawn
from tests.cases import EXAMPLES

ROUNDING = 2e-6  # of the running sum: float32 exponentials, and blocks summed in float32
CPU = torch.device("cpu")
LAST = 1 - 2**-53  # the largest float64 below one


def seeded(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def peaky(rows: int, classes: int, seed: int = 0) -> Tensor:
    """Like a teacher's: a Zipf slope in no order, and noise."""
    slope_V = zipf_logits(classes)[torch.randperm(classes, generator=seeded(seed))]
    return slope_V + 3 * torch.randn(rows, classes, generator=seeded(seed + 1))


def running_sums(logits_NV: Tensor, exponent: float = 1.0) -> np.ndarray:
    """All classes one by one in float64, ending at one exactly."""
    upto_NV = (exponent * logits_NV.double()).softmax(1).cumsum(1).numpy()
    return upto_NV / upto_NV[:, -1:]


def by_running_sum(upto_NV: np.ndarray, points_ND: np.ndarray) -> np.ndarray:
    """The oracle: the first class whose running sum is beyond the point."""
    return np.stack([np.searchsorted(row, at, side="right") for row, at in zip(upto_NV, points_ND, strict=True)])


def assert_same_but_for_rounding(logits_NV: Tensor, points_ND: Tensor, exponent: float = 1.0) -> None:
    found, upto = at(logits_NV, points_ND, exponent).numpy(), running_sums(logits_NV, exponent)
    points = points_ND.numpy()
    below = np.take_along_axis(np.pad(upto, ((0, 0), (1, 0))), found, 1)
    above = np.take_along_axis(upto, found, 1)
    assert (below <= points + ROUNDING).all() and (points <= above + ROUNDING).all()
    assert (above > below).all(), "a class without probability"
    assert (found != by_running_sum(upto, points)).mean() < 0.01


@pytest.mark.parametrize("number", [1, 7, 50])
def test_same_points_same_classes_in_small_vocabularies(number: int) -> None:
    """Fewer classes than a block, a whole number of blocks, and every remainder."""
    for classes in range(1, 71):
        assert_same_but_for_rounding(peaky(20, classes, seed=classes), uniform(seeded(1), 20, number, CPU))


@pytest.mark.parametrize("number", [1, 50, 400])
@pytest.mark.parametrize("classes", [1_024, 4_095, 100_278])
def test_same_points_same_classes(classes: int, number: int) -> None:
    assert_same_but_for_rounding(peaky(12, classes), uniform(seeded(2), 12, number, CPU))


@pytest.mark.parametrize("exponent", [0.0, 0.25, 0.8, 1.2])
def test_same_points_same_classes_of_a_proposal(exponent: float) -> None:
    assert_same_but_for_rounding(peaky(12, 4_095), uniform(seeded(3), 12, 50, CPU), exponent)


@pytest.mark.parametrize("exponent", [0.0, 0.8, 1.0])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_logits_of_other_precisions(dtype: torch.dtype, exponent: float) -> None:
    """Half precisions are what they are in float32, and not one step is made in them."""
    logits, points = peaky(12, 4_095).to(dtype), uniform(seeded(4), 12, 50, CPU)
    assert_same_but_for_rounding(logits, points, exponent)
    if dtype != torch.float64:
        assert torch.equal(at(logits, points, exponent), at(logits.float(), points, exponent))


def test_points_need_no_order() -> None:
    logits, points = peaky(6, 1_000), uniform(seeded(5), 6, 30, CPU)
    order = torch.randperm(30, generator=seeded(6))
    assert torch.equal(at(logits, points)[:, order], at(logits, points[:, order]))


def test_logits_that_are_no_block_of_memory() -> None:
    """A slice of a padded vocabulary; one row seen many times."""
    padded, points = peaky(6, 1_003), uniform(seeded(7), 6, 30, CPU)
    assert torch.equal(at(padded[:, :1_000], points), at(padded[:, :1_000].contiguous(), points))
    assert torch.equal(at(padded[:1].expand(6, -1), points), at(padded[:1].repeat(6, 1), points))


# accuracy: as many evenly spaced points as fall on a class are its probability times their number, within one


def evenly_spaced(rows: int, number: int) -> Tensor:
    """`rows` x `number` points in all, dealt out over the rows."""
    points = (torch.arange(rows * number, dtype=torch.float64) + 0.5) / (rows * number)
    return points.view(number, rows).T.contiguous()


@pytest.mark.parametrize("head", [0.0, 12.0], ids=["zipf", "sharp"])
def test_every_class_gets_its_share_down_to_the_end_of_the_tail(head: float) -> None:
    """A sharp teacher leaves the tail 2e-6 of its mass; there it keeps its proportions all the same."""
    rows, number, logits = 40, 50, zipf_logits(100_003)
    logits[0] += head
    probs, points = exact(logits), evenly_spaced(rows, number)
    counts = torch.bincount(at(logits.expand(rows, -1), points).flatten(), minlength=len(logits)).numpy()
    assert np.abs(counts - probs * points.numel()).max() < 1 + 1e-3
    # all points in the last tenth of the classes: a window of the running sum around its end
    start = probs[:-10_000].sum()
    inside = at(logits.expand(rows, -1), start + points * (1 - start)).flatten() - (len(logits) - 10_000)
    assert int(inside.min()) >= -1
    tail = probs[-10_000:].reshape(10, -1).sum(1) / (1 - start)
    found = torch.bincount(inside.clamp_min(0) // 1_000, minlength=10).numpy() / points.numel()
    np.testing.assert_allclose(found, tail, rtol=0, atol=2e-3)


@pytest.mark.parametrize("seed", [1, 2])
def test_chi_square_over_head_and_tail(seed: int) -> None:
    """The thirty first classes one by one, the rest in forty groups of a hundred expected draws and more."""
    rows, number, logits = 200, 200, zipf_logits(100_000)
    edges = np.concatenate([np.arange(30), np.geomspace(30, 100_000, 41).astype(int)])
    expected = np.add.reduceat(exact(logits), edges[:-1]) * rows * number
    assert expected.min() > 100
    ids = draw(logits.expand(rows, -1), number, seeded(seed)).flatten()
    found = np.add.reduceat(torch.bincount(ids, minlength=100_000).numpy(), edges[:-1])
    statistic, freedom = ((found - expected) ** 2 / expected).sum(), len(expected) - 1
    assert found.sum() == rows * number
    assert abs(statistic - freedom) < 4 * math.sqrt(2 * freedom)


@pytest.mark.parametrize("number", [12, 50, 200])
def test_as_many_different_classes_as_expected(number: int) -> None:
    """Sum over classes of 1 - (1 - p)^D (RS-KD App. C)."""
    logits, rows = zipf_logits(100_000), 300
    expected = (1 - (1 - exact(logits)) ** number).sum()
    _, counts_NK = counted(draw(logits.expand(rows, -1), number, seeded(3)))
    unique = (counts_NK > 0).sum(1).double()
    assert abs(float(unique.mean()) - expected) < 4 * float(unique.std()) / math.sqrt(rows)


# the ends, and classes without probability


@pytest.mark.parametrize("classes", [1, 2, 45, 46, 2_000, 100_278])
def test_the_ends_are_the_first_and_the_last_class_with_mass(classes: int) -> None:
    ends = torch.tensor([[0.0, LAST]], dtype=torch.float64)
    assert at(torch.zeros(1, classes), ends).tolist() == [[0, classes - 1]]
    if classes > 10:
        logits = torch.zeros(1, classes)
        logits[:, :4], logits[:, -3:] = -torch.inf, -torch.inf
        assert at(logits, ends).tolist() == [[4, classes - 4]]


@pytest.mark.parametrize("place", [0, 44, 45, 999, 1_023])
@pytest.mark.parametrize("ruled_out", [-torch.inf, -200.0], ids=["masked", "underflow"])
def test_a_single_class(place: int, ruled_out: float) -> None:
    """Wherever it stands in its block, and although exp(-200) of the others is zero in float32."""
    logits = torch.full((3, 1_024), ruled_out)
    logits[:, place] = 0
    points = torch.cat([uniform(seeded(1), 3, 48, CPU), torch.tensor([[0.0, LAST]] * 3, dtype=torch.float64)], 1)
    assert (at(logits, points) == place).all()


def test_a_point_on_a_boundary_belongs_to_the_class_that_begins_there() -> None:
    """Eight classes of an eighth each, exactly."""
    points = torch.arange(8, dtype=torch.float64)[None] / 8
    assert at(torch.zeros(1, 8), points).tolist() == [list(range(8))]
    assert at(torch.zeros(1, 8), points.nextafter(torch.ones(1, 1).double())).tolist() == [list(range(8))]


def test_a_place_that_rounds_to_the_end_stays_before_it() -> None:
    """How far along a block a point stands may round to one; then the block's last class with mass it is."""
    mass = torch.tensor([[1.5, 0.5, 0.0]])
    item, along = located(mass, torch.tensor([[0.0, 0.75, LAST, 1.0]], dtype=torch.float64))
    assert item.tolist() == [[0, 1, 1, 1]]
    np.testing.assert_allclose(along.numpy(), [[0, 0, 1, 1]], rtol=0, atol=1e-7)


@st.composite
def rows_of_logits(draw: st.DrawFn) -> np.ndarray:
    classes = draw(st.integers(1, 200))
    value = st.one_of(st.floats(-300, 300, width=32), st.just(-math.inf))
    row = draw(st.lists(value, min_size=classes, max_size=classes).filter(lambda row: max(row) > -math.inf))
    return np.array(row, dtype=np.float32)


@settings(max_examples=150, deadline=None)
@given(
    rows_of_logits(),
    st.lists(st.one_of(st.floats(0, LAST), st.sampled_from([0.0, 5e-324, 0.5, LAST])), min_size=1, max_size=60),
    st.sampled_from([0.0, 0.5, 1.0, 2.0]),
)
def test_any_point_of_any_row_is_a_class_with_probability(
    row: np.ndarray, points: list[float], exponent: float
) -> None:
    ids = at(torch.from_numpy(row)[None], torch.tensor([points], dtype=torch.float64), exponent)[0]
    assert 0 <= int(ids.min()) and int(ids.max()) < len(row)
    power = np.where(np.isinf(row), -np.inf, exponent * np.where(np.isinf(row), 0, row.astype(np.float64)))
    # float32 holds no probability below 1e-45
    assert (power[ids.numpy()] - power.max() > math.log(1e-45) - 1).all()
    ordered = torch.tensor(points).double().argsort()
    assert bool((ids[ordered].diff() >= 0).all())


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_a_block_is_never_empty_and_never_more_than_the_classes(classes: int, number: int) -> None:
    width = block_width(classes, number)
    assert 1 <= width <= max(1, classes)
    assert width == 1 or number * width <= classes  # what is looked through is no more than one row


@pytest.mark.parametrize("broken", [math.nan, math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("exponent", [0.0, 0.8, 1.0])
def test_logits_that_are_no_distribution(
    monkeypatch: pytest.MonkeyPatch, broken: float, dtype: torch.dtype, exponent: float
) -> None:
    """The first such position is named, whichever rows went together."""
    monkeypatch.setattr(drawing, "held", lambda device: 5_000)
    logits = peaky(20, 1_000).to(dtype)
    logits[13, 999], logits[17] = broken, -torch.inf
    with pytest.raises(ValueError, match="position 13 are not a distribution"):
        draw(logits, 9, seeded(0), exponent)
    logits[13, 999] = -torch.inf
    with pytest.raises(ValueError, match="position 17 are not a distribution"):
        draw(logits, 9, seeded(0), exponent)


def test_ascending_points_are_uniform_ones_in_order() -> None:
    """Each has the law of its place among so many (a beta law), and neighbours move together as they should."""
    rows, draws = 50_000, 5
    points_ND = ascending(seeded(3), rows, draws, CPU).numpy()
    assert points_ND.dtype == np.float64 and (np.diff(points_ND) >= 0).all()
    for place in range(draws):
        assert kstest(points_ND[:, place], beta(place + 1, draws - place).cdf).pvalue > 1e-3
    meant = np.sqrt((1 * (draws - 1)) / (2 * draws))  # of the first two: sqrt(i (n + 1 - j) / (j (n + 1 - i)))
    assert np.corrcoef(points_ND[:, 0], points_ND[:, 1])[0, 1] == pytest.approx(meant, abs=4 / math.sqrt(rows))


# no N x V: some rows at a time, and no row knows of the others


def test_a_row_s_classes_depend_on_no_other_row(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, points = peaky(30, 3_001), uniform(seeded(8), 30, 20, CPU)
    whole = at(logits, points)
    assert torch.equal(torch.cat([at(logits[n : n + 1], points[n : n + 1]) for n in range(30)]), whole)
    for rows in (1, 4, 7, 29):
        monkeypatch.setattr(drawing, "held", lambda device, rows=rows: rows * 3_001 + 5)
        assert torch.equal(at(logits, points), whole)


def test_some_rows_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "held", lambda device: 4_000)
    given = peaky(10, 1_000)
    storages, seen = set(), []
    for rows, probs in softmax_by_rows(given, 1.0):
        seen.append((rows.start, rows.stop))
        storages.add(probs.untyped_storage().data_ptr())
        np.testing.assert_allclose(probs.numpy(), given[rows].softmax(1).numpy(), rtol=1e-5)
    assert seen == [(0, 4), (4, 8), (8, 10)] and len(storages) == 1
    assert [rows.stop for rows, _ in softmax_by_rows(given, 1.0, draws=16)] == [2, 4, 6, 8, 10]


def test_no_gradient_flows_into_a_teacher_and_no_graph_is_kept_of_the_buffer() -> None:
    logits = peaky(3, 100).requires_grad_()
    assert torch.equal(draw(logits, 9, seeded(0)), draw(logits.detach(), 9, seeded(0)))
    assert not any(probs.requires_grad for _, probs in softmax_by_rows(logits, 0.8))
    target = TopK(4)(logits, torch.zeros(3, dtype=torch.int64), Generator())
    assert isinstance(target, SparseTarget) and not target.weights_NK.requires_grad


# random streams


def test_streams_draw_as_each_alone() -> None:
    logits, seeds = peaky(12, 500), (3, 1, 2)
    together = draw(logits, 9, Streams(tuple(map(seeded, seeds))))
    alone = torch.cat([draw(part, 9, seeded(seed)) for part, seed in zip(logits.split(4), seeds, strict=True)])
    assert torch.equal(together, alone)
    assert torch.equal(draw(logits, 9, Streams((seeded(5),))), draw(logits, 9, seeded(5)))


def test_streams_are_independent_and_go_on() -> None:
    streams = Streams((seeded(1), seeded(2)))
    first, second = uniform(streams, 2_000, 50, CPU).split(1_000)
    again, _ = uniform(streams, 2_000, 50, CPU).split(1_000)
    for other in (second, again):
        correlation = float(torch.corrcoef(torch.stack([first.flatten(), other.flatten()]))[0, 1])
        assert abs(correlation) < 4 / math.sqrt(50_000)
    for points in (first, second, again):
        assert abs(float(points.mean()) - 0.5) < 4 / math.sqrt(12 * 50_000)
        assert 0 <= float(points.min()) and float(points.max()) < 1


def test_streams_are_of_equally_long_sequences() -> None:
    with pytest.raises(AssertionError, match="10 rows are not 3 equally long sequences"):
        uniform(Streams((seeded(1), seeded(2), seeded(3))), 10, 2, CPU)


@pytest.mark.parametrize("name", [*EXAMPLES, "proposal"])
def test_the_target_of_a_batch_is_that_of_each_sequence_alone(name: str) -> None:
    """Bit for bit, in any company and order."""
    target = RandomSampling(20, 0.8) if name == "proposal" else EXAMPLES[name]
    logits_BLV, labels_BL = peaky(30, 700).view(5, 6, 700), torch.randint(700, (5, 6), generator=seeded(1))
    indices_B = np.array([9, 4, 700, 0, 5])
    whole = drawn(target, logits_BLV, labels_BL, indices_B, seed=1).dense(700).view(5, 6, 700)
    for chosen in ([2], [4, 0], [3, 2, 1, 0]):
        part = drawn(target, logits_BLV[chosen], labels_BL[chosen], indices_B[chosen], seed=1)
        assert torch.equal(part.dense(700).view(-1, 6, 700), whole[chosen])


# the largest classes, without a softmax of all positions at once


def test_the_largest_classes_have_the_probabilities_of_a_float64_softmax() -> None:
    logits = peaky(8, 100_278)
    target = TopK(12)(logits, torch.zeros(8, dtype=torch.int64), Generator())
    assert isinstance(target, SparseTarget)
    wanted = logits.double().softmax(1).topk(12)
    assert torch.equal(target.ids_NK, wanted.indices)
    np.testing.assert_allclose(target.weights_NK.numpy(), wanted.values.numpy(), rtol=2e-6)


def test_the_largest_classes_of_a_sharp_teacher_are_in_order_though_their_probabilities_are_zero() -> None:
    logits = torch.tensor([[-300.0, 0.0, -500.0, -400.0, -200.0]])
    target = TopK(4)(logits, torch.zeros(1, dtype=torch.int64), Generator())
    assert isinstance(target, SparseTarget)
    assert target.ids_NK.tolist() == [[1, 4, 0, 3]] and target.weights_NK.tolist() == [[1, 0, 0, 0]]
