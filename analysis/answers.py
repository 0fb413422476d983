"""Which items of its tasks a student answered rightly: `answers.json` of a record; and rows that answered the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from analysis.crossed import crossed, spread_in_blocks
from analysis.statistics import Estimate

PREFIX, AVERAGE = "tasks_", "average"  # of metrics: tasks_next_line, tasks_average


class Task(BaseModel):
    """A student's answers to one task."""

    model_config = ConfigDict(extra="allow")
    rows: int
    data: str  # digest of the items
    accuracy: float
    correct: str  # hexadecimal, one bit an item; the first item is the most significant bit of the first byte
    easy: str = ""  # likewise: the third of the items that this student finds easiest, and the hardest third
    hard: str = ""

    @model_validator(mode="after")
    def bits_give_the_accuracy(self) -> Task:
        right, said = self.right, self.accuracy * self.rows
        if len(right) != self.rows or abs(float(right.sum()) - said) > 0.5:
            found = f"{right.sum()} of {len(right)} items are right by `correct`, {said:g} of {self.rows} by `accuracy`"
            raise ValueError(f"{found}: have the run's tasks answered again")
        return self

    @property
    def right(self) -> NDArray[np.bool_]:
        """[rows], whether each item was answered rightly."""
        return self.bits(self.correct)

    def bits(self, digits: str) -> NDArray[np.bool_]:
        return np.unpackbits(np.frombuffer(bytes.fromhex(digits), np.uint8))[: self.rows] == 1

    def only(self, chosen: NDArray[np.bool_], data: str) -> Task:
        """The answers to the chosen items, which are called `data`."""
        right = self.right[chosen]
        correct = np.packbits(right).tobytes().hex()
        return Task(rows=len(right), data=data, accuracy=float(right.mean()), correct=correct)


class Answers(BaseModel):
    """A run's answers."""

    model_config = ConfigDict(extra="allow")
    suite: str
    student: str = ""  # fingerprint of the weights that answered
    numerics: dict[str, int]
    tasks: Mapping[str, Task]
    parts: Mapping[str, Task] = Field(default_factory=dict)  # of tasks: "last_word_easy" (`hardness.py`)

    def behind(self, metric: str) -> Mapping[str, Task]:
        """The tasks whose mean accuracy is the metric: one, all of them, or none where it is something else."""
        name = metric.removeprefix(PREFIX)
        if name == metric:
            return {}
        if name in self.parts:
            return {name: self.parts[name]}
        return self.tasks if name == AVERAGE else {each: task for each, task in self.tasks.items() if each == name}


@dataclass(frozen=True)
class Answered:
    """(row label, column key) -> seed -> the tasks behind the cell."""

    cells: Mapping[tuple[str, str], Mapping[int, Mapping[str, Task]]]

    def __deepcopy__(self, memo: dict[int, Any]) -> Answered:
        return self  # pandas copies what is attached to a frame at every step; nobody writes here

    def has(self, column: str) -> bool:
        return any(key == column for _, key in self.cells)

    def paired(self, column: str, labels: Sequence[str], seeds: Sequence[int], times: float) -> Paired | str:
        """The answers of these rows at these seeds, or why they cannot be paired."""
        for label in labels:
            if lacking := [seed for seed in seeds if seed not in self.cells.get((label, column), {})]:
                return f"no answers of {label!r} at seed {lacking[0]}"
        asked = items(self.cells[labels[0], column][seeds[0]])
        same = {
            label: [by_seed[seed] for seed in seeds]
            for (label, key), by_seed in self.cells.items()
            if key == column and all(seed in by_seed and items(by_seed[seed]) == asked for seed in seeds)
        }
        if not same.keys() >= set(labels):
            return "their items differ"
        means = {tuple(mean_accuracy(tasks) for tasks in of_row) for of_row in same.values()}  # a run may fill two rows
        right = {label: [np.stack([tasks[name].right for tasks in same[label]]) for name in asked] for label in labels}
        return Paired(right, times, np.array(sorted(means)), tuple(asked))


def items(tasks: Mapping[str, Task]) -> dict[str, str]:
    """Task -> which items it asks."""
    return {name: task.data for name, task in tasks.items()}


def mean_accuracy(tasks: Mapping[str, Task]) -> float:
    return sum(task.accuracy for task in tasks.values()) / len(tasks)


@dataclass(frozen=True)
class Paired:
    """Rows that answered the same items at the same seeds."""

    right: Mapping[str, list[NDArray[np.bool_]]]  # row -> for each task whether an item was answered rightly, [S, I]
    times: float  # 100 in a column in percent
    means_RS: NDArray[np.float64]  # accuracies, mean over tasks, of these and of all other rows that answered the same
    tasks: tuple[str, ...] = ()  # their names

    def without(self, task: str) -> Paired:
        """The same rows on the other tasks."""
        place = self.tasks.index(task)
        right = {label: [*each[:place], *each[place + 1 :]] for label, each in self.right.items()}
        return replace(self, right=right, tasks=(*self.tasks[:place], *self.tasks[place + 1 :]))

    def contrast(self, weights: Mapping[str, float]) -> Estimate:
        """The sum over rows of weight times accuracy (mean over tasks), with its interval over seeds and items."""
        factors_R = self.times * np.array(list(weights.values()))
        tasks = zip(*(self.right[label] for label in weights), strict=True)
        differences = [np.tensordot(factors_R, np.stack(rows), 1) for rows in tasks]
        rows, seeds = self.means_RS.shape
        if min(rows, seeds) < 2 or abs(factors_R.sum()) > 1e-9 * self.times:  # a row alone keeps what all rows share
            return crossed(differences)
        return crossed(differences, float(factors_R @ factors_R) * spread_in_blocks(self.means_RS), rows - 1)
