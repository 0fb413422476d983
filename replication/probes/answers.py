"""What a student answers to the five instruction sets, how near the true answers, and what a judge says of both.

RS-KD App. E.3 and Table 9; only the judge is the paper's, Rouge-L is Gu et al.'s (2023), and needs none.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

from replication.evaluate.judged.answers import SEEDS, Answer, answers, folder_of, rouge_l
from replication.evaluate.judged.asking import Errand, Judge, ask, errand, this_judge
from replication.evaluate.judged.judge import ORDERS, Pair, totals, verdict
from replication.evaluate.judged.questions import questions, questions_ready
from replication.evaluate.judged.ratings import Ratings
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
            yield name, seed, answers(student, data.tokenizer, name, asked, seed_for(run.seed, seed), folder)


def of_answers(run: Run, data: Data, machine: Machine) -> tuple[dict[str, float], dict[str, Any]]:
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


def judged(run: Run, data: Data, machine: Machine) -> tuple[dict[str, float], dict[str, Any]]:
    """See `judge.totals`; `average` over the five sets, where all are at hand; `unrated`, the share of pairs that the
    judge gave no two numbers for. Curves: `answers`, and `spent`, tokens of the judge.

    ValueError, one line, without a judge, and when it fails: what it rated until then is kept.
    """
    judge, found = this_judge(), list(answered(run, data, machine))
    pairs, prompts = asked_of(found, judge)
    with Ratings(log_of(run, machine)) as log:
        ask(judge, prompts, log)
        known = log.found
    rated = []
    for pair in pairs:
        scores = {order: known[pair.key(order, judge.model)].scores for order in ORDERS}
        given = {order: both for order, both in scores.items() if both is not None}
        if len(given) == len(ORDERS):
            rated.append((pair, verdict(given)))
    metrics = totals(rated) | {"unrated": 1 - len(rated) / len(pairs)}
    if all(name in metrics for name in INSTRUCTION_SETS):
        metrics["average"] = fmean(metrics[name] for name in INSTRUCTION_SETS)
    spent = [known[key] for key in prompts]
    tokens = {"read": [sum(each.tokens_in for each in spent)], "written": [sum(each.tokens_out for each in spent)]}
    return metrics, {"answers": counted(found), "spent": tokens}


def outstanding(run: Run, data: Data, machine: Machine, judge: Judge) -> Errand:
    """What a judge would still be asked of the run's answers, which are made where they lack; it is not asked."""
    _, prompts = asked_of(list(answered(run, data, machine)), judge)
    with Ratings(log_of(run, machine)) as log:
        return errand(prompts, log)


def asked_of(found: list[tuple[str, int, list[Answer]]], judge: Judge) -> tuple[list[Pair], dict[str, str]]:
    """The pairs to be rated, and a judge's prompts by their keys: each pair in both orders."""
    pairs = [
        Pair(name, seed, each.number, each.instruction, each.truth[0], each.answer)
        for name, seed, several in found
        for each in several
    ]
    return pairs, {pair.key(order, judge.model): pair.prompt(order) for pair in pairs for order in ORDERS}


def log_of(run: Run, machine: Machine) -> Path:
    return machine.artifacts / run.scale.name / "ratings" / f"{student_of(run).id}.jsonl"


def counted(found: list[tuple[str, int, list[Answer]]]) -> dict[str, list[Any]]:
    return {
        "set": [name for name, _, _ in found],
        "seed": [seed for _, seed, _ in found],
        "answers": [len(each) for _, _, each in found],
        "cut": [sum(answer.cut for answer in each) for _, _, each in found],
    }
