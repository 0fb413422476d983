"""What selections share, and what they take: counted and multiplied rightly. No time is tested here."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from replication.execution.execute import execute
from replication.experiment.recipe import parse
from replication.experiment.run import Run
from replication.experiment.scale import load_scale
from replication.machine.device import Machine, this_machine
from replication.probes import selection_time
from replication.probes.module import refuse_unready
from replication.records.record import Record
from replication.training.run_data import data_for, order_of
from replication.training.scores import scored
from replication.training.training import Training
from tests.small import write_scale

TOP = {"name": "TopSamples", "keep": 0.25, "pool": "1152"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Callable[..., Run], Machine]:
    folder = tmp_path_factory.mktemp("probes")
    scale = load_scale(str(write_scale(folder))).model_copy(update={"timed_turns": 2})
    machine = this_machine(folder / "results", folder / "artifacts").at("float32")
    return lambda **stated: Run(parse({"tokens": "288", "samples": TOP, **stated}), scale, 0), machine


def metrics_of(record: Record) -> dict[str, float]:
    found: dict[str, float] = json.loads((record.folder / "summary.json").read_text())["metrics"]
    return found


def test_the_overlap_is_the_share_of_the_same_samples(place: tuple[Callable[..., Run], Machine]) -> None:
    small, machine = place
    run = small(probe="overlap")
    assert run.teacher is not None
    execute(run.teacher, machine)
    record = execute(run, machine)
    found = metrics_of(record)
    chosen = {}
    for signal in ("student_entropy", "kl"):
        each = small(samples={**TOP, "signal": signal})
        chosen[signal] = set(order_of(each, scored(each, data_for(each, machine.artifacts), machine)).tolist())
    one, other = chosen.values()
    assert len(one) == len(other) == 12
    assert found["kl_student_entropy"] == len(one & other) / 12
    assert found["kl_student_entropy_of_union"] == len(one & other) / len(one | other)
    assert len(found) == 20 and set(record.config["inputs"]) >= {"teacher", "start", "scores"}


@pytest.mark.parametrize("probe", ["overlap", "selection_time"])
def test_both_compare_what_signals_choose(place: tuple[Callable[..., Run], Machine], probe: str) -> None:
    with pytest.raises(ValueError, match=rf"^Probe '{probe}' .* give samples = {{ name = 'TopSamples'"):
        refuse_unready(place[0](samples="RandomSamples", probe=probe))


def test_each_method_is_charged_what_it_takes(
    place: tuple[Callable[..., Run], Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pool of 48 rows in steps of 4 and passes of 16: by hand, were every step and every pass a minute."""
    small, machine = place
    done: list[str] = []
    advance = Training.advance

    def noted(self: Training) -> tuple[float, float, float]:
        done.append(f"{type(self.run.recipe.target).__name__} {type(self.run.recipe.positions).__name__}")
        return advance(self)

    def a_minute(piece: Callable[[], object]) -> float:
        piece()
        return 60.0

    monkeypatch.setattr(Training, "advance", noted)
    monkeypatch.setattr(selection_time, "seconds_of", a_minute)
    found = metrics_of(execute(small(probe="selection_time"), machine))
    assert found["full"] == found["random_positions"] == 12
    assert found["kl_selection"] == found["ce_ratio_selection"] == found["student_entropy_selection"] == 3
    assert found["kl"] == found["ce_ratio"] == found["student_entropy"] == 3 + 3
    assert found["three_axes"] == 3 + 12 / 16 + 3 and found["three_axes_again"] == 3
    assert found["three_axes_selection"] == 3 and found["full_selection"] == found["three_axes_again_selection"] == 0
    turns = selection_time.WARM_UP + 2
    assert sorted(done) == sorted(turns * ["Full AllPositions", "Full RandomFraction", "RandomSampling TopFraction"])


def test_what_is_cached_is_a_real_cache(place: tuple[Callable[..., Run], Machine], monkeypatch: Any) -> None:
    small, machine = place
    kept: list[np.ndarray] = []
    put = selection_time.put
    monkeypatch.setattr(selection_time, "put", lambda *given: (kept.append(given[3].weights_NK.numpy()), put(*given)))
    execute(replace(small(probe="selection_time"), seed=1), machine)
    assert len(kept) == selection_time.WARM_UP + 2
    assert all(np.allclose(weights_NK.sum(1), 1) and len(weights_NK) == 16 * 24 for weights_NK in kept)
