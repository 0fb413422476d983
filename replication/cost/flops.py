"""FLOPs and bytes: what a run takes, counted before it runs: work, teacher passes, bytes on disk, memory."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from functools import cached_property

from replication.axes.signals import ask_student
from replication.axes.targets.base import Target
from replication.axes.targets.kept import Full, OneHot
from replication.cache.choose import codec_of
from replication.cache.writer import BATCH
from replication.cost.shape import Shape, shape_of
from replication.experiment.lineage import Untuned
from replication.experiment.recipe import Different
from replication.experiment.run import Run
from replication.fused.loss import CHUNK

DENSE_BYTES = 1  # a class of a full distribution, as RS-KD Table 5 and SE-KD Table 6 count it; float16 takes two
BLOCK_BYTES = 4  # a sequence's entry in its shard
# Fitted to steps of two dozen shapes on a CPU (see machine_speed.CPU). Bytes that go through memory per class and
# position: of a student's logits until they are their own gradient, and of a teacher's until they are probabilities;
# and the share of what forward leaves for backward that it moves where no backward comes.
OF_LOSS, OF_TEACHER, UNSAVED = 10, 27, 0.5


@dataclass(frozen=True)
class Work:
    """What a machine has to do; `planning/machine_speed.py` says how long it takes for it."""

    flops: float = 0.0  # of matrix products
    moved: float = 0.0  # bytes through memory, beside them
    scores: float = 0.0  # of attention, gone through forward and twice backward
    layers: float = 0.0  # layer passes of a step, whose operators are dispatched one by one

    def __add__(self, other: Work) -> Work:
        return Work(*(mine + its for mine, its in zip(astuple(self), astuple(other), strict=True)))

    def __mul__(self, times: float) -> Work:
        return Work(*(mine * times for mine in astuple(self)))


def reading(shape: Shape | None, rows: float, length: int, at_once: int) -> Work:
    """Rows of tokens up to probabilities, without backward; none where there is no model."""
    if shape is None:
        return Work()
    tokens = rows * length
    moved = tokens * (UNSAVED * shape.saved + OF_TEACHER * shape.classes)
    return Work(flops=tokens * shape.forward(length), moved=moved, layers=rows / at_once * shape.layers)


def bytes_per_token(target: Target, classes: float, vocabulary: int) -> float:
    """The packed codes of a sparse target; all of a full distribution; a label as the tokenised text holds it."""
    if isinstance(target, OneHot):
        return 2 if vocabulary <= 1 << 16 else 4
    if target.stored is None:
        return classes * DENSE_BYTES
    return classes * codec_of(target.stored, vocabulary).width / 8


@dataclass(frozen=True)
class Cost:
    """Of one run; its teacher's training and the teacher pass that fills its cache are not its own."""

    run: Run

    @cached_property
    def student(self) -> Shape:
        return shape_of(self.run.recipe.student, self.run.scale, self.run.tokenizer)

    @cached_property
    def teacher(self) -> Shape | None:
        name = self.run.recipe.teacher
        return None if name == "none" else shape_of(name, self.run.scale, self.run.tokenizer)

    @property
    def sequences(self) -> int:
        """Of a step."""
        return self.run.role.optimiser.batch

    @property
    def batch(self) -> int:
        """Tokens of a step."""
        return self.sequences * self.run.length

    @property
    def tokens(self) -> int:
        return self.run.steps * self.batch

    @cached_property
    def taught(self) -> int:
        """Steps that ask for a target."""
        steps, horizon, recipe = self.run.steps, self.run.horizon, self.run.recipe.training_recipe
        if not recipe.uses_teacher or recipe.positions.asks_target:
            return steps if recipe.uses_teacher else 0
        return sum(recipe.schedule(step / horizon)[0] > 0 for step in range(steps))

    @property
    def asks_teacher(self) -> bool:
        """Whether the teacher runs beside the student, at every token, and no cache stands for it."""
        return self.run.recipe.training_recipe.uses_teacher and not self.run.recipe.training_recipe.cached

    @property
    def selected(self) -> float:
        """The share of the positions that meet the heads; of a row that is written, half of it is a prompt."""
        recipe = self.run.recipe.training_recipe
        masked = recipe.writing.written and not recipe.writing.whole_batch
        return float(getattr(recipe.positions, "keep", 1.0)) * (0.5 if masked else 1.0)

    @property
    def frozen_head(self) -> bool:
        """Whether the head learns nothing: it is the embeddings, and they are frozen."""
        run = self.run
        frozen = getattr(run.recipe.initial, "embeddings", "trained") == "frozen"
        return frozen and isinstance(run.recipe.tuning, Untuned) and run.role.tied

    @property
    def own_step(self) -> Work:
        """A step of the student alone."""
        # all positions meet the head once more, without gradients, where they are weighed by what the student says
        recipe = self.run.recipe.training_recipe
        passes = (2 if self.frozen_head else 3) * self.selected + ask_student(recipe.positions.signals)
        spared = (3 - passes) * self.batch * 2 * self.student.head
        shape, tokens, length = self.student, self.batch, self.run.length
        return Work(
            flops=tokens * shape.training(length) - spared,
            moved=tokens * (3 * shape.saved + OF_LOSS * shape.classes),
            scores=3 * tokens * length * shape.layers * shape.heads,
            layers=3 * shape.layers,
        )

    @property
    def teacher_step(self) -> Work:
        """What a teacher beside it adds."""
        found = reading(self.teacher, self.sequences, self.run.length, self.sequences)
        if self.teacher is None or not isinstance(self.run.recipe.training_recipe.target, Full):
            return found
        return found + Work(flops=(self.selected - 1) * self.batch * 2 * self.teacher.head)

    @property
    def step(self) -> Work:
        return self.own_step + self.teacher_step if self.asks_teacher else self.own_step

    @property
    def training(self) -> Work:
        """The loop asks an online teacher at those steps whose KD weight is above 0."""
        asked = self.taught if self.asks_teacher else 0
        return self.own_step * self.run.steps + self.teacher_step * asked

    @property
    def evaluation(self) -> Work:
        """The held-out rows, read by the student and by the teacher that it is compared with."""
        rows = self.run.scale.evaluation_sequences
        return self.read_by(self.student, rows) + self.read_by(self.teacher, rows)

    def read_by(self, shape: Shape | None, rows: float) -> Work:
        return reading(shape, rows, self.run.length, BATCH)

    @property
    def stored_tokens(self) -> int:
        """Positions that a cache of the run's target holds: those of the kept samples, each once."""
        recipe, text = self.run.recipe, self.run.scale.corpus_tokens
        if recipe.text or text is None:
            return self.tokens  # a text of unknown length is taken to be so long that nothing is seen twice
        kept = getattr(recipe.samples, "keep", 1.0) if recipe.samples.until == 1 else 1.0
        text = self.run.scale.budget(recipe.samples.pool) if recipe.samples.pool else text
        # a row's tokens, in another order, begin in the middle of a row: they touch one row more than they fill
        touched = 1 + self.teacher_length / self.run.length if isinstance(recipe.alignment, Different) else 1
        return min(round(touched * self.tokens), round(kept * text))

    @property
    def teacher_pass(self) -> Work:
        """What filling the cache takes."""
        return reading(self.teacher, self.stored_tokens / self.teacher_length, self.teacher_length, BATCH)

    @property
    def teacher_length(self) -> int:
        """Of the sequences that it reads for the cache."""
        alignment = self.run.recipe.alignment
        return self.run.scale.length(alignment.teacher_length) if isinstance(alignment, Different) else self.run.length

    def stored_bytes(self, classes: float) -> float:
        """Of a store of the run's target that keeps this many classes of a position."""
        target = self.run.recipe.target
        index = 0 if target.stored is None else BLOCK_BYTES / self.teacher_length
        return self.stored_tokens * (bytes_per_token(target, classes, self.student.classes) + index)

    @property
    def held_bytes(self) -> int:
        """Memory that a step takes whatever its batch: weights, gradients, moments, bfloat16 copies; loss; teacher."""
        return self.student_bytes + self.beside_bytes

    @property
    def student_bytes(self) -> int:
        """Of them those that processes can share (SHARDED=1)."""
        return 16 * self.student.parameters + 2 * self.student.matrices

    @property
    def beside_bytes(self) -> int:
        """Of them a chunk of the loss, and a teacher beside the student."""
        chunk = min(CHUNK["cuda"], 4 * self.batch * self.student.classes)
        return chunk + (self.teacher_bytes if self.asks_teacher else 0)

    @property
    def gathered_bytes(self) -> int:
        """What FSDP2 makes whole again in each process: embeddings, head, one layer at a time; with gradients."""
        inside = self.student.matrices - self.student.head
        return 8 * (self.student.parameters - inside + inside // self.student.layers)

    @property
    def teacher_bytes(self) -> int:
        """Memory that a teacher takes where it runs: weights, and bfloat16 copies of them."""
        return 0 if self.teacher is None else 4 * self.teacher.parameters + 2 * self.teacher.matrices

    @property
    def read_bytes(self) -> int:
        """Memory that a batch of a teacher pass takes: logits, and the probabilities that targets are drawn from."""
        classes = 0 if self.teacher is None else self.teacher.classes
        return 2 * 4 * BATCH * self.teacher_length * classes

    @property
    def sequence_bytes(self) -> float:
        """Memory that each sequence of a batch adds."""
        return self.run.length * self.student.saved
