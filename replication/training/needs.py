"""The cache that a run reads: its folder, its rows, its header, and what is wrong with it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from replication.axes.scoring import STUDENT
from replication.axes.targets.base import SparseTarget, Target
from replication.cache.manifest import FILE, Expected, Header, differences, read_manifest
from replication.cache.manifest import Target as TargetEntry
from replication.cache.shard import BUILD
from replication.cache.verify import faults
from replication.data.packing import Packing, positions_in
from replication.experiment.identity import changed, plain
from replication.experiment.lineage import Fresh
from replication.experiment.recipe import Different
from replication.experiment.run import Run, reading
from replication.machine.device import Machine
from replication.records.numerics import of_class
from replication.seeds import seed_for
from replication.training.posing import posed
from replication.training.run_data import Data, order_of, pretrained_on

# model and supervision are imported where a model is used: transformers takes seconds, and a plan needs none of it
if TYPE_CHECKING:
    from transformers import PreTrainedModel


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
        samples = run.recipe.samples
        scored = STUDENT in samples.readers  # who so decides which rows are cached
        before = pretrained_on(run)  # which leaves its rows out
        return {
            **({"student": run.recipe.student} if scored else {}),
            **({"initial": plain(run.recipe.initial)} if scored and not isinstance(run.recipe.initial, Fresh) else {}),
            **({} if before is None else {"pretrained": before.id}),
            "teacher": run.teacher.id if run.teacher else run.recipe.teacher,
            "text": run.recipe.text,
            "scale": run.scale.name,
            "seed": run.seed,
            "length": run.length,
            "sequences": self.sequences,
            "samples": {what: value for what, value in plain(samples).items() if value or what != "pool"},
            **({} if samples.until == 1 else {"stage": run.stage}),
            "alignment": plain(run.recipe.alignment),
            **({"objective": plain(run.recipe.objective)} if run.recipe.objective.rewrites else {}),
            **{what: word for what, word in reading(run.recipe).items() if what in changed(run.recipe)},
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
        mine = np.unique(order_of(self.run, data)[: self.sequences])
        alignment = self.run.recipe.alignment
        if not isinstance(alignment, Different):
            return data.train, mine
        length = self.run.scale.length(alignment.teacher_length)
        other = data.repack(seed_for(self.run.seed, "another order") % 2**31, length)
        positions = positions_in(other, data.train, mine)
        return other, np.unique(positions[positions >= 0] // length)

    @property
    def rewritten(self) -> str:
        """What the header says of rows that the teacher reads in another form than the text's."""
        objective = self.run.recipe.objective
        return f"-{type(objective).__name__}-{of_class(type(objective))}" if objective.rewrites else ""

    def header(self, data: Data, teacher: PreTrainedModel) -> Header:
        from replication.model.decoder import fingerprint

        return self.header_of(data, fingerprint(teacher))

    def header_of(self, data: Data, teacher: str) -> Header:
        """`teacher` is its fingerprint."""
        packing, rows_S = self.rows(data)
        stored = plain(self.target)
        whole = np.array_equal(rows_S, np.arange(len(rows_S)))
        chosen = "" if whole else "-" + hashlib.sha256(rows_S.tobytes()).hexdigest()[:16]
        return Header(
            teacher=teacher,
            tokenizer=data.tokenizer.fingerprint,
            packing=packing.fingerprint + chosen + self.rewritten,
            target=TargetEntry(name=stored.pop("name"), fields=stored),
            seed=self.run.seed,
            vocabulary=data.tokenizer.vocabulary,
            length=packing.length,
        )

    def expected(self, data: Data, teacher: PreTrainedModel) -> Expected:
        from replication.model.decoder import first_fingerprint

        header = self.header(data, teacher)
        return Expected(**dict(header) | {"teacher": (header.teacher, first_fingerprint(teacher))})

    def problems(self, folder: Path, data: Data, teacher: PreTrainedModel, machine: Machine) -> list[str]:
        """What was wrong when a sound cache that should serve this run was written; a sample of it is drawn again.

        Raises ValueError where it is another run's.
        """
        from replication.model.decoder import logits_of
        from replication.training.supervision import drawn

        machine = machine.at(self.run.scale.precision)
        packing, rows_S = self.rows(data)
        manifest, own = read_manifest(folder), self.folder(machine)
        if wrong := differences(manifest, self.expected(data, teacher)):
            there = own.resolve() != folder.resolve() and (own / FILE).exists()
            header = manifest.header
            raise ValueError(
                f"{folder} is sound, but it is another run's, {header.target} of teacher {header.teacher}, seed "
                f"{header.seed}: {'; '.join(wrong)}. This run's cache "
                + (f"is {own}." if there else f"is not built; to build it as {own}: {BUILD}.")
            )

        @torch.no_grad()
        def recompute(sequences_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            indices_B = rows_S[sequences_B]
            read = packing, data.tokenizer, indices_B, np.zeros_like(indices_B)
            rows = posed(self.run, *read, machine.device)
            with machine.precision():
                logits_BLV = logits_of(teacher, rows.tokens_BL, packing.vocabulary)
            target = drawn(self.target, logits_BLV, rows.labels_BL, indices_B, self.run.seed)
            assert isinstance(target, SparseTarget)
            ids_BLK = target.ids_NK.view(len(indices_B), packing.length, -1).cpu().numpy()
            return ids_BLK, target.weights_NK.view(ids_BLK.shape).cpu().numpy()

        return faults(folder, recompute)
