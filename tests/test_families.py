"""Every family's teacher and student against Hugging Face's own forward, from a zero head to what is published."""

from __future__ import annotations

from pathlib import Path

import pytest
import tokenizers
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, PreTrainedModel

from replication.axes.targets.base import DenseTarget, SparseTarget
from replication.axes.targets.kept import Full, TopK
from replication.data.tokenizer import Tokenizer
from replication.evaluate.language_model import Predicted
from replication.experiment.recipe import parse
from replication.fused.head import PLAIN, Scaling, TeacherStates
from replication.machine.device import this_machine
from replication.model.checkpoint import publish
from replication.model.decoder import load, logits_of
from replication.model.output_head import scaling_of
from replication.model.trainable import trainable
from replication.training.student import Student
from replication.training.supervision import drawn, from_teacher
from tests.families import CLASSES, FAMILIES, TOKENS, Family

RECIPE = parse({"target": "Full", "schedule": {"name": "Constant", "kd_weight": 0.7, "ce_weight": 0.3}})
STEPS = 50


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    words = {"<|endoftext|>": 0, **{f"w{number}": number for number in range(1, TOKENS)}}
    return Tokenizer(tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w1")), 0)


def text() -> tuple[Tensor, Tensor]:
    rows = torch.randint(TOKENS, (2, 13), generator=torch.Generator().manual_seed(1))
    return rows[:, :-1], rows[:, 1:]


def theirs(model: PreTrainedModel, probs_BLV: Tensor) -> Tensor:
    """The recipe's loss, of Hugging Face's forward alone."""
    tokens_BL, labels_BL = text()
    log_student_NV = model(input_ids=tokens_BL, use_cache=False).logits.flatten(0, 1).log_softmax(-1)
    probs_NV = probs_BLV.flatten(0, 1)
    divergence = (torch.xlogy(probs_NV, probs_NV) - probs_NV * log_student_NV).sum(-1).mean()
    return 0.7 * divergence + 0.3 * cross_entropy(log_student_NV, labels_BL.flatten())


def assert_equal_losses(student: Student, probs_BLV: Tensor) -> float:
    """Of a step: the loss, and the gradient of every weight; of an evaluation: the logits."""
    tokens_BL, labels_BL = text()
    model, weights = student.model, [weight for weight in student.parameters() if weight.requires_grad]
    ours, meant = student(tokens_BL, labels_BL, DenseTarget(probs_BLV.flatten(0, 1)), 0.0), theirs(model, probs_BLV)
    close(ours.detach(), meant.detach())
    pairs = (torch.autograd.grad(loss, weights, allow_unused=True) for loss in (ours, meant))
    for mine, its in zip(*pairs, strict=True):
        assert (mine is None) == (its is None)
        if mine is not None and its is not None:
            close(mine, its)
    with torch.no_grad():
        predicted = Predicted(model, tokens_BL, TOKENS, student.scaling).logits(slice(None))
        close(predicted, model(input_ids=tokens_BL).logits.flatten(0, 1))
    return float(ours.detach())


def close(ours: Tensor, meant: Tensor) -> None:
    torch.testing.assert_close(ours, meant, rtol=1e-5, atol=1e-5)


def zero_head(model: PreTrainedModel) -> None:
    head, looked_up = model.get_output_embeddings(), model.get_input_embeddings()
    with torch.no_grad():
        # a tied one at zero would leave nothing to learn from
        head.weight.mul_(1e-3 if head.weight is looked_up.weight else 0.0)
        if head.bias is not None:
            head.bias.zero_()


def described(scaling: Scaling | None) -> str:
    if scaling is None:
        return "other"
    if scaling.cap is not None:
        return "capped"
    return "plain" if scaling == PLAIN else f"by {scaling.by:.6g}"


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_all_that_is_computed_is_what_hugging_face_computes(
    family: Family, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    given = tmp_path / "given"
    family.model().save_pretrained(given)
    if family.refused:
        with pytest.raises(ValueError, match=family.refused):
            trainable(load(given), TOKENS)
        return
    tokens_BL, labels_BL = text()
    plain = AutoModelForCausalLM.from_pretrained(given).eval()
    with torch.no_grad():
        logits_BLV = plain(input_ids=tokens_BL).logits
    assert logits_BLV.shape[-1] == CLASSES
    probs_BLV = logits_BLV[..., :TOKENS].softmax(-1)

    teacher = load(given)
    assert described(scaling_of(teacher, TOKENS)) == family.head
    with torch.no_grad():
        cached = drawn(TopK(TOKENS), logits_of(teacher, tokens_BL, TOKENS), labels_BL, torch.arange(2).numpy(), 0)
    assert isinstance(cached, SparseTarget)
    close(cached.dense(TOKENS), probs_BLV.flatten(0, 1))
    beside = from_teacher(teacher, Full(), TOKENS, 0, 2, this_machine().at("float32"))
    target = beside(torch.arange(2).numpy(), torch.zeros(2).numpy(), tokens_BL, labels_BL).target
    assert isinstance(target, TeacherStates) == (family.head != "other")
    close(target.dense(TOKENS), probs_BLV.flatten(0, 1))

    student = Student(trainable(load(given), TOKENS), RECIPE, TOKENS)
    close(student.model.eval()(input_ids=tokens_BL).logits, logits_BLV[..., :TOKENS])
    assert_equal_losses(student, probs_BLV.flip(0))
    zero_head(student.model)
    before = assert_equal_losses(student, probs_BLV.flip(0))
    learn(student, probs_BLV.flip(0))
    assert described(scaling_of(student.model, TOKENS)) == family.head
    assert assert_equal_losses(student, probs_BLV.flip(0)) < before - 0.01

    publish(student.model, tokenizer, tmp_path / "published")
    published = AutoModelForCausalLM.from_pretrained(tmp_path / "published").eval()
    with torch.no_grad():
        close(published(input_ids=tokens_BL).logits, student.model(input_ids=tokens_BL).logits)
        close(logits_of(load(tmp_path / "published"), tokens_BL, TOKENS), published(input_ids=tokens_BL).logits)
    assert published(input_ids=tokens_BL).logits.shape[-1] == TOKENS


def learn(student: Student, probs_BLV: Tensor) -> None:
    """With its dropout, if it has any."""
    tokens_BL, labels_BL = text()
    optimiser = torch.optim.AdamW(student.parameters(), lr=1e-2, weight_decay=0.0)
    student.train()
    for _ in range(STEPS):
        optimiser.zero_grad()
        student(tokens_BL, labels_BL, DenseTarget(probs_BLV.flatten(0, 1)), 0.0).backward()
        optimiser.step()
    student.eval()
