"""What a step costs: the probe runs the training loop's own step, in turns with a plain one. No time is tested here."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binom

from analysis.load import frame, records
from paper_tables import spec
from replication.axes.targets import kept as kept_module
from replication.axes.targets.kept import TopK
from replication.axes.targets.sampled import RandomSampling
from replication.cost.flops import Cost
from replication.execution.execute import execute
from replication.experiment.recipe import parse
from replication.experiment.run import Run
from replication.experiment.scale import load_scale
from replication.machine.device import Machine, this_machine
from replication.machine.memory import forget_peak_memory, peak_memory
from replication.planning.plan import plan
from replication.probes import throughput as probe
from replication.probes.stand_in import CLASSES, DRAWS, cache_of, random_text, zipf
from replication.training.training import Training
from tests.planted import plant
from tests.small import write_scale

SAMPLING = {"target": {"name": "RandomSampling", "draws": 50}}
METHODS: dict[str, dict[str, Any]] = {"CE": {"target": "OneHot"}, "sampling": SAMPLING, "FullKD": {"target": "Full"}}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return this_machine(tmp_path / "results", tmp_path / "artifacts").at("float32")


@pytest.fixture
def small(tmp_path: Path) -> Callable[..., Run]:
    scale = load_scale(str(write_scale(tmp_path)))
    return lambda **stated: Run(parse({"target": "OneHot", "probe": "throughput", **stated}), scale, 0)


def in_turns(number: int, run: Run) -> Run:
    return replace(run, scale=run.scale.model_copy(update={"timed_turns": number}))


# Stand-ins


@pytest.mark.parametrize("classes", [320, 2048, 100_278])
def test_fifty_draws_from_the_stand_in_teacher_keep_twelve_classes(classes: int) -> None:
    probs_V = zipf(classes).double().exp()
    assert probs_V.sum() == pytest.approx(1) and (probs_V.diff() <= 0).all()
    assert (1 - (1 - probs_V) ** DRAWS).sum() == pytest.approx(CLASSES, rel=1e-4)


def test_the_stand_in_cache_holds_real_draws(small: Callable[..., Run], machine: Machine, tmp_path: Path) -> None:
    run = small(**SAMPLING)
    data = random_text(run, 16)
    reader = cache_of(RandomSampling(50), data, run, tmp_path / "cache", machine)
    ids_BLK, weights_BLK = reader.rows(np.arange(16))
    assert ids_BLK.shape[:2] == (16, run.length) and np.allclose(weights_BLK.sum(-1), 1)
    assert (weights_BLK > 0).sum(-1).mean() == pytest.approx(CLASSES, rel=0.05)
    first = np.take_along_axis(ids_BLK, weights_BLK.argmax(-1)[..., None], -1)
    assert len(np.unique(first)) > 100  # of 320: no class is everybody's first
    kept = cache_of(TopK(7), data, run, tmp_path / "another", machine)
    assert kept.manifest.classes == 7 * kept.manifest.positions


def test_random_text_reads_like_any_packing(small: Callable[..., Run]) -> None:
    run = small()
    data, again = random_text(run, 8), random_text(run, 8)
    rows = data.train.rows(np.arange(8))
    assert rows.shape == (8, run.length + 1) and len(data.train) == 8
    assert (rows[:-1, -1] == rows[1:, 0]).all()  # neighbours share a token
    assert (rows == again.train.rows(np.arange(8))).all() and len(np.unique(rows)) > 100
    assert data.tokenizer.vocabulary == data.train.vocabulary == run.scale.classes == 320


# The step


def test_every_step_that_is_timed_is_the_training_loops(
    small: Callable[..., Run], machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    advanced: list[str] = []
    advance = Training.advance

    def noted(self: Training) -> tuple[float, float, float]:
        advanced.append(type(self.run.recipe.target).__name__)
        return advance(self)

    monkeypatch.setattr(Training, "advance", noted)
    record = execute(in_turns(3, small(target="Full")), machine)
    # warm-up in turns, one step for the memory, then pairs whose order alternates
    assert advanced[:7] == ["OneHot", "Full"] * 3 + ["Full"]
    assert advanced[7:] == ["Full", "OneHot", "OneHot", "Full", "Full", "OneHot"]
    curve = json.loads((record.folder / "summary.json").read_text())["curves"]["repetitions"]
    assert {name: len(values) for name, values in curve.items()} == dict.fromkeys(
        ("seconds", "plain_seconds", "matrix_seconds"), 3
    )


def test_both_steps_move_one_student(small: Callable[..., Run], machine: Machine, tmp_path: Path) -> None:
    run = small(**SAMPLING)
    data = random_text(run, 8)
    plain = Training(probe.plain_run(run), data, None, machine)
    training = probe.beside(plain, run, probe.supervision_of(run, data, tmp_path / "cache", machine))
    assert training.student is not plain.student and training.optimiser is plain.optimiser
    weight = plain.student.model.get_output_embeddings().weight
    for each in (training, plain):
        before = weight.detach().clone()
        loss, _, _ = each.advance()
        assert np.isfinite(loss) and not torch.equal(before, weight)
    assert training.student.recipe == run.recipe and plain.student.recipe.target == kept_module.OneHot()


def test_the_step_learns_from_the_cache(small: Callable[..., Run], machine: Machine, tmp_path: Path) -> None:
    """Its loss is that of the recipe: with a full budget over one batch it falls to the draws' own entropy."""
    run = small(**SAMPLING, tokens="38_400")
    data = random_text(run, 4)
    plain = Training(probe.plain_run(run), data, None, machine)
    training = probe.beside(plain, run, probe.supervision_of(run, data, tmp_path / "cache", machine))
    losses = [training.advance()[0] for _ in range(150)]
    assert losses[-1] < 0.8 * losses[0]


# What is made of the times


@pytest.mark.parametrize("name", METHODS)
def test_metrics_follow_from_the_times(
    small: Callable[..., Run], machine: Machine, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Planted: a step takes 0.2 s, a plain one 0.1 s, the square product 0.01 s, whatever the machine."""
    order = itertools.cycle([0.2, 0.1, 0.01, 0.1, 0.2, 0.01])

    def planted(step: Callable[[], object]) -> float:
        return next(order)

    monkeypatch.setattr(probe, "seconds_of", planted)
    run = in_turns(8, small(**METHODS[name]))
    record = execute(run, machine)
    metrics = json.loads((record.folder / "summary.json").read_text())["metrics"]
    cost = Cost(run)
    assert metrics["tokens_per_second"] == pytest.approx(cost.batch / 0.2)
    compared = "again" if name == "CE" else "relative"
    assert metrics[compared] == metrics[f"{compared}_low"] == metrics[f"{compared}_high"] == pytest.approx(0.5)
    assert metrics["relative"] == pytest.approx(1 if name == "CE" else 0.5)
    assert metrics["teraflops"] == pytest.approx(cost.own_step.flops / 0.2 / 1e12)
    rate = 2 * 1024**3 / 0.01
    assert metrics["matrix_teraflops"] == pytest.approx(rate / 1e12)
    teacher = cost.teacher_step.flops if name == "FullKD" else 0
    assert metrics["mfu"] == pytest.approx((cost.own_step.flops + teacher) / 0.2 / rate)
    assert ("unique_classes" in metrics) == (name == "sampling")
    config = json.loads((record.folder / "config.json").read_text())
    assert config["corpus"]["name"] == "random tokens" and config["settings"]["batch"] == 4


@pytest.mark.parametrize("n", [1, 5, 8, 40, 41])
def test_the_interval_is_the_narrowest_that_covers_the_median_in_95_of_100(n: int) -> None:
    values = np.random.default_rng(0).permutation(np.arange(n, dtype=float))
    found = probe.median("x", values)
    assert found["x"] == np.median(values)
    below = int(found["x_low"])  # values are their own ranks
    assert found["x_high"] == n - 1 - below
    if n >= 6:
        assert 2 * binom.cdf(below, n, 0.5) <= 0.05 < 2 * binom.cdf(below + 1, n, 0.5)
    else:
        assert below == 0  # too few for 95 %: all of them


# Sizes


def test_all_methods_are_timed_at_one_batch(
    small: Callable[..., Run], machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = Cost(small(target="Full"))
    for sequences, wanted in ((100, 4), (3.5, 2), (1.5, 1)):
        memory = (full.held_bytes + sequences * full.sequence_bytes) / probe.ROOM
        monkeypatch.setattr(probe, "memory_of", lambda machine, memory=memory: memory)
        batches = {
            name: probe.fitting(small(**stated), machine).role.optimiser.batch for name, stated in METHODS.items()
        }
        assert set(batches.values()) == {wanted}, batches
    monkeypatch.setattr(probe, "memory_of", lambda machine: full.held_bytes)
    with pytest.raises(ValueError, match="'300M' beside '3B' takes .* this machine has"):
        probe.fitting(small(), machine)


def test_a_step_is_never_larger_than_it_need_be(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "memory_of", lambda machine: 10**15)
    run = Run(parse({"target": "OneHot", "probe": "throughput"}), load_scale("paper"), 0)
    fitted = probe.fitting(run, machine)
    assert fitted.role.optimiser.batch * fitted.length == probe.TOKENS and run.role.optimiser.batch == 1024
    assert fitted.id == run.id


@pytest.mark.skipif(sys.platform != "linux" or torch.cuda.is_available(), reason="Linux can forget a process's peak")
def test_a_peak_is_that_of_what_comes_after_it_was_forgotten() -> None:
    large = np.ones(200 * 2**20 // 8)
    before = peak_memory()
    del large
    forget_peak_memory()
    assert peak_memory() < before - 100 * 2**20


# The table


def test_the_table_needs_no_teacher_and_no_cache_and_is_filled_by_both_students(tmp_path: Path) -> None:
    exhibit = spec.load("rskd/table04")
    planned = plan([exhibit.name], load_scale("laptop"), [0])
    assert len(planned.runs) == 6 and not planned.teachers and not planned.needs
    speeds = {"OneHot": 1.0, "RandomSampling": 0.9, "Full": 0.4}
    for run in planned.runs.values():
        target, large = type(run.recipe.target).__name__, run.recipe.student == "3B"
        stated = {"target": {"name": target, **({"draws": 50} if target == "RandomSampling" else {})}}
        sizes = {"student": run.recipe.student, "teacher": run.recipe.teacher, "tokens": "10B", "probe": "throughput"}
        metrics = {"relative": speeds[target] ** (0.5 if large else 1), "tokens_per_second": 70.0 if large else 500.0}
        changed = {"probe": "throughput", **({"student": "3B", "teacher": "8B"} if large else {})}
        changed |= {} if target == "Full" else stated
        plant(tmp_path / "laptop", run.id, changed, 0, metrics, recipe={**sizes, **stated})
    found = frame(exhibit, records(tmp_path / "laptop"), "yours").set_index(["row", "column"])["value"]
    assert [found[row.label, "tokens_300m"] for row in exhibit.rows] == pytest.approx([2.5, 2.25, 1])
    assert [found[row.label, "tokens_3b"] for row in exhibit.rows] == pytest.approx([2.5**0.5, 1.5, 1])
    assert found["CE", "rate_3b"] == 70 and found["CE", "rate_300m"] == 500
    assert found["Random Sampling", "of_ce_300m"] == pytest.approx(90)
