"""What a judge says of a student's answers to the five instruction sets (RS-KD App. E.3 and Table 9)."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

from replication.evaluate.judged.answers import Answer
from replication.evaluate.judged.asking import Errand, Judge, ask, errand, this_judge
from replication.evaluate.judged.judge import ORDERS, Pair, totals, verdict
from replication.evaluate.judged.questions import questions_ready
from replication.evaluate.judged.ratings import Ratings
from replication.experiment.run import Run, student_of
from replication.experiment.suites import INSTRUCTION_SETS
from replication.machine.device import Machine
from replication.probes.answers import answered, counted
from replication.training.run_data import Data


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


def ready(run: Run) -> None:
    questions_ready()
