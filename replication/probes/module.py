"""A probe's module, found by the name in its `Measurement`: what it does, what that takes, what must be at hand.

It holds the deed, a function of the module's own name: `(run, data, machine) -> (metrics, curves)`, or `(run)` of what
is computed. And, where there is something to say: `work(cost)`, for a plan; `ready(run)`, which raises ValueError for
what would go wrong later; `material(run, machine)`, where it measures a run or a text other than the recipe's.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

from replication.cost.flops import Cost, Work
from replication.experiment.measurements import PROBES
from replication.experiment.run import Run
from replication.machine.device import Machine
from replication.training.run_data import Data, data_for
from replication.training.scores import scored


def module_of(probe: str) -> ModuleType:
    return import_module(f"replication.probes.{PROBES[probe].module}")


def deed_of(probe: str) -> Callable[..., tuple[dict[str, float], dict[str, Any]]]:
    deed: Callable[..., tuple[dict[str, float], dict[str, Any]]] = getattr(module_of(probe), PROBES[probe].module)
    return deed


def material(run: Run, machine: Machine) -> tuple[Run, Data]:
    """What the run's probe measures, of which text: those of the recipe, unless its module has others."""
    if own := getattr(module_of(run.recipe.probe), "material", None):
        found: tuple[Run, Data] = own(run, machine)
        return found
    return run, scored(run, data_for(run, machine.artifacts), machine)


def work(cost: Cost) -> Work:
    """Of the run's probe; none for one that only counts or computes."""
    own: Callable[[Cost], Work] = getattr(module_of(cost.run.recipe.probe), "work", lambda _: Work())
    return own(cost)


def refuse_unready(run: Run) -> None:
    """Raises ValueError now for what would go wrong later: unknown roles, budgets, lengths, task data, a judge."""
    run.settings()
    if run.recipe.probe in PROBES and (own := getattr(module_of(run.recipe.probe), "ready", None)):
        own(run)
