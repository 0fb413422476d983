"""What a recipe would cost at the sizes of its scale: computed by the cost model, nothing is run.

SALT's Table 20 and SE-KD's Table 6 are such computations.
"""

from __future__ import annotations

from typing import Any

from replication.cost.flops import Cost, bytes_per_token
from replication.cost.methods import petaflops_per_million
from replication.experiment.run import Run


def cost(run: Run) -> tuple[dict[str, float], dict[str, Any]]:
    """Steps and stores.

    `step_ratio`: FLOPs of a step with the teacher's pass over those of one without; `step_ratio_recomputed`: where
    backward runs the student's forward again, so that a step is four of them and not three. `plain_steps`: all steps
    in units of those without a teacher, `kd_steps` of which have one. A store of the target: `unique_classes` and
    `bytes_per_token`, and `terabytes` in all. `petaflops_per_million` tokens: of all that the method runs.
    """
    of = Cost(run)
    ratio = 1 + of.teacher_step.flops / of.own_step.flops if of.asks_teacher else 1.0
    kept = run.recipe.target.budget(of.student.classes).mean
    metrics = {
        "parameters": of.student.parameters,
        "step_ratio": ratio,
        "step_ratio_recomputed": 1 + (ratio - 1) * 3 / 4,
        "kd_steps": of.taught,
        "plain_steps": run.steps + of.taught * (ratio - 1),
        "unique_classes": kept,
        "bytes_per_token": bytes_per_token(run.recipe.target, kept, of.student.classes),
        "terabytes": of.stored_bytes(kept) / 1e12,
        "petaflops_per_million": petaflops_per_million(of),
    }
    return {key: float(value) for key, value in metrics.items()}, {}
