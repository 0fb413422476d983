"""Calibration agrees with torchmetrics and with loops written from the definitions; its intervals cover the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torchmetrics.classification import BinaryCalibrationError, MulticlassCalibrationError

from replication.evaluate.calibration import BINS, Calibration, Mean, brier

CLASSES, TOKENS = 30, 4000


def probs(seed: int, sharpness: float = 2.0) -> torch.Tensor:
    return (sharpness * torch.randn(TOKENS, CLASSES, generator=torch.Generator().manual_seed(seed))).softmax(-1)


def drawn(probs_NV: torch.Tensor) -> torch.Tensor:
    return torch.multinomial(probs_NV, 1, generator=torch.Generator().manual_seed(9))[:, 0]


@pytest.fixture(scope="module")
def stream() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Over-confident probabilities, labels of what they should have been, and seven sequences."""
    probs_NV = probs(1)
    return probs_NV, drawn(probs_NV.sqrt()), torch.arange(TOKENS) * 7 // TOKENS


def full(probs_NV: torch.Tensor, labels_N: torch.Tensor, group_N: torch.Tensor, batches: int = 1) -> Calibration:
    found = Calibration(int(group_N.max()) + 1)
    for part in np.array_split(np.arange(len(labels_N)), batches):
        found.add_all(probs_NV[part], labels_N[part], group_N[part])
    return found


def test_full_ece_is_its_definition(stream: tuple[torch.Tensor, ...]) -> None:
    """Liu et al. 2024: every class of every token, in bins of its probability; the size of a bin over the tokens."""
    probs_NV, labels_N, group_N = stream
    count, said, came = np.zeros(BINS), np.zeros(BINS), np.zeros(BINS)
    for row, label in zip(probs_NV.double().numpy(), labels_N.tolist(), strict=True):
        for k, p in enumerate(row):
            place = max(math.ceil(p * BINS), 1) - 1
            count[place] += 1
            said[place] += p
            came[place] += k == label
    expected = sum(n / TOKENS * abs(c / n - s / n) for n, s, c in zip(count, said, came, strict=True) if n)
    found = full(probs_NV, labels_N, group_N, 5)
    assert found.error() == pytest.approx(expected, rel=1e-5) and expected > 0.2
    assert found.curve()["count"] == count[count > 0].tolist() and sum(count) == TOKENS * CLASSES
    assert found.curve()["accuracy"] == pytest.approx((came / count).tolist(), rel=1e-12)


def test_full_ece_is_torchmetrics_binary_ece_over_all_classes(stream: tuple[torch.Tensor, ...]) -> None:
    probs_NV, labels_N, group_N = stream
    hits_NV = torch.nn.functional.one_hot(labels_N, CLASSES)
    reference = BinaryCalibrationError(n_bins=BINS, norm="l1")(probs_NV.flatten(), hits_NV.flatten())
    # torchmetrics divides by the pairs, Full-ECE by the tokens
    assert full(probs_NV, labels_N, group_N).error() == pytest.approx(CLASSES * float(reference), abs=1e-5)


def test_groups_have_the_errors_of_their_own_tokens(stream: tuple[torch.Tensor, ...]) -> None:
    probs_NV, labels_N, group_N = stream
    top, found = probs_NV.max(1), Calibration(7)
    found.add(top.values, top.indices == labels_N, group_N)
    reference = MulticlassCalibrationError(CLASSES, n_bins=BINS, norm="l1")
    expected = [float(reference(probs_NV[group_N == g], labels_N[group_N == g])) for g in range(7)]
    assert found.errors() == pytest.approx(expected, abs=1e-6)
    assert found.error() == pytest.approx(float(reference(probs_NV, labels_N)), abs=1e-6)


def test_batches_do_not_matter(stream: tuple[torch.Tensor, ...]) -> None:
    whole, parts = full(*stream), full(*stream, 13)
    assert torch.allclose(whole.sums_3GB, parts.sums_3GB, rtol=1e-12) and torch.equal(whole.tokens_G, parts.tokens_G)


def test_probabilities_that_are_the_truth_are_fully_calibrated(stream: tuple[torch.Tensor, ...]) -> None:
    probs_NV, _, group_N = stream
    assert full(probs_NV, drawn(probs_NV), group_N).error() < 0.05


def test_brier_is_the_squared_distance_from_the_label(stream: tuple[torch.Tensor, ...]) -> None:
    probs_NV, labels_N, _ = stream
    distance_N = (probs_NV.double() - torch.nn.functional.one_hot(labels_N, CLASSES)).square().sum(1)
    assert torch.allclose(brier(probs_NV, labels_N), distance_N, atol=1e-6)


def test_bins_are_closed_above() -> None:
    edge = Calibration()
    edge.add(torch.tensor([1 / BINS, 1.0, 1e-9], dtype=torch.float64), torch.tensor([True, True, False]))
    assert edge.sums_3GB[0, 0, 0] == 2 and edge.sums_3GB[0, 0, -1] == 1


def test_intervals_cover_the_truth_though_a_text_is_no_independent_sample() -> None:
    """Texts differ in difficulty: accuracy 0.5 on average, confidence 0.7, so the error is 0.2 and the mean is 0.5."""
    source = np.random.default_rng(3)
    texts, length, repeats = 50, 30, 200
    covered = {"error": 0, "mean": 0}
    widths = []
    for _ in range(repeats):
        accuracy_G = source.beta(2, 2, texts)
        correct_N = torch.from_numpy(source.random(texts * length) < accuracy_G.repeat(length))
        group_N = torch.arange(texts).repeat_interleave(length)
        calibration, mean = Calibration(texts), Mean(texts)
        calibration.add(torch.full((texts * length,), 0.7), correct_N, group_N)
        mean.add(correct_N, group_N)
        low, high = calibration.interval()
        covered["error"] += low <= 0.2 <= high
        widths.append(high - low)
        low, high = mean.interval()
        covered["mean"] += low <= 0.5 <= high
    # 95 % less the undercoverage of a bootstrap over 50, less three standard errors of 200 repeats
    assert min(covered.values()) / repeats > 0.88, covered
    independent = 2 * 1.96 * math.sqrt(0.25 / (texts * length))
    assert np.mean(widths) > 2 * independent
