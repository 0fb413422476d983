"""Monitor: how a student stands on held-out text while it trains."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from transformers import PreTrainedModel

from replication.evaluate.language_model import tallied
from replication.experiment.lineage import AtItsEnd, Untuned
from replication.experiment.run import Run
from replication.machine.device import Machine
from replication.records.record import EVALUATIONS, Record
from replication.training.run_data import Data

WATCHED = ("lm_loss", "accuracy", "ece")


def watched_steps(run: Run) -> frozenset[int]:
    """After which steps the student is evaluated, beside the end: the scale's shares of training and its role's."""
    return at_shares(run, run.scale.evaluate_at) | asked_steps(run)


def asked_steps(run: Run) -> frozenset[int]:
    """After which of them it also answers the scale's tasks."""
    whole = isinstance(run.recipe.tuning, Untuned) and isinstance(run.recipe.stop, AtItsEnd)
    return at_shares(run, run.role.asked_at) if whole else frozenset()


def at_shares(run: Run, shares: Iterable[float]) -> frozenset[int]:
    return frozenset(max(1, round(share * run.steps)) for share in shares) - {run.steps}


def standing(student: PreTrainedModel, run: Run, data: Data, machine: Machine) -> dict[str, float]:
    """Held-out loss (nats per token), next-token accuracy and ECE (fractions) of a student under way."""
    tally = tallied(student, None, data.validation, run.scale.evaluation_sequences, data.tokenizer.vocabulary, machine)
    found = tally.metrics()
    return {key: found[key] for key in WATCHED}


def by_step(record: Record, end: dict[str, float] | None = None) -> dict[str, dict[str, list[Any]]]:
    """The curve of all that was evaluated on the way, and at the `end` (`step`, `tokens` and metrics)."""
    lines = [*record.lines(EVALUATIONS), *([end] if end else [])]
    return {"by_step": {key: [line[key] for line in lines] for key in ("step", "tokens", *WATCHED)}} if lines else {}
