"""What a record could have seen, and how many seeds would see it.

An interval over n seeds decides a claim where it lies wholly inside the claimed region, or wholly outside. How often it
does follows from where the truth lies: the mean in standard errors is noncentral t. That is integrated here over the
spread that a record happens to find, since a region has two bounds. The true spread is known by that of the seeds at
hand only, of three seeds hardly at all, and this counts, too: of many pairs of records, of which the first says what
the second one sees, 80 % do see it (a predictive probability, or "assurance": O'Hagan, Stevens and Campbell 2005).
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtri, ndtr, stdtrit

from analysis.statistics import CERTAIN, CONFIDENCE, Estimate, satterthwaite

POWER = 0.8
MOST_SEEDS = 1000  # nobody runs more
NODES = 128  # quantiles of a spread: enough for three digits of a probability


def least_effect(found: Estimate, confidence: float = CONFIDENCE, both: bool = False) -> float:
    """The least distance of the truth from a bound that a record like this one sees, in the estimate's unit.

    both: of a truth in the middle between two bounds, the least distance to each.
    """
    return least_in_errors(found.freedom, confidence, both) * found.error


@lru_cache
def least_in_errors(freedom: float, confidence: float, both: bool) -> float:
    def enough(distance: float) -> bool:
        return power(distance, distance if both else math.inf, freedom, freedom, confidence) >= POWER

    low, high = 0.0, 1.0
    while not enough(high):
        low, high = high, 2 * high
    while high - low > 1e-3 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def seeds_needed(found: Estimate, below: float, above: float, confidence: float = CONFIDENCE) -> int | None:
    """How many seeds in all see a truth that lies `below` over the lower bound and `above` under the upper one.

    found: what the seeds at hand say of the spread. below, above: in its unit, infinite where there is no bound. None:
    more than MOST_SEEDS, or the truth is at a bound.
    """
    if min(below, above) <= 0:
        return None

    def enough(seeds: int) -> bool:
        of_seeds = (found.error**2 - found.of_items) * found.n / seeds
        error = math.sqrt(of_seeds + found.of_items)
        if error == 0:
            return True
        own_freedom = satterthwaite(of_seeds, found.of_items, found.over * (seeds - 1))
        return power(below / error, above / error, found.freedom, own_freedom, confidence) >= POWER

    low, high = 1, 2
    while not enough(high):
        if high == MOST_SEEDS:
            return None
        low, high = high, min(2 * high, MOST_SEEDS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def power(below: float, above: float, freedom: float, own_freedom: float, confidence: float = CONFIDENCE) -> float:
    """How often a record's interval lies between two bounds.

    below, above: how far the truth is over the lower and under the upper bound, in standard errors of the record, which
    are estimated beforehand with `freedom` degrees of freedom, and by the record itself with `own_freedom`.
    """
    half_S = float(stdtrit(own_freedom, (1 + confidence) / 2)) * spreads(own_freedom)
    true_T1 = spreads(freedom)[:, None]  # one over the true standard error, in units of the estimated one
    chance_TS = ndtr(above * true_T1 - half_S) - ndtr(half_S - below * true_T1)
    return float(np.maximum(chance_TS, 0).mean())


@lru_cache
def spreads(freedom: float) -> NDArray[np.float64]:
    """Standard deviation as estimated over the true one, at evenly spaced quantiles; [1] where it is known."""
    if freedom >= CERTAIN:
        return np.ones(1)
    upper = (np.arange(NODES) + 0.5) / NODES
    return np.sqrt(chdtri(freedom, upper) / freedom)
