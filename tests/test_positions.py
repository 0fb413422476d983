"""Which positions are supervised: the policies on signals that are given, and the signals from logits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import oracle
import pytest
import torch
from torch import Tensor

from replication.loss import FromLogits
from replication.positions import POSITIONS, AllPositions, HardTokens, TopFraction
from replication.targets import DenseTarget
from tests.cases import example

CLASSES = 7


@dataclass(frozen=True)
class Given:
    """Signals as the test wants them; asking for another one fails."""

    entropy_BL: Tensor | None = None
    confidence_BL: Tensor | None = None

    @property
    def labels_BL(self) -> Tensor:
        (shape,) = {part.shape for part in (self.entropy_BL, self.confidence_BL) if part is not None}
        return torch.zeros(shape, dtype=torch.long)

    def student_entropy(self) -> Tensor:
        assert self.entropy_BL is not None
        return self.entropy_BL

    def confidence(self) -> Tensor:
        assert self.confidence_BL is not None
        return self.confidence_BL


def from_logits(sequences: int, length: int) -> FromLogits:
    random = torch.Generator().manual_seed(9)
    logits, teacher = (2 * torch.randn(sequences, length, CLASSES, generator=random) for _ in range(2))
    labels = torch.randint(CLASSES, (sequences, length), generator=random)
    return FromLogits(logits, labels, DenseTarget(teacher.flatten(0, 1).softmax(-1)))


@pytest.mark.parametrize(
    ("length", "keep"), [(10, "0.2"), (7, "0.2"), (3, "0.5"), (100, "0.07"), (50, "0.14"), (9, "1")]
)
def test_top_fraction_keeps_exactly_the_most_uncertain(length: int, keep: str) -> None:
    """SE-KD Eq. 6, student entropy; ceil(keep * L) in exact arithmetic (0.07 * 100 is 7, not 7.000000000000001)."""
    signals = from_logits(3, length)
    weights = TopFraction(float(keep))(signals)
    logits = signals.student_logits_BLV.double().numpy()
    masks = [oracle.top_fraction([oracle.entropy(row) for row in rows], keep) for rows in logits]
    assert (weights > 0).int().tolist() == masks
    np.testing.assert_allclose(weights.mean(1).numpy(), 1, rtol=0, atol=1e-6)


def test_top_fraction_keeps_its_number_when_all_positions_tie() -> None:
    assert (TopFraction(0.2)(Given(torch.zeros(2, 10))) > 0).sum(1).tolist() == [2, 2]


def test_top_fraction_is_blind_to_the_teacher() -> None:
    """`Given` has no confidence to give."""
    assert TopFraction()(Given(torch.rand(2, 10))).shape == (2, 10)


@pytest.mark.parametrize(("ratio", "hard", "number"), [(2.0, 0.5, 4), (1.5, 0.25, 2), (1.0, 0.5, 4)])
def test_hard_tokens_learn_faster_at_the_same_average(ratio: float, hard: float, number: int) -> None:
    confidences = [0.9, 0.1, 0.5, 0.3, 0.05, 0.7, 0.8, 0.2]
    weights = HardTokens(ratio, hard)(Given(confidence_BL=torch.tensor(confidences).view(2, 4)))
    np.testing.assert_allclose(
        weights.flatten().numpy(), oracle.hard_token_weights(confidences, ratio, number), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("name", POSITIONS)
def test_position_weights_average_to_one(name: str) -> None:
    weights = example(POSITIONS[name])(from_logits(3, 8))
    assert weights.shape == (3, 8)
    assert float(weights.mean()) == pytest.approx(1, abs=1e-6)


def test_all_positions_weigh_the_same() -> None:
    assert torch.equal(AllPositions()(Given(torch.rand(2, 4))), torch.ones(2, 4))


def test_the_confidence_is_the_target_s_weight_on_the_truth() -> None:
    signals = from_logits(2, 3)
    chosen = signals.target.probs_NV[torch.arange(6), signals.labels_BL.flatten()]  # type: ignore[union-attr]
    assert torch.equal(signals.confidence(), chosen.view(2, 3))
