"""Weights to begin with: a run's teacher, a student before its first step and after its last."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedModel

from replication.experiment.lineage import FromTeacherLayers
from replication.experiment.run import Run, student_of
from replication.machine.device import Machine
from replication.model.decoder import build, load, precise_weights
from replication.model.initialise import from_teacher_layers
from replication.model.trainable import trainable
from replication.seeds import seed_for
from replication.training.run_data import Data


def teacher_for(run: Run, machine: Machine) -> PreTrainedModel:
    """The run's teacher, ready to predict. ValueError if it has not been trained on this machine yet."""
    if run.recipe.teacher == "none":
        raise ValueError(f"Run {run.id} has no teacher (teacher = 'none').")
    if run.teacher is None:
        return load(run.recipe.teacher).to(machine.device).eval()
    folder = model_folder(run.teacher, machine)
    if not (folder / "config.json").exists():
        raise ValueError(f"The teacher {run.teacher.id} is not trained yet: run it first (make replicate-... does).")
    return load(folder).to(machine.device).eval()


def model_folder(run: Run, machine: Machine) -> Path:
    return machine.artifacts / run.scale.name / "models" / run.id


def starting_point(run: Run, data: Data, machine: Machine) -> PreTrainedModel:
    """The student before its first step; under one seed every method starts from the same weights.

    In float32, whatever its teacher or checkpoint holds, and without classes that are no token. ValueError where those
    are not there, or do not fit.
    """
    if run.start is not None:
        folder = model_folder(run.start, machine)
        if not (folder / "config.json").exists():
            raise ValueError(f"Run {run.start.id}, from which {run.id} goes on, is not trained yet: run it first.")
        return trainable(load(folder), data.tokenizer.vocabulary)
    if run.scale.trains(run.recipe.student):
        seed = seed_for(run.seed, "init") % 2**63
        fresh = build(run.role, data.tokenizer.vocabulary, run.length, data.tokenizer.end_of_text, seed).train()
        initial = run.recipe.initial
        if not isinstance(initial, FromTeacherLayers):
            return fresh
        return from_teacher_layers(fresh, teacher_for(run, machine), initial.embeddings == "frozen")
    if isinstance(run.recipe.initial, FromTeacherLayers):
        raise ValueError(
            f"Initial FromTeacherLayers and student {run.recipe.student!r}, a checkpoint, both say where the student "
            "begins: give a role of the scale as student, or leave initial out."
        )
    return trainable(load(run.recipe.student), data.tokenizer.vocabulary)


def trained(run: Run, machine: Machine) -> PreTrainedModel:
    wanted = student_of(run)
    folder = model_folder(wanted, machine)
    if not (folder / "config.json").exists():
        raise ValueError(f"The student {wanted.id} has no checkpoint in {folder.parent}: train it first.")
    return precise_weights(load(folder)).to(machine.device).eval()
