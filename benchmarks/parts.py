"""The parts: each yields its groups as they are done."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from benchmarks import cache, draw, heads, loss, training, writing
from benchmarks.effort import Effort
from benchmarks.result import Group

PARTS: dict[str, Callable[[Effort], Iterator[Group]]] = {
    "loss": loss.groups,
    "heads": heads.groups,
    "draws": draw.groups,
    "cache": cache.groups,
    "training": training.groups,
    "writing": writing.groups,
}
