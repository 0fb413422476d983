"""A language small enough to write down every sequence of it, and SALT's quantities on it.

A language model is a table [V + 1, V] of chances: row 0 for the first token, row 1 + v for what follows token v. What
depends on a sequence x_1 ... x_T is an array with T axes of length V: every expectation is a sum.
"""

from __future__ import annotations

import numpy as np

from paper_tables.equations.calculus import powered
from paper_tables.equations.equation import Array

SAMPLES = 3  # training sequences

Table = tuple[tuple[float, ...], ...]

COIN: Table = ((0.5, 0.5), (0.9, 0.1), (0.2, 0.8))
LEANING: Table = ((0.7, 0.3), (0.6, 0.4), (0.5, 0.5))
STUDENT: Table = ((0.6, 0.4), (0.7, 0.3), (0.1, 0.9))
SURE: Table = ((0.99, 0.01), (0.5, 0.5), (0.001, 0.999))
# a truth with tokens that never occur
RULED: Table = ((1.0, 0.0), (0.3, 0.7), (1.0, 0.0))
THREE: Table = ((0.2, 0.3, 0.5), (0.1, 0.1, 0.8), (0.3, 0.3, 0.4), (0.0, 0.5, 0.5))
EVEN: Table = ((0.4, 0.3, 0.3),) * 4
LANGUAGES = tuple(
    {"truth": truth, "teacher": teacher, "student": student, "omega": omega, "rho": rho, "length": length}
    for truth, teacher, student, omega, rho, length in (
        (COIN, LEANING, STUDENT, 0.667, 0.25, 2),
        (COIN, LEANING, STUDENT, 0.0, 1.0, 3),
        (COIN, SURE, LEANING, 1.0, 2.0, 3),
        (RULED, LEANING, SURE, 0.5, 0.25, 3),
        (THREE, EVEN, EVEN, 0.667, 1.0, 2),
        (COIN, COIN, STUDENT, 0.3, 1.0, 1),
    )
)


def chances(truth: Array, length: int) -> Array:
    """The chance of every sequence."""
    product = truth[0]
    for _ in range(length - 1):
        product = product[..., None] * truth[1:]
    return product


def per_token(student: Array, teacher: Array, omega: float, rho: float) -> Array:
    """(1 - omega) CE(one-hot) + omega CE(teacher ** rho) for each token after each context, [V + 1, V]; Eq. 1 to 4."""
    soft = -(powered(teacher, rho) * np.log(student)).sum(1, keepdims=True)
    return (1 - omega) * -np.log(student) + omega * soft


def summed(table: Array, length: int) -> Array:
    """The sum along every sequence of a table's entries."""
    total = table[0]
    for _ in range(length - 1):
        total = total[..., None] + table[1:]
    return total


def losses(student: Array, teacher: Array, omega: float, rho: float, length: int) -> Array:
    """l^omega of every sequence."""
    return summed(per_token(student, teacher, omega, rho), length) / length


def known(values: Array, weights: Array, tokens: int) -> Array:
    """E[values | the first `tokens` tokens], as an array that broadcasts; 0 where these tokens never occur."""
    unseen = tuple(range(tokens - weights.ndim, 0))  # from the end: `values` may have axes of its own in front
    mass = weights.sum(unseen, keepdims=True)
    return (weights * values).sum(unseen, keepdims=True) / np.where(mass > 0, mass, 1)


def differences(values: Array, weights: Array) -> list[Array]:
    """xi_1 ... xi_T of Eq. 8 for every sequence; 0 for sequences that never occur."""
    steps = [known(values, weights, t - 1) - known(values, weights, t) for t in range(1, values.ndim + 1)]
    return [np.where(weights > 0, step, 0.0) for step in steps]


def bounds(values: Array, weights: Array) -> tuple[float, list[float]]:
    """The least C and V_1 ... V_T that Eq. 9 allows."""
    steps = differences(values, weights)
    return (
        max(float(abs(step).max()) for step in steps),
        [float(known(step**2, weights, t).max()) for t, step in enumerate(steps)],
    )


def contexts(truth: Array, length: int) -> Array:
    """How often each row of the table is used, averaged over the positions of a sequence, [V + 1]."""
    use = np.zeros(len(truth))
    use[0], token = 1, truth[0]
    for _ in range(length - 1):
        use[1:] += token
        token = token @ truth[1:]
    return use / length


def risk(student: Array, truth: Array, teacher: Array, omega: float, rho: float, length: int) -> float:
    """R^omega, the expected loss; R at omega = 0."""
    return float((chances(truth, length) * losses(student, teacher, omega, rho, length)).sum())


def distance(truth: Array, teacher: Array, rho: float, length: int) -> float:
    """The mean over positions of E[TV(teacher ** rho, truth)]."""
    return float(contexts(truth, length) @ (abs(powered(teacher, rho) - truth).sum(1) / 2))


def sums(values: Array, weights: Array, sequences: int) -> tuple[Array, Array]:
    """The sum of `values` over every sample of so many independent sequences, and the chance of the sample."""
    total, chance = np.zeros(1), np.ones(1)
    for _ in range(sequences):
        total = (total[:, None] + values.ravel()).ravel()
        chance = (chance[:, None] * weights.ravel()).ravel()
    return total, chance
