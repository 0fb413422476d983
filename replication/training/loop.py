"""The training loop: one for teachers and for students of every method, on one device or on many."""

from __future__ import annotations

import math
import time
from pathlib import Path
from types import ModuleType
from typing import Any

from tqdm import tqdm
from transformers import PreTrainedModel

from replication.evaluate.language_model import evaluate
from replication.evaluate.responses import response_loss
from replication.experiment.identity import changed, resolved
from replication.experiment.lineage import FineTuned
from replication.experiment.run import Run
from replication.machine.device import Machine
from replication.model.checkpoint import publish, remove, restore, save, weights_of
from replication.model.decoder import parameters
from replication.records.numerics import numerics_of
from replication.records.provenance import provenance
from replication.records.record import EVALUATIONS, STEPS, Record, record_of
from replication.training.answers import answer, answers_after_tuning, folder_after
from replication.training.monitor import asked_steps, by_step, watched_steps
from replication.training.run_data import Data, data_for
from replication.training.scores import scored
from replication.training.training import Training, cached_classes
from replication.training.weights import model_folder, starting_point, teacher_for

FIRST = 8  # steps that are logged each: what `make replay` compares


def logged_steps(run: Run) -> frozenset[int]:
    every = range(run.scale.log_every, run.steps + 1, run.scale.log_every)
    return frozenset({*range(1, min(FIRST, run.steps) + 1), *every, run.steps})


def train(run: Run, machine: Machine) -> Record:
    """Train and evaluate one run; does nothing if its record is complete, resumes if it was cut off.

    Leaves the record and, under artifacts, a Hugging Face checkpoint with its tokenizer. Every process of
    `machine.world` calls it; the first one writes.
    """
    record, world, machine = record_of(run, machine), machine.world, machine.at(run.scale.precision)
    if record.done:
        return record
    with world.in_turn():
        data = scored(run, data_for(run, machine.artifacts), machine)
    training = Training(run, data, None if run.recipe.teacher == "none" else teacher_for(run, machine), machine)
    place = machine.artifacts / run.scale.name / "checkpoints" / run.id
    if world.first:
        if not record.begun:
            remove(place)  # a deleted record's checkpoint: what it had read nobody knows any more
        open_record(record, run, data, training.inputs, machine)
    world.wait()
    speed = learn(training, record, place)
    if speed is None:
        if world.first:
            record.finish({"lm_loss": math.inf}, by_step(record), diverged=True)
    else:
        weights = weights_of(training.student)
        if world.first:
            student = starting_point(run, data, machine).to(machine.device)
            metrics, curves = measured(student, weights, training)
            publish(student, data.tokenizer, model_folder(run, machine))
            if isinstance(run.recipe.tuning, FineTuned):
                assert data.talks is not None
                metrics |= answers_after_tuning(run, data.talks, machine)
            elif run.scale.tasks:
                assert data.source is not None
                answer(run, data.source, record, machine)
            end = {"step": run.steps, "tokens": run.steps * training.tokens, **metrics}
            record.finish(metrics, curves | by_step(record, end), tokens_per_second=round(speed, 1))
            remove(place)
    world.wait()
    return record


def learn(training: Training, record: Record, place: Path) -> float | None:
    """All steps that are left, logged, with checkpoints in `place`: tokens a second; None where the loss diverged."""
    run, world = training.run, training.machine.world
    began = training.step = restore(place, training.student, training.optimiser, training.learnt)
    logged, watched = logged_steps(run), watched_steps(run)
    asked = asked_steps(run) if run.scale.tasks else frozenset()
    if world.first:
        record.resume_at(began, {STEPS: logged, EVALUATIONS: watched})
    clock = time.perf_counter()
    progress = tqdm(total=run.steps, initial=began, desc=run.id, unit="step", mininterval=2.0, disable=not world.first)
    with training.reading_ahead(), progress:
        while training.step < run.steps:
            nats, gradient_norm, rate = training.advance()
            step, tokens = training.step, training.step * training.tokens
            finite = math.isfinite(nats) and math.isfinite(gradient_norm)
            progress.update()
            if world.first and (step in logged or not finite):
                record.log(
                    step=step,
                    tokens=tokens,
                    loss=nats,
                    learning_rate=rate,
                    gradient_norm=gradient_norm,
                    seconds=round(time.perf_counter() - record.started, 3),
                )
            if not finite:
                return None
            if step in watched:
                found = training.standing()
                if world.first:
                    record.log(EVALUATIONS, step=step, tokens=tokens, **found)
            if step in asked:
                ask(training, record)
            if step % run.scale.checkpoint_every == 0:
                if world.first:
                    record.flush()
                save(place, step, training.student, training.optimiser, training.learnt, world)
    return (training.step - began) * training.tokens / max(time.perf_counter() - clock, 1e-9)


def ask(training: Training, record: Record) -> None:
    """The tasks at hand, of the student as it stands: of its weights as they would be published, which are not kept."""
    model, run, machine = training.whole_model(), training.run, training.machine
    if model is None:
        return
    assert training.data.source is not None
    folder = folder_after(training.step, run, machine)
    publish(model, training.data.tokenizer, folder)
    answer(run, training.data.source, record, machine, training.step)
    remove(folder)


def measured(
    student: PreTrainedModel, weights: dict[str, Any], training: Training
) -> tuple[dict[str, float], dict[str, Any]]:
    """Metrics and curves of `student`, which comes as it was before its first step and leaves with these weights."""
    run, data, machine = training.run, training.data, training.machine
    teacher = training.teacher  # or let go on the way
    if teacher is None and run.recipe.teacher != "none":
        teacher = teacher_for(run, machine)
    sequences = run.scale.evaluation_sequences
    before = response_loss(student, data.held_out, sequences, data.tokenizer.vocabulary, machine)
    student.load_state_dict(weights)
    metrics, curves = evaluate(student, teacher, data.validation, sequences, data.tokenizer.vocabulary, machine)
    metrics |= {f"{name}_before": value for name, value in before.items()}
    metrics |= response_loss(student, data.held_out, sequences, data.tokenizer.vocabulary, machine)
    metrics |= cached_classes(training.supervision) | training.pace.metrics(run.steps)
    metrics["parameters"] = parameters(student)
    metrics["tokens_per_parameter"] = run.steps * training.tokens / metrics["parameters"]
    return metrics, curves


def open_record(
    record: Record, run: Run, data: Data, inputs: dict[str, str], machine: Machine, probe: ModuleType | None = None
) -> None:
    """Begin the record of a run that reads text; `probe` is the module that measures, None of a training."""
    batch = run.role.optimiser.batch // machine.world.size
    record.open(
        {
            **provenance(),
            "run_id": run.id,
            "recipe": resolved(run.recipe),
            "changed": changed(run.recipe),
            "scale": run.scale.name,
            "settings": run.settings(),
            "seed": run.seed,
            "corpus": data.corpus,
            "numerics": numerics_of(run.recipe, probe),
            "inputs": inputs,
            "precision": {
                "products": "bfloat16" if machine.autocast else "float32",
                "processes": machine.world.size,
                "at_once": machine.at_once or batch,
                "compiled": machine.compiled,
            },
        }
    )
