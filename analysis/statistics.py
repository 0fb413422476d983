"""Arrays over seeds in, estimates out.

scipy.special, not scipy.stats: the same t distribution, a second and a half less to import.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr, stdtrit

CONFIDENCE = 0.95
CERTAIN = 1e6  # degrees of freedom from which on a t distribution is a normal one


@dataclass(frozen=True)
class Estimate:
    """A mean over n seeds and its interval, which is unbounded for n = 1."""

    value: float
    low: float
    high: float
    n: int
    error: float = math.inf  # standard error of the value, and with how many degrees of freedom it is known
    freedom: float = 0.0
    of_items: float = 0.0  # the part of error**2 that more seeds would not lessen
    items: int = 0  # where the value is over items too, how many
    over: int = 1  # the spread of seeds is known with this many times n - 1 degrees of freedom

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2

    def p_greater(self, bound: float = 0.0) -> float:
        """One-sided p of the t-test for a true value above the bound; nan for one seed."""
        if self.n == 1:
            return math.nan
        if self.error == 0:
            return 0.0 if self.value > bound else 1.0
        return float(stdtr(self.freedom, (bound - self.value) / self.error))


def mean_interval(values: ArrayLike, confidence: float = CONFIDENCE) -> Estimate:
    """Mean and two-sided t-interval. Infinite values (diverged runs) give an infinite mean and no interval."""
    x = finite_or_diverged(values)
    mean = float(np.mean(x)) if np.isfinite(x).all() else mean_of_diverged(x)
    if len(x) == 1 or not math.isfinite(mean):
        return Estimate(mean, -math.inf, math.inf, len(x))
    error = standard_error(x)
    half = float(stdtrit(len(x) - 1, (1 + confidence) / 2)) * error
    return Estimate(mean, mean - half, mean + half, len(x), error, len(x) - 1)


def satterthwaite(part: float, rest: float, freedom: float) -> float:
    """Degrees of freedom of part + rest: `part` is a variance known with `freedom` of them, and `rest` is known."""
    return min(CERTAIN, freedom * ((part + rest) / part) ** 2) if part > 0 else CERTAIN


def equivalence(below: Estimate, above: Estimate, bound: float = 0.0) -> float:
    """p of the two one-sided tests (Schuirmann 1987) that both exceed the bound.

    below, above: how far a difference is over -margin and under margin; where the margin is measured seed by seed, its
    spread counts. With a margin that is a number: the difference and its negative, and -margin for the bound.
    """
    return max(below.p_greater(bound), above.p_greater(bound))


def welch_greater(mean_a: float, sd_a: float, n_a: int, mean_b: float, sd_b: float, n_b: int) -> float:
    """One-sided p of Welch's t-test for a > b from means, standard deviations and sizes (2 or more each).

    Two deviations of 0 (runs that agree to all printed digits) leave nothing to test with: 0.5.
    """
    if min(n_a, n_b) < 2:
        raise ValueError(f"Welch's test needs two runs or more on each side, got {n_a} and {n_b}.")
    a, b = sd_a**2 / n_a, sd_b**2 / n_b
    if a + b == 0:
        return 0.5
    freedom = (a + b) ** 2 / (a**2 / (n_a - 1) + b**2 / (n_b - 1))
    return float(stdtr(freedom, -(mean_a - mean_b) / math.sqrt(a + b)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) adjusted p-values, in the order given: the family-wise error stays at the level compared with."""
    adjusted, reached = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        reached = max(reached, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = reached
    return adjusted


@dataclass(frozen=True)
class Trend:
    """Per seed: slopes, the change per row (nan where a run diverged); spearman, the rank correlation."""

    slopes: NDArray[np.float64]
    spearman: NDArray[np.float64]


def trend(values_SR: ArrayLike) -> Trend:
    """Least-squares slope and Spearman correlation along R rows, for each of S seeds."""
    values = np.asarray(values_SR, dtype=float)
    if values.ndim != 2 or values.shape[1] < 2:
        raise ValueError(f"A trend needs at least two rows, got an array of shape {values.shape}.")
    place = np.arange(values.shape[1]) - (values.shape[1] - 1) / 2
    finite = np.isfinite(values).all(axis=1)
    slopes = np.full(len(values), math.nan)  # a diverged row has a rank and no slope
    slopes[finite] = values[finite] @ place / (place @ place)
    return Trend(slopes, np.array([spearman(seed, place) for seed in values]))


def spearman(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Rank correlation, ties at their mean rank; 0 where one side is constant."""
    x, y = ranks(a), ranks(b)
    x, y = x - x.mean(), y - y.mean()
    scale = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / scale if scale > 0 else 0.0


def ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    below = (values[None, :] < values[:, None]).sum(axis=1)
    same = (values[None, :] == values[:, None]).sum(axis=1)
    return below + (same + 1) / 2


@dataclass(frozen=True)
class PowerLaw:
    """y = factor * x ** exponent."""

    factor: float
    exponent: Estimate
    r_squared: float


def power_law(x: ArrayLike, y: ArrayLike, confidence: float = CONFIDENCE) -> PowerLaw:
    """Least squares on the logarithms; the exponent's interval from the residuals (n - 2 degrees of freedom)."""
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if x.shape != y.shape or len(np.unique(x)) < 2:
        raise ValueError(f"A power law needs pairs at two or more places, got {x.shape} and {y.shape}.")
    if (x <= 0).any() or (y <= 0).any() or not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("A power law needs finite values above 0.")
    log_x, log_y = np.log(x), np.log(y)
    centred = log_x - log_x.mean()
    slope = float(centred @ log_y / (centred @ centred))
    intercept = float(log_y.mean() - slope * log_x.mean())
    residual = log_y - intercept - slope * log_x
    total = float(((log_y - log_y.mean()) ** 2).sum())
    half = math.inf
    if len(x) > 2:
        error = math.sqrt(float(residual @ residual) / (len(x) - 2) / float(centred @ centred))
        half = float(stdtrit(len(x) - 2, (1 + confidence) / 2)) * error
    fit = 1 - float(residual @ residual) / total if total > 0 else 1.0
    return PowerLaw(math.exp(intercept), Estimate(slope, slope - half, slope + half, len(x)), fit)


def standard_error(x: NDArray[np.float64]) -> float:
    return float(np.std(x, ddof=1)) / math.sqrt(len(x))


def finite_or_diverged(values: ArrayLike) -> NDArray[np.float64]:
    x = at_least(1, values)
    if np.isnan(x).any():
        raise ValueError("Got NaN: a missing value is left out, a diverged one is infinite.")
    return x


def mean_of_diverged(x: NDArray[np.float64]) -> float:
    worse = set(x[np.isinf(x)])
    return float(worse.pop()) if len(worse) == 1 else math.nan


def at_least(n: int, values: ArrayLike) -> NDArray[np.float64]:
    x = np.asarray(values, dtype=float)
    if x.ndim != 1 or len(x) < n:
        raise ValueError(f"Needs one value per seed, {n} or more seeds; got an array of shape {x.shape}.")
    return x
