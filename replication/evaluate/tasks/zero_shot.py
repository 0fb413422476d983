"""Zero- and few-shot tasks: prompts, examples and scores are those of EleutherAI's harness (RS-KD App. E.1)."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from replication.evaluate.calibration import Calibration
from replication.evaluate.tasks.harness import reader
from replication.evaluate.tasks.task_data import specification, unreachable
from replication.experiment.suites import METRICS, Suite
from replication.seeds import generator

NORMAL = 1.959964  # 95 %


@dataclass(frozen=True)
class Score:
    """One task's result; shares are fractions."""

    task: str
    accuracy: float  # by the task's metric in METRICS
    rows: int
    of: int  # rows of the whole task
    chance: float  # of guessing among a row's choices; 0 where there is no choice
    cut: float  # share of rows whose prompt or choices are longer than the model reads
    data: str  # 16 hex digits of all prompts and answers
    others: dict[str, float]  # all that the harness says of the task
    calibration: Calibration | None  # of the choices, or of LAMBADA's words; by row

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(self.accuracy, self.rows)


def scores(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    suite: Suite,
    rows: int | None,
    folder: Path | None,
    artifacts: Path,
    autocast: bool = False,
) -> list[Score]:
    """Every task of the suite, on `rows` of its rows (None: all), drawn once for all models.

    `folder` holds the tasks' data (task_data.py); None: the Hugging Face hub. ValueError, one line, where the data or
    a package that a task needs cannot be had.
    """
    from lm_eval.evaluator import evaluate
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # else a line for every prompt that is cut
    manager = TaskManager(include_defaults=False)
    tasks: dict[str, Any] = {}
    for name in suite.tasks:
        with unreachable(name):
            tasks |= manager.load([str(specification(name, suite.shots, folder, artifacts))])["tasks"]
    for task in tasks.values():
        task.set_fewshot_seed(1234)  # the harness's default
    sizes = {name: len(task.eval_docs) for name, task in tasks.items()}
    for name, task in tasks.items():
        if rows is not None and rows < sizes[name]:
            # not by `samples` of evaluate(), which walks through all rows several times
            split = task.config.test_split or task.config.validation_split
            task.dataset[split] = task.dataset[split].select(drawn(name, sizes[name], rows))
    student = reader(model, tokenizer, autocast)
    found = evaluate(student, {"tasks": tasks}, bootstrap_iters=0)
    return [scored(name, task, sizes[name], found, student) for name, task in tasks.items()]


def drawn(task: str, size: int, rows: int) -> list[int]:
    """Not the first rows: HellaSwag's are of one kind."""
    return sorted(torch.randperm(size, generator=generator(0, "task rows", task))[:rows].tolist())


def scored(name: str, task: Any, size: int, found: Any, student: Any) -> Score:
    metric, choices = METRICS[name], task.OUTPUT_TYPE == "multiple_choice"
    samples = [sample for sample in found["samples"][name] if sample["filter"] == metric.partition(",")[2]]
    others = {key: float(value) for key, value in found["results"][name].items() if isinstance(value, int | float)}
    read = "".join(sample["prompt_hash"] + sample["target_hash"] for sample in samples)
    calibration = None
    if choices:
        calibration = of_choices(samples)
    elif task.OUTPUT_TYPE == "loglikelihood":
        calibration = of_words([sample["arguments"][0] for sample in samples], student)
    return Score(
        task=name,
        accuracy=others[metric],
        rows=len(samples),
        of=size,
        chance=sum(1 / len(sample["filtered_resps"]) for sample in samples) / len(samples) if choices else 0.0,
        cut=sum(any(words_of(request) in student.cut for request in each["arguments"]) for each in samples)
        / len(samples),
        data=hashlib.sha256(read.encode()).hexdigest()[:16],
        others=others,
        calibration=calibration,
    )


def words_of(request: Sequence[Any]) -> tuple[str, ...]:
    return tuple(part for part in request if isinstance(part, str))


def of_choices(samples: list[Any]) -> Calibration:
    """A choice's probability is its share of the probabilities that the model gives the row's choices."""
    found = Calibration(len(samples))
    for row, sample in enumerate(samples):
        nats_C = torch.tensor([nats for nats, _ in sample["filtered_resps"]], dtype=torch.float64)
        found.add(nats_C.softmax(0).max()[None], torch.tensor([sample["acc"]]), torch.tensor([row]))
    return found


@torch.no_grad()
def of_words(pairs: list[tuple[str, str]], student: Any) -> Calibration:
    """Of the likeliest token at each token of the answers, [context, answer] pairs in one row each."""
    found, reach = Calibration(len(pairs)), student.max_length
    encoded = [student._encode_pair(*pair) for pair in pairs]
    order = sorted(range(len(pairs)), key=lambda row: len(encoded[row][0]) + len(encoded[row][1]))
    for start in range(0, len(order), student.batch_size):
        batch = order[start : start + student.batch_size]
        tokens = [torch.tensor((encoded[row][0] + encoded[row][1])[-reach - 1 :]) for row in batch]
        padded_BL = torch.nn.utils.rnn.pad_sequence([each[:-1] for each in tokens], batch_first=True)
        logits_BLV = student._model_call(padded_BL.to(student.device)).float()
        for row, whole_L, logits_LV in zip(batch, tokens, logits_BLV, strict=True):
            answer = min(len(encoded[row][1]), len(whole_L) - 1)
            top = logits_LV[len(whole_L) - 1 - answer : len(whole_L) - 1].softmax(-1).max(-1)
            correct_N = top.indices.cpu() == whole_L[-answer:]
            found.add(top.values.cpu(), correct_N, torch.full((answer,), row))
    return found


def wilson(share: float, rows: int) -> tuple[float, float]:
    """95 % interval of a share of independent rows (Wilson 1927)."""
    spread = NORMAL**2 / rows
    middle = (share + spread / 2) / (1 + spread)
    half = NORMAL / (1 + spread) * math.sqrt(share * (1 - share) / rows + spread / (4 * rows))
    return max(0.0, middle - half), min(1.0, middle + half)


def summary(found: list[Score], suite: Suite) -> tuple[dict[str, float], dict[str, Any]]:
    """Metrics: each task's accuracy under its name, and their `average`; `_low` and `_high`, 95 % over rows, and
    `_chance` beside each; `_ece` and, for LAMBADA, `_perplexity`; `average_log10`, the mean of the decimal logarithms.

    Curves: `tasks`, all that decided them, and `reliability_<task>`.
    """
    metrics: dict[str, float] = {}
    for score in found:
        low, high = score.interval
        metrics |= beside(score.task, score.accuracy, low, high, score.chance)
        if score.calibration is not None:
            metrics[f"{score.task}_ece"] = score.calibration.error()
        if "perplexity,none" in score.others:
            metrics[f"{score.task}_perplexity"] = score.others["perplexity,none"]
    mean = sum(score.accuracy for score in found) / len(found)
    half = NORMAL * math.sqrt(sum(score.accuracy * (1 - score.accuracy) / score.rows for score in found)) / len(found)
    chance = sum(score.chance for score in found) / len(found)
    metrics |= beside("average", mean, mean - half, mean + half, chance)
    logarithms = [math.log10(score.accuracy) if score.accuracy else -math.inf for score in found]
    metrics["average_log10"] = sum(logarithms) / len(found)
    tasks = {
        "task": [score.task for score in found],
        "metric": [METRICS[score.task] for score in found],
        "shots": [suite.shots for _ in found],
        "rows": [score.rows for score in found],
        "of": [score.of for score in found],
        "cut": [score.cut for score in found],
        "data": [score.data for score in found],
        "harness": [version("lm_eval") for _ in found],
        "others": [score.others for score in found],
        "ece_interval": [None if score.calibration is None else score.calibration.interval() for score in found],
    }
    reliability = {f"reliability_{s.task}": s.calibration.curve() for s in found if s.calibration is not None}
    return metrics, {"tasks": tasks, **reliability}


def beside(name: str, value: float, low: float, high: float, chance: float) -> dict[str, float]:
    return {name: value, f"{name}_low": low, f"{name}_high": high, f"{name}_chance": chance}
