"""How many of the same samples two selections take (SE-KD App. E, Figure 7)."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

from replication.axes.samples import SCORES, RandomSamples, Samples, TopSamples
from replication.experiment.run import Run
from replication.machine.device import Machine
from replication.training.run_data import Data, order_of
from replication.training.scores import scored


def overlap(run: Run, data: Data, machine: Machine) -> tuple[dict[str, float], dict[str, Any]]:
    """For each pair of signals, and of a signal and a random draw: the share of a selection that both have.

    `<one>_<other>`, and as a share of their union `<one>_<other>_of_union`; all at the recipe's share of its pool.
    """
    samples = run.recipe.samples
    assert isinstance(samples, TopSamples)
    ways: dict[str, Samples] = {signal: replace(samples, signal=signal) for signal in sorted(SCORES)}
    ways["random"] = RandomSamples(samples.keep, samples.pool)
    kept = {}
    for name, way in ways.items():
        asked = replace(run, recipe=replace(run.recipe, samples=way))
        kept[name] = set(order_of(asked, scored(asked, data, machine)).tolist())
    metrics = {}
    for one, other in combinations(ways, 2):
        both = len(kept[one] & kept[other])
        metrics[f"{one}_{other}"] = both / len(kept[one])
        metrics[f"{one}_{other}_of_union"] = both / len(kept[one] | kept[other])
    return metrics, {}


def ready(run: Run) -> None:
    if not isinstance(run.recipe.samples, TopSamples):
        raise ValueError(
            f"Probe 'overlap' compares what signals choose, and samples {type(run.recipe.samples).__name__} has none: "
            "give samples = { name = 'TopSamples', keep = ..., pool = ... }."
        )
