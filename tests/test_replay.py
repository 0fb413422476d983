"""A logged run is made again: it comes out as its record says, or one line says what does not or what is missing."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small import write_scale

from replication.execution.execute import execute
from replication.execution.replay import Logged, logged, replay
from replication.experiment.recipe import parse
from replication.experiment.run import Run
from replication.experiment.scale import load_scale
from replication.machine.device import Machine, this_machine
from replication.model.decoder import load
from replication.records.agreement import of_numbers
from replication.records.promote import keep_weights
from replication.training.needs import Need
from replication.training.teacher_pass import build
from replication.training.weights import model_folder
from workflow import replay as command
from workflow.__main__ import join

RECIPES: dict[str, dict[str, Any]] = {
    "plain": {"target": "OneHot"},
    "online": {"target": "Full", "divergence": "TailAware"},
    "cached": {"target": {"name": "RandomSampling", "draws": 9}},
    "elsewhere": {"target": {"name": "TopK", "k": 5}, "alignment": {"name": "Different", "teacher_length": "1024"}},
    "chosen": {"target": {"name": "TopK", "k": 5}, "samples": {"name": "RandomSamples", "keep": 0.5}},
    "probe": {"target": {"name": "TopK", "k": 5}, "probe": "gradients"},
    "counted": {"target": {"name": "TopK", "k": 5}, "probe": "cost"},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Machine]:
    """A scale's file, and a machine on which every recipe has run."""
    folder = tmp_path_factory.mktemp("replayed")
    scale = write_scale(folder)
    machine = this_machine(folder / "results", folder / "artifacts")
    for name in RECIPES:
        run = run_of(scale, name)
        if name == "plain":
            assert run.teacher is not None
            execute(run.teacher, machine)
        if name == "probe":
            execute(run_of(scale, "plain_student"), machine)
        if run.recipe.reads_cache:
            build([Need(run)], machine)
        execute(run, machine)
    return scale, machine


def run_of(scale: Path, name: str) -> Run:
    stated = {} if name == "plain_student" else RECIPES[name]
    return Run(parse(dict(stated)), load_scale(str(scale)), 0)


@pytest.fixture
def found(place: tuple[Path, Machine], monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Machine]:
    """A record names its scale by its name, which here is a file that nobody else knows."""
    scale, machine = place
    monkeypatch.setattr("replication.execution.replay.load_scale", lambda name: load_scale(str(scale)))
    return scale, machine


def record_of(place: tuple[Path, Machine], name: str) -> Logged:
    scale, machine = place
    return logged(machine.results / "small" / run_of(scale, name).id)


def altered(record: Logged, folder: Path, name: str, old: str, new: str) -> Logged:
    """A copy of the record, in which a file says something else."""
    copy = folder / record.run_id
    shutil.copytree(record.folder, copy)
    text = (copy / name).read_text()
    assert old in text
    (copy / name).write_text(text.replace(old, new, 1))
    return logged(copy)


@pytest.mark.parametrize("name", RECIPES)
def test_a_run_made_again_is_identical_and_leaves_nothing(found: tuple[Path, Machine], name: str) -> None:
    _, machine = found
    before = sorted(machine.results.rglob("*")) + sorted(machine.artifacts.rglob("*"))
    verdict = replay(record_of(found, name), machine)
    assert (verdict.word, verdict.run_id) == ("identical", record_of(found, name).run_id), verdict
    assert sorted(machine.results.rglob("*")) + sorted(machine.artifacts.rglob("*")) == before


def test_another_number_differs_and_rounding_agrees(found: tuple[Path, Machine], tmp_path: Path) -> None:
    _, machine = found
    record = record_of(found, "cached")
    loss = record.steps[2]["loss"]
    other = altered(record, tmp_path / "far", "metrics.jsonl", repr(loss), repr(loss * 1.0001))
    verdict = replay(other, machine)
    assert verdict.word == "differs" and "loss at step 3" in verdict.why and "1.0e-04 off" in verdict.why
    near = altered(record, tmp_path / "near", "metrics.jsonl", repr(loss), repr(loss * (1 + 1e-6)))
    assert replay(near, machine).word == "agrees"


def test_of_older_records_the_steps_that_there_are_are_compared(found: tuple[Path, Machine], tmp_path: Path) -> None:
    _, machine = found
    record = record_of(found, "online")
    copy = tmp_path / record.run_id
    shutil.copytree(record.folder, copy)
    late = [line for line in (copy / "metrics.jsonl").read_text().splitlines() if json.loads(line)["step"] > 8]
    (copy / "metrics.jsonl").write_text("\n".join(late) + "\n")
    verdict = replay(logged(copy), machine)
    assert verdict.word == "identical" and verdict.why.startswith("all 4 numbers")


def test_what_was_read_must_be_here(found: tuple[Path, Machine], tmp_path: Path) -> None:
    scale, machine = found
    record = record_of(found, "online")
    teacher = run_of(scale, "online").teacher
    assert teacher is not None
    known = record.config["inputs"]["teacher"]
    other = altered(record, tmp_path / "one", "config.json", known, 16 * "0")
    assert replay(other, machine).word == "cannot" and "its teacher" in replay(other, machine).why
    loss = repr(record.steps[2]["loss"])
    unnoted = altered(record, tmp_path / "zero", "config.json", known, "unrecorded (5f45cd)")
    assert replay(unnoted, machine).word == "identical"
    (unnoted.folder / "metrics.jsonl").write_text((unnoted.folder / "metrics.jsonl").read_text().replace(loss, "9.5"))
    assert replay(logged(unnoted.folder), machine).word == "cannot"
    text = record.config["corpus"]["fingerprint"]
    assert "its corpus was" in replay(altered(record, tmp_path / "two", "config.json", text, "feed"), machine).why
    resized = altered(
        record, tmp_path / "three", "config.json", '"evaluation_sequences": 8', '"evaluation_sequences": 9'
    )
    assert "other sizes" in replay(resized, machine).why
    nowhere = replace(machine, artifacts=tmp_path / "artifacts")
    shutil.copytree(machine.artifacts / "text", nowhere.artifacts / "text")
    assert "not trained here" in replay(record, nowhere).why

    # the teacher's weights may lie in its record
    both = tmp_path / "results"
    shutil.copytree(record.folder, both / record.run_id)
    keep_weights(model_folder(teacher, machine), both / teacher.id)
    assert replay(logged(both / record.run_id), nowhere).word == "identical"


def test_bfloat16_is_made_again_only_where_there_are_instructions_for_it(
    found: tuple[Path, Machine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older record whose precision nobody noted is tried in both."""
    _, machine = found
    record = record_of(found, "plain")
    monkeypatch.setattr("replication.execution.replay.has_bfloat16", lambda device: False)
    rounded = altered(record, tmp_path / "one", "config.json", '"products": "float32"', '"products": "bfloat16"')
    verdict = replay(rounded, machine)
    assert verdict.word == "cannot" and "no instructions" in verdict.why
    unnoted = altered(record, tmp_path / "two", "config.json", '"products": "float32"', '"products": "unrecorded"')
    assert replay(unnoted, machine).word == "identical"


def test_another_teacher_in_its_place_is_noticed(found: tuple[Path, Machine], tmp_path: Path) -> None:
    scale, machine = found
    teacher = run_of(scale, "online").teacher
    assert teacher is not None
    elsewhere = replace(machine, artifacts=tmp_path)
    model = load(model_folder(teacher, machine))
    with torch.no_grad():
        next(model.parameters())[0, 0] += 1e-3
    model.save_pretrained(model_folder(teacher, elsewhere))
    assert replay(record_of(found, "online"), elsewhere).word == "cannot"


def test_numbers_that_are_not_finite_compare_too() -> None:
    infinite, two = {"loss": float("inf")}, {"loss": 2.0}
    assert of_numbers("run", infinite, infinite, 1e-5, "numbers").word == "identical"
    assert of_numbers("run", infinite, two, 1e-5, "numbers").word == "differs"
    assert of_numbers("run", two, {"other": 2.0}, 1e-5, "numbers").word == "cannot"


def test_the_command_samples_says_and_fails(
    found: tuple[Path, Machine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scale, machine = found
    monkeypatch.setattr(command, "ROOT", machine.results.parent)
    monkeypatch.setattr(command, "this_machine", lambda: machine)
    assert command.main(["--sample", "2", "--scale", str(scale)]) == 0
    assert "2 records made again" in capsys.readouterr().out
    assert command.main(["--run", "nothing", "--scale", str(scale)]) == 2
    assert "no finished record 'nothing'" in capsys.readouterr().err
    record = record_of(found, "plain")
    loss = record.steps[0]["loss"]
    copy = altered(record, tmp_path / "results" / "small", "metrics.jsonl", repr(loss), repr(loss + 1))
    monkeypatch.setattr(command, "ROOT", tmp_path)
    assert command.main(["--run", copy.run_id, "--scale", str(scale)]) == 1


def test_new_records_join_only_what_comes_out_again(
    found: tuple[Path, Machine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scale, machine = found
    monkeypatch.setattr(command, "ids_of", lambda exhibit, scale: {path.name for path in tmp_path.glob("*/*")})
    coming = record_of(found, "online")
    record = record_of(found, "plain")
    loss = record.steps[0]["loss"]
    altered(record, tmp_path / "small", "metrics.jsonl", repr(loss), repr(loss + 1))
    with pytest.raises(ValueError, match=f"{record.run_id} does not come out again"):
        join("rskd/table06", str(scale), {coming.run_id}, machine, tmp_path)

    # of another numerics it stands in no table beside them
    path = tmp_path / "small" / record.run_id / "config.json"
    path.write_text(path.read_text().replace('"loss": 1', '"loss": 0'))
    join("rskd/table06", str(scale), {coming.run_id}, machine, tmp_path)


def test_a_teacher_from_elsewhere_that_was_replaced_is_noticed(
    found: tuple[Path, Machine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scale, machine = found
    ours = run_of(scale, "online").teacher
    assert ours is not None
    shutil.copytree(model_folder(ours, machine), tmp_path / "teacher")
    stated = {"teacher": str(tmp_path / "teacher"), "target": "Full"}
    run = Run(parse(stated), load_scale(str(scale)), 0)
    record = logged(execute(run, machine).folder)
    assert replay(record, machine).word == "identical"
    model = load(tmp_path / "teacher")
    with torch.no_grad():
        next(model.parameters())[0, 0] += 1e-3
    model.save_pretrained(tmp_path / "teacher")
    verdict = replay(record, machine)
    assert verdict.word == "cannot" and verdict.why.startswith("its teacher was")
