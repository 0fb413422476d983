"""What a trained student answers in the papers' downstream tasks (RS-KD App. E.1 and Table 22; TAD, SE-KD, SALT)."""

from __future__ import annotations

from typing import Any

from replication.evaluate.tasks import task_data
from replication.evaluate.tasks.zero_shot import scores, summary
from replication.experiment.run import Run, student_of
from replication.experiment.suites import SUITES
from replication.machine.device import Machine
from replication.training.run_data import Data
from replication.training.weights import model_folder, trained


def zero_shot(run: Run, data: Data, machine: Machine) -> tuple[dict[str, float], dict[str, Any]]:
    """The suite that the recipe's probe names, on as many rows of each task as the scale says; see `summary`.

    In the scale's precision. ValueError, one line, where the student is not trained yet or
    task data cannot be had.
    """
    from transformers import PreTrainedTokenizerFast

    suite = SUITES[run.recipe.probe]
    task_data.ready(suite.tasks)
    student = trained(run, machine)
    # not AutoTokenizer, which splits as Qwen2 does beside a Qwen2, whatever the student was trained on
    tokenizer = PreTrainedTokenizerFast.from_pretrained(model_folder(student_of(run), machine))
    autocast = bool(machine.autocast)
    found = scores(student, tokenizer, suite, run.scale.task_rows, task_data.directory(), machine.artifacts, autocast)
    return summary(found, suite)


def ready(run: Run) -> None:
    task_data.ready(SUITES[run.recipe.probe].tasks)
