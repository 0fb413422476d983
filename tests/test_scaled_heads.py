"""Heads whose product is scaled or capped: the fused loss is the definition's, and the verdict depends on no weight."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_fused import EVERYWHERE, assert_equal, gradients, labels_BL, student
from test_gradients import CLASSES, METHODS, PAIRS, POSITIONS, SEQUENCES, drawn
from torch import Tensor, nn
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM

from replication.axes import loss
from replication.axes.divergences import ForwardKL
from replication.axes.positions import HardTokens, Positions, TopFraction
from replication.axes.signals import SIGNALS
from replication.axes.targets.kept import Full
from replication.fused import loss as fused
from replication.fused import products
from replication.fused.head import Head, Scaling, TeacherStates
from replication.model.output_head import scaling_of

SCALINGS = [Scaling(0.125), Scaling(1.0, 3.0), Scaling(2.0, 1.5)]


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fused.CHUNK, "cpu", 2 * 8 * CLASSES)
    monkeypatch.setitem(fused.BLOCK, "cpu", 4 * CLASSES)
    monkeypatch.setitem(products.WHOLE, "cpu", CLASSES // 3 + 1)


def as_written(scaling: Scaling, product_NV: Tensor) -> Tensor:
    """As Granite, Cohere and Gemma 2 write it."""
    scaled_NV = product_NV * scaling.by
    return scaled_NV if scaling.cap is None else torch.tanh(scaled_NV / scaling.cap) * scaling.cap


def both(scaling: Scaling, target: object, divergence: object, positions: Positions) -> tuple[list[np.ndarray], ...]:
    hidden, head = student(bias=True)
    rest = (labels_BL(), target, divergence, positions, 0.7, 0.4)
    ours = gradients(fused.fused_loss(hidden, replace(head, scaling=scaling), *rest), hidden, head)
    logits = as_written(scaling, head(hidden))
    whole = target.whole() if isinstance(target, TeacherStates) else target
    return ours, gradients(loss.distillation_loss(logits, labels_BL(), whole, *rest[2:]), hidden, head)


@pytest.mark.parametrize("scaling", SCALINGS, ids=str)
@pytest.mark.parametrize(("name", "method"), PAIRS, ids=str)
def test_loss_and_gradients_equal_the_definition(scaling: Scaling, name: str, method: object) -> None:
    assert_equal(*both(scaling, drawn(method), METHODS[name], EVERYWHERE))


@pytest.mark.parametrize("scaling", SCALINGS, ids=str)
@pytest.mark.parametrize("positions", [TopFraction(0.5), HardTokens(3.0)], ids=str)
def test_what_looks_at_the_student_sees_its_logits(scaling: Scaling, positions: Positions) -> None:
    assert_equal(*both(scaling, drawn(Full()), ForwardKL(), positions))
    hidden, head = student()
    found = fused.fused_signals_of(
        tuple(SIGNALS), hidden.detach(), replace(head, scaling=scaling), labels_BL(), drawn(Full())
    )
    logits = as_written(scaling, head(hidden)).detach()
    meant = loss.signals_of(tuple(SIGNALS), logits, labels_BL(), drawn(Full()))
    for name in SIGNALS:
        torch.testing.assert_close(found[name], meant[name])


@pytest.mark.parametrize("scaling", SCALINGS, ids=str)
def test_a_teacher_given_as_states_is_its_own_logits(scaling: Scaling) -> None:
    random = torch.Generator().manual_seed(3)
    head = Head(torch.randn(CLASSES, 7, generator=random))
    states = torch.randn(POSITIONS, 7, generator=random)
    target = TeacherStates(states, replace(head, scaling=scaling), 0.5, SEQUENCES)
    meant = (as_written(scaling, head(states)) * 0.5).softmax(-1)
    torch.testing.assert_close(target.whole().probs_NV, meant)
    assert_equal(*both(scaling, target, ForwardKL(), EVERYWHERE), atol=1e-6)


class Learned(LlamaForCausalLM):
    """A step behind the head that learns, and does nothing at first."""

    def __init__(self, config: LlamaConfig, step: str) -> None:
        super().__init__(config)
        self.step = step
        self.by, self.shift = nn.Parameter(torch.ones(())), nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, *given: object, **named: object) -> object:
        found = super().forward(*given, **named)
        match self.step:
            case "by":
                found.logits = found.logits * self.by
            case "shift":
                found.logits = found.logits + self.shift
            case "mask":
                found.logits[..., 3] = -torch.inf
            case "normalised":
                found.logits = found.logits.log_softmax(-1)
            case "squared":
                found.logits = found.logits * found.logits.abs()
        return found


SMALL = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
         "num_attention_heads": 1, "num_key_value_heads": 1}  # fmt: skip


@pytest.mark.parametrize("step", ["by", "shift", "mask", "normalised", "squared"])
def test_any_other_step_behind_the_head_is_left_to_the_model(step: str) -> None:
    model = Learned(LlamaConfig(**SMALL), step)
    with torch.no_grad():
        model.lm_head.weight.zero_()
    assert scaling_of(model, 40) is None
    model.step = ""
    assert scaling_of(model, 40) == Scaling()


@pytest.mark.parametrize("size", [0.0, 1e-3, 1.0, 1e3])
@pytest.mark.parametrize("width", [16, 256])
def test_a_cap_is_seen_whatever_the_weights(size: float, width: int) -> None:
    model = Gemma2ForCausalLM(Gemma2Config(**{**SMALL, "hidden_size": width}, final_logit_softcapping=30.0, head_dim=8))
    with torch.no_grad():
        model.lm_head.weight.mul_(size)
    model.train()
    assert scaling_of(model, 40) == Scaling(1.0, 30.0)
    assert model.training and "forward" not in vars(model.lm_head) and torch.is_grad_enabled()


def test_a_head_of_another_kind_is_left_to_the_model() -> None:
    class Adapted(nn.Linear):
        def forward(self, given: Tensor) -> Tensor:
            return super().forward(given) + given.sum(-1, keepdim=True)

    model = LlamaForCausalLM(LlamaConfig(**SMALL))
    model.set_output_embeddings(Adapted(16, 40, bias=False))
    assert scaling_of(model, 40) is None
