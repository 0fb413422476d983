"""Scores: a number for each training sequence, by which samples are chosen; made once, and kept among the artifacts."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from replication.data.packing import fingerprint_of
from replication.experiment.run import Run, Scores
from replication.machine import files
from replication.machine.device import Machine
from replication.model.decoder import fingerprint
from replication.training.run_data import Data
from replication.training.student import Student

BATCH = 16  # sequences


def scored(run: Run, data: Data, machine: Machine) -> Data:
    """The data with the scores by which the run's samples are chosen; the data as they are where none are needed.

    Scores are made now if they are not on disk. The file's name has a digest of everything that decides them, so no
    run reads the scores of another. Raises ValueError for a damaged file.
    """
    from replication.training.weights import starting_point  # whose module has this one make its data

    signal = run.recipe.training_recipe.samples.score
    if signal is None:
        return data
    machine = machine.at(run.scale.precision)
    student = Student(
        starting_point(run, data, machine).to(machine.device).eval(),
        run.recipe.training_recipe,
        data.tokenizer.vocabulary,
    )
    precision = "bfloat16" if machine.autocast else "float32"
    origin = fingerprint_of(data.training_rows.fingerprint, fingerprint(student.model), signal, precision)
    path = machine.artifacts / run.scale.name / "scores" / f"{signal}-{origin}.npy"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        file = io.BytesIO()
        np.save(file, np.concatenate(list(means(signal, student, data, machine))))
        files.write(path, [file.getvalue()])
    return replace(data, scores=Scores(read(path, len(data.training_rows)), origin))


def means(signal: str, student: Student, data: Data, machine: Machine) -> Iterator[np.ndarray]:
    """Of the signal over the positions of each sequence, float32, a batch at a time."""
    count = len(data.training_rows)
    for start in tqdm(range(0, count, BATCH), desc=f"scoring by {signal}", unit="batch", mininterval=2.0):
        rows = torch.from_numpy(data.training_rows.rows(np.arange(start, min(start + BATCH, count)))).to(machine.device)
        with machine.precision():
            found = student.signals((signal,), rows[:, :-1], rows[:, 1:])
        yield found[signal].mean(1).float().cpu().numpy()


def read(path: Path, sequences: int) -> np.ndarray:
    try:
        values_S = np.load(path)
    except ValueError:
        values_S = np.empty(0)
    if values_S.shape != (sequences,) or not np.isfinite(values_S).all():
        raise ValueError(f"{path} does not hold {sequences} scores. Delete it; it is then made again.")
    return values_S
