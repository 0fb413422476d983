"""What each method of TAD's Table 3 takes in all, against torch's own counter on the suite's real steps and texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from paper_tables import spec
from replication.cost import methods
from replication.cost.flops import Cost
from replication.cost.methods import petaflops_per_million
from replication.experiment.recipe import parse
from replication.experiment.run import Run
from replication.experiment.scale import load_scale
from replication.machine.device import Machine, this_machine
from replication.probes.cost import cost as probe
from replication.probes.stand_in import random_text, untrained
from replication.training.authors import FromRollouts, author_of
from replication.training.scores import of_rows
from replication.training.training import Training
from tests.small import write_scale

BOTH = {"name": "Constant", "kd_weight": 1.0, "ce_weight": 1.0}
MINILLM = {"name": "MiniLLM", "batches": 1, "epochs": 1}


@contextmanager
def counted() -> Iterator[Callable[[], int]]:
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        yield counter.get_total_flops


def small(folder: Path, **stated: Any) -> tuple[Run, Machine]:
    scale = load_scale(str(write_scale(folder)))
    return Run(parse(stated), scale, 0), replace(this_machine(folder, folder), autocast=False)


def of_step(run: Run) -> float:
    """FLOPs of a step, by the cost model, with its share of what is done beside the steps."""
    return petaflops_per_million(Cost(run)) * 1e9 * run.role.optimiser.batch * run.length


@pytest.mark.parametrize("divergence", ["ForwardKL", {"name": "TailAware", "k": 5, "beta": 2.0}], ids=str)
def test_a_step_beside_its_teacher(tmp_path: Path, divergence: Any) -> None:
    run, machine = small(tmp_path, divergence=divergence, schedule=BOTH)
    training = Training(run, random_text(run, 4), untrained("3B", run, machine), machine)
    with counted() as flops:
        training.advance()
    assert flops() == pytest.approx(of_step(run), rel=0.01)


def test_miniplm_reads_twice_as_much_by_teacher_and_reference_and_trains_on_half(tmp_path: Path) -> None:
    """8 rows are scored for each 4 that are read: here as many as of 50 steps, so that looking at heads is nothing."""
    samples = {"name": "DifferenceSamples", "reference": "300M", "reference_tokens": "1152", "pool": "2304"}
    run, machine = small(tmp_path, target="OneHot", samples=samples)
    data = random_text(run, 400)
    models = {"teacher": untrained("3B", run, machine), "reference": untrained("300M", run, machine)}
    training = Training(replace(run, recipe=parse({"target": "OneHot"})), data, None, machine)
    assert run.recipe.samples.score is not None
    with counted() as flops:
        scores = np.concatenate(list(of_rows(run.recipe.samples.score, models, np.arange(400), data, machine)))
    scoring = flops() / 50
    with counted() as flops:
        training.advance()
    assert len(scores) == 400 and scoring + flops() == pytest.approx(of_step(run), rel=0.01)


def test_seq_kd_writes_each_row_by_its_teacher_and_trains_on_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, machine = small(tmp_path, target="OneHot", writing="SeqKD")
    data, teacher = random_text(run, run.steps * 4), untrained("3B", run, machine)
    training = Training(run, data, teacher, machine)
    rows_B, epochs_B, rows_BX = training.whole_step(0)
    author = author_of(run.recipe.writing, [teacher], (1.0,), data.tokenizer, run.seed, machine)
    with counted() as flops:
        _, wrote_BX, begin_B = author.write(rows_B, epochs_B, rows_BX)
    wrote = flops()
    with counted() as flops:
        training.advance()
    monkeypatch.setattr(methods, "PROMPT", int(begin_B.min()) / run.length)
    monkeypatch.setattr(Cost, "selected", float(wrote_BX[:, 1:].float().mean()))
    assert wrote + flops() == pytest.approx(of_step(run), rel=0.01)


def test_minillm_writes_by_two_models_reads_what_they_wrote_and_as_much_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, machine = small(tmp_path, writing=MINILLM)
    training = Training(run, random_text(run, 8), untrained("3B", run, machine), machine)
    with counted() as flops:
        training.advance()
    assert isinstance(training.supervision, FromRollouts)
    begin = int(training.supervision.state["room_BL"].int().argmax(1).min()) + 1
    monkeypatch.setattr(methods, "PROMPT", begin / run.length)
    assert flops() == pytest.approx(of_step(run), rel=0.01)
    often = replace(run, recipe=parse({"writing": {**MINILLM, "epochs": 4}}))
    alone = methods.steps(Cost(run)) / run.steps
    assert of_step(run) - alone == pytest.approx(4 * (of_step(often) - alone))  # each text is gone through four times


def test_tad_s_table_3_is_computed_at_the_sizes_of_the_paper() -> None:
    """Vanilla distillation, which is six FLOPs a weight and token of the student and two of the teacher, as printed."""
    exhibit, found = spec.load("tad/table03"), {}
    for row in exhibit.rows:
        for column in exhibit.columns:
            stated = exhibit.recipe_of_cell(row, column) or {}
            run = Run(parse(stated), load_scale("paper"), 0)
            found[row.label, column.key] = probe(run)[0]["petaflops_per_million"]
    for column in exhibit.columns:
        printed = float(str(exhibit.row("Vanilla").published[column.key]))
        assert found["Vanilla", column.key] == pytest.approx(printed, rel=0.1)
        assert found["TAD", column.key] == found["Vanilla", column.key] < found["MiniPLM", column.key]
