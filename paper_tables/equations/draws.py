"""What can be drawn, every sequence of draws with its chance: expectations without random numbers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from paper_tables.equations.calculus import powered
from paper_tables.equations.equation import Array

Estimate = Callable[[Array, tuple[int, ...], float], Array]  # of the teacher, from draws and the proposal's exponent


def sequences(chances: Array, draws: int) -> Iterator[tuple[tuple[int, ...], float]]:
    """Every sequence of ids that can be drawn with replacement, and its chance."""
    for drawn in itertools.product(np.flatnonzero(chances).tolist(), repeat=draws):
        yield drawn, float(np.prod(chances[list(drawn)]))


def expectation(value: Callable[[tuple[int, ...]], Any], chances: Array, draws: int) -> Any:
    return np.sum([chance * value(drawn) for drawn, chance in sequences(chances, draws)], axis=0)


def counts(drawn: tuple[int, ...], classes: int) -> Array:
    return np.bincount(drawn, minlength=classes)


def ratios(teacher: Array, drawn: tuple[int, ...], tau: float) -> Array:
    """The sum over draws of teacher / proposal on the drawn class, proposal = teacher ** tau normalised."""
    return (
        counts(drawn, len(teacher))
        * np.where(teacher > 0, teacher, 0)
        / np.where(teacher > 0, powered(teacher, tau), 1)
    )


def normalised(teacher: Array, drawn: tuple[int, ...], tau: float) -> Array:
    """RS-KD Section 4: the ratios divided by their own sum."""
    summed = ratios(teacher, drawn, tau)
    return summed / summed.sum()


def by_number(teacher: Array, drawn: tuple[int, ...], tau: float) -> Array:
    """The plain importance-sampling estimate: the ratios divided by the number of draws."""
    return ratios(teacher, drawn, tau) / len(drawn)


def variance(estimate: Estimate, teacher: Array, tau: float, draws: int) -> float:
    """Variance of the estimated probabilities, summed over classes."""
    proposal = powered(teacher, tau)
    mean = expectation(lambda drawn: estimate(teacher, drawn, tau), proposal, draws)
    return float(expectation(lambda drawn: ((estimate(teacher, drawn, tau) - mean) ** 2).sum(), proposal, draws))
