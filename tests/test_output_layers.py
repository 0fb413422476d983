"""Selective output layers: every flow is the same loss and makes the logits that it says; what the probe measures."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from paper_tables import spec
from replication.axes.divergences import ForwardKL
from replication.axes.loss import distillation_loss
from replication.axes.positions import AllPositions, TopFraction
from replication.cost.shape import shape_of_role
from replication.execution.execute import execute
from replication.experiment.recipe import parse
from replication.experiment.run import Run
from replication.experiment.scale import load_scale
from replication.fused.head import Head
from replication.machine.device import this_machine
from replication.machine.memory import peak_growth, resident_memory
from replication.probes import output_layers as probe
from replication.training import output_flows as flows
from replication.training.output_flows import FLOWS, OURS, Given

SEQUENCES, LENGTH, CLASSES = 2, 12, 40
RECIPE = {"student": "Qwen/Qwen3-1.7B", "teacher": "Qwen/Qwen3-8B", "tokens": "80M", "probe": "output_layers"}


def given() -> Given:
    random = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random)

    head = Head(normal(CLASSES, 6).requires_grad_())
    labels_BL = torch.randint(CLASSES, (SEQUENCES, LENGTH), generator=random)
    states_BLD = normal(SEQUENCES, LENGTH, 6).requires_grad_()
    return flows.given_of(states_BLD, head, labels_BL, normal(SEQUENCES, LENGTH, 8), Head(normal(CLASSES, 8)))


@pytest.mark.parametrize("name", [*FLOWS, *OURS])
def test_every_flow_is_the_loss(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows, "AT_ONCE", 5)
    here = given()
    leaves = here.states_BLD, here.head.weight_VD
    value = flows.loss(name, here)
    positions = AllPositions() if name.startswith("full") else TopFraction()
    rest = here.labels_BL, here.teacher.whole(), ForwardKL(), positions, 1.0, 0.0
    meant = distillation_loss(here.head(here.states_BLD), *rest)
    assert float(value.detach()) == pytest.approx(float(meant.detach()), rel=1e-5)
    for one, other in zip(torch.autograd.grad(value, leaves), torch.autograd.grad(meant, leaves), strict=True):
        assert float((one - other).norm() / other.norm()) < 1e-5


CHOSEN, ALL, PASS = 6, SEQUENCES * LENGTH, [10, 10, 4]  # positions: ceil(0.2 * 12) of both sequences; for the entropy
ASKED = {
    "full_default": ([ALL], [ALL]),
    "full_chunked": ([*PASS, ALL], [ALL]),
    "full_teacher": ([*PASS, ALL], [ALL]),
    "default": ([ALL], [ALL]),
    "chunked": ([*PASS, ALL], [ALL]),
    "teacher": ([*PASS, ALL], [CHOSEN]),
    "student": ([*PASS, CHOSEN], [ALL]),
    "both": ([*PASS, CHOSEN], [CHOSEN]),
}


@pytest.mark.parametrize("name", FLOWS)
def test_a_flow_makes_the_logits_that_it_says(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many positions meet the student's head, and the teacher's, each time."""
    monkeypatch.setattr(flows, "AT_ONCE", 5)
    here, asked = given(), ([], [])
    product = Head.__call__

    def note(self: Head, hidden: Tensor) -> Tensor:
        asked[self is here.teacher.head].append(hidden.flatten(0, -2).shape[0])
        return product(self, hidden)

    monkeypatch.setattr(Head, "__call__", note)
    flows.loss(name, here)
    assert asked == ASKED[name]


def test_narrowed_models_spend_as_much_of_a_step_on_their_heads() -> None:
    scale = load_scale("paper")
    run = probe.at_share(Run(parse(RECIPE), load_scale("laptop"), 0), 8)
    assert (run.length, run.role.optimiser.batch, run.scale.classes) == (512, 2, 151_936 // 8)
    for name in (RECIPE["student"], RECIPE["teacher"]):
        paper, ours = shape_of_role(scale.role(name), 151_936), shape_of_role(run.scale.role(name), run.scale.classes)
        assert ours.head / ours.matrices == pytest.approx(paper.head / paper.matrices, rel=0.02)


@pytest.mark.skipif(sys.platform != "linux", reason="no other system tells")
def test_the_most_that_is_held_is_seen_though_it_is_let_go() -> None:
    size = 2**26

    def act() -> None:
        torch.ones(size // 4)
        torch.ones(size // 8)

    for _ in range(2):  # memory that is let go once is seen to grow again
        found = peak_growth(act)
        assert found is not None and 0.98 * size < found < 1.2 * size
    assert (resident_memory() or 0) > 0


def test_the_probe_measures_what_the_exhibits_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a share that leaves next to nothing of both models, with two layers each."""
    whole = probe.narrowed
    monkeypatch.setattr(probe, "narrowed", lambda role, share: whole(role, 128).model_copy(update={"layers": 2}))
    monkeypatch.setattr(probe, "SHARE", {"cpu": 512})
    monkeypatch.setattr(probe, "LENGTH", 16)
    monkeypatch.setattr(probe, "TURNS", 2)
    run = Run(parse(RECIPE), load_scale("laptop"), 0)
    record = execute(run, this_machine(tmp_path / "results", tmp_path / "artifacts"))
    metrics = json.loads((record.folder / "summary.json").read_text())["metrics"]
    shown = [spec.load(f"sekd/{name}") for name in ("table16", "figure08")]
    wanted = {metric for exhibit in shown for row in exhibit.rows for metric in row.metrics.values()}
    assert wanted <= set(metrics) and all(metrics[name] >= 0 for name in wanted)
    assert metrics["full_default_speedup"] == 1
    names = [*FLOWS, *OURS]
    for name in names:
        peak = metrics[f"{name}_student_gigabytes"] + metrics[f"{name}_teacher_gigabytes"]
        assert metrics[f"{name}_gigabytes"] == pytest.approx(peak)
        assert metrics[f"{name}_minutes_80m"] == pytest.approx(80 * metrics[f"{name}_minutes_1m"])
