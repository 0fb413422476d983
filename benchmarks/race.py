"""Contenders one after another, round after round, so that whatever else the machine does it does to all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

Clock = Callable[[], float]
LEAST, MOST = 3, 40  # rounds


@dataclass(frozen=True)
class Contender:
    """`step` does its work once, or `units` times over; what it returns is dropped before the next one starts."""

    name: str
    step: Callable[[], object]
    units: int = 1


def nothing() -> None:
    pass


def race(
    contenders: Sequence[Contender],
    seconds: float,
    settle: Callable[[], object] = nothing,
    finish: Callable[[], object] = nothing,
    clock: Clock = time.perf_counter,
    warm: bool = True,
) -> dict[str, list[float]]:
    """Seconds of a unit, by contender and round; rounds until `seconds` are spent, at least LEAST.

    `settle` runs before each step, unmeasured; `finish` after it, measured: it waits for a GPU. Each round has an order
    of its own: what one leaves behind, freed memory say, is not always the same one's to find. `warm`: a first round
    is not counted.
    """
    began = clock()
    if warm:
        for contender in contenders:
            contender.step()
            finish()
    orders = np.random.default_rng(0)
    found: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    assert len(found) == len(contenders), "two contenders of one name"
    for done in range(MOST):
        if done >= LEAST and clock() - began >= seconds:
            break
        for place in orders.permutation(len(contenders)):
            contender = contenders[place]
            settle()
            start = clock()
            contender.step()
            finish()
            found[contender.name].append((clock() - start) / contender.units)
    return found


@dataclass(frozen=True)
class Spread:
    """Median, 10th and 90th percentile."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    low, median, high = np.percentile(values, [10, 50, 90])
    return Spread(float(median), float(low), float(high))


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Of the pairs: what stands in one round was measured side by side."""
    return spread([one / other for one, other in zip(ours, theirs, strict=True)])
