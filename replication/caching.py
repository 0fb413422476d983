"""Building caches: one teacher pass writes every target that runs over the same text will need."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm

from replication.cache.crew import spare_workers
from replication.cache.manifest import Compression, Expected, Header, check, read_manifest
from replication.cache.manifest import Target as TargetEntry
from replication.cache.part import WHOLE, Part
from replication.cache.verify import verify
from replication.cache.writer import SHARD, Writer
from replication.machine import Machine
from replication.packing import Packing, positions_in
from replication.recipe import Different, plain
from replication.record import seed_for
from replication.run import Data, Run, data_for, order_of
from replication.targets import SparseTarget, Target

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# model and supervision are imported where a model is used: transformers takes seconds, and a plan needs none of it

COUNTED = 2**22  # tokens, of which the law of a cache's ids is taken
BATCH = 16  # sequences per teacher forward; divides SHARD, so that every job and a resumed pass make the same batches


@dataclass(frozen=True)
class Need:
    """The cache a run reads: which target, over which rows of which packing."""

    run: Run

    @property
    def target(self) -> Target:
        assert self.run.recipe.target.stored is not None
        return self.run.recipe.target.stored

    @property
    def sequences(self) -> int:
        """Training sequences of the run; those beyond one epoch are the first ones again."""
        return self.run.steps * self.run.role.optimiser.batch

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the teacher pass: caches that share it are written together."""
        run = self.run
        scored = run.recipe.samples.score is not None  # by the student, who so decides which rows are cached
        return {
            **({"student": run.recipe.student} if scored else {}),
            "teacher": run.teacher.id if run.teacher else run.recipe.teacher,
            "text": run.recipe.text,
            "scale": run.scale.name,
            "seed": run.seed,
            "length": run.length,
            "sequences": self.sequences,
            "samples": plain(run.recipe.samples),
            "alignment": plain(run.recipe.alignment),
        }

    def folder(self, machine: Machine) -> Path:
        stored = plain(self.target)
        key = json.dumps({**self.identity, "target": stored}, sort_keys=True)
        words = "-".join(
            [stored["name"].lower(), *(f"{name}{value}" for name, value in stored.items() if name != "name")]
        )
        name = f"{words}-s{self.run.seed}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"
        return machine.artifacts / self.run.scale.name / "caches" / name

    def rows(self, data: Data) -> tuple[Packing, np.ndarray]:
        """The packing that the teacher reads, and its rows that are cached, ascending."""
        mine = np.sort(order_of(self.run, data)[: self.sequences])
        alignment = self.run.recipe.alignment
        if not isinstance(alignment, Different):
            return data.train, mine
        length = self.run.scale.length(alignment.teacher_length)
        other = data.repack(seed_for(self.run.seed, "another order") % 2**31, length)
        positions = positions_in(other, data.train, mine)
        return other, np.unique(positions[positions >= 0] // length)

    def header(self, data: Data, teacher: PreTrainedModel) -> Header:
        from replication.model import fingerprint

        packing, rows_S = self.rows(data)
        stored = plain(self.target)
        whole = np.array_equal(rows_S, np.arange(len(rows_S)))
        chosen = "" if whole else "-" + hashlib.sha256(rows_S.tobytes()).hexdigest()[:16]
        return Header(
            teacher=fingerprint(teacher),
            tokenizer=data.tokenizer.fingerprint,
            packing=packing.fingerprint + chosen,
            target=TargetEntry(name=stored.pop("name"), fields=stored),
            seed=self.run.seed,
            vocabulary=data.tokenizer.vocabulary,
            length=packing.length,
        )

    def expected(self, data: Data, teacher: PreTrainedModel) -> Expected:
        from replication.model import first_fingerprint

        header = self.header(data, teacher)
        return Expected(**dict(header) | {"teacher": (header.teacher, first_fingerprint(teacher))})

    def problems(self, folder: Path, data: Data, teacher: PreTrainedModel, machine: Machine) -> list[str]:
        """What `verify` finds in a cache that should serve this run: bytes, origin, and a sample drawn again."""
        from replication.model import logits_of
        from replication.supervision import drawn

        machine = machine.at(self.run.scale)
        packing, rows_S = self.rows(data)
        try:
            check(read_manifest(folder), self.expected(data, teacher))
        except ValueError as error:
            return [str(error)]

        @torch.no_grad()
        def recompute(sequences_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            indices_B = rows_S[sequences_B]
            rows = torch.from_numpy(packing.rows(indices_B)).to(machine.device)
            with machine.precision():
                logits_BLV = logits_of(teacher, rows[:, :-1], packing.vocabulary)
            target = drawn(self.target, logits_BLV, rows[:, 1:], indices_B, self.run.seed)
            assert isinstance(target, SparseTarget)
            ids_BLK = target.ids_NK.view(len(indices_B), packing.length, -1).cpu().numpy()
            return ids_BLK, target.weights_NK.view(ids_BLK.shape).cpu().numpy()

        return verify(folder, recompute=recompute)


def teacher_for(run: Run, machine: Machine) -> PreTrainedModel:
    """The run's teacher, ready to predict. ValueError if it has not been trained on this machine yet."""
    from replication.model import load

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


def build(needs: Iterable[Need], machine: Machine, part: Part = WHOLE, compression: Compression = "none") -> list[Path]:
    """Write every cache that is not there yet; give all folders. Teacher passes are shared. Resumes after a kill.

    One part of several writes its shards only, of every cache: such jobs run at the same time, twice or again, in any
    order. Building the whole afterwards computes what is missing and writes the manifests.
    """
    by_folder = {need.folder(machine): need for need in needs}
    groups: dict[str, dict[Path, Need]] = {}
    for folder, need in by_folder.items():
        if not (folder / "manifest.json").exists():
            groups.setdefault(json.dumps(need.identity, sort_keys=True), {})[folder] = need
    for group in groups.values():
        teacher_pass(group, machine, part, compression)
    return list(by_folder)


@torch.no_grad()
def teacher_pass(group: dict[Path, Need], machine: Machine, part: Part, compression: Compression) -> None:
    """One forward pass over the rows that any of these caches still lacks in this part."""
    from replication.model import logits_of
    from replication.scores import scored
    from replication.supervision import drawn

    some = next(iter(group.values()))
    machine = machine.at(some.run.scale)
    data = scored(some.run, data_for(some.run, machine.artifacts), machine)
    teacher = teacher_for(some.run, machine)
    packing, rows_S = some.rows(data)
    frequencies_V = frequencies(packing) if compression == "unigram" else None
    workers = -(-spare_workers() // len(group))
    with ExitStack() as stack:
        writers = {
            folder: stack.enter_context(
                Writer(
                    folder, need.header(data, teacher), len(rows_S), SHARD, workers, part, compression, frequencies_V
                )
            )
            for folder, need in group.items()
        }
        lacking = {folder: {index for span in writer.missing() for index in span} for folder, writer in writers.items()}
        starts = [
            start for start in range(0, len(rows_S), BATCH) if any(start in missing for missing in lacking.values())
        ]
        for start in tqdm(
            in_turn(starts, workers), desc=f"caching {len(group)} targets", unit="batch", mininterval=1.0
        ):
            indices_B = rows_S[start : start + BATCH]
            rows = torch.from_numpy(packing.rows(indices_B)).to(machine.device)
            with machine.precision():
                logits_BLV = logits_of(teacher, rows[:, :-1], packing.vocabulary)
            for folder, need in group.items():
                if start in lacking[folder]:
                    target = drawn(need.target, logits_BLV, rows[:, 1:], indices_B, need.run.seed)
                    assert isinstance(target, SparseTarget)
                    put(writers[folder], start, need.target, target, packing.length)


def frequencies(packing: Packing) -> np.ndarray:
    """How often each class occurs in the first rows of a packing, which are shuffled: int64 [V]."""
    rows = min(len(packing), -(-COUNTED // packing.length))
    return np.bincount(packing.rows(np.arange(rows)).ravel(), minlength=packing.vocabulary)


def in_turn(starts: list[int], workers: int) -> list[int]:
    """The batches in the order of their shards, of as many shards in turn as there are workers, each with its own."""
    place = {shard: place for place, shard in enumerate(sorted({start // SHARD for start in starts}))}
    return sorted(starts, key=lambda start: (place[start // SHARD] // max(1, workers), start % SHARD, start))


def put(writer: Writer, start: int, wanted: Target, target: SparseTarget, length: int) -> None:
    ids_BLK = target.ids_NK.view(-1, length, target.ids_NK.shape[1]).cpu().numpy()
    weights_BLK = target.weights_NK.view(ids_BLK.shape).cpu().numpy()
    writer.put(start, ids_BLK, weights_BLK, wanted.lengths(target).view(ids_BLK.shape[:2]).cpu().numpy())
