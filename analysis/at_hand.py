"""Tasks at hand: what a student answered at the end of its training, where the papers' own tasks are not measured.

A training's record holds the answers in a file of their own (`answers.json`). They fill a table's columns of downstream
tasks as a probe's record would, each task in the place of its counterpart, unless such a record is there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from pydantic import Field

from analysis import answers as stored
from analysis.records import Config, Record, Summary

# the papers' tasks, by the harness's names -> ours that stand for them
STANDS_FOR = {
    "hellaswag": "next_line",
    "lambada_openai": "last_word",
    "lambada_standard": "last_word",
    "winogrande": "pairs",
    "arc_easy": "docstring",
    "arc_challenge": "docstring",
    "piqa": "signature",
    "gsm8k": "sums",
    "ifeval": "instruct",
}
# probes that ask them (`replication/experiment/suites.py`), as far as columns of exhibits name them
PROBES = ("zero_shot", "zero_shot_sekd", "ifeval_sekd")
NORMAL = 1.959964  # 95 %
# a probe whose mean is over its own tasks -> those that stand for them, and whether they have a validation split: SE-KD
# reports four of its five tasks on validation splits too (its App. F), and no item may be in both
MEANS = {
    "zero_shot_sekd": {"next_line": True, "signature": True, "docstring": True, "sums": True, "last_word": False},
}
VALIDATION = 4  # one item of so many is of the validation split; items stand in the order of a hash, kind by kind


class Task(stored.Task):
    of: int
    chance: float
    low: float  # 95 % over items
    high: float
    ece: float | None = None
    perplexity: float | None = None
    kinds: dict[str, dict[str, float]] = Field(default_factory=dict)  # of a task that has several

    def part(self, validation: bool) -> Task:
        """The items of one split: what is known of each, so neither calibration nor perplexity."""
        chosen = (np.arange(self.rows) % VALIDATION == 0) == validation
        right, rows = self.right[chosen], int(chosen.sum())
        share = float(right.mean())
        half = NORMAL * math.sqrt(share * (1 - share) / rows)
        return Task(
            rows=rows,
            data=f"{self.data}/{'validation' if validation else 'test'}",
            accuracy=share,
            correct=np.packbits(right).tobytes().hex(),
            of=self.of,
            chance=self.chance,
            low=share - half,
            high=share + half,
        )

    def beside(self) -> dict[str, float]:
        """What follows the task's name in a metric -> its value."""
        found = {"": self.accuracy, "_low": self.low, "_high": self.high, "_chance": self.chance}
        found |= {f"_{kind}": each["accuracy"] for kind, each in self.kinds.items()}
        return found | {
            f"_{name}": value for name in ("ece", "perplexity") if (value := getattr(self, name)) is not None
        }


class Answers(stored.Answers):
    harness: str
    tasks: dict[str, Task]
    validation: dict[str, Task] = Field(default_factory=dict)  # other items of some of them

    def of(self, probe: str) -> Answers:
        """What stands for a probe: of one that has a mean of its own, its tasks, and their validation splits apart."""
        if probe not in MEANS:
            return self
        known = {
            name: split and self.tasks[name].rows > 1 for name, split in MEANS[probe].items() if name in self.tasks
        }
        tasks = {name: self.tasks[name].part(False) if split else self.tasks[name] for name, split in known.items()}
        validation = {name: self.tasks[name].part(True) for name, split in known.items() if split}
        return self.model_copy(update={"tasks": tasks, "validation": validation})

    def behind(self, metric: str) -> Mapping[str, stored.Task]:
        """Also of the metrics of a probe of the papers' tasks, by what stands for them."""
        if metric == "validation":
            return self.validation
        theirs = {"average": "average", **STANDS_FOR}
        return super().behind(f"tasks_{theirs[metric]}" if metric in theirs else metric)

    def metrics(self) -> dict[str, float]:
        """`tasks_<name>` and what stands beside it, and `tasks_average` over the tasks."""
        each = {
            f"tasks_{name}{what}": value for name, task in self.tasks.items() for what, value in task.beside().items()
        }
        return each | {f"tasks_average{what}": value for what, value in average(self.tasks).items()}

    def counterparts(self) -> dict[str, float]:
        """The metrics of a probe of the papers' tasks, of ours that stand for them."""
        found = {f"average{what}": value for what, value in average(self.tasks).items()}
        found |= {f"validation{what}": value for what, value in average(self.validation).items()}
        for theirs, ours in STANDS_FOR.items():
            if ours in self.tasks:
                found |= {f"{theirs}{what}": value for what, value in self.tasks[ours].beside().items()}
        return found

    def told(self) -> str:
        """For a table's header."""
        words = [f"{name.replace('_', ' ')} ({task.rows:,})" for name, task in self.tasks.items()]
        words += [f"{name.replace('_', ' ')}, validation ({task.rows:,})" for name, task in self.validation.items()]
        return f"at hand, made of held-out text: {', '.join(words)}; 0-shot; lm_eval {self.harness}"


def average(given: Mapping[str, Task]) -> dict[str, float]:
    """The mean accuracy over the tasks, its interval over items, and the mean of guessing; nothing where there is no
    task."""
    tasks = list(given.values())
    if not tasks:
        return {}
    value = sum(task.accuracy for task in tasks) / len(tasks)
    variance = sum(task.accuracy * (1 - task.accuracy) / task.rows for task in tasks)
    half = NORMAL * math.sqrt(variance) / len(tasks)
    chance = sum(task.chance for task in tasks) / len(tasks)
    return {"": value, "_low": value - half, "_high": value + half, "_chance": chance}


def with_answers(records: list[Record], answers: dict[str, Answers]) -> list[Record]:
    """The records of one folder, trainings with the metrics of their answers (by run id), and what stands for probes
    of the papers' tasks: for a training that diverged among others that answered, a record without a number.

    Nothing stands for a probe that asked some of these weights: the papers' tasks go first. Those that asked weights
    of before are other records, of which `choice.choose` keeps the most.
    """
    found = [answered(record, answers[record.run_id]) if record.run_id in answers else record for record in records]
    students = {own.student for own in answers.values()}
    measured = {each.config.recipe.get("probe") for each in records if each.config.inputs.get("start") in students}
    asked = [probe for probe in PROBES if probe not in measured]
    of_text = {
        record.config.corpus.fingerprint: answers[record.run_id] for record in records if record.run_id in answers
    }
    for record in records:
        own = answers.get(record.run_id)
        like = own or of_text.get(record.config.corpus.fingerprint)
        if like is not None and (own or record.summary.diverged) and record.config.recipe.get("probe") == "train":
            found += [asked_instead(record, probe, like, own) for probe in asked]
    return found


def asked_instead(record: Record, probe: str, like: Answers, own: Answers | None) -> Record:
    """What stands for the probe's record of a training; without a number of one that has no answers of its own."""
    found = None if own is None else own.of(probe)
    metrics: dict[str, float | None] = {} if found is None else dict(found.counterparts())
    summary = Summary(metrics=metrics, diverged=own is None)
    return Record(config=asking(record.config, probe, like.of(probe)), summary=summary, answers=found)


def answered(record: Record, own: Answers) -> Record:
    """The record with what its answers give: metrics, and which items were right."""
    metrics = {**record.summary.metrics, **own.metrics()}
    return record.model_copy(update={"summary": record.summary.model_copy(update={"metrics": metrics}), "answers": own})


def asking(config: Config, probe: str, answers: Answers) -> Config:
    """As the probe's record would have it; what was asked is part of it, so that different items never meet."""
    said = {"tasks": answers.told(), "items": {name: task.data for name, task in answers.tasks.items()}}
    numerics = {f"at hand.{part}": number for part, number in answers.numerics.items()}
    return config.model_copy(
        update={
            "recipe": {**config.recipe, "probe": probe},
            "changed": {**config.changed, "probe": probe},
            "settings": {**config.settings, **said},
            "numerics": {**config.numerics, **numerics},
        }
    )
