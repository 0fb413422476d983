"""What a selection of samples takes, its own pass included, and what it saves (SE-KD Section 7.2, Table 7).

All methods of the table are measured in turns in one process, step by step and batch by batch, so that whatever slows
the machine slows them all; totals are medians times what a run takes of each. Nothing is learnt: `stand_in.py` gives
teacher and cache. The text is the run's own, so that the record stands beside those of the students.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from replication.axes.positions import RandomFraction, TopFraction
from replication.axes.samples import SCORES, AllSamples, TopSamples
from replication.axes.targets.base import SparseTarget
from replication.axes.targets.kept import Full
from replication.axes.targets.sampled import RandomSampling
from replication.cache.writer import Writer
from replication.cost.flops import Cost, Work, reading
from replication.experiment.run import Run
from replication.machine.device import Machine
from replication.model.decoder import logits_of
from replication.probes.stand_in import header_of, untrained, zipf
from replication.probes.throughput import WARM_UP, beside, fitting, plain_run, seconds_of, supervision_of
from replication.training.run_data import Data, data_for
from replication.training.scores import BATCH, of_rows
from replication.training.supervision import drawn
from replication.training.teacher_pass import put
from replication.training.training import Training

SIGNALS = ("ce_ratio", "kl", "student_entropy")
METHODS: dict[str, dict[str, Any]] = {
    "full": {"target": Full()},
    "random_positions": {"target": Full(), "positions": RandomFraction(0.2)},
    "three_axes": {"target": RandomSampling(64), "positions": TopFraction(0.2)},
}


def selection_time(run: Run, data: Data, machine: Machine) -> tuple[dict[str, float], dict[str, Any]]:
    """Minutes of each method of the table at the recipe's pool and share: `<method>` in all, `<method>_selection`.

    `full` and `random_positions` read the pool; `ce_ratio`, `kl` and `student_entropy` score it and read their share;
    `three_axes` scores it, has its share cached and reads that; `three_axes_again` reads the cache only.
    """
    samples, turns = run.recipe.samples, WARM_UP + run.scale.timed_turns
    assert isinstance(samples, TopSamples)
    taken: dict[str, list[float]] = {}
    with ExitStack() as stack:
        pieces = pieces_of(run, data, machine, stack)
        order = list(pieces)
        for turn in tqdm(range(turns), desc=run.id, unit="turn", mininterval=2.0):
            order = [*order[1:], order[0]]
            for name in order:
                taken.setdefault(name, []).append(seconds_of(partial(pieces[name], turn)))
    minutes = {name: float(np.median(values[WARM_UP:])) / 60 for name, values in taken.items()}
    rows, batch = run.scale.budget(samples.pool) // run.length, run.role.optimiser.batch
    kept = max(1, round(samples.keep * rows))
    selection = {signal: rows / BATCH * minutes[signal] for signal in SIGNALS}
    again = kept / batch * minutes["three_axes"]
    built = selection["student_entropy"] + kept / BATCH * minutes["caching"] + again
    metrics = {
        "full": rows / batch * minutes["full"],
        "random_positions": rows / batch * minutes["random_positions"],
        **{signal: selection[signal] + kept / batch * minutes["full"] for signal in SIGNALS},
        "three_axes": built,
        "three_axes_again": again,
    }
    of = {**dict.fromkeys(metrics, 0.0), **selection, "three_axes": selection["student_entropy"]}
    curves = {"turns": {name: [round(value, 6) for value in values[WARM_UP:]] for name, values in taken.items()}}
    return metrics | {f"{name}_selection": value for name, value in of.items()}, curves


def pieces_of(run: Run, data: Data, machine: Machine, stack: ExitStack) -> dict[str, Callable[[int], object]]:
    """What is timed at each turn: a step of each method, and a batch of each pass over the pool."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    plain = Training(plain_run(run), data, None, machine)
    teacher = untrained(run.recipe.teacher, run, machine)
    found: dict[str, Callable[[int], object]] = {}
    for name, said in METHODS.items():
        method = replace(run, recipe=replace(run.recipe, samples=AllSamples(), **said))
        training = beside(plain, method, supervision_of(method, data, folder / name, machine))
        stack.enter_context(training.reading_ahead())
        found[name] = partial(step_of, training)
    rows_B = np.arange(BATCH)
    for signal in SIGNALS:
        score = SCORES[signal]
        models: dict[str, PreTrainedModel] = {
            reader.what: plain.model if reader.what == "student" else teacher for reader in score.readers
        }
        found[signal] = partial(scoring_of, partial(of_rows, score, models, rows_B, data, machine))
    target = METHODS["three_axes"]["target"]
    writer = stack.enter_context(Writer(folder / "built", header_of(target, data, run), len(data.train)))
    zipf_NV = zipf(data.train.vocabulary).to(machine.device).expand(BATCH, run.length, -1)

    @torch.no_grad()
    def caching(turn: int) -> None:
        """The teacher reads; it is drawn from a law in which draws find as many classes as from a trained one."""
        indices_B = np.arange(turn * BATCH, (turn + 1) * BATCH)
        rows = torch.from_numpy(data.train.rows(indices_B)).to(machine.device)
        with machine.precision():
            float(logits_of(teacher, rows[:, :-1], data.train.vocabulary).flatten()[0])
        kept = drawn(target, zipf_NV, rows[:, 1:], indices_B, run.seed)
        assert isinstance(kept, SparseTarget)
        put(writer, int(indices_B[0]), target, kept, run.length)

    return {**found, "caching": caching}


def step_of(training: Training, turn: int) -> None:
    training.advance()


def scoring_of(score: Callable[[], Iterator[np.ndarray]], turn: int) -> None:
    list(score())


def material(run: Run, machine: Machine) -> tuple[Run, Data]:
    """The run in batches that fit, and of its text a batch for each turn of the pass that fills a cache.

    ValueError where the text has fewer rows.
    """
    fitted, wanted = fitting(run, machine), BATCH * (WARM_UP + run.scale.timed_turns)
    data = data_for(run, machine.artifacts)
    if len(data.train) < wanted:
        raise ValueError(f"Probe 'selection_time' reads {wanted:,} rows, and the text has {len(data.train):,}.")
    return fitted, replace(data, train=replace(data.train, order_R=data.train.order_R[:wanted]))


def ready(run: Run) -> None:
    if not isinstance(run.recipe.samples, TopSamples) or not run.recipe.samples.pool:
        raise ValueError(
            "Probe 'selection_time' times a share of a pool: give samples = { name = 'TopSamples', keep = ..., pool = "
            "... }."
        )


def work(cost: Cost) -> Work:
    turns = WARM_UP + cost.run.scale.timed_turns
    passes = reading(cost.teacher, 3 * BATCH, cost.run.length, BATCH) + reading(
        cost.student, 3 * BATCH, cost.run.length, BATCH
    )
    return (cost.own_step * len(METHODS) + cost.teacher_step + passes) * turns
