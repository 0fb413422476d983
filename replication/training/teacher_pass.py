"""The teacher pass that fills caches: one writes every target that runs over the same text will need."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from replication.axes.targets.base import SparseTarget, Target
from replication.cache.crew import spare_workers
from replication.cache.manifest import FILE, UNFINISHED, Compression
from replication.cache.mend import make_way
from replication.cache.part import WHOLE, Part
from replication.cache.writer import BATCH, SHARD, Writer
from replication.data.packing import frequencies
from replication.experiment.run import Run
from replication.machine.device import Machine
from replication.model.decoder import logits_of
from replication.training.needs import Need
from replication.training.posing import posed
from replication.training.replaced import own_caches
from replication.training.run_data import Data, data_for, order_of
from replication.training.supervision import drawn
from replication.training.weights import teacher_for


def build(
    needs: Iterable[Need],
    machine: Machine,
    part: Part = WHOLE,
    compression: Compression | None = None,
    finished: bool = False,
    again: bool = False,
) -> list[Path]:
    """Write every cache that is not there yet; give all folders. Teacher passes are shared. Resumes after a kill.

    With `finished`, caches that are there are looked at, too, every byte: damaged files are written again, and what is
    another run's (of a teacher that was replaced, say) is put aside, and the run's own built. A line on stderr says so.
    What is begun goes on in its own `compression`; a stated other one is refused.

    One part of several writes its shards only, of every cache: such jobs run at the same time, twice or again, in any
    order. Building the whole afterwards computes what is missing and writes the manifests.

    Without `finished`, a cache that is there of another teacher, text or tokenizer is refused or, `again`, put aside
    (training/replaced.py).
    """
    by_folder = {need.folder(machine): need for need in needs}
    if not finished:
        own_caches(list(by_folder.values()), machine, again)
    groups: dict[str, dict[Path, Need]] = {}
    for folder, need in by_folder.items():
        if finished or not (folder / FILE).exists() or (folder / UNFINISHED).exists():
            groups.setdefault(json.dumps(need.identity, sort_keys=True), {})[folder] = need
    for group in groups.values():
        teacher_pass(group, machine, part, compression)
    return list(by_folder)


@torch.no_grad()
def teacher_pass(group: dict[Path, Need], machine: Machine, part: Part, compression: Compression | None) -> None:
    """One forward pass over the rows that any of these caches still lacks in this part."""
    from replication.training.scores import scored

    alike = next(iter(group.values()))  # the needs of a group share text, rows and teacher
    machine = machine.at(alike.run.scale.precision)
    data = scored(alike.run, data_for(alike.run, machine.artifacts), machine)
    teacher = teacher_for(alike.run, machine)
    packing, rows_S = alike.rows(data)
    begun = {
        folder: make_way(folder, need.expected(data, teacher), tell) if folder.exists() else None
        for folder, need in group.items()
    }
    chosen = {folder: compression or (plan.compression if plan else "none") for folder, plan in begun.items()}
    frequencies_V = frequencies(packing) if "unigram" in chosen.values() else None
    workers = -(-spare_workers() // len(group))
    with ExitStack() as stack:
        writers = {
            folder: stack.enter_context(
                Writer(
                    folder,
                    plan.header if (plan := begun[folder]) else need.header(data, teacher),
                    len(rows_S),
                    plan.shard_sequences if plan else SHARD,
                    workers,
                    part,
                    chosen[folder],
                    frequencies_V,
                )
            )
            for folder, need in group.items()
        }
        lacking = {folder: {index for span in writer.missing() for index in span} for folder, writer in writers.items()}
        starts = [
            start for start in range(0, len(rows_S), BATCH) if any(start in missing for missing in lacking.values())
        ]
        order, words = in_turn(starts, workers), f"caching {len(group)} targets"
        progress = stack.enter_context(tqdm(order, desc=words, unit="batch", mininterval=1.0))
        for start in progress:
            indices_B = rows_S[start : start + BATCH]
            read = packing, data.tokenizer, indices_B, np.zeros_like(indices_B)
            rows = posed(alike.run, *read, machine.device)
            with machine.precision():
                logits_BLV = logits_of(teacher, rows.tokens_BL, packing.vocabulary)
            for folder, need in group.items():
                if start in lacking[folder]:
                    target = drawn(need.target, logits_BLV, rows.labels_BL, indices_B, need.run.seed)
                    assert isinstance(target, SparseTarget)
                    put(writers[folder], start, need.target, target, packing.length)


def tell(words: str) -> None:
    tqdm.write(words, file=sys.stderr)


def in_turn(starts: list[int], workers: int) -> list[int]:
    """The batches in the order in which the teacher reads them.

    With 3 workers, 3 shards grow together: the first batch of each, then the second of each. So all workers have work.
    """
    place = {shard: place for place, shard in enumerate(sorted({start // SHARD for start in starts}))}
    return sorted(starts, key=lambda start: (place[start // SHARD] // max(1, workers), start % SHARD, start))


def put(writer: Writer, start: int, wanted: Target, target: SparseTarget, length: int) -> None:
    ids_BLK = target.ids_NK.view(-1, length, target.ids_NK.shape[1]).cpu().numpy()
    weights_BLK = target.weights_NK.view(ids_BLK.shape).cpu().numpy()
    writer.put(start, ids_BLK, weights_BLK, wanted.lengths(target).view(ids_BLK.shape[:2]).cpu().numpy())


@torch.no_grad()
def probabilities(run: Run, data: Data, positions: int, machine: Machine, every: int = 1) -> Tensor:
    """The teacher's next-token distributions at the first positions of the run's training order, [N, V] float32.

    Whole sequences, `every` so many of whose positions count: `positions` or a few more. ValueError where the text has
    fewer. Holds four bytes a class.
    """
    each = len(range(0, data.train.length, every))  # of a sequence
    rows_R = order_of(run, data)[: -(-positions // each)]
    if len(rows_R) * each < positions:
        there = len(rows_R) * each
        raise ValueError(f"{positions:,} positions are more than the {there:,} of the text; ask for fewer.")
    machine = machine.at(run.scale.precision)
    teacher, found = teacher_for(run, machine), []
    parts = np.split(rows_R, range(BATCH, len(rows_R), BATCH))
    for indices_B in tqdm(parts, desc="reading", unit="batch", mininterval=1.0):
        rows = torch.from_numpy(data.train.rows(indices_B)).to(machine.device)
        with machine.precision():
            logits_BLV = logits_of(teacher, rows[:, :-1], data.tokenizer.vocabulary)
        found.append(logits_BLV[:, ::every].float().softmax(-1).flatten(0, 1))
    return torch.cat(found)
