"""Which positions are supervised: the signals, from logits and without them; the policies on signals that are given."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import oracle
import pytest
import torch
from torch import Generator, Tensor

from replication.axes import loss, signals
from replication.axes.calibrated_thresholds import RecentThreshold
from replication.axes.policy import Weighing
from replication.axes.positions import (
    POSITIONS,
    AllPositions,
    GlobalThreshold,
    HardTokens,
    Positions,
    RandomFraction,
    Responses,
    TopFraction,
    UnbiasedPositionSampling,
)
from replication.axes.signals import SIGNALS, Signals
from replication.axes.targets.base import DenseTarget, SparseTarget
from replication.axes.targets.drawing import Streams
from replication.fused import loss as fused
from replication.fused import products
from replication.fused.head import Head, TeacherStates
from tests.cases import example

CLASSES, WIDTH, SEQUENCES, LENGTH = 7, 5, 3, 8
CPU = torch.device("cpu")


def given(**found: Tensor) -> Signals:
    """Signals as the test wants them; asking for another one fails."""
    (shape,) = {values_BL.shape for values_BL in found.values()}
    return Signals(torch.zeros(shape, dtype=torch.long), found)


def weights_of(positions: Weighing, values: Signals, generator: Generator | None = None) -> Tensor:
    return positions(values, 0.0, generator)


def inputs(length: int = LENGTH) -> tuple[Tensor, Head, Tensor, TeacherStates]:
    """Float64 states and head, labels, and a teacher of the same kind."""
    random = Generator().manual_seed(9)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random, dtype=torch.float64)

    labels_BL = torch.randint(CLASSES, (SEQUENCES, length), generator=random)
    teacher = TeacherStates(normal(SEQUENCES * length, WIDTH).float(), Head(normal(CLASSES, WIDTH).float()))
    return normal(SEQUENCES, length, WIDTH), Head(normal(CLASSES, WIDTH)), labels_BL, teacher


def all_signals(length: int) -> Signals:
    hidden_BLD, head, labels_BL, teacher = inputs(length)
    return loss.signals_of(tuple(SIGNALS), head(hidden_BLD), labels_BL, teacher.whole())


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four positions a chunk, and one a block."""
    monkeypatch.setitem(fused.CHUNK, "cpu", 4 * 8 * CLASSES)
    monkeypatch.setitem(fused.BLOCK, "cpu", 4 * CLASSES)


@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_is_the_paper_s(name: str, small_pieces: None) -> None:
    """With the teacher whole, and with both models as hidden states and head."""
    hidden_BLD, head, labels_BL, teacher = inputs()
    logits_BLV, probs_BLV = head(hidden_BLD), teacher.whole().probs_NV.view(SEQUENCES, LENGTH, CLASSES)
    meant = [
        [oracle.SIGNALS[name](*each) for each in zip(*rows, strict=True)]
        for rows in zip(probs_BLV.double().numpy(), logits_BLV.numpy(), labels_BL.numpy(), strict=True)
    ]
    ours = loss.signals_of((name,), logits_BLV, labels_BL, teacher.whole())
    np.testing.assert_allclose(ours[name].numpy(), meant, rtol=0, atol=1e-12)
    without = fused.fused_signals_of((name,), hidden_BLD, head, labels_BL, teacher)
    np.testing.assert_allclose(without[name].numpy(), meant, rtol=0, atol=1e-6)


def test_a_sparse_target_has_a_confidence_too(small_pieces: None) -> None:
    hidden_BLD, head, labels_BL, _ = inputs()
    ids_NK = torch.stack([labels_BL.flatten(), (labels_BL.flatten() + 1) % CLASSES], 1)
    target = SparseTarget(ids_NK, torch.rand(ids_NK.shape), spread_N=torch.rand(len(ids_NK)))
    meant_BL = (target.weights_NK[:, 0] + target.spread_N / CLASSES).view(labels_BL.shape)  # type: ignore[operator]
    for found in (
        loss.signals_of(("confidence",), head(hidden_BLD), labels_BL, target),
        fused.fused_signals_of(("confidence",), hidden_BLD, head, labels_BL, target),
    ):
        np.testing.assert_allclose(found["confidence"].numpy(), meant_BL.numpy(), rtol=0, atol=1e-7)


def watched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The positions of each product with the head from here on."""
    asked: list[int] = []
    logits: Callable[[products.Products, Tensor], Tensor] = products.Products.logits

    def note(self: products.Products, hidden_MD: Tensor) -> Tensor:
        asked.append(len(hidden_MD))
        return logits(self, hidden_MD)

    monkeypatch.setattr(products.Products, "logits", note)
    return asked


@pytest.mark.parametrize(
    ("wanted", "passes"), [(("student_entropy", "confidence"), 1), (("confidence",), 0), ((), 0)], ids=str
)
def test_all_signals_take_one_pass_over_the_head_and_the_target_s_none(
    wanted: tuple[str, ...], passes: int, small_pieces: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden_BLD, head, labels_BL, teacher = inputs()
    asked = watched(monkeypatch)
    fused.fused_signals_of(wanted, hidden_BLD, head, labels_BL, teacher)
    assert asked == passes * (SEQUENCES * LENGTH // 4) * [4]


def test_a_signal_that_looks_at_what_it_is_not_listed_for_finds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden_BLD, head, labels_BL, teacher = inputs()
    monkeypatch.setattr(signals, "OF_STUDENT", ())
    found = fused.fused_signals_of(("student_entropy",), hidden_BLD, head, labels_BL, teacher)
    with pytest.raises(RuntimeError, match="meta"):
        float(found["student_entropy"].sum())
    monkeypatch.setattr(signals, "OF_TARGET", ())
    with pytest.raises(AttributeError):
        fused.fused_signals_of(("confidence",), hidden_BLD, head, labels_BL, teacher)


@pytest.mark.parametrize(
    ("length", "keep"), [(10, "0.2"), (7, "0.2"), (3, "0.5"), (100, "0.07"), (50, "0.14"), (9, "1")]
)
def test_top_fraction_keeps_exactly_the_most_uncertain(length: int, keep: str) -> None:
    """SE-KD Eq. 6, student entropy; ceil(keep * L) in exact arithmetic (0.07 * 100 is 7, not 7.000000000000001)."""
    hidden_BLD, head, _, _ = inputs(length)
    weights = weights_of(TopFraction(float(keep)), all_signals(length))
    masks = [oracle.top_fraction([oracle.entropy(row) for row in rows], keep) for rows in head(hidden_BLD).numpy()]
    assert (weights > 0).int().tolist() == masks
    np.testing.assert_allclose(weights.mean(1).numpy(), 1, rtol=0, atol=1e-6)


def test_top_fraction_keeps_its_number_when_all_positions_tie() -> None:
    tied = given(student_entropy=torch.zeros(2, 10))
    assert (weights_of(TopFraction(0.2), tied) > 0).sum(1).tolist() == [2, 2]


@pytest.mark.parametrize("name", SIGNALS)
def test_positions_are_chosen_by_the_signal_that_is_named_and_no_other(name: str) -> None:
    values_BL = torch.tensor([[0.1, 0.9, 0.5, 0.3]])
    for positions in (TopFraction(0.25, signal=name), GlobalThreshold(0.25, signal=name)):
        assert positions.signals == (name,)
        assert weights_of(positions, given(**{name: values_BL})).tolist() == [[0, 4, 0, 0]]


def test_only_a_policy_that_looks_at_the_target_asks_for_it() -> None:
    asking = {name for name in POSITIONS if example(POSITIONS[name]).asks_target}
    assert asking == {"HardTokens", "Responses", "TopStandardised"} and TopFraction(signal="confidence").asks_target


def test_an_unknown_signal_is_refused() -> None:
    for cls in (TopFraction, GlobalThreshold):
        with pytest.raises(ValueError, match=r"signal is 'entropy'; give a signal: .*student_entropy"):
            cls(signal="entropy")
    with pytest.raises(ValueError, match=r"GlobalThreshold\.queue is 0"):
        GlobalThreshold(queue=0)


BATCHES = [[[0.3, 0.1, 0.5, 0.2], [0.9, 0.8, 0.7, 0.6]], [[0.1] * 4, [0.2] * 4], [[0.4, 0.4, 0.3, 0.0], [0.1] * 4]]


@pytest.mark.parametrize("own", ["included", "excluded"])
@pytest.mark.parametrize(("keep", "queue"), [("0.2", 30_000), ("0.25", 10), ("0.5", 8), ("0.2", 3), ("1", 5)])
def test_a_global_threshold_is_learnt_from_the_last_values(keep: str, queue: int, own: str) -> None:
    """In the second batch nothing may reach what the first has taught: then nothing is learnt from it.

    While no other batch is known that may teach, each sequence has its top fraction.
    """
    learnt = GlobalThreshold(float(keep), queue, own=own).begun(CPU)
    masks = oracle.global_threshold([sum(batch, []) for batch in BATCHES], keep, queue, own == "included")
    if own == "excluded":
        masks[0] = sum((oracle.top_fraction(row, keep) for row in BATCHES[0]), [])
    for batch, mask in zip(BATCHES, masks, strict=True):
        weights = weights_of(learnt, given(student_entropy=torch.tensor(batch)))
        assert (weights.flatten() > 0).int().tolist() == mask
        assert float(weights.mean()) == pytest.approx(float(any(mask)))
        assert len(set(weights[weights > 0].tolist())) <= 1
    assert int(learnt.count) == 24


def test_a_threshold_goes_on_from_its_state_as_if_never_stopped() -> None:
    def weights(learnt: RecentThreshold, batches: list[list[list[float]]]) -> list[Tensor]:
        return [weights_of(learnt, given(student_entropy=torch.tensor(batch))) for batch in batches]

    policy = GlobalThreshold(0.25, 12)
    whole = weights(policy.begun(CPU), BATCHES)
    stopped, resumed, afresh = (policy.begun(CPU) for _ in range(3))
    begin = weights(stopped, BATCHES[:1])
    for name, tensor in resumed.state.items():
        tensor.copy_(stopped.state[name])
    assert all(map(torch.equal, whole, begin + weights(resumed, BATCHES[1:])))
    assert not torch.equal(weights(afresh, BATCHES[1:])[0], whole[1])


def test_random_positions_are_so_many_and_equally_likely() -> None:
    """RandomPos: without replacement, in each sequence; over 400 sequences of 10 each place is kept 80 +- 8 times."""
    labels = Signals(torch.zeros(400, 10, dtype=torch.long), {})
    weights = weights_of(RandomFraction(0.2), labels, Generator().manual_seed(0))
    assert ((weights > 0).sum(1) == 2).all() and set(weights.unique().tolist()) == {0.0, 5.0}
    assert ((weights > 0).sum(0) - 80).abs().max() < 4 * 8


def test_random_positions_of_a_sequence_do_not_depend_on_its_batch() -> None:
    def chosen(seeds: list[int]) -> Tensor:
        streams = Streams(tuple(Generator().manual_seed(seed) for seed in seeds))
        labels = Signals(torch.zeros(len(seeds), 9, dtype=torch.long), {})
        return RandomFraction(0.3)(labels, 0.0, streams)

    assert torch.equal(chosen([4, 7, 1])[1:], chosen([7, 1]))
    assert not torch.equal(*chosen([4, 7]))


@pytest.mark.parametrize(("ratio", "hard", "number"), [(2.0, 0.5, 4), (1.5, 0.25, 2), (1.0, 0.5, 4)])
def test_hard_tokens_learn_faster_at_the_same_average(ratio: float, hard: float, number: int) -> None:
    confidences = [0.9, 0.1, 0.5, 0.3, 0.05, 0.7, 0.8, 0.2]
    weights = weights_of(HardTokens(ratio, hard), given(confidence=torch.tensor(confidences).view(2, 4)))
    np.testing.assert_allclose(
        weights.flatten().numpy(), oracle.hard_token_weights(confidences, ratio, number), rtol=0, atol=1e-6
    )


def test_responses_are_where_the_target_has_the_label() -> None:
    said = given(confidence=torch.tensor([[0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.3], [0.0] * 4]))
    assert weights_of(Responses(), said).tolist() == [[0, 2, 2, 0], [0, 0, 0, 4], [0] * 4]


@pytest.mark.parametrize("name", POSITIONS)
def test_position_weights_average_to_one(name: str) -> None:
    """In every batch; one that corrects for its draws: over all draws, here 4,000, to 4 standard errors."""
    positions: Positions = example(POSITIONS[name])
    generator, signals_BL = Generator().manual_seed(0) if positions.draws else None, all_signals(LENGTH)
    weights = weights_of(positions, signals_BL, generator)
    assert weights.shape == (SEQUENCES, LENGTH)
    if isinstance(positions, UnbiasedPositionSampling):
        means = weights_of(
            positions, given(student_entropy=torch.rand(LENGTH, generator=generator).repeat(4000, 1)), generator
        ).mean(1)
        assert abs(float(means.mean()) - 1) < 4 * float(means.std()) / 4000**0.5
    else:
        assert float(weights.mean()) == pytest.approx(1, abs=1e-6)


def test_all_positions_weigh_the_same_and_know_nothing() -> None:
    assert AllPositions().signals == ()
    assert torch.equal(weights_of(AllPositions(), Signals(torch.zeros(2, 4), {})), torch.ones(2, 4))


def test_a_dense_target_s_confidence_is_its_probability_of_the_truth() -> None:
    probs_NV = torch.rand(6, CLASSES).softmax(-1)
    labels_BL = torch.randint(CLASSES, (2, 3))
    found = loss.signals_of(("confidence",), torch.zeros(2, 3, CLASSES), labels_BL, DenseTarget(probs_NV))
    assert torch.equal(found["confidence"], probs_NV[torch.arange(6), labels_BL.flatten()].view(2, 3))
