"""Tasks at hand: what a student answered at the end of its training, where the papers' own tasks are not measured.

A training's record holds the answers in a file of their own (`answers.json`). They fill a table's columns of downstream
tasks as a probe's record would, each task in the place of its counterpart, unless such a record is there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

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
    "openbookqa": "docstring",
    "nq_open": "signature",
    "triviaqa": "signature",
    "boolq": "pairs",
    "gsm8k": "sums",
    "ifeval": "instruct",
}
# SALT's domains -> the task, or the kind of one, that stands for each: what a call looks like is known or not, a
# function is read, a text goes on, one word is right or wrong, a line is written as told, a program has a structure
DOMAINS = {
    "world_knowledge": "signature",
    "reading_comprehension": "docstring",
    "commonsense": "next_line",
    "superglue": "pairs",
    "nlg": "instruct",
    "mbpp": "pairs_indentation",
}
# probes that ask them (`replication/experiment/suites.py`), as far as columns of exhibits name them
PROBES = ("zero_shot", "zero_shot_sekd", "ifeval_sekd", "one_shot_salt")
BY_STEP = "by_step"  # a training's curve of what was measured on the way
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
        theirs = {"average": "average", **STANDS_FOR, **DOMAINS}
        return super().behind(f"tasks_{theirs[metric]}" if metric in theirs else metric)

    def metrics(self) -> dict[str, float]:
        """`tasks_<name>` and what stands beside it, and `tasks_average` over the tasks."""
        each = {
            f"tasks_{name}{what}": value for name, task in self.tasks.items() for what, value in task.beside().items()
        }
        parts = {f"tasks_{name}": part.accuracy for name, part in self.parts.items()}
        return each | parts | {f"tasks_average{what}": value for what, value in self.average().items()}

    def average(self) -> dict[str, float]:
        """The mean accuracy over the tasks, its interval over items, and the mean of guessing; nothing where the text
        gave no task."""
        tasks = list(self.tasks.values())
        if not tasks:
            return {}
        value = sum(task.accuracy for task in tasks) / len(tasks)
        variance = sum(task.accuracy * (1 - task.accuracy) / task.rows for task in tasks)
        half = NORMAL * math.sqrt(variance) / len(tasks)
        chance = sum(task.chance for task in tasks) / len(tasks)
        return {"": value, "_low": value - half, "_high": value + half, "_chance": chance}

    def counterparts(self) -> dict[str, float]:
        """The metrics of a probe of the papers' tasks, of ours that stand for them."""
        found = {f"average{what}": value for what, value in self.average().items()}
        for theirs, ours in STANDS_FOR.items():
            if ours in self.tasks:
                found |= {f"{theirs}{what}": value for what, value in self.tasks[ours].beside().items()}
        each = self.metrics()
        return found | {name: each[f"tasks_{ours}"] for name, ours in DOMAINS.items() if f"tasks_{ours}" in each}

    def told(self) -> str:
        """For a table's header."""
        words = [f"{name.replace('_', ' ')} ({task.rows:,})" for name, task in self.tasks.items()]
        return f"at hand, made of held-out text: {', '.join(words)}; 0-shot; lm_eval {self.harness}"


def with_answers(
    records: list[Record],
    answers: dict[str, Answers],
    on_the_way: Mapping[str, Mapping[int, Answers]] = MappingProxyType({}),
) -> list[Record]:
    """The records of one folder, trainings with the metrics of their answers (by run id), and what stands for probes
    of the papers' tasks: for a training that diverged among others that answered, a record without a number.

    Nothing stands for a probe that asked some of these weights: the papers' tasks go first. Those that asked weights
    of before are other records, of which `choice.choose` keeps the most.
    """
    records = [
        record.model_copy(update={"on_the_way": on_the_way[record.run_id]}) if record.run_id in on_the_way else record
        for record in records
    ]
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
                record.model_copy(
                    update={"config": asking(record.config, probe, like), "summary": summary, "answers": own}
                )
                for probe in asked
            ]
    return found


def standing(record: Record, share: float | None) -> Record:
    """The record as its training stood after this share of its steps; without metrics where nobody looked then."""
    steps = record.config.settings.get("steps")
    if share is None or steps is None or (step := max(1, round(share * steps))) == steps:  # as training/monitor.py
        return record
    curve, own = record.summary.curves.get(BY_STEP, {}), record.on_the_way.get(step)
    metrics: dict[str, float | None] = {}
    if record.config.recipe.get("probe") == "train" and step in curve.get("step", []):
        place = curve["step"].index(step)
        metrics = {name: values[place] for name, values in curve.items()}
    if isinstance(own, Answers):
        metrics |= own.metrics() if record.config.recipe.get("probe") == "train" else own.counterparts()
    summary = record.summary.model_copy(update={"metrics": metrics})
    return record.model_copy(update={"summary": summary, "answers": own})


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
