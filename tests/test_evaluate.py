"""LM loss, ECE and acceptance agree with independent implementations; no N x V matrix is ever held."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributions import Categorical
from torch.utils._python_dispatch import TorchDispatchMode
from torchmetrics.classification import MulticlassCalibrationError
from torchmetrics.text import Perplexity
from transformers import PreTrainedModel

from replication.evaluate.calibration import BINS
from replication.evaluate.language_model import Tally, evaluate
from replication.experiment.scale import Optimiser, Role
from replication.fused import loss as fused
from replication.machine.device import CPU, Machine
from replication.model.decoder import build, logits_of

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
    assert math.isclose(tally(student_NV, labels_N, None, 7).metrics()["lm_loss"], math.log(perplexity), rel_tol=1e-5)


def test_ece_is_torchmetrics_ece_and_does_not_depend_on_the_batches() -> None:
    student_NV = logits(1)
    labels_N = labels_of(student_NV / 2)  # an over-confident student
    reference = MulticlassCalibrationError(CLASSES, n_bins=BINS, norm="l1")(student_NV.softmax(-1), labels_N)
    one, many = (tally(student_NV, labels_N, None, batches).metrics()["ece"] for batches in (1, 13))
    assert one > 0.1
    assert math.isclose(one, float(reference), abs_tol=1e-6) and math.isclose(one, many, rel_tol=1e-12)


def test_a_student_that_samples_its_own_labels_is_calibrated() -> None:
    student_NV = logits(1)
    assert tally(student_NV, labels_of(student_NV), None, 3).metrics()["ece"] < 0.02


def test_acceptance_is_what_rejection_sampling_accepts() -> None:
    student_NV, teacher_NV = logits(1, 1.5), logits(3, 1.5)
    expected = tally(student_NV, labels_of(teacher_NV), teacher_NV, 5).metrics()["acceptance"]
    source = np.random.default_rng(0)
    teacher, student = teacher_NV.softmax(-1).double().numpy(), student_NV.softmax(-1).double().numpy()
    accepted = []
    for target, draft in zip(teacher, student, strict=True):
        token = source.choice(CLASSES, p=draft / draft.sum())
        accepted.append(source.random() < min(1.0, target[token] / draft[token]))
    error = math.sqrt(expected * (1 - expected) / TOKENS)
    assert abs(np.mean(accepted) - expected) < 4 * error


def test_kl_is_torchs_of_the_two_distributions() -> None:
    student_NV, teacher_NV = logits(1), logits(2)
    wanted = torch.distributions.kl_divergence(*(Categorical(logits=one.double()) for one in (teacher_NV, student_NV)))
    found = tally(student_NV, labels_of(student_NV), teacher_NV, 3).metrics()["kl"]
    assert math.isclose(found, float(wanted.mean()), rel_tol=1e-6)


def test_a_student_equal_to_its_teacher_agrees_and_is_always_accepted() -> None:
    metrics = tally(logits(1), labels_of(logits(1)), logits(1), 2).metrics()
    assert metrics["agreement"] == 1 and math.isclose(metrics["acceptance"], 1, rel_tol=1e-6)
    assert abs(metrics["kl"]) < 1e-7


VOCABULARY, LENGTH, ROWS = 300, 24, 21
MACHINE = Machine(CPU, False, Path("unused"), Path("unused"))


@dataclass
class HeldOut:
    """Random rows in the place of a packing."""

    length: int = LENGTH

    def __len__(self) -> int:
        return ROWS

    def rows(self, indices: np.ndarray) -> np.ndarray:
        return np.random.default_rng(5).integers(0, VOCABULARY, (ROWS, LENGTH + 1))[indices]


def model(width: int, seed: int) -> PreTrainedModel:
    optimiser = Optimiser(peak_rate=1e-3, final_rate=1e-4, warmup=0.1, batch=4)
    role = Role(layers=1, width=width, ffn=32, heads=2, kv_heads=2, length="1", optimiser=optimiser)
    built = build(role, VOCABULARY, LENGTH, 0, seed).eval()
    with torch.no_grad():
        built.lm_head.weight.mul_(40)  # so that its predictions differ from a uniform one
    return built


def at_once(student: PreTrainedModel, teacher: PreTrainedModel | None, rows: int) -> dict[str, float]:
    """The metrics from whole matrices of logits."""
    tokens = torch.from_numpy(HeldOut().rows(np.arange(rows)))
    with torch.no_grad():
        logits = [logits_of(one, tokens[:, :-1], VOCABULARY).flatten(0, 1) for one in (student, teacher) if one]
    found = Tally()
    found.add(logits[0], tokens[:, 1:].flatten(), logits[1] if teacher else None)
    return found.metrics()


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fused.CHUNK, "cpu", 4 * VOCABULARY * 50)  # fifty positions
    monkeypatch.setitem(fused.BLOCK, "cpu", 4 * VOCABULARY * 20)


@pytest.mark.parametrize("rows", [ROWS, 17, 100])
def test_chunks_give_what_whole_matrices_give(small_chunks: None, rows: int) -> None:
    student, teacher = model(16, 1), model(32, 2)
    metrics, curves = evaluate(student, teacher, HeldOut(), rows, VOCABULARY, MACHINE)
    assert metrics == pytest.approx(at_once(student, teacher, min(rows, ROWS)), rel=1e-5)
    assert set(metrics) == {"lm_loss", "accuracy", "ece", "full_ece", "brier", "agreement", "acceptance", "kl"}
    assert all(low < high for low, high in curves["intervals"].values())
    low, high = curves["intervals"]["lm_loss"]
    assert low < metrics["lm_loss"] < high
    assert sum(curves["reliability"]["count"]) == min(rows, ROWS) * LENGTH


def test_spans_of_positions_divide_the_loss(small_chunks: None) -> None:
    student = model(16, 1)
    metrics, curves = evaluate(student, None, HeldOut(), ROWS, VOCABULARY, MACHINE)
    assert "acceptance" not in metrics
    first = curves["by_position"]["first"]
    sizes = np.diff([*first, LENGTH])
    assert first[0] == 0 and len(first) == 16 and set(sizes) == {1, 2}
    assert np.average(curves["by_position"]["lm_loss"], weights=sizes) == pytest.approx(metrics["lm_loss"], rel=1e-6)
    tokens = torch.from_numpy(HeldOut().rows(np.arange(ROWS)))
    logits_BLV = logits_of(student, tokens[:, :-1], VOCABULARY)[:, first[3] : first[4]]
    loss = torch.nn.functional.cross_entropy(logits_BLV.flatten(0, 1), tokens[:, 1 + first[3] : 1 + first[4]].flatten())
    assert curves["by_position"]["lm_loss"][3] == pytest.approx(loss.item(), rel=1e-5)


def test_a_model_that_is_more_than_a_linear_head_is_read_as_it_is(small_chunks: None) -> None:
    class Capped(type(model(16, 1))):  # type: ignore[misc]
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            made = super().forward(*args, **kwargs)
            made.logits = 3 * torch.tanh(made.logits / 3)
            return made

    student = model(16, 1)
    student.__class__ = Capped
    metrics, _ = evaluate(student, None, HeldOut(), ROWS, VOCABULARY, MACHINE)
    assert metrics == pytest.approx(at_once(student, None, ROWS), rel=1e-5)
    assert metrics["lm_loss"] != pytest.approx(at_once(model(16, 1), None, ROWS)["lm_loss"], rel=1e-2)


class Largest(TorchDispatchMode):
    """Numbers in the largest tensor that is made."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor):
            self.numbers = max(self.numbers, made.numel())
        return made


def test_no_more_than_a_chunk_of_logits_is_held(small_chunks: None) -> None:
    with Largest() as seen:
        evaluate(model(16, 1), model(32, 2), HeldOut(), 16, VOCABULARY, MACHINE)
    assert seen.numbers <= 50 * VOCABULARY < 16 * LENGTH * VOCABULARY / 7
