"""Speculative decoding accepts as often as it should, and its steps are counted right."""

from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedModel

from replication.evaluate import speculative
from replication.evaluate.speculative import DRAFTS, Decoded, compare, decode
from replication.experiment.scale import Optimiser, Role
from replication.model.decoder import build

CLASSES, LENGTH = 50, 96


def model(width: int, seed: int, classes: int = CLASSES) -> PreTrainedModel:
    optimiser = Optimiser(peak_rate=1e-3, final_rate=1e-4, warmup=0.1, batch=4)
    role = Role(layers=1, width=width, ffn=32, heads=2, kv_heads=2, length="1", optimiser=optimiser)
    built = build(role, classes, LENGTH, 0, seed).eval()
    with torch.no_grad():
        built.lm_head.weight.mul_(20)  # so that what comes next depends on what came before
    return built


def student_of(teacher: PreTrainedModel) -> PreTrainedModel:
    """A student that learned something: the teacher's weights, disturbed."""
    student = model(32, 1)
    student.load_state_dict(teacher.state_dict())
    noise = torch.Generator().manual_seed(4)
    with torch.no_grad():
        student.lm_head.weight.add_(0.25 * torch.randn(student.lm_head.weight.shape, generator=noise))
    return student


def prompts(rows: int) -> torch.Tensor:
    return torch.randint(0, CLASSES, (rows, 6), generator=torch.Generator().manual_seed(2))


def test_over_2000_drafts_acceptance_lies_in_its_99_percent_interval() -> None:
    teacher = model(32, 1)
    torch.manual_seed(0)
    found = decode(teacher, student_of(teacher), prompts(60), LENGTH - 6, drafts=2000)
    metrics = found.metrics()
    assert metrics["decoded_drafts"] >= 2000
    assert 0.3 < metrics["decoded_expected"] < 0.9  # neither extreme would test anything
    assert abs(metrics["decoded_acceptance"] - metrics["decoded_expected"]) < metrics["decoded_error"] < 0.03
    assert metrics["tokens_per_step"] == pytest.approx(metrics["accepted_per_step"] + 1)
    # the constant chance of each draft gives nearly the length of a run of accepted ones
    share = metrics["decoded_expected"]
    assert metrics["accepted_per_step"] == pytest.approx(sum(share**k for k in range(1, DRAFTS + 1)), rel=0.15)


def test_a_student_that_is_its_teacher_is_always_accepted() -> None:
    teacher, student = model(32, 1), model(32, 1)
    metrics = decode(teacher, student, prompts(4), 40, drafts=100).metrics()
    assert metrics["decoded_expected"] == pytest.approx(1, abs=1e-5) and metrics["decoded_acceptance"] > 0.999
    assert metrics["decoded_agreement"] == 1 and metrics["accepted_per_step"] > DRAFTS - 1


class Fixed(torch.nn.Module):
    """The same distribution everywhere."""

    def __init__(self, probs: list[float]) -> None:
        super().__init__()
        self.logits_V = torch.tensor(probs).log()

    def forward(self, tokens_1L: torch.Tensor) -> object:
        return type("Made", (), {"logits": self.logits_V.expand(1, tokens_1L.shape[1], -1)})


def test_steps_are_counted_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompt of 4; with 3 drafts a step: all three accepted, one accepted, none; then one draft, and none is left."""
    monkeypatch.setattr(speculative, "DRAFTS", 3)
    sizes = [4, 4, 2, 1, 2, 1]
    found, teacher, student = Decoded(), Fixed([0.5, 0.3, 0.2]), Fixed([0.2, 0.3, 0.5])
    compare(found, teacher, student, torch.zeros(1, sum(sizes), dtype=torch.long), sizes)  # type: ignore[arg-type]
    # looked at: 3 of 3; the accepted and the rejected; the rejected; of two drafts the accepted and the rejected; none
    assert len(found.expected_N) == 3 + 2 + 1 + 2 and found.accepted == 3 + 1 + 0 + 1
    assert found.steps == 5 and found.tokens == 10 and found.agreed == 0
    assert found.expected_N.tolist() == pytest.approx([0.2 + 0.3 + 0.2] * 8)


def test_models_of_different_widths_and_too_few_prompts_are_refused() -> None:
    with pytest.raises(ValueError, match="the teacher has 50, the student 60"):
        decode(model(32, 1), model(16, 2, classes=60), prompts(1), 10, drafts=1)
    with pytest.raises(ValueError, match="1 prompts gave only .* of 10000 drafts"):
        decode(model(32, 1), model(16, 2), prompts(1), 4, drafts=10_000)
