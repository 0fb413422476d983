"""A first stage that ends when the student has come down to its teacher: what is looked at, and what it decides."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch.nn.functional import cross_entropy

from replication.axes.let_go import Pace, Watching
from replication.axes.schedules import LetGo, TwoStage, begun
from replication.execution.execute import execute
from replication.experiment.recipe import parse
from replication.experiment.run import Run
from replication.experiment.scale import load_scale
from replication.machine.device import Machine, this_machine
from replication.model.checkpoint import restore, save
from replication.model.decoder import load, logits_of
from replication.planning.plan import Plan
from replication.training import student as of_student
from replication.training.run_data import data_for
from replication.training.training import Training
from replication.training.weights import model_folder, teacher_for
from tests.small import write_scale

SHARP: dict[str, Any] = {"name": "Full", "exponent": 0.5}


def itself(value: torch.Tensor) -> torch.Tensor:
    return value


def fed(pace: Pace, values: list[float]) -> list[int]:
    """Of a look at every second step: the steps at which it distilled."""
    coming, held = iter(values), []
    for step in range(2 * len(values)):
        if pace((step) / 100)[0] > 0:
            held.append(step)
        if pace.looks_at(step):
            pace.see(torch.tensor(next(coming)))
        pace.settle(step, itself)
    return held


def test_it_lets_go_where_the_mean_of_the_last_looks_has_come_down() -> None:
    pace = begun(LetGo(omega=0.6, every=2, looks=2, margin=0.1))
    assert pace(0.0) == (0.6, pytest.approx(0.4))
    # means of two: 2, 0.6, 0.05: after the fourth look, at step 6
    assert fed(pace, [3.0, 1.0, 0.2, -0.1, 9.0, 9.0]) == list(range(7))
    assert pace(0.99) == (0.0, 1.0) and not pace.looks_at(8) and pace.metrics(20) == {"let_go": 7 / 20}


def test_one_look_that_is_lucky_is_not_enough_and_a_loss_that_is_none_decides_nothing() -> None:
    assert fed(begun(LetGo(every=2, looks=3)), [-1.0, -1.0]) == [0, 1, 2, 3]
    assert fed(begun(LetGo(every=2, looks=1)), [math.nan, math.nan]) == [0, 1, 2, 3]
    assert begun(LetGo()).metrics(10) == {"let_go": 1.0}


def test_its_state_is_all_that_it_knows() -> None:
    pace = begun(LetGo(every=2, looks=2))
    fed(pace, [3.0, 1.0, 0.5])
    other = begun(LetGo(every=2, looks=2))
    for name, value in other.state.items():
        value.copy_(pace.state[name])
    assert isinstance(other, Watching) and other.recent_Q.tolist() == [0.5, 1.0] and int(other.count) == 3


def test_a_schedule_that_is_fixed_looks_at_nothing() -> None:
    pace = begun(TwoStage())
    assert pace(0.1) == TwoStage()(0.1) and pace.state == {} == pace.metrics(9)
    assert not any(pace.looks_at(step) for step in range(20))


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"schedule": {"name": "LetGo", "omega": 1.5}}, r"^LetGo\.omega is 1\.5; give a share between 0 and 1\.$"),
        ({"schedule": {"name": "LetGo", "looks": 0}}, r"LetGo\.looks is 0"),
        (
            {"schedule": "LetGo", "target": {"name": "TopK", "k": 3}},
            r"^Schedule LetGo .*TopK does not keep: use target",
        ),
    ],
)
def test_bad_ones_are_refused(stated: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse({"target": "Full", **stated})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Machine]:
    folder = tmp_path_factory.mktemp("suite")
    return write_scale(folder), this_machine(folder / "results", folder / "artifacts").at("float32")


def run_of(path: Path, margin: float, **stated: Any) -> Run:
    schedule = {"name": "LetGo", "every": 2, "looks": 2, "margin": margin}
    return Run(parse({"target": SHARP, "schedule": schedule, **stated}), load_scale(str(path)), 0)


def begin(run: Run, machine: Machine) -> Training:
    found = Plan()
    found.add(run)
    for teacher in found.teachers.values():
        execute(teacher, machine)
    return Training(run, data_for(run, machine.artifacts), teacher_for(run, machine), machine)


@pytest.mark.parametrize("headless", [False, True])
def test_what_it_sees_is_the_students_loss_over_the_teachers_on_the_labels(
    place: tuple[Path, Machine], headless: bool
) -> None:
    run = run_of(place[0], -99.0, objective="PrefixLM")
    training = begin(run, place[1])
    if headless:  # as of a model whose logits are more than its head times its states
        training.student.scaling = None  # type: ignore[assignment]
    before, seen = copy.deepcopy(training.model), []
    see = training.pace.see
    asked: list[Any] = []
    forward = of_student.Student.forward
    with (
        patch.object(training.pace, "see", lambda behind: (seen.append(float(behind)), see(behind))),
        patch.object(
            of_student.Student, "forward", lambda self, *given: (asked.append(given), forward(self, *given))[1]
        ),
    ):
        training.advance()
    tokens_BL, labels_BL, _, _, _, mask_BL, _, look = asked[0]
    losses = []
    for model in (before, load(model_folder(run.teacher, place[1]))):  # type: ignore[arg-type]
        nats_BL = cross_entropy(
            logits_of(model, tokens_BL, training.data.tokenizer.vocabulary).flatten(0, 1), labels_BL.flatten(),
            reduction="none",
        ).view(labels_BL.shape)  # fmt: skip
        losses.append(float(((nats_BL * mask_BL).sum(1) / mask_BL.sum(1)).mean().detach()))  # a row counts as any other
    assert look and seen == [pytest.approx(losses[0] - losses[1], abs=1e-5)]


def test_it_lets_go_once_and_a_killed_run_lets_go_at_the_same_step(place: tuple[Path, Machine], tmp_path: Path) -> None:
    run = run_of(place[0], 99.0)  # as soon as there are two looks: after three steps
    whole, cut = begin(run, place[1]), begin(run, place[1])
    for _ in range(6):
        whole.advance()
    for _ in range(2):
        cut.advance()
    save(tmp_path / "kept", 2, cut.student, cut.optimiser, cut.learnt, cut.machine.world)
    again = begin(run, place[1])
    again.step = restore(tmp_path / "kept", again.student, again.optimiser, again.learnt)
    for _ in range(4):
        again.advance()
    assert whole.pace.metrics(12) == again.pace.metrics(12) == {"let_go": 3 / 12}
    ends = [training.model.state_dict() for training in (whole, again)]
    assert all(torch.equal(weight, ends[1][name]) for name, weight in ends[0].items())


def test_a_run_says_when_it_let_go_and_else_is_two_stages(place: tuple[Path, Machine]) -> None:
    run = run_of(place[0], 99.0)
    begin(run, place[1])
    found = json.loads((execute(run, place[1]).folder / "summary.json").read_text())["metrics"]
    assert found["let_go"] == 3 / 12
    two = Run(replace(run.recipe, schedule=TwoStage(until=3 / 12)), run.scale, 0)
    same = json.loads((execute(two, place[1]).folder / "summary.json").read_text())["metrics"]
    assert same["lm_loss"] == found["lm_loss"] and "let_go" not in same
