"""What a target costs to keep, from real bytes where there is a cache (RS-KD Section 5.5, Table 5)."""

from __future__ import annotations

from typing import Any

from replication.axes.targets.kept import Full
from replication.cache.stats import stats
from replication.cache.verify import refuse_damaged
from replication.experiment.run import Run
from replication.machine.device import Machine
from replication.training.needs import Need
from replication.training.run_data import Data


def storage(run: Run, data: Data, machine: Machine) -> tuple[dict[str, float], dict[str, Any]]:
    """Classes per position, bytes per class and per position, terabytes per 100B tokens.

    Sparse targets: everything on disk over the positions it covers. The full distribution is never cached: one byte a
    class, as Table 5 counts it. The one-hot target is the tokenised text itself.
    """
    metrics: dict[str, float]
    if run.recipe.cached:
        refuse_damaged(Need(run).folder(machine))
        found = stats(Need(run).folder(machine))
        wanted = ("unique_classes", "bytes_per_class", "bytes_per_token")
        metrics = {key: float(found[key]) for key in wanted}
    else:
        classes = float(data.tokenizer.vocabulary) if isinstance(run.recipe.target, Full) else 1.0
        each = 1.0 if isinstance(run.recipe.target, Full) else float(data.train.tokens_T.dtype.itemsize)
        metrics = {"unique_classes": classes, "bytes_per_class": each, "bytes_per_token": classes * each}
    return {**metrics, "terabytes_per_100B_tokens": metrics["bytes_per_token"] * 100e9 / 1e12}, {}
