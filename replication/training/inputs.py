"""Inputs: what a run reads, by content, so that a record says more than the names of things."""

from __future__ import annotations

from replication.cache.manifest import read_manifest
from replication.experiment.run import Run, students
from replication.machine.device import Machine
from replication.model.decoder import fingerprint, load
from replication.training.needs import Need
from replication.training.run_data import Data
from replication.training.weights import model_folder, teacher_for


def inputs_of_text(data: Data) -> dict[str, str]:
    found = {"tokenizer": data.tokenizer.fingerprint, "packing": data.training_rows.fingerprint}
    if data.scores is None:
        return found
    beside = {what: each for what, each in data.scores.readers.items() if what in ("early", "reference")}
    return {**found, "scores": data.scores.fingerprint, **beside}


def inputs_of_probe(run: Run, data: Data, machine: Machine) -> dict[str, str]:
    """Of a run that trains nothing: text, teacher, the student that it measures, the cache that it weighs.

    ValueError where one of them has not been trained yet.
    """
    found = inputs_of_text(data)
    if run.recipe.measurement and not run.recipe.measurement.taught:
        return found
    if run.recipe.teacher != "none":
        found["teacher"] = fingerprint(teacher_for(run, machine))
    for student in students(run):
        folder = model_folder(student, machine)
        if not (folder / "config.json").exists():
            raise ValueError(f"The student {student.id}, which {run.id} measures, is not trained yet: run it first.")
        found["start"] = fingerprint(load(folder))
    if run.recipe.reads_cache:
        found["cache"] = read_manifest(Need(run).folder(machine)).digest
    return found
