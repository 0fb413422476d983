"""Every component does what it did when its numbers were logged; and what the file of rehearsals promises holds."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from replication.axes.divergences import GhostToken
from replication.axes.targets.kept import TopK
from replication.training.run_data import data_for
from replication.training.training import Training
from tests import rehearsals
from tests.rehearsal_stage import Stage, of_default
from tests.rehearsals import UNREHEARSED, components, logged, perform, problem
from tools.mutants import MUTANTS, ROOT, Mutant

REHEARSED = [component for component in components() if component not in UNREHEARSED]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One folder for all: the teacher, the tokenizer and the caches are made once."""
    with of_default(torch.float64):
        yield Stage(tmp_path_factory.mktemp("rehearsals") / "stage")


@pytest.mark.parametrize("component", REHEARSED)
def test_a_component_behaves_as_its_numerics_say(component: str, stage: Stage) -> None:
    key, numbers = perform(component, stage)
    assert not (wrong := problem(key, numbers, logged())), wrong


def test_every_component_is_rehearsed() -> None:
    """A new class in a collection needs runs here and an entry in the file."""
    found = {key.split("@")[0] for key in logged()}
    lacking = sorted(set(REHEARSED) - found)
    assert not lacking, (
        f"No rehearsal of {', '.join(lacking)}: say in tests/rehearsal_*.py how, then `make rehearsals`."
    )
    assert set(UNREHEARSED) <= set(components())


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_still_finds_its_line(mutant: Mutant) -> None:
    """`python -m tools.mutants` takes minutes; that it can be run is seen at once."""
    assert (ROOT / mutant.file).read_text().count(mutant.before) == 1


def test_a_run_that_was_killed_is_the_run_that_was_not(stage: Stage) -> None:
    killed = stage.perform(target="OneHot")
    run = stage.run(target="OneHot")
    training = Training(run, data_for(run, stage.machine.artifacts), None, stage.machine)
    assert [training.advance()[:2] for _ in range(run.steps)] == list(
        zip(killed["loss"], killed["gradient_norm"], strict=True)
    )
    assert run.steps * run.role.optimiser.batch > len(training.order) > 0  # a second epoch


def test_autocast_multiplies_in_bfloat16(tmp_path: Path) -> None:
    """How much that changes depends on the machine: so no number is held, only that it does, and not much.

    In float32, since autocast leaves float64 alone.
    """
    losses = []
    with of_default(torch.float32):
        for autocast in (False, True):
            stage = Stage(tmp_path / str(autocast), autocast)
            run = stage.run(teacher="none", target="OneHot")
            training = Training(run, data_for(run, stage.machine.artifacts), None, stage.machine)
            losses.append([training.advance()[0] for _ in range(5)])
    # a fresh model predicts about the same of every class, whatever its products are rounded to
    assert 1e-5 < max(abs(rough - exact) / exact for exact, rough in zip(*losses, strict=True)) < 1e-1, losses


def test_what_is_said_of_a_difference() -> None:
    known = {"target.TopK@1": {"online": {"loss": [2.0, 1.0], "gradient_norm": [0.5, 0.25]}, "name": "x"}}
    found = copy.deepcopy(known["target.TopK@1"])
    assert problem("target.TopK@1", found, known) == ""
    found["online"]["loss"][1] = 1 + 5e-7  # type: ignore[index]
    assert problem("target.TopK@1", found, known) == ""
    found["online"]["loss"][1] = 1.002  # type: ignore[index]
    said = problem("target.TopK@1", found, known)
    assert said.startswith("target.TopK behaves otherwise than numerics 1 (online, loss at step 2: 2.0e-03 off, tol")
    assert "raise its numerics" in said and "`make rehearsals`" in said
    more = {"online": {**known["target.TopK@1"]["online"], "accuracy": 0.5}, "name": "x"}  # type: ignore[dict-item]
    assert "has no online, accuracy in" in problem("target.TopK@1", more, known)
    assert "name: not measured any more" in problem("target.TopK@1", {"online": more["online"]}, known)
    assert "name: 'y' instead of 'x'" in problem("target.TopK@1", {**known["target.TopK@1"], "name": "y"}, known)
    assert "`make rehearsals` adds it" in problem("target.TopK@2", found, known)


def test_raising_an_integer_asks_for_new_entries_of_all_that_uses_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TopK, "numerics", 2, raising=False)
    assert perform("target.TopK", stage)[0] == "target.TopK@2"
    key, numbers = perform("divergence.GhostToken", stage)
    assert key == "divergence.GhostToken@1 target.TopK@2" and "adds it" in problem(key, numbers, logged())
    monkeypatch.setattr(GhostToken, "numerics", 3, raising=False)
    assert perform("divergence.GhostToken", stage)[0] == "divergence.GhostToken@3 target.TopK@2"
    assert perform("target.TopP", stage)[0] == "target.TopP@1"


def test_entries_are_added_and_never_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rehearsals.json"
    monkeypatch.setattr(rehearsals, "FILE", path)
    monkeypatch.setattr(rehearsals, "components", lambda: ["toy.listing", "toy.risk"])
    assert rehearsals.main() == 0
    whole = path.read_text()
    entries = json.loads(whole)
    assert list(entries) == ["toy.listing@1", "toy.risk@1"]
    path.write_text(json.dumps({"toy.risk@1": entries["toy.risk@1"]}))
    assert rehearsals.main() == 0 and logged() == entries
    entries["toy.listing@1"]["setting 1"]["metrics"] = {"bias": 7.0}
    del entries["toy.risk@1"]
    path.write_text(json.dumps(entries))
    assert rehearsals.main() == 1 and logged() == entries  # nothing is written while something differs
