"""What a recipe's loss would be at budgets that nobody trains: TAD Table 5, by the law of `evaluate/scaling_law.py`."""

from __future__ import annotations

from typing import Any

import numpy as np

from replication.cost.flops import Cost, Work
from replication.evaluate.language_model import tallied
from replication.evaluate.scaling_law import fitted
from replication.experiment.measurements import BEYOND, BUDGETS
from replication.experiment.run import Run, with_budget
from replication.machine.device import Machine
from replication.training.run_data import Data
from replication.training.weights import teacher_for, trained

# times the largest budget that is fitted, as TAD's 10B, 100B and 1T are of its 2B
AHEAD = (5, 50, 500)
RESAMPLES = 200


def ready(run: Run) -> None:
    """ValueError, one line, for a run without a teacher."""
    if run.recipe.teacher == "none":
        raise ValueError(
            f"Run {run.id} has no teacher (teacher = 'none'), and half of the loss is against it: name one."
        )


def work(cost: Cost) -> Work:
    """All students read the held-out rows beside the teacher."""
    return cost.evaluation * (len(BUDGETS) + 1)


def scaling(run: Run, data: Data, machine: Machine) -> tuple[dict[str, float], dict[str, Any]]:
    """The held-out loss of TAD's Eq. 1, cross-entropy to the text plus KL to the teacher, in nats a token.

    Each budget's student is one of the recipe, trained for that budget alone. `loss_times_<n>`: the law's loss at n
    times the largest fitted budget; `law_floor` and `law_exponent`; `loss_foretold` by the law at a larger budget,
    `loss_measured` there, and `foretold_off`, the one minus the other. `_low` and `_high`: 95 % over held-out
    sequences, drawn alike for all budgets, so they know nothing of another seed's students. Curve `law`: what was
    measured and fitted at each budget. ValueError where a student is not trained yet, or has diverged.
    """
    teacher, tokens, loss_PS = teacher_for(run, machine), list[int](), []
    for word in (*BUDGETS, BEYOND):
        each = with_budget(run, word)
        tokens.append(each.steps * each.role.optimiser.batch * each.length)
        rows = run.scale.evaluation_sequences
        found = tallied(trained(each, machine), teacher, data.validation, rows, data.tokenizer.vocabulary, machine)
        loss_PS.append(np.add(found.nats.values(), found.kl.values()))
    sequences = len(loss_PS[0])
    drawn_RS = np.random.default_rng(0).multinomial(sequences, np.full(sequences, 1 / sequences), RESAMPLES)
    mean_P, mean_RP = np.mean(loss_PS, 1), drawn_RS @ np.transpose(loss_PS) / sequences
    law = fitted(tokens[:-1], mean_P[:-1])
    laws = [fitted(tokens[:-1], mean_P[:-1], like=law) for mean_P in mean_RP]
    asked = {f"loss_times_{times}": times * tokens[-2] for times in AHEAD} | {"loss_foretold": tokens[-1]}
    metrics = {"loss_measured": float(mean_P[-1]), "foretold_off": law.at(tokens[-1]) - float(mean_P[-1])}
    metrics |= beside("law_floor", law.floor, [each.floor for each in laws])
    metrics |= beside("law_exponent", law.exponent, [each.exponent for each in laws])
    for name, budget in asked.items():
        metrics |= beside(name, law.at(budget), [each.at(budget) for each in laws])
    return metrics, {"law": {"tokens": tokens, "loss": mean_P.tolist(), "fitted": [law.at(each) for each in tokens]}}


def beside(name: str, value: float, resampled_R: list[float]) -> dict[str, float]:
    low, high = np.quantile(resampled_R, [0.025, 0.975])
    return {name: value, f"{name}_low": float(low), f"{name}_high": float(high)}
