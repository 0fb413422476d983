"""The training loop: one for teachers and for students of every method, on one device or on many."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from replication.cache.reader import Reader
from replication.caching import Need, model_folder, teacher_for
from replication.checkpoint import publish, remove, restore, save, weights_of
from replication.draws import Streams
from replication.evaluate.language_model import evaluate
from replication.machine import Machine
from replication.model import build, compile_layers, layers_of, load, parameters
from replication.parallel import replicated, sharded, synchronised, whole
from replication.recipe import Different, changed, methods_of, resolved
from replication.record import Record, provenance, seed_for
from replication.run import Data, Run, data_for, order_of
from replication.scale import Optimiser
from replication.scores import scored
from replication.sft import code_of_tuning, response_loss
from replication.stages import Instructed
from replication.student import Student
from replication.supervision import (
    FromCache,
    FromOtherContext,
    FromResponses,
    FromText,
    Prefetched,
    Supervision,
    from_teacher,
    stream,
)


def record_of(run: Run, machine: Machine) -> Record:
    return Record(machine.results / run.scale.name / run.id)


def train(run: Run, machine: Machine) -> Record:
    """Train and evaluate one run; does nothing if its record is complete, resumes if it was cut off.

    Leaves the record and, under artifacts, a Hugging Face checkpoint with its tokenizer. Every process of
    `machine.world` calls it; the first one writes.
    """
    record, world = record_of(run, machine), machine.world
    if record.done:
        return record
    with world.in_turn():
        data = scored(run, data_for(run, machine.artifacts), machine)
        if world.first:
            open_record(record, run, data)
    teacher = None if run.recipe.teacher == "none" else teacher_for(run, machine)
    training = Training(run, data, teacher, machine)
    place = machine.artifacts / run.scale.name / "checkpoints" / run.id
    began = training.step = restore(place, training.student, training.optimiser, training.learnt)
    if world.first:
        record.resume_at(began)

    clock = time.perf_counter()
    progress = tqdm(total=run.steps, initial=began, desc=run.id, unit="step", mininterval=2.0, disable=not world.first)
    with training.reading_ahead():
        while training.step < run.steps:
            nats, gradient_norm, rate = training.advance()
            step = training.step
            finite = math.isfinite(nats) and math.isfinite(gradient_norm)
            progress.update()
            if world.first and (step % run.scale.log_every == 0 or step == run.steps or not finite):
                record.log(
                    step=step,
                    tokens=step * training.tokens,
                    loss=nats,
                    learning_rate=rate,
                    gradient_norm=gradient_norm,
                    seconds=round(time.perf_counter() - record.started, 3),
                )
            if not finite:
                if world.first:
                    record.finish({"lm_loss": math.inf}, {}, diverged=True)
                world.wait()
                return record
            if step % run.scale.checkpoint_every == 0:
                save(place, step, training.student, training.optimiser, training.learnt, world)
    progress.close()
    speed = (training.step - began) * training.tokens / max(time.perf_counter() - clock, 1e-9)

    weights = weights_of(training.student)
    if world.first:
        student, measured = starting_point(run, data, machine).to(machine.device), run.scale.evaluation_sequences
        before = response_loss(student, data, measured, machine)
        student.load_state_dict(weights)
        metrics, curves = evaluate(student, teacher, data.validation, measured, data.tokenizer.vocabulary, machine)
        metrics |= {f"{name}_before": value for name, value in before.items()}
        metrics |= response_loss(student, data, measured, machine)
        metrics |= cached_classes(training.supervision)
        metrics["parameters"] = parameters(student)
        metrics["tokens_per_parameter"] = run.steps * training.tokens / metrics["parameters"]
        publish(student, data.tokenizer, model_folder(run, machine))
        record.finish(metrics, curves, tokens_per_second=round(speed, 1))
        remove(place)
    world.wait()
    return record


class Training:
    """A run under way: what one step needs, and `step`, how many are done."""

    def __init__(self, run: Run, data: Data, teacher: PreTrainedModel | None, machine: Machine) -> None:
        self.run, self.data, self.machine = run, data, machine
        model = starting_point(run, data, machine).to(machine.device)
        # looked at before anything wraps the model
        student = Student(model, run.recipe.lesson, data.tokenizer.vocabulary)
        self.learnt = student.positions.state  # beside the weights
        if machine.compiled:
            compile_layers(model)
            if teacher is not None:
                compile_layers(teacher)
        self.student = (
            sharded(student, layers_of(model), machine.world)
            if machine.sharded
            else replicated(student, machine.world, machine.device)
        )
        self.optimiser = torch.optim.AdamW(
            self.student.parameters(),
            lr=run.role.optimiser.peak_rate,
            betas=(run.role.optimiser.beta1, run.role.optimiser.beta2),
            weight_decay=0.0,  # RS-KD Table 17 says Adam and states no decay
            fused=True,
        )
        self.supervision = supervision_of(run, data, teacher, machine)
        self.order = order_of(run, data)
        self.step = 0

    @contextmanager
    def reading_ahead(self) -> Iterator[None]:
        """While it lasts, a thread decodes a cache's targets of the steps to come."""
        source = self.supervision
        if not isinstance(source, FromCache | FromOtherContext):
            yield
            return
        coming = (rows_B for step in range(self.step, self.run.steps) for rows_B, _ in self.parts(step))
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
        rate, progress = learning_rate(self.step, self.run.steps, settings), self.step / self.run.steps
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        # a teacher whose word has no weight (SALT's second stage) is not asked
        lesson = self.run.recipe.lesson
        heeded = lesson.schedule(progress)[0] > 0 or lesson.positions.asks_target
        supervision = self.supervision if heeded else FromText()
        parts = self.parts(self.step)
        total = torch.zeros((), device=self.machine.device)
        for number, (rows_B, epochs_B) in enumerate(parts, 1):
            read = torch.from_numpy(self.data.lesson.rows(rows_B)).to(self.machine.device)
            batch = supervision(rows_B, epochs_B, read[:, :-1], read[:, 1:])
            chances = self.chances(rows_B)
            with synchronised(self.student, last=number == len(parts)):
                with self.machine.precision():
                    loss = self.student(batch.tokens_BL, batch.labels_BL, batch.target, progress, chances) / len(parts)
                loss.backward()
            total += loss.detach()
        norm = torch.nn.utils.clip_grad_norm_(self.student.parameters(), settings.clip)
        nats, gradient_norm = float(self.machine.world.mean(total)), float(whole(norm))
        if math.isfinite(nats) and math.isfinite(gradient_norm):
            self.optimiser.step()
        self.step += 1
        return nats, gradient_norm, rate

    def chances(self, rows_B: np.ndarray) -> Streams | None:
        """The random streams of a policy that draws: a step's, each row's own, so that no split of a batch matters."""
        if not self.run.recipe.lesson.positions.draws:
            return None
        place = (self.machine.device, self.run.seed, "positions", self.step)
        return Streams(tuple(stream(*place, int(row)) for row in rows_B))

    def parts(self, step: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """(rows_B, epochs_B) of this process at a step, in the parts that pass through the student together.

        Epochs count only where each draws anew; else all are the first.
        """
        batch = self.run.role.optimiser.batch
        epochs_B, places_B = np.divmod(np.arange(step * batch, (step + 1) * batch), len(self.order))
        if self.run.recipe.lesson.delivery != "fresh":
            epochs_B = np.zeros_like(epochs_B)
        world = self.machine.world
        mine_B, epochs_B = world.share(self.order[places_B]), world.share(epochs_B)
        at_once = self.machine.at_once or len(mine_B)
        if len(mine_B) % at_once:
            raise ValueError(f"AT_ONCE is {at_once}, which does not divide this process's {len(mine_B)} sequences.")
        positions = self.run.recipe.lesson.positions
        if (world.size > 1 or at_once < len(mine_B)) and positions.whole_batch:
            raise ValueError(
                f"{type(positions).__name__} compares all positions of a batch: run it in one process and without "
                "AT_ONCE."
            )
        count = len(mine_B) // at_once
        return list(zip(np.split(mine_B, count), np.split(epochs_B, count), strict=True))


def open_record(record: Record, run: Run, data: Data) -> None:
    known = provenance([*methods_of(run.recipe), *methods_of(run.recipe.lesson)])
    if isinstance(run.recipe.tuning, Instructed):
        known["methods"]["Instructed"] = code_of_tuning()
    record.open(
        {
            **known,
            "run_id": run.id,
            "recipe": resolved(run.recipe),
            "changed": changed(run.recipe),
            "scale": run.scale.name,
            "settings": run.settings(),
            "seed": run.seed,
            "corpus": data.corpus,
            "packing": data.lesson.fingerprint,
        }
    )


def starting_point(run: Run, data: Data, machine: Machine) -> PreTrainedModel:
    """The student before its first step; under one seed every method starts from the same weights."""
    if run.start is not None:
        folder = model_folder(run.start, machine)
        if not (folder / "config.json").exists():
            raise ValueError(f"Run {run.start.id}, from which {run.id} goes on, is not trained yet: run it first.")
        return load(folder).float().train()
    if run.recipe.student in run.scale.roles:
        seed = seed_for(run.seed, "init") % 2**63
        return build(run.role, data.tokenizer.vocabulary, run.length, data.tokenizer.end_of_text, seed).train()
    return load(run.recipe.student).float().train()


def supervision_of(run: Run, data: Data, teacher: PreTrainedModel | None, machine: Machine) -> Supervision:
    if data.conversations is not None:
        return FromResponses(data.conversations)
    if not run.recipe.uses_teacher:
        return FromText()
    assert teacher is not None
    if not run.recipe.cached:
        return from_teacher(teacher, run.recipe.target, data.tokenizer.vocabulary, run.seed, len(data.lesson), machine)
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


def learning_rate(step: int, steps: int, optimiser: Optimiser) -> float:
    """Linear warm-up, then cosine from peak to final (RS-KD Tables 17 to 19)."""
    warmup = round(optimiser.warmup * steps)
    if step < warmup:
        return optimiser.peak_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return optimiser.final_rate + (optimiser.peak_rate - optimiser.final_rate) * (1 + math.cos(math.pi * done)) / 2
