"""Where a student's targets come from: the text itself, a cache, or the teacher running beside it.

A supervision gives the whole batch, so that one may also give other tokens than those of the text.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from replication.axes.targets.base import AnyTarget, SparseTarget, Target, one_hot
from replication.axes.targets.drawing import Streams
from replication.axes.targets.kept import Full
from replication.cache.reader import Reader
from replication.data.packed_conversations import Conversations
from replication.data.packing import Packing, positions_in
from replication.fused.head import Head, TeacherStates
from replication.machine.device import Machine
from replication.model.decoder import logits_of
from replication.model.output_head import head_of, hidden_of, scaling_of, states_of
from replication.seeds import generator
from replication.training.policy import Rollout

Stored = tuple[np.ndarray, np.ndarray]  # ids_BLK, weights_BLK


@dataclass(frozen=True)
class Batch:
    """What a student trains on in one pass; the target's N = B * L positions are in row order.

    `mask_BL` says at which positions it trains, None at all. With a `rollout` the first half of the rows was written by
    the student and its teacher, and the loss is that of `policy.py`.
    """

    tokens_BL: Tensor
    labels_BL: Tensor
    target: AnyTarget | TeacherStates
    mask_BL: Tensor | None = None
    rollout: Rollout | None = None


class Supervision(Protocol):
    """Gives the batch of some rows of the training text, whose tokens and labels these are.

    `epochs_B` tells the visits to a row apart where each is to be a draw of its own; else it is 0.
    """

    def __call__(self, rows_B: np.ndarray, epochs_B: np.ndarray, tokens_BL: Tensor, labels_BL: Tensor) -> Batch: ...


@dataclass(frozen=True)
class FromText:
    """The ground truth: no teacher."""

    def __call__(self, rows_B: np.ndarray, epochs_B: np.ndarray, tokens_BL: Tensor, labels_BL: Tensor) -> Batch:
        return Batch(tokens_BL, labels_BL, one_hot(labels_BL.reshape(-1)))


@dataclass(frozen=True)
class FromResponses:
    """The ground truth where it is part of a response; nowhere else has the target any weight."""

    conversations: Conversations

    def __call__(self, rows_B: np.ndarray, epochs_B: np.ndarray, tokens_BL: Tensor, labels_BL: Tensor) -> Batch:
        said_BL = torch.from_numpy(self.conversations.responses(rows_B)).to(labels_BL.device)
        target = SparseTarget(labels_BL.reshape(-1, 1), said_BL.reshape(-1, 1).float())
        return Batch(tokens_BL, labels_BL, target)


@dataclass(frozen=True)
class FromCache:
    """Targets drawn earlier over the same packing."""

    reader: Reader
    target: Target
    rows_S: np.ndarray  # the packing's rows that are cached, ascending

    def __call__(self, rows_B: np.ndarray, epochs_B: np.ndarray, tokens_BL: Tensor, labels_BL: Tensor) -> Batch:
        return Batch(tokens_BL, labels_BL, finished(self.target, *self.stored([rows_B])[0], labels_BL))

    def stored(self, batches: Sequence[np.ndarray]) -> list[Stored]:
        return self.reader.batches([np.searchsorted(self.rows_S, indices_B) for indices_B in batches])


@dataclass(frozen=True)
class FromOtherContext:
    """Targets that the teacher drew for the same tokens behind another context: Table 16's deliberate mismatch."""

    reader: Reader
    target: Target
    mine: Packing
    other: Packing
    rows_S: np.ndarray  # the rows of `other` that are cached, ascending

    def __call__(self, rows_B: np.ndarray, epochs_B: np.ndarray, tokens_BL: Tensor, labels_BL: Tensor) -> Batch:
        return Batch(tokens_BL, labels_BL, finished(self.target, *self.elsewhere(rows_B), labels_BL))

    def stored(self, batches: Sequence[np.ndarray]) -> list[Stored]:
        return [self.elsewhere(indices_B) for indices_B in batches]

    def elsewhere(self, indices_B: np.ndarray) -> Stored:
        place_BL = positions_in(self.other, self.mine, indices_B)
        row_BL = np.searchsorted(self.rows_S, place_BL // self.other.length)
        cached_BL = np.where(place_BL < 0, -1, row_BL * self.other.length + place_BL % self.other.length)
        return self.reader.positions(cached_BL)


class Prefetched:
    """A cache's targets, decoded by a thread while the student trains on those before.

    `batches` are the indices_B to come, in order. What is asked out of that order is decoded when asked. An error of
    the thread is raised, with its traceback, by the call that needed the batch. Use as a context manager.
    """

    TOGETHER = 4  # batches decoded at once: of a small one most of the time goes to cold code and memory
    AHEAD = 2 * TOGETHER  # batches not asked for yet, at most

    def __init__(self, source: FromCache | FromOtherContext, batches: Iterable[np.ndarray]) -> None:
        self.source = source
        self.batches = iter(batches)
        self.thread = ThreadPoolExecutor(1, "prefetch")  # a reader serves one thread
        self.coming: deque[tuple[np.ndarray, Future[list[Stored]], int]] = deque()
        self.look_ahead()

    def look_ahead(self) -> None:
        while len(self.coming) <= self.AHEAD - self.TOGETHER:
            some = list(islice(self.batches, self.TOGETHER))
            if not some:
                return
            job = self.thread.submit(self.source.stored, some)
            self.coming.extend((indices_B, job, place) for place, indices_B in enumerate(some))

    def __call__(self, rows_B: np.ndarray, epochs_B: np.ndarray, tokens_BL: Tensor, labels_BL: Tensor) -> Batch:
        if any(np.array_equal(rows_B, expected_B) for expected_B, *_ in self.coming):
            while not np.array_equal(rows_B, self.coming[0][0]):
                self.coming.popleft()  # passed over
            _, job, place = self.coming.popleft()
            self.look_ahead()
        else:
            job, place = self.thread.submit(self.source.stored, [rows_B]), 0
        if job.exception() is not None:  # of one of its batches: this one may be sound
            job, place = self.thread.submit(self.source.stored, [rows_B]), 0
        return Batch(tokens_BL, labels_BL, finished(self.source.target, *job.result()[place], labels_BL))

    def __enter__(self) -> Prefetched:
        return self

    def __exit__(self, *error: object) -> None:
        self.thread.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class FromTeacher:
    """The teacher runs beside the student. In epoch e, row r uses the random stream of e * sequences + r."""

    teacher: PreTrainedModel
    target: Target
    vocabulary: int
    seed: int
    sequences: int  # of the training text
    machine: Machine

    def __call__(self, rows_B: np.ndarray, epochs_B: np.ndarray, tokens_BL: Tensor, labels_BL: Tensor) -> Batch:
        with torch.no_grad(), self.machine.precision():
            logits_BLV = logits_of(self.teacher, tokens_BL, self.vocabulary)
        draws_B = epochs_B * self.sequences + rows_B
        return Batch(tokens_BL, labels_BL, drawn(self.target, logits_BLV, labels_BL, draws_B, self.seed))


@dataclass(frozen=True)
class FromTeacherStates:
    """The teacher runs beside the student up to its head: its whole distribution, never whole in memory."""

    teacher: PreTrainedModel
    head: Head
    exponent: float
    machine: Machine
    every: bool = False  # whether the states behind each of its layers are handed on

    def __call__(self, rows_B: np.ndarray, epochs_B: np.ndarray, tokens_BL: Tensor, labels_BL: Tensor) -> Batch:
        with torch.no_grad(), self.machine.precision():
            states = states_of(self.teacher, tokens_BL) if self.every else [hidden_of(self.teacher, tokens_BL)]
        layers = [each_BLD.flatten(0, 1).to(self.head.weight_VD.dtype) for each_BLD in states]
        known = TeacherStates(layers[-1], self.head, self.exponent, len(tokens_BL), tuple(layers))
        return Batch(tokens_BL, labels_BL, known)


def from_teacher(
    teacher: PreTrainedModel,
    target: Target,
    vocabulary: int,
    seed: int,
    sequences: int,
    machine: Machine,
    every: bool = False,
) -> Supervision:
    """Beside the student, in the way that holds least; with `every` also the states behind each of its layers."""
    scaling = scaling_of(teacher, vocabulary) if isinstance(target, Full) else None
    if not isinstance(target, Full) or scaling is None:
        return FromTeacher(teacher, target, vocabulary, seed, sequences, machine)
    head = head_of(teacher, vocabulary, scaling)
    precision = torch.bfloat16 if machine.autocast else head.weight_VD.dtype
    bias_V = None if head.bias_V is None else head.bias_V.detach().to(precision)
    head = Head(head.weight_VD.detach().to(precision), bias_V, scaling)
    return FromTeacherStates(teacher, head, target.exponent, machine, every)


def drawn(target: Target, logits_BLV: Tensor, labels_BL: Tensor, indices_B: np.ndarray, seed: int) -> AnyTarget:
    """The target of B sequences, each with a random stream of its own: a draw depends on no batch and no restart."""
    streams = Streams(tuple(stream(logits_BLV.device, seed, "draw", int(index)) for index in indices_B))
    return target(logits_BLV.flatten(0, 1), labels_BL.flatten(), streams)


def stream(device: torch.device, seed: int, *purpose: str | int) -> torch.Generator:
    cpu = generator(seed, *purpose)
    return cpu if device.type == "cpu" else torch.Generator(device).manual_seed(cpu.initial_seed())


def finished(target: Target, ids_BLK: np.ndarray, weights_BLK: np.ndarray, labels_BL: Tensor) -> SparseTarget:
    """The run's target from what the cache holds of it."""
    most = ids_BLK.shape[-1]
    device = labels_BL.device
    kept = SparseTarget(
        torch.from_numpy(ids_BLK.reshape(-1, most)).to(device),
        torch.from_numpy(weights_BLK.reshape(-1, most)).to(device),
    )
    return target.complete(kept, labels_BL.reshape(-1))
