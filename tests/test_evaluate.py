"""LM loss, ECE and acceptance agree with independent implementations."""

from __future__ import annotations

import math

import numpy as np
import torch
from torchmetrics.classification import MulticlassCalibrationError
from torchmetrics.text import Perplexity

from replication.evaluate.language_model import BINS, Calibration, Tally

CLASSES, TOKENS = 40, 6000


def logits(seed: int, sharpness: float = 3.0) -> torch.Tensor:
    return sharpness * torch.randn(TOKENS, CLASSES, generator=torch.Generator().manual_seed(seed))


def labels_of(logits_NV: torch.Tensor) -> torch.Tensor:
    return torch.multinomial(logits_NV.softmax(-1), 1, generator=torch.Generator().manual_seed(9))[:, 0]


def tally(student_NV: torch.Tensor, labels_N: torch.Tensor, teacher_NV: torch.Tensor | None, batches: int) -> Tally:
    found = Tally()
    for part in np.array_split(np.arange(TOKENS), batches):
        found.add(student_NV[part], labels_N[part], None if teacher_NV is None else teacher_NV[part])
    return found


def test_lm_loss_is_torchmetrics_log_perplexity() -> None:
    student_NV = logits(1)
    labels_N = labels_of(logits(2))
    perplexity = Perplexity()(student_NV[None], labels_N[None])
    assert math.isclose(
        tally(student_NV, labels_N, None, 7).metrics(False)["lm_loss"], math.log(perplexity), rel_tol=1e-5
    )


def test_ece_is_torchmetrics_ece_and_does_not_depend_on_the_batches() -> None:
    student_NV = logits(1)
    labels_N = labels_of(student_NV / 2)  # an over-confident student
    reference = MulticlassCalibrationError(CLASSES, n_bins=BINS, norm="l1")(student_NV.softmax(-1), labels_N)
    one, many = (tally(student_NV, labels_N, None, batches).metrics(False)["ece"] for batches in (1, 13))
    assert one > 0.1
    assert math.isclose(one, float(reference), abs_tol=1e-6) and math.isclose(one, many, rel_tol=1e-12)


def test_a_student_that_samples_its_own_labels_is_calibrated() -> None:
    student_NV = logits(1)
    assert tally(student_NV, labels_of(student_NV), None, 3).metrics(False)["ece"] < 0.02


def test_bins_are_closed_above() -> None:
    edge = Calibration()
    edge.add(torch.tensor([1 / BINS, 1.0, 1e-9], dtype=torch.float64), torch.tensor([True, True, False]))
    assert edge.count[0] == 2 and edge.count[-1] == 1


def test_acceptance_is_what_rejection_sampling_accepts() -> None:
    student_NV, teacher_NV = logits(1, 1.5), logits(3, 1.5)
    expected = tally(student_NV, labels_of(teacher_NV), teacher_NV, 5).metrics(True)["acceptance"]
    source = np.random.default_rng(0)
    teacher, student = teacher_NV.softmax(-1).double().numpy(), student_NV.softmax(-1).double().numpy()
    accepted = []
    for target, draft in zip(teacher, student, strict=True):
        token = source.choice(CLASSES, p=draft / draft.sum())
        accepted.append(source.random() < min(1.0, target[token] / draft[token]))
    error = math.sqrt(expected * (1 - expected) / TOKENS)
    assert abs(np.mean(accepted) - expected) < 4 * error


def test_a_student_equal_to_its_teacher_agrees_and_is_always_accepted() -> None:
    metrics = tally(logits(1), labels_of(logits(1)), logits(1), 2).metrics(True)
    assert metrics["agreement"] == 1 and math.isclose(metrics["acceptance"], 1, rel_tol=1e-6)
