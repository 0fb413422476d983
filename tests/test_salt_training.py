"""SALT's training beside its objective: schedules, Adafactor, a teacher's own budget, and what is asked on the way."""

from __future__ import annotations

import gc
import json
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import oracle
import pytest
import torch

from replication.axes.schedules import Constant, LinearDecay, LinearRatioDecay
from replication.experiment.recipe import parse
from replication.experiment.run import Run
from replication.experiment.scale import Optimiser, load_scale
from replication.machine.device import Machine, this_machine
from replication.model.checkpoint import restore, save
from replication.training.loop import train
from replication.training.monitor import asked_steps, watched_steps
from replication.training.optimiser import optimiser_of, refuse_shards
from replication.training.run_data import data_for
from replication.training.supervision import FromText
from replication.training.training import Training
from replication.training.weights import teacher_for
from tests.small import write_scale

ADAFACTOR = Optimiser(name="Adafactor", peak_rate=0.06, final_rate=0.006, warmup=0.02, batch=4)


def test_both_decays_are_app_k_s() -> None:
    for progress in np.linspace(0, 0.999, 400):
        for schedule, ratio in ((LinearDecay(), False), (LinearRatioDecay(), True)):
            kd_weight, ce_weight = schedule(float(progress))
            meant = oracle.salt_decay(float(progress), 32 / 208, 36 / 208, 0.667, ratio)
            assert kd_weight == pytest.approx(meant, abs=1e-12) and kd_weight + ce_weight == pytest.approx(1)
    assert LinearDecay()(36 / 208) == LinearRatioDecay()(36 / 208) == (0.0, 1.0)


@pytest.mark.parametrize("schedule", [LinearDecay, LinearRatioDecay])
def test_a_decay_that_does_not_fall_is_refused(schedule: type[LinearDecay]) -> None:
    with pytest.raises(ValueError, match=r"falls from 0\.3 to 0\.2; give two shares that rise"):
        schedule(start=0.3, until=0.2)
    with pytest.raises(ValueError, match=r"\.omega is 1\.5; give a share"):
        schedule(omega=1.5)


def test_a_ratio_of_all_to_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^LinearRatioDecay\.omega is 1, whose ratio has no end"):
        LinearRatioDecay(omega=1.0)


def test_adafactor_is_shazeer_and_stern_s() -> None:
    random = np.random.default_rng(0)
    begun, gradients = random.normal(size=(5, 3)), random.normal(size=(4, 5, 3)) * [[[1.0]], [[8.0]], [[0.1]], [[1.0]]]
    weights = torch.nn.Parameter(torch.tensor(begun))
    optimiser = optimiser_of([weights], ADAFACTOR)
    for gradient in gradients:
        weights.grad = torch.tensor(gradient)
        optimiser.step()
    np.testing.assert_allclose(weights.detach().numpy(), oracle.adafactor(begun, gradients, 0.06), rtol=1e-6)


def test_it_is_refused_in_shards_and_says_what_to_do() -> None:
    refuse_shards(ADAFACTOR.model_copy(update={"name": "AdamW"}))
    with pytest.raises(ValueError, match="Adafactor takes means over the rows .* train without SHARD, or with"):
        refuse_shards(ADAFACTOR)


def test_a_record_names_an_optimiser_only_where_it_is_another() -> None:
    adam = ADAFACTOR.model_copy(update={"name": "AdamW"})
    assert set(adam.settings()) == {"peak_rate", "final_rate", "warmup", "beta1", "beta2", "clip", "batch"}
    assert set(ADAFACTOR.settings()) == {"name", "peak_rate", "final_rate", "warmup", "clip", "batch"}


# In a run


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Machine]:
    """A scale whose student is trained by Adafactor and asked on the way; its teacher is trained."""
    folder = tmp_path_factory.mktemp("salt")
    machine = this_machine(folder / "results", folder / "artifacts").at("float32")
    path = write_scale(folder)
    scale = path.read_text().replace('about = "tests"', 'about = "tests"\ntasks = "at hand"\ntask_rows = 8')
    student, teacher = scale.split('[roles."3B"]')
    student = student.replace("{ peak_rate = 3e-3", '{ name = "Adafactor", peak_rate = 6e-2')
    path.write_text(f'{student.rstrip()}\nasked_at = [0.25, 0.5]\n\n[roles."3B"]{teacher}')
    assert (teacher_run := salt(folder).teacher) is not None
    train(replace(teacher_run, scale=teacher_run.scale.model_copy(update={"tasks": ""})), machine)
    return folder, machine


def salt(folder: Path) -> Run:
    stated = {"target": {"name": "Full", "exponent": 0.25}, "schedule": {"name": "TwoStage", "until": 0.5}}
    return Run(parse({**stated, "objective": "UL2"}), load_scale(str(folder / "small.toml")), 0)


@pytest.mark.parametrize("step", [3, 6, 9])
def test_it_resumes_bit_for_bit_in_either_stage_and_at_the_border(
    place: tuple[Path, Machine], tmp_path: Path, step: int
) -> None:
    folder, machine = place
    run = salt(folder)
    data, teacher = data_for(run, machine.artifacts), teacher_for(run, machine)
    whole, killed, resumed = (Training(run, data, teacher, machine) for _ in range(3))
    assert run.steps == 12 and run.recipe.schedule(5 / 12)[0] > 0 == run.recipe.schedule(6 / 12)[0]
    for _ in range(run.steps):
        whole.advance()
    for _ in range(step):
        killed.advance()
    save(tmp_path, step, killed.student, killed.optimiser, killed.learnt, machine.world)
    resumed.step = restore(tmp_path, resumed.student, resumed.optimiser, resumed.learnt)
    assert resumed.step == step
    for _ in range(run.steps - step):
        resumed.advance()
    for (name, one), (_, other) in zip(whole.model.named_parameters(), resumed.model.named_parameters(), strict=True):
        assert torch.equal(one, other), name


def test_the_second_stage_asks_no_teacher_and_lets_it_go(place: tuple[Path, Machine]) -> None:
    """So it takes the memory and the time of plain training."""
    folder, machine = place
    run = salt(folder)
    training = Training(run, data_for(run, machine.artifacts), teacher_for(run, machine), machine)
    assert training.teacher is not None
    teacher = weakref.ref(training.teacher)
    for _ in range(6):
        training.advance()
    assert teacher() is not None
    training.advance()
    gc.collect()
    assert teacher() is None and training.supervision == FromText()
    steady = replace(run, recipe=replace(run.recipe, schedule=Constant(0.667, 0.333)))
    assert Training(steady, training.data, teacher_for(run, machine), machine).alone_from == run.steps


def test_what_is_asked_on_the_way_stands_beside_the_record(place: tuple[Path, Machine]) -> None:
    folder, machine = place
    run = salt(folder)
    assert asked_steps(run) == {3, 6} and watched_steps(run) == {3, 6}
    record = train(run, machine)
    stood = [json.loads((record.folder / f"answers{step}.json").read_text()) for step in (".3", ".6", "")]
    assert len({each["student"] for each in stood}) == 3
    assert len({json.dumps({name: task["data"] for name, task in each["tasks"].items()}) for each in stood}) == 1
    assert sorted(path.name for path in (machine.artifacts / "small" / "models").glob(f"{run.id}*")) == [run.id]
    assert [line["step"] for line in record.lines("evaluations.jsonl")] == [3, 6]
    summary = json.loads((record.folder / "summary.json").read_text())
    assert summary["metrics"]["agreement"] > 0  # with the teacher, which was let go on the way
