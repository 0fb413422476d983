"""Training: a run under way, from one optimiser step to the next."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from replication.axes.targets.drawing import Streams
from replication.cache.reader import Reader
from replication.experiment.lineage import Fresh
from replication.experiment.recipe import Different
from replication.experiment.run import Run
from replication.machine.device import Machine
from replication.machine.processes import replicated, sharded, synchronised, whole
from replication.model.checkpoint import weights_of
from replication.model.decoder import compile_layers, fingerprint, layers_of
from replication.seeds import seed_for
from replication.training.authored import authored
from replication.training.authors import FromRollouts, FromTeacherTexts
from replication.training.inputs import inputs_of_text
from replication.training.monitor import standing
from replication.training.needs import Need
from replication.training.optimiser import learning_rate, optimiser_of, refuse_shards
from replication.training.posing import posed
from replication.training.run_data import Data, order_of
from replication.training.student import Student
from replication.training.supervision import (
    FromCache,
    FromOtherContext,
    FromResponses,
    FromText,
    Prefetched,
    Supervision,
    from_teacher,
    stream,
)
from replication.training.weights import starting_point


class Training:
    """A run under way: what one step needs, and `step`, how many are done."""

    def __init__(
        self,
        run: Run,
        data: Data,
        teacher: PreTrainedModel | None,
        machine: Machine,
        supervision: Supervision | None = None,  # the run's own
    ) -> None:
        self.run, self.data, self.machine = run, data, machine
        if machine.sharded:
            refuse_shards(run.role.optimiser)
        # one that is not beside the student anyway is not asked how it stands on the way: that would take longer
        self.beside = teacher if run.recipe.uses_teacher and not run.recipe.reads_cache else None
        self.model = model = starting_point(run, data, machine).to(machine.device)
        self.inputs = inputs_of_text(data)
        # looked at before anything wraps the model
        afresh = run.scale.trains(run.recipe.student) and isinstance(run.recipe.initial, Fresh)
        if run.start is not None or not afresh:
            self.inputs["start"] = fingerprint(model)
        if teacher is not None:
            self.inputs["teacher"] = fingerprint(teacher)
        student = Student(model, run.recipe.training_recipe, data.tokenizer.vocabulary)
        self.pace = student.pace
        self.learnt = student.positions.state | self.pace.state  # beside the weights
        if machine.compiled:
            compile_layers(model)
            if teacher is not None:
                compile_layers(teacher)
        self.student = (
            sharded(student, layers_of(model), machine.world)
            if machine.sharded
            else replicated(student, machine.world, machine.device)
        )
        trained = [weight for weight in self.student.parameters() if weight.requires_grad]
        self.optimiser = optimiser_of(trained, run.role.optimiser)
        self.order = order_of(run, data)
        self.supervision = supervision or supervision_of(run, data, teacher, machine)
        if supervision is None and run.recipe.training_recipe.writing.written:
            assert teacher is not None
            self.supervision = authored(
                run, data, model, teacher, machine, self.supervision, self.order, self.whole_step
            )
        if isinstance(self.supervision, FromCache | FromOtherContext):
            self.inputs["cache"] = self.supervision.reader.manifest.digest
        if isinstance(self.supervision, FromTeacherTexts):
            self.inputs["written"] = self.supervision.texts.fingerprint
        if isinstance(self.supervision, FromRollouts):
            self.learnt = self.learnt | self.supervision.state
        self.teacher = teacher  # until nothing asks it any more
        self.alone_from = 1 + max((step for step in range(run.steps) if self.needs_target(step)), default=-1)
        self.step = 0

    @contextmanager
    def reading_ahead(self) -> Iterator[None]:
        """While it lasts, a thread decodes a cache's targets of the steps to come."""
        source = self.supervision
        if not isinstance(source, FromCache | FromOtherContext):
            yield
            return
        coming = (rows_B for step in range(self.step, self.run.steps) for rows_B, _ in self.micro_batches(step))
        with Prefetched(source, coming) as self.supervision:
            yield
        self.supervision = source

    @property
    def tokens(self) -> int:
        """Of one step, in all processes."""
        return self.run.role.optimiser.batch * self.run.length

    def advance(self) -> tuple[float, float, float]:
        """One optimiser step: the loss, the gradient's norm before clipping, the learning rate.

        Where loss or norm are not finite the weights are left as they were.
        """
        settings = self.run.role.optimiser
        rate, progress = learning_rate(self.step, self.run.horizon, settings), self.step / self.run.horizon
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        alone = self.step >= self.alone_from or (self.pace.over and not self.needs_target(self.step))
        if alone and self.teacher is not None:
            self.supervision, self.teacher, self.beside = FromText(), None, None
        supervision = self.supervision if self.needs_target(self.step) else FromText()
        micro_batches, look = self.micro_batches(self.step), self.pace.looks_at(self.step)
        if isinstance(supervision, FromRollouts):
            supervision.at(self.step)
        total = torch.zeros((), dtype=torch.float64, device=self.machine.device)
        for number, (rows_B, epochs_B) in enumerate(micro_batches, 1):
            read = self.data.training_rows, self.data.tokenizer
            put = posed(self.run, *read, rows_B, epochs_B, self.machine.device)
            given = supervision(rows_B, self.draws(epochs_B), put.tokens_BL, put.labels_BL)
            batch = given if put.mask_BL is None else replace(given, mask_BL=put.mask_BL)
            streams = self.policy_streams(rows_B)
            with synchronised(self.student, last=number == len(micro_batches)):
                with self.machine.precision(), self.chance(number):
                    trained = batch.tokens_BL, batch.labels_BL, batch.target, progress, streams, batch.mask_BL
                    loss = self.student(*trained, batch.rollout, look) / len(micro_batches)
                loss.backward()
            total += loss.detach()
        norm = torch.nn.utils.clip_grad_norm_(self.student.parameters(), settings.clip)
        nats, gradient_norm = float(self.machine.world.mean(total)), float(whole(norm))
        if math.isfinite(nats) and math.isfinite(gradient_norm):
            self.optimiser.step()
        self.pace.settle(self.step, self.machine.world.mean)
        self.step += 1
        return nats, gradient_norm, rate

    def needs_target(self, step: int) -> bool:
        """The teacher is not asked at a step that gives its targets no weight (SALT's second stage)."""
        asks = self.run.recipe.training_recipe.positions.asks_target
        return self.pace(step / self.run.horizon)[0] > 0 or asks

    def standing(self) -> dict[str, float]:
        """The student on held-out text, as `monitor.standing` has it; all processes ask, the first one is told."""
        model = self.whole_model()
        return {} if model is None else standing(model, self.beside, self.run, self.data, self.machine)

    def whole_model(self) -> PreTrainedModel | None:
        """The student as it stands, in one piece; all processes ask, the first one gets it."""
        first = self.machine.world.first
        if not self.machine.sharded or self.machine.world.size == 1:
            return self.model if first else None
        weights = weights_of(self.student)
        if not first:
            return None
        model = starting_point(self.run, self.data, self.machine).to(self.machine.device)
        model.load_state_dict(weights)
        return model

    @contextmanager
    def chance(self, part: int) -> Iterator[None]:
        """The global generators, which dropout and its like draw from, as this part of this step finds them.

        Whatever drew before: so two runs are one, and one that goes on from a checkpoint is the one never stopped.
        """
        device, world = self.machine.device, self.machine.world
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed_for(self.run.seed, "chance", self.step, world.rank, part))
            yield

    def read(self, rows_B: np.ndarray) -> Tensor:
        return torch.from_numpy(self.data.training_rows.rows(rows_B)).to(self.machine.device)

    def whole_step(self, step: int) -> tuple[np.ndarray, np.ndarray, Tensor]:
        """The rows of a step that is one micro-batch, which visits they are, and how they read."""
        ((rows_B, epochs_B),) = self.micro_batches(step)
        return rows_B, epochs_B, self.read(rows_B)

    def policy_streams(self, rows_B: np.ndarray) -> Streams | None:
        """The random streams of a policy that draws: a step's, each row's own, so that no split of a batch matters."""
        if not self.run.recipe.training_recipe.positions.draws:
            return None
        place = (self.machine.device, self.run.seed, "positions", self.step)
        return Streams(tuple(stream(*place, int(row)) for row in rows_B))

    def draws(self, epochs_B: np.ndarray) -> np.ndarray:
        """Which draw of its row's target each visit gets: the first one always, unless each is to be a new one."""
        recipe = self.run.recipe.training_recipe
        return epochs_B if recipe.delivery == "fresh" or recipe.writing.anew else np.zeros_like(epochs_B)

    def micro_batches(self, step: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """(rows_B, epochs_B) of this process at a step, in micro-batches: each passes through the student at once."""
        batch = self.run.role.optimiser.batch
        epochs_B, places_B = np.divmod(np.arange(step * batch, (step + 1) * batch), len(self.order))
        world = self.machine.world
        mine_B, epochs_B = world.share(self.order[places_B]), world.share(epochs_B)
        at_once = self.machine.at_once or len(mine_B)
        if len(mine_B) % at_once:
            raise ValueError(f"AT_ONCE is {at_once}, which does not divide this process's {len(mine_B)} sequences.")
        recipe = self.run.recipe.training_recipe
        for method in (recipe.positions, recipe.divergence, recipe.writing):
            if (world.size > 1 or at_once < len(mine_B)) and method.whole_batch:
                raise ValueError(
                    f"{type(method).__name__} compares all positions of a batch: run it in one process and without "
                    "AT_ONCE."
                )
        count = len(mine_B) // at_once
        return list(zip(np.split(mine_B, count), np.split(epochs_B, count), strict=True))


def supervision_of(run: Run, data: Data, teacher: PreTrainedModel | None, machine: Machine) -> Supervision:
    if data.conversations is not None:
        return FromResponses(data.conversations)
    if not run.recipe.uses_teacher:
        return FromText()
    assert teacher is not None
    if not run.recipe.cached:
        every = run.recipe.hidden.layers == "every"
        return from_teacher(
            teacher, run.recipe.target, data.tokenizer.vocabulary, run.seed, len(data.training_rows), machine, every
        )
    need = Need(run)
    reader = Reader(need.folder(machine), need.expected(data, teacher))
    packing, rows_S = need.rows(data)
    if isinstance(run.recipe.alignment, Different):
        return FromOtherContext(reader, run.recipe.target, data.train, packing, rows_S)
    return FromCache(reader, run.recipe.target, rows_S)


def cached_classes(supervision: Supervision) -> dict[str, float]:
    if not isinstance(supervision, FromCache | FromOtherContext):
        return {}
    manifest = supervision.reader.manifest
    return {"unique_classes": manifest.classes / manifest.positions}
