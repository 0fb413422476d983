"""What a student answers to the five instruction sets (RS-KD App. E.3), and how near that is to the true answers.

The judge of Table 9 is `judged.py`'s; Rouge-L is Gu et al.'s (2023), and needs none.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean
from typing import Any

from replication.evaluate.judged.answers import SEEDS, Answer, folder_of, rouge_l
from replication.evaluate.judged.answers import answers as given
from replication.evaluate.judged.questions import questions, questions_ready
from replication.experiment.run import Run, student_of
from replication.experiment.suites import INSTRUCTION_SETS
from replication.machine.device import Machine
from replication.seeds import seed_for
from replication.training.run_data import Data
from replication.training.weights import trained


def answered(run: Run, data: Data, machine: Machine) -> Iterator[tuple[str, int, list[Answer]]]:
    """(set, seed, answers) of every set at hand, five times; made where they are not there yet."""
    questions_ready()
    student = trained(run, machine)
    folder = folder_of(student, machine.artifacts / run.scale.name / "answers" / student_of(run).id)
    for name in INSTRUCTION_SETS:
        asked = questions(name, run.scale.task_rows)
        for seed in range(SEEDS if asked else 0):
            yield name, seed, given(student, data.tokenizer, name, asked, seed_for(run.seed, seed), folder)


def answers(run: Run, data: Data, machine: Machine) -> tuple[dict[str, float], dict[str, Any]]:
    """`rouge_l_<set>`, means over five answers a question, and `rouge_l`, their mean over the sets at hand; `ended`,
    the share of answers that the student ended by itself. Curves: `answers`, how many, and how many prompts were cut.
    """
    found = list(answered(run, data, machine))
    metrics = {
        f"rouge_l_{name}": fmean(rouge_l(each) for other, _, each in found if other == name)
        for name in dict.fromkeys(name for name, _, _ in found)
    }
    metrics["rouge_l"] = fmean(metrics.values())
    metrics["ended"] = fmean(answer.ended for _, _, each in found for answer in each)
    return metrics, {"answers": counted(found)}


def counted(found: list[tuple[str, int, list[Answer]]]) -> dict[str, list[Any]]:
    return {
        "set": [name for name, _, _ in found],
        "seed": [seed for _, seed, _ in found],
        "answers": [len(each) for _, _, each in found],
        "cut": [sum(answer.cut for answer in each) for _, _, each in found],
    }


def ready(run: Run) -> None:
    questions_ready()
