"""Training at a scale of the suite, by its own loop: cross-entropy beside RS-KD from a cache, and what the cache costs.

The teacher is not trained: its head is drawn and scaled so that 50 draws hit about as many different classes as of a
trained one. Nothing here depends on what it has learnt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from benchmarks.effort import Effort
from benchmarks.race import Contender
from benchmarks.result import Group
from replication.axes.schedules import TwoStage
from replication.axes.targets.base import SparseTarget
from replication.axes.targets.drawing import softmax_by_rows
from replication.axes.targets.kept import Full, OneHot
from replication.axes.targets.sampled import RandomSampling
from replication.cache.crew import spare_workers
from replication.cache.reader import Reader
from replication.cache.writer import BATCH, SHARD, Writer
from replication.experiment.recipe import Recipe
from replication.experiment.run import Run
from replication.experiment.scale import load_scale
from replication.machine.device import Machine, this_machine
from replication.model.decoder import build as new_model
from replication.model.decoder import logits_of
from replication.training.needs import Need
from replication.training.run_data import Data, data_for
from replication.training.supervision import drawn
from replication.training.teacher_pass import build, put
from replication.training.training import Training
from replication.training.weights import model_folder, teacher_for

SHARPNESS = 14.0  # times a fresh head
CE, RSKD, READING = "cross-entropy", "RS-KD from a cache", "reading the cache"
SECOND = "SALT's second stage"
FORWARD, CACHING = "teacher's forward", "forward, draws, cache"
SOFTMAX = "forward, float32 softmax"  # what every draw begins with


@dataclass(frozen=True)
class Bench:
    """Three runs over the same text, the cache of one, and the room for more caches."""

    plain: Run
    sparse: Run
    second: Run
    data: Data
    teacher: PreTrainedModel
    machine: Machine
    folder: Path  # of the cache

    @property
    def tokens(self) -> int:
        """Of a step."""
        return self.plain.role.optimiser.batch * self.plain.length

    @property
    def tokens_of_pass(self) -> int:
        """Of a batch of the teacher pass."""
        return BATCH * self.plain.length

    def students(self, steps: int) -> list[Contender]:
        """A unit is a step."""
        students = {
            CE: Training(self.plain, self.data, None, self.machine),
            RSKD: Training(self.sparse, self.data, self.teacher, self.machine),
            SECOND: Training(self.second, self.data, self.teacher, self.machine),
        }
        advancing = [Contender(name, advance(student, steps), steps) for name, student in students.items()]
        return [*advancing, Contender(READING, self.read(steps), steps)]

    def read(self, steps: int) -> Callable[[], object]:
        reader, batch = Reader(self.folder), self.sparse.role.optimiser.batch
        firsts = np.random.default_rng(0).integers(reader.sequences - batch, size=steps)
        return lambda: [reader.rows(np.arange(first, first + batch)) for first in firsts]

    def teachers(self, batches: int, room: Path) -> list[Contender]:
        """A unit is a batch of the teacher pass; the last contender leaves a finished cache each time."""
        need = Need(self.sparse)
        packing, rows_S = need.rows(self.data)
        header, starts = need.header(self.data, self.teacher), range(0, batches * BATCH, BATCH)
        made = iter(range(10**6))

        @torch.no_grad()
        def forward(start: int) -> tuple[Tensor, np.ndarray, Tensor]:
            indices_B = rows_S[start : start + BATCH]
            rows = torch.from_numpy(packing.rows(indices_B)).to(self.machine.device)
            with self.machine.precision():
                return logits_of(self.teacher, rows[:, :-1], packing.vocabulary), indices_B, rows[:, 1:]

        def cache() -> None:
            folder = room / f"{next(made)}"
            with Writer(folder, header, len(starts) * BATCH, SHARD, spare_workers()) as writer:
                for start in starts:
                    logits_BLV, indices_B, labels_BL = forward(start)
                    target = drawn(need.target, logits_BLV, labels_BL, indices_B, self.sparse.seed)
                    assert isinstance(target, SparseTarget)
                    put(writer, start, need.target, target, packing.length)

        def softmax() -> None:
            for start in starts:
                for _ in softmax_by_rows(forward(start)[0].flatten(0, 1), 1.0):
                    pass

        bare = Contender(FORWARD, lambda: [forward(start) and None for start in starts], batches)
        return [bare, Contender(SOFTMAX, softmax, batches), Contender(CACHING, cache, batches)]


def advance(student: Training, steps: int) -> Callable[[], object]:
    def some() -> None:
        if student.step + steps > student.run.steps:
            student.step = 0
        with student.reading_ahead():
            for _ in range(steps):
                student.advance()

    return some


@contextmanager
def bench(machine: Machine, scale: str, steps: int) -> Iterator[Bench]:
    """Everything made in a folder that goes afterwards; only the text, tokenised, stays with the machine."""
    sizes = load_scale(scale)
    student = sizes.role("300M")
    tokens = str(steps * student.optimiser.batch * sizes.length(student.length))
    plain = Run(Recipe(teacher="none", tokens=tokens, target=OneHot()), sizes, seed=0)
    sparse = Run(Recipe(tokens=tokens, target=RandomSampling()), sizes, seed=0)
    # SALT's, whose first stage is over
    second = Run(Recipe(tokens=tokens, target=Full(exponent=0.25), schedule=TwoStage(until=0.0)), sizes, seed=0)
    with TemporaryDirectory() as folder:
        text = machine.artifacts / "text"
        text.mkdir(parents=True, exist_ok=True)
        (Path(folder) / "text").symlink_to(text.resolve())
        here = replace(machine.at(sizes.precision), artifacts=Path(folder), results=Path(folder) / "results")
        data = data_for(plain, here.artifacts)
        assert sparse.teacher is not None
        untrained(sparse.teacher, data).save_pretrained(model_folder(sparse.teacher, here))
        (cache,) = build([Need(sparse)], here)
        yield Bench(plain, sparse, second, data, teacher_for(sparse, here), here, cache)


@torch.no_grad()
def untrained(run: Run, data: Data, times: int = 1) -> PreTrainedModel:
    """The run's model, or one so many times as wide."""
    wider = {name: times * getattr(run.role, name) for name in ("width", "ffn", "heads", "kv_heads")}
    role = run.role.model_copy(update=wider)
    model = new_model(role, data.tokenizer.vocabulary, run.length, data.tokenizer.end_of_text, seed=0)
    model.get_output_embeddings().weight *= SHARPNESS
    return model


def groups(effort: Effort) -> Iterator[Group]:
    """Training steps, and the teacher pass that fills their cache."""
    with bench(this_machine(), effort.scale, 4 * effort.steps) as here, TemporaryDirectory() as room:
        case: dict[str, int | str] = {"scale": effort.scale, "tokens": here.tokens}
        yield Group("training", "step", case, CE, seconds=effort.race(here.students(effort.steps), 40))
        case = {"scale": effort.scale, "tokens": here.tokens_of_pass}
        passes = here.teachers(effort.steps // 2, Path(room))
        yield Group("training", "teacher pass", case, FORWARD, seconds=effort.race(passes, 25))
        yield from growing(effort, here, case, Path(room))


def growing(effort: Effort, here: Bench, case: dict[str, int | str], room: Path) -> Iterator[Group]:
    """Passes of teachers up to four times as wide as the scale's own: draws and cache cost each of them the same."""
    run = here.sparse.teacher
    assert run is not None
    for number, times in enumerate((1, 2, 4)):
        teacher = untrained(run, here.data, times).to(here.machine.device).eval()
        sized = case | {"parameters": sum(part.numel() for part in teacher.parameters())}
        passes = replace(here, teacher=teacher).teachers(max(1, effort.steps // 8), room / f"growth-{number}")
        seconds = effort.race(passes, 15)
        yield Group("training", "growth", sized, FORWARD, varied="parameters", seconds=seconds)
