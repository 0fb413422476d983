"""SALT Proposition B.2, Theorem B.3 and Theorem 3.4: risk in excess of the best model's."""

from __future__ import annotations

import math

import numpy as np

from paper_tables.equations.calculus import powered
from paper_tables.equations.equation import Array, Equation
from paper_tables.equations.language import (
    COIN,
    EVEN,
    LANGUAGES,
    LEANING,
    RULED,
    SAMPLES,
    STUDENT,
    SURE,
    THREE,
    bounds,
    chances,
    contexts,
    distance,
    losses,
    risk,
    summed,
    sums,
)
from paper_tables.equations.salt_loss import to_mixed_target

CLASSES = (
    {"truth": COIN, "teacher": LEANING, "students": (STUDENT, SURE, LEANING), "omega": 0.667, "rho": 0.25, "length": 2},
    {"truth": RULED, "teacher": SURE, "students": (STUDENT, LEANING), "omega": 1.0, "rho": 1.0, "length": 3},
    {"truth": THREE, "teacher": EVEN, "students": (THREE[:1] + EVEN[1:], EVEN), "omega": 0.3, "rho": 2.0, "length": 1},
)
SCALED = tuple({"variance": v, "m": 2.0, "n": n, "growth": 40.0, "delta": 0.1} for v, n in ((0.3, 100), (0.0, 100)))

# Proposition B.2, Theorem 3.4


def mixed_with_truth(truth: Array, teacher: Array, student: Array, omega: float, rho: float) -> Array:
    """CE((1 - omega) truth + omega teacher ** rho, student) after each context."""
    mixed = (1 - omega) * truth + omega * powered(teacher, rho)
    return -(mixed * np.log(student)).sum(1)


def moved(truth: Array, teacher: Array, students: Array, omega: float, rho: float, length: int) -> float:
    """R - R^omega of the first model less that of the second."""
    first, second = (
        risk(student, truth, teacher, 0.0, rho, length) - risk(student, truth, teacher, omega, rho, length)
        for student in students[:2]
    )
    return first - second


def largest_log(students: Array) -> float:
    return float(abs(np.log(students)).max())


def trained(truth: Array, teacher: Array, students: Array, omega: float, rho: float, length: int) -> list[Array]:
    """For every sample that may be drawn: R_N^omega of each model, and the models' R^omega and R."""
    weights = chances(truth, length)
    averages = [
        sums(losses(student, teacher, omega, rho, length), weights, SAMPLES)[0] / SAMPLES for student in students
    ]
    population = [[risk(student, truth, teacher, each, rho, length) for student in students] for each in (omega, 0.0)]
    return [np.array(averages), *map(np.array, population)]


def excess(truth: Array, teacher: Array, students: Array, omega: float, rho: float, length: int) -> Array:
    """R of the model with the least training loss, less the least R, for every sample."""
    averages, _, plain = trained(truth, teacher, students, omega, rho, length)
    return plain[averages.argmin(0)] - plain.min()


def excess_bound(truth: Array, teacher: Array, students: Array, omega: float, rho: float, length: int) -> Array:
    averages, mixed, plain = trained(truth, teacher, students, omega, rho, length)
    chosen, best, every = averages.argmin(0), plain.argmin(), np.arange(averages.shape[1])
    bias = 4 * largest_log(students) * omega * distance(truth, teacher, rho, length)
    return bias + (mixed[chosen] - averages[chosen, every]) + (averages[best] - mixed[best])


def failures(
    truth: Array, teacher: Array, students: Array, omega: float, rho: float, length: int, delta: float
) -> float:
    """How likely the bound of Theorem 3.4 is broken."""
    weights = chances(truth, length)
    worst = [bounds(losses(student, teacher, omega, rho, length), weights) for student in students]
    c, variance = max(c for c, _ in worst), np.max([v for _, v in worst], axis=0).sum()
    logs = math.log(2 * len(students) / delta), math.log(2 / delta)
    bound = 4 * largest_log(students) * omega * distance(truth, teacher, rho, length)
    bound += 2 * c / (3 * SAMPLES) * sum(logs) + math.sqrt(2 * variance / SAMPLES) * sum(map(math.sqrt, logs))
    chance = sums(weights, weights, SAMPLES)[1]
    return float(chance[excess(truth, teacher, students, omega, rho, length) > bound].sum())


# Theorem B.3


def bound_b3(variance: float, m: float, n: int, growth: float, delta: float) -> float:
    """The second and third line of Eq. 23, each with both of its terms under the root."""
    logs = math.log(2 * growth / delta), math.log(4 / delta)
    first = math.sqrt(18 * variance * logs[0] / n + 15 * m * logs[0] / (n - 1))
    return first + math.sqrt(2 * variance * logs[1] / n + 7 * m * logs[1] / (3 * (n - 1)))


def bound_b3_mended(variance: float, m: float, n: int, growth: float, delta: float) -> float:
    logs = math.log(2 * growth / delta), math.log(4 / delta)
    first = math.sqrt(18 * variance * logs[0] / n) + 15 * m * logs[0] / (n - 1)
    return first + math.sqrt(2 * variance * logs[1] / n) + 7 * m * logs[1] / (3 * (n - 1))


def sample_variance(values: Array) -> float:
    """Eq. 24."""
    n = len(values)
    return sum((values[i] - values[j]) ** 2 for i in range(n) for j in range(i + 1, n)) / (n * (n - 1))


EQUATIONS = (
    Equation(
        "salt",
        "appB1-risk",
        "App. B.1, proof of Proposition B.2, R^omega in its last form",
        "R^omega is the mean over positions of E[CE((1 - omega) D + omega teacher ** rho, student)]",
        lambda truth, teacher, student, omega, rho, length: (
            contexts(truth, length) @ mixed_with_truth(truth, teacher, student, omega, rho)
        ),
        lambda truth, teacher, student, omega, rho, length: risk(student, truth, teacher, omega, rho, length),
        LANGUAGES,
    ),
    Equation(
        "salt",
        "eq19-ii",
        "Eq. 19 (ii), App. B.1",
        "R - R^omega moves between two models by E[sum_v (mixed target - D) (log P_1 - log P_2)]",
        lambda truth, teacher, students, omega, rho, length: (
            contexts(truth, length)
            @ (omega * (powered(teacher, rho) - truth) * (np.log(students[0]) - np.log(students[1]))).sum(1)
        ),
        moved,
        CLASSES,
    ),
    Equation(
        "salt",
        "eq19-iv",
        "Eq. 19 (iii) and (iv), App. B.1",
        "R - R^omega moves between two models by at most 4 M omega times the mean TV distance of teacher ** rho and D",
        lambda truth, teacher, students, omega, rho, length: (
            4 * largest_log(students) * omega * distance(truth, teacher, rho, length)
        ),
        lambda **state: abs(moved(**state)),
        CLASSES,
        relation="at most",
    ),
    Equation(
        "salt",
        "eq18",
        "Eq. 18 and 20, Proposition B.2, App. B.1",
        "R(theta-hat) - R(theta*) is at most the bias term and the two deviations, for every training sample",
        excess_bound,
        excess,
        CLASSES,
        relation="at most",
    ),
    Equation(
        "salt",
        "eq21",
        "Eq. 21, Theorem B.3, against Theorem 3.2",
        "the bounded functions are l^omega: cross-entropy to (1 - omega) D + omega teacher ** rho along x",
        lambda truth, teacher, student, omega, rho, length: (
            summed(np.repeat(mixed_with_truth(truth, teacher, student, omega, rho)[:, None], len(truth) - 1, 1), length)
            / length
        ),
        lambda truth, teacher, student, omega, rho, length: losses(student, teacher, omega, rho, length),
        LANGUAGES,
        meant="(1 - omega) one-hot of x_t in the place of (1 - omega) D: R_N^omega is a mean of l^omega",
        mended=lambda truth, teacher, student, omega, rho, length: (
            summed(to_mixed_target(student, teacher, omega, rho), length) / length
        ),
    ),
    Equation(
        "salt",
        "eq23",
        "Eq. 23, Theorem B.3, second and third line",
        "the bound doubles where all losses double: log2 of its growth",
        lambda variance, m, n, growth, delta: np.log2(
            bound_b3(4 * variance, 2 * m, n, growth, delta) / bound_b3(variance, m, n, growth, delta)
        ),
        lambda variance, m, n, growth, delta: 1.0,
        SCALED,
        meant="the terms in M / (N - 1) outside the roots, as in Theorem 3.2 (our text may have moved a brace)",
        mended=lambda variance, m, n, growth, delta: np.log2(
            bound_b3_mended(4 * variance, 2 * m, n, growth, delta) / bound_b3_mended(variance, m, n, growth, delta)
        ),
    ),
    Equation(
        "salt",
        "eq24",
        "Eq. 24, App. B.1; Theorem 3.2",
        "the sum over pairs of squared differences over N (N - 1) is the sample variance",
        sample_variance,
        lambda values: values.var(ddof=1),
        ({"values": (0.3, 1.0, 2.5)}, {"values": (4.0, 4.0)}, {"values": (0.0, 9.0, 0.5, 0.5, 7.0)}),
    ),
    Equation(
        "salt",
        "theorem3.4",
        "Theorem 3.4, Section 3.2; Eq. 42, 47 and 48",
        "the bound is broken with probability at most delta",
        lambda **state: state["delta"],
        failures,
        tuple({**each, "delta": delta} for each in CLASSES for delta in (0.5, 0.05)),
        relation="at most",
    ),
)
