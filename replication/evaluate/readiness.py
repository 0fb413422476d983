"""Whether what a run will be measured with is at hand: said before it runs, not after."""

from __future__ import annotations

from replication.evaluate.judged.questions import questions_ready
from replication.evaluate.tasks.task_data import ready
from replication.experiment.run import Run
from replication.experiment.suites import SUITES


def refuse_unready(run: Run) -> None:
    """Raises ValueError now for what would go wrong later: unknown roles, budgets, lengths, task data, a judge."""
    run.settings()
    if run.recipe.probe in SUITES:
        ready(SUITES[run.recipe.probe].tasks)
    if run.recipe.probe in ("answers", "judged"):
        questions_ready()
