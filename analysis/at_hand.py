"""Tasks at hand: what a student answered at the end of its training, where the papers' own tasks are not measured.

A training's record holds the answers in a file of their own (`answers.json`). They fill a table's columns of downstream
tasks as a probe's record would, each task in the place of its counterpart, unless such a record is there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

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
    "piqa": "signature",
    "gsm8k": "sums",
    "ifeval": "instruct",
}
# TAD's other tasks -> the task, or the kind of one, that stands for each: the harder kind of what stands for ARC-Easy,
# a word that stands in the text before, the next line of four, what is done next
OF_TAD = {
    "arc_challenge": "docstring_docstring",
    "openbookqa": "last_word",
    "story": "next_line",
    "social_iqa": "pairs_keyword",
}
# probes that ask them (`replication/experiment/suites.py`), as far as columns of exhibits name them
PROBES = ("zero_shot", "zero_shot_sekd", "ifeval_sekd", "zero_shot_tad")
NORMAL = 1.959964  # 95 %


class Task(stored.Task):
    of: int
    chance: float
    low: float  # 95 % over items
    high: float
    ece: float | None = None
    perplexity: float | None = None
    kinds: dict[str, dict[str, float]] = Field(default_factory=dict)  # of a task that has several

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

    def behind(self, metric: str) -> Mapping[str, stored.Task]:
        """Also of the metrics of a probe of the papers' tasks, by what stands for them."""
        theirs = {"average": "average", **STANDS_FOR, **OF_TAD}
        return super().behind(f"tasks_{theirs[metric]}" if metric in theirs else metric)

    def metrics(self) -> dict[str, float]:
        """`tasks_<name>` and what stands beside it, and `tasks_average` over the tasks."""
        each = {
            f"tasks_{name}{what}": value for name, task in self.tasks.items() for what, value in task.beside().items()
        }
        return each | {f"tasks_average{what}": value for what, value in self.average().items()}

    def average(self) -> dict[str, float]:
        """The mean accuracy over the tasks, its interval over items, the mean of guessing, and the mean logarithm of
        the accuracy, -inf where a task has none right; nothing where the text gave no task."""
        tasks = list(self.tasks.values())
        if not tasks:
            return {}
        value = sum(task.accuracy for task in tasks) / len(tasks)
        variance = sum(task.accuracy * (1 - task.accuracy) / task.rows for task in tasks)
        half = NORMAL * math.sqrt(variance) / len(tasks)
        chance = sum(task.chance for task in tasks) / len(tasks)
        log10 = sum(math.log10(task.accuracy) if task.accuracy else -math.inf for task in tasks) / len(tasks)
        return {"": value, "_low": value - half, "_high": value + half, "_chance": chance, "_log10": log10}

    def counterparts(self) -> dict[str, float]:
        """The metrics of a probe of the papers' tasks, of ours that stand for them."""
        found = {f"average{what}": value for what, value in self.average().items()}
        for theirs, ours in STANDS_FOR.items():
            if ours in self.tasks:
                found |= {f"{theirs}{what}": value for what, value in self.tasks[ours].beside().items()}
        each = self.metrics()
        return found | {name: each[f"tasks_{ours}"] for name, ours in OF_TAD.items() if f"tasks_{ours}" in each}

    def told(self) -> str:
        """For a table's header."""
        words = [f"{name.replace('_', ' ')} ({task.rows:,})" for name, task in self.tasks.items()]
        return f"at hand, made of held-out text: {', '.join(words)}; 0-shot; lm_eval {self.harness}"


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
            summary = Summary(metrics=dict(own.counterparts()) if own else {}, diverged=own is None)
            found += [
                Record(config=asking(record.config, probe, like), summary=summary, answers=own) for probe in asked
            ]
    return found


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
