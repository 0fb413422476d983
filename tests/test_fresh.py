"""Draws made anew each epoch: the first epoch's are the cache's, later ones are others, and nothing else differs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from replication.execution.execute import execute
from replication.experiment.identity import run_id
from replication.experiment.recipe import parse
from replication.experiment.run import Run
from replication.experiment.scale import load_scale
from replication.machine.device import Machine, this_machine
from replication.training.run_data import Data, data_for
from replication.training.training import Training
from replication.training.weights import teacher_for
from tests.small import write_scale

ROWS = 10  # of a text that 48 sequences of training go through almost five times; batches of 4 cross its end


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Machine, Data]:
    folder = tmp_path_factory.mktemp("fresh")
    machine = this_machine(folder / "results", folder / "artifacts").at("float32")
    write_scale(folder)
    run = run_of(folder, "fresh", 1.0)
    assert run.teacher is not None
    execute(run.teacher, machine)
    return folder, machine, data_for(run, machine.artifacts)


def run_of(folder: Path, delivery: str, keep: float) -> Run:
    stated = {"target": {"name": "RandomSampling", "draws": 8}, "delivery": delivery}
    samples = {"name": "RandomSamples", "keep": keep}
    return Run(parse({**stated, "samples": samples}), load_scale(str(folder / "small.toml")), 0)


def targets(place: tuple[Path, Machine, Data], delivery: str) -> tuple[list[np.ndarray], list[Tensor]]:
    """The rows of each step, and the target that they get."""
    folder, machine, data = place
    run = run_of(folder, delivery, ROWS / len(data.train))
    training = Training(run, data, teacher_for(run, machine), machine)
    assert len(training.order) == ROWS
    rows, found = [], []
    for step in range(run.steps):
        ((rows_B, epochs_B),) = training.parts(step)
        read = torch.from_numpy(data.train.rows(rows_B))
        target = training.supervision(rows_B, training.draws(epochs_B), read[:, :-1], read[:, 1:]).target
        rows.append(rows_B)
        found.append(target.dense(data.tokenizer.vocabulary).view(len(rows_B), -1))
    return rows, found


def test_the_first_epoch_is_the_frozen_one_and_the_others_are_not(place: tuple[Path, Machine, Data]) -> None:
    (rows, frozen), (same, fresh) = targets(place, "online"), targets(place, "fresh")
    assert all(map(np.array_equal, rows, same))
    epoch_V = np.arange(len(rows) * 4) // ROWS
    equal_V = [torch.equal(*pair) for pair in zip(torch.cat(frozen), torch.cat(fresh), strict=True)]
    assert equal_V == (epoch_V == 0).tolist() and epoch_V[-1] == 4
    # and no two epochs draw a row alike
    by_row: dict[int, list[Tensor]] = {}
    for row, target in zip(np.concatenate(rows), torch.cat(fresh), strict=True):
        by_row.setdefault(int(row), []).append(target)
    for drawn in by_row.values():
        assert len({tuple(one.tolist()) for one in drawn}) == len(drawn) >= 4


def test_it_trains_and_its_record_says_so(place: tuple[Path, Machine, Data]) -> None:
    folder, machine, data = place
    run = run_of(folder, "fresh", ROWS / len(data.train))
    record = execute(run, machine)
    assert record.done and json.loads((record.folder / "config.json").read_text())["changed"]["delivery"] == "fresh"


def test_ids_of_the_deliveries_differ() -> None:
    stated = {"target": "RandomSampling"}
    ids = {run_id(parse({**stated, "delivery": each}), "laptop", 0) for each in ("auto", "online", "fresh")}
    assert (
        len(ids) == 3
        and sum("-fresh-" in each for each in ids) == 1
        and not parse({**stated, "delivery": "fresh"}).cached
    )


@pytest.mark.parametrize("target", ["Full", "OneHot", {"name": "TopK", "k": 5}, {"name": "NaiveFix", "k": 5}])
def test_what_draws_nothing_is_refused(target: object) -> None:
    with pytest.raises(ValueError, match="draws nothing. Targets that do: AdaptiveWaterFilling, "):
        parse({"target": target, "delivery": "fresh"})
