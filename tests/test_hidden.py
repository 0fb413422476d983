"""The term on hidden states: what it is, that both loss paths add the same, and that a run trains by it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import oracle
import pytest
import torch
from test_fused import gradients, labels_BL, student
from test_gradients import CLASSES, POSITIONS
from torch import Tensor

from replication.axes.divergences import ForwardKL
from replication.axes.hidden import Cosine, NoHidden
from replication.axes.loss import distillation_loss
from replication.axes.positions import AllPositions, Positions, TopFraction
from replication.axes.targets.base import one_hot
from replication.axes.targets.kept import Full
from replication.experiment.recipe import parse
from replication.experiment.run import Run
from replication.experiment.scale import load_scale
from replication.fused.head import Head, TeacherStates
from replication.fused.loss import fused_loss
from replication.machine.device import this_machine
from replication.model.decoder import build, layers_of, logits_and_states_of, logits_of
from replication.model.initialise import ends_of_parts
from replication.model.output_head import PLAIN, hidden_of, states_of
from replication.training.student import Student
from replication.training.supervision import from_teacher

WIDTH = 5  # of test_fused's student
COSINE = {"hidden": {"name": "Cosine", "weight": 0.5}}


def states(seed: int, width: int = WIDTH) -> Tensor:
    return torch.randn(POSITIONS, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_cosine_is_its_formula() -> None:
    mine, its = states(0), states(1)
    meant = [0.5 * oracle.hidden_cosine(s, t) for s, t in zip(mine.numpy(), its.numpy(), strict=True)]
    np.testing.assert_allclose(Cosine(0.5)(mine[None], its[None]), meant, rtol=1e-12)
    np.testing.assert_allclose(Cosine()(mine[None], 3 * mine[None]), 0, atol=1e-12)
    np.testing.assert_allclose(Cosine()(mine[None], -mine[None]), 2, rtol=1e-12)
    several = Cosine(0.5, "every")(torch.stack([mine, mine]), torch.stack([its, -mine]))
    np.testing.assert_allclose(several, (np.array(meant) + 0.5 * 2) / 2, rtol=1e-12)
    assert not NoHidden()(mine[None], its[None]).any() and len(NoHidden()(mine[None], its[None])) == len(mine)


def test_a_term_without_weight_and_other_widths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Cosine\.weight is 0; give a weight above 0"):
        Cosine(0)
    with pytest.raises(ValueError, match=r"Cosine\.layers is 'all'\. Known: last, every\."):
        Cosine(layers="all")
    with pytest.raises(ValueError, match=r"one width: the student's is 5, its teacher's 6") as error:
        Cosine()(states(0)[None], states(1, 6)[None])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("positions", [AllPositions(), TopFraction(0.5)], ids=str)
def test_both_paths_give_the_term_the_weights_of_the_divergence(positions: Positions) -> None:
    """And both agree with what the definition says it adds: the kd weight times the mean of weight times term."""
    hidden, head = student()
    target, its = one_hot(labels_BL().flatten()), states(1)
    how = (ForwardKL(), positions, 0.7, 0.4, 0.0, None)
    term = Cosine(0.5)(hidden.flatten(0, 1)[None], its[None])
    fused = gradients(fused_loss(hidden, head, labels_BL(), target, *how, term), hidden, head)
    term = Cosine(0.5)(hidden.flatten(0, 1)[None], its[None])
    meant = gradients(distillation_loss(head(hidden), labels_BL(), target, *how, term), hidden, head)
    for one, other in zip(fused, meant, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)
    without = distillation_loss(head(hidden), labels_BL(), target, *how)
    if isinstance(positions, AllPositions):
        pairs = zip(hidden.detach().flatten(0, 1).numpy(), its.numpy(), strict=True)
        added = 0.7 * np.mean([0.5 * oracle.hidden_cosine(*pair) for pair in pairs])
        assert float(meant[0] - without.detach().numpy()) == pytest.approx(added, rel=1e-10)


@pytest.mark.parametrize("linear", [True, False], ids=["head and states", "logits"])
def test_a_student_adds_the_term_while_its_teacher_has_a_word(linear: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replication.training.student.scaling_of", lambda *_: PLAIN if linear else None)
    scale = load_scale("smoke")
    model = build(scale.role("300M"), CLASSES, 8, 0, seed=0)
    recipe = parse({**COSINE, "schedule": {"name": "TwoStage", "omega": 0.6, "until": 0.5}})
    tokens, labels = torch.randint(CLASSES, (2, 2, 8), generator=torch.Generator().manual_seed(0))
    its = torch.randn(16, 32, generator=torch.Generator().manual_seed(1))
    target = TeacherStates(its, Head(torch.randn(CLASSES, 32, generator=torch.Generator().manual_seed(2))))
    with_it = Student(model, recipe, CLASSES)
    without = Student(model, replace(recipe, hidden=NoHidden()), CLASSES)
    added = with_it(tokens, labels, target, 0.2) - without(tokens, labels, target, 0.2)
    pairs = zip(hidden_of(model, tokens).detach().flatten(0, 1).numpy(), its.numpy(), strict=True)
    assert float(added) == pytest.approx(0.6 * 0.5 * np.mean([oracle.hidden_cosine(*pair) for pair in pairs]), rel=1e-4)
    only_text = one_hot(labels.flatten())
    assert torch.equal(with_it(tokens, labels, only_text, 0.8), without(tokens, labels, only_text, 0.8))
    with pytest.raises(ValueError, match="Hidden Cosine needs the teacher's hidden states, and this teacher"):
        with_it(tokens, labels, target.whole(), 0.2)


@pytest.mark.parametrize("role", ["Qwen 0.5B", "Qwen/Qwen3-8B", "google/gemma-2-9b", "microsoft/phi-2", "3B"])
def test_states_of_each_layer_end_with_those_that_the_head_is_given(role: str) -> None:
    model = build(load_scale("smoke").role(role), CLASSES, 8, 0, seed=0)
    tokens = torch.arange(8)[None]
    logits, layers = logits_and_states_of(model, tokens, CLASSES)
    assert torch.equal(logits, logits_of(model, tokens, CLASSES))
    for found in (layers, states_of(model, tokens)):
        assert torch.equal(found[-1], hidden_of(model, tokens))
        assert len(found) == len(layers_of(model)) and found[0].shape == found[-1].shape


def test_every_layer_of_the_student_is_compared_with_the_end_of_its_part_of_the_teacher() -> None:
    assert ends_of_parts(2, 4) == [1, 3] and ends_of_parts(2, 5) == [1, 4] and ends_of_parts(3, 3) == [0, 1, 2]
    scale = load_scale("smoke")
    deep = scale.role("300M").model_copy(update={"layers": 4})
    two = scale.role("300M").model_copy(update={"layers": 2})
    model, teacher = (build(role, CLASSES, 8, 0, seed=seed) for seed, role in enumerate((two, deep)))
    recipe = parse({"hidden": {"name": "Cosine", "layers": "every"}})
    tokens, labels = torch.randint(CLASSES, (2, 2, 8), generator=torch.Generator().manual_seed(0))
    machine = this_machine().at("float32")
    batch = from_teacher(teacher, Full(), CLASSES, 0, 2, machine, True)(np.arange(2), np.zeros(2, int), tokens, labels)
    how = (tokens, labels, batch.target, 0.2)
    added = Student(model, recipe, CLASSES)(*how) - Student(model, parse({}), CLASSES)(*how)
    mine, its = states_of(model, tokens), states_of(teacher, tokens)
    pairs = [
        zip(a.detach().flatten(0, 1), b.detach().flatten(0, 1), strict=True)
        for a, b in ((mine[0], its[1]), (mine[1], its[3]))
    ]
    meant = np.mean([[oracle.hidden_cosine(a.numpy(), b.numpy()) for a, b in pair] for pair in pairs])
    assert float(added) == pytest.approx(meant, rel=1e-4)


@pytest.mark.parametrize("target", ["OneHot", {"name": "TopK", "k": 4}, {"name": "RandomSampling", "draws": 5}])
def test_a_target_that_brings_no_hidden_states_is_refused(target: object) -> None:
    with pytest.raises(ValueError, match=r"Hidden Cosine needs the teacher's hidden states.* Use target 'Full'"):
        parse({**COSINE, "target": target})


def test_a_recipe_with_the_term_has_an_id_of_its_own() -> None:
    ids = {Run(parse(stated), load_scale("laptop"), 0).id for stated in ({}, COSINE, {"hidden": "Cosine"})}
    assert len(ids) == 3 and "full-s0-4b34ddf6" in ids
