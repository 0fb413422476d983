"""Scores: a number for each sequence of a pool, by which samples are chosen; made once, kept among the artifacts."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel

from replication.axes.scoring import Reader, Score
from replication.axes.targets.base import precise
from replication.data.packing import fingerprint_of
from replication.experiment.run import Run, Scores
from replication.fused.loss import chunks
from replication.machine import files
from replication.machine.device import Machine
from replication.model.decoder import fingerprint, load, logits_of
from replication.model.output_head import head_of, hidden_of, scaling_of
from replication.training.run_data import Data, pool_of

BATCH = 16  # sequences
Logits = Callable[[slice], Tensor]  # of a chunk of a batch's positions, [R, V]


def scored(run: Run, data: Data, machine: Machine) -> Data:
    """The data with the scores by which the run's samples are chosen; the data as they are where none are needed.

    Scores are made now if they are not on disk. The file's name has a digest of everything that decides them, so no
    run reads the scores of another. Raises ValueError for a damaged file, or where a model is not trained yet.
    """
    samples = run.recipe.training_recipe.samples
    if samples.score is None:
        return data
    machine, pool_P = machine.at(run.scale.precision), pool_of(run, data)
    models: dict[str, PreTrainedModel] = {reader.what: scorer(reader, run, data, machine) for reader in samples.readers}
    readers = {what: fingerprint(model) for what, model in models.items()}
    precision = "bfloat16" if machine.autocast else "float32"
    rows, words = sha256(pool_P.tobytes()).hexdigest()[:16], repr(samples.score)
    origin = fingerprint_of(data.training_rows.fingerprint, rows, words, *readers.values(), precision)
    name = type(samples.score).__name__.lower()
    path = machine.artifacts / run.scale.name / "scores" / f"{name}-{origin}.npy"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        file = io.BytesIO()
        np.save(file, np.concatenate(list(of_rows(samples.score, models, pool_P, data, machine))))
        files.write(path, [file.getvalue()])
    return replace(data, scores=Scores(read(path, len(pool_P)), origin, readers))


def scorer(reader: Reader, run: Run, data: Data, machine: Machine) -> PreTrainedModel:
    """ValueError where it is not trained yet."""
    from replication.training.weights import model_folder, starting_point  # whose module has this one make its data

    if reader.what == "student":
        return starting_point(run, data, machine).to(machine.device).eval()
    found = run.scorers[reader.what]
    place = found if isinstance(found, str) else model_folder(found, machine)
    if isinstance(found, Run) and not (model_folder(found, machine) / "config.json").exists():
        raise ValueError(f"{found.id}, by which samples of {run.id} are chosen, is not trained yet: run it first.")
    return load(place).to(machine.device).eval()


@torch.no_grad()
def of_rows(
    score: Score, models: Mapping[str, PreTrainedModel], rows_P: np.ndarray, data: Data, machine: Machine
) -> Iterator[np.ndarray]:
    """The scores of these rows, float32, a batch at a time; logits are held of a chunk of positions."""
    classes = data.tokenizer.vocabulary
    scalings = {what: scaling_of(model, classes) for what, model in models.items()}

    def logits(what: str, tokens_BL: Tensor) -> Logits:
        model, scaling = models[what], scalings[what]
        if scaling is None:
            logits_NV = logits_of(model, tokens_BL, classes).flatten(0, 1)
            return lambda chunk: logits_NV[chunk]
        head, states_ND = head_of(model, classes, scaling), hidden_of(model, tokens_BL).flatten(0, 1)
        return lambda chunk: head(states_ND[chunk])

    words = f"scoring by {type(score).__name__}"
    for start in tqdm(range(0, len(rows_P), BATCH), desc=words, unit="batch", mininterval=2.0):
        rows = torch.from_numpy(data.training_rows.rows(rows_P[start : start + BATCH])).to(machine.device)
        labels_BL, told = rows[:, 1:], []
        with machine.precision():
            read = {what: logits(what, rows[:, :-1]) for what in models}
            for chunk in chunks(labels_BL.numel(), classes, machine.device, torch.float32):
                seen = {what: precise(made(chunk)) for what, made in read.items()}
                told.append(score.told(seen, labels_BL.flatten()[chunk]))
        told_BLM = torch.cat(told).view(*labels_BL.shape, -1)
        yield score.of(told_BLM).float().cpu().numpy()


def read(path: Path, sequences: int) -> np.ndarray:
    try:
        values_P = np.load(path)
    except ValueError:
        values_P = np.empty(0)
    if values_P.shape != (sequences,) or not np.isfinite(values_P).all():
        raise ValueError(f"{path} does not hold {sequences} scores. Delete it; it is then made again.")
    return values_P
