"""Which sequences are distilled: the selections on given scores, and the scores of a real student on real text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pytest
import torch
from torch import Generator

from replication.axes.samples import SAMPLES, AllSamples, RandomSamples, Samples, TopSamples
from replication.execution.execute import execute
from replication.experiment.recipe import parse
from replication.experiment.run import Run, Scores
from replication.experiment.scale import load_scale
from replication.machine.device import Machine, this_machine
from replication.model.decoder import logits_of
from replication.training import scores
from replication.training.needs import Need
from replication.training.run_data import Data, data_for, order_of
from replication.training.scores import scored
from replication.training.teacher_pass import build
from replication.training.training import Training
from replication.training.weights import starting_point, teacher_for
from tests.small import write_scale

TOP = {"name": "TopSamples", "keep": 0.05}
NOT_SCORED = torch.full((10,), torch.nan)


def chosen(samples: Samples, scores_S: torch.Tensor = NOT_SCORED, seed: int = 0) -> list[int]:
    return samples(scores_S, Generator().manual_seed(seed)).tolist()


def test_all_and_random_samples_look_at_no_score() -> None:
    assert chosen(AllSamples()) == list(range(10))
    two = {tuple(chosen(RandomSamples(0.2), seed=seed)) for seed in range(60)}
    assert {row for pair in two for row in pair} == set(range(10))
    assert all(len(pair) == 2 and pair[0] < pair[1] for pair in two)
    assert AllSamples().score is None and RandomSamples().score is None


@pytest.mark.parametrize(("keep", "number"), [(0.2, 2), (0.25, 2), (0.01, 1), (1.0, 10)])
def test_top_samples_have_the_highest_mean_entropy(keep: float, number: int) -> None:
    entropies = np.random.default_rng(0).random((10, 4))
    assert TopSamples().score == "student_entropy"
    given = torch.from_numpy(entropies.mean(1)).float()
    assert chosen(TopSamples(keep), given) == oracle.top_samples(entropies.tolist(), number)


def test_of_equal_scores_the_first_are_taken() -> None:
    assert chosen(TopSamples(0.3), torch.tensor([1.0, 2, 1, 1, 2, 1, 0, 1, 0, 0])) == [0, 1, 4]


@pytest.mark.parametrize("name", [name for name in SAMPLES if name != "AllSamples"])
def test_a_share_that_is_none_is_refused(name: str) -> None:
    for keep in (0.0, 1.5):
        with pytest.raises(ValueError, match=rf"{name}\.keep is {keep}; give the share of sequences"):
            SAMPLES[name](keep=keep)  # type: ignore[call-arg]


def test_a_score_that_needs_a_teacher_is_refused() -> None:
    with pytest.raises(ValueError, match=r"TopSamples\.signal is 'confidence'; give one that needs no teacher"):
        TopSamples(signal="confidence")
    with pytest.raises(ValueError, match=r"TopSamples\.signal is 'entropy'; give a signal"):
        TopSamples(signal="entropy")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Machine]:
    folder = tmp_path_factory.mktemp("samples")
    write_scale(folder)
    return folder, replace(this_machine(folder / "results", folder / "artifacts"), autocast=False)


def run_of(folder: Path, stated: dict[str, object], seed: int = 0) -> Run:
    return Run(parse(stated), load_scale(str(folder / "small.toml")), seed)


def scored_data(run: Run, machine: Machine) -> tuple[Data, Scores]:
    data = scored(run, data_for(run, machine.artifacts), machine)
    assert data.scores is not None
    return data, data.scores


@pytest.mark.parametrize("linear", [True, False], ids=["head and states", "logits"])
def test_scores_are_the_mean_entropies_of_the_student_before_its_first_step(
    place: tuple[Path, Machine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, linear: bool
) -> None:
    if not linear:
        monkeypatch.setattr("replication.training.student.scaling_of", lambda *_: None)
    folder, machine = place
    run = run_of(folder, {"target": "OneHot", "samples": TOP})
    data, found = scored_data(run, replace(machine, artifacts=tmp_path))
    assert len(found.values_S) == len(data.train)
    rows_B = np.arange(5)
    tokens = torch.from_numpy(data.train.rows(rows_B)[:, :-1])
    model = starting_point(run, data, machine).eval()
    with torch.no_grad():
        logits_BLV = logits_of(model, tokens, data.tokenizer.vocabulary).double().numpy()
    meant = [np.mean([oracle.entropy(row) for row in rows]) for rows in logits_BLV]
    np.testing.assert_allclose(found.values_S[rows_B], meant, rtol=1e-5)
    kept = round(0.05 * len(data.train))
    assert order_of(run, data).tolist() == oracle.top_samples(found.values_S[:, None].tolist(), kept)


def test_scores_are_made_once_and_again_where_what_they_follow_from_is_another(
    place: tuple[Path, Machine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, machine = place
    machine, passes, means = replace(machine, artifacts=tmp_path), [], scores.means

    def noted(signal: str, *given: object) -> object:
        passes.append(signal)
        return means(signal, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(scores, "means", noted)
    run = run_of(folder, {"target": "OneHot", "samples": TOP})
    first, again = (scored_data(run, machine)[1] for _ in range(2))
    assert passes == ["student_entropy"] and first.fingerprint == again.fingerprint
    assert np.array_equal(first.values_S, again.values_S)
    larger = run_of(folder, {"target": "OneHot", "samples": TOP, "student": "3B"})
    others = [
        scored_data(larger, machine)[1],
        scored_data(run_of(folder, {"target": "OneHot", "samples": TOP}, 1), machine)[1],
    ]
    assert len(passes) == 3 and len({each.fingerprint for each in (first, *others)}) == 3
    assert (
        scored(run_of(folder, {"target": "OneHot"}), first_data := data_for(run, machine.artifacts), machine)
        is first_data
    )
    (file,) = (tmp_path / "small/scores").glob(f"student_entropy-{first.fingerprint}.npy")
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(ValueError, match="does not hold .* scores. Delete it"):
        scored_data(run, machine)


def test_a_pass_that_is_stopped_leaves_nothing_to_be_believed(
    place: tuple[Path, Machine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, machine = place
    machine = replace(machine, artifacts=tmp_path)
    run = run_of(folder, {"target": "OneHot", "samples": TOP})
    means = scores.means

    def stopping(*given: Any) -> Iterator[np.ndarray]:
        yield next(iter(means(*given)))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(scores, "means", stopping)
        scored_data(run, machine)
    assert not list(tmp_path.rglob("*student_entropy*"))
    assert len(scored_data(run, machine)[1].values_S) > 16


def test_a_cache_holds_the_chosen_rows_and_belongs_to_the_student_who_chose(place: tuple[Path, Machine]) -> None:
    folder, machine = place
    stated = {"target": {"name": "TopK", "k": 5}, "samples": TOP}
    run, larger = run_of(folder, stated), run_of(folder, {**stated, "student": "3B"})
    assert run.teacher is not None
    execute(run.teacher, machine)
    build([Need(run)], machine)
    data, _ = scored_data(run, machine)
    assert Need(run).problems(Need(run).folder(machine), data, teacher_for(run, machine), machine) == []
    assert Need(run).folder(machine) != Need(larger).folder(machine)
    everything = {"target": {"name": "TopK", "k": 5}}
    assert Need(run_of(folder, everything)).folder(machine) == Need(
        run_of(folder, {**everything, "student": "3B"})
    ).folder(machine)
    training = Training(run, data, teacher_for(run, machine), machine)
    assert set(
        np.concatenate([rows_B for step in range(run.steps) for rows_B, _ in training.micro_batches(step)])
    ) == set(order_of(run, data)[: Need(run).sequences].tolist())
    assert (execute(run, machine).folder / "summary.json").exists()
