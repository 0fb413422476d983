"""SALT Eq. 8, 68 and 69, Section 3.3, App. D: the martingale differences of the loss and their second moments."""

from __future__ import annotations

import numpy as np

from paper_tables.equations.equation import Array, Equation
from paper_tables.equations.language import (
    COIN,
    LANGUAGES,
    LEANING,
    STUDENT,
    bounds,
    chances,
    differences,
    known,
    losses,
)

# the teacher is the truth; the teacher errs where the student is sure, after one token and not after the other
OMEGAS = (
    {"truth": COIN, "teacher": COIN, "student": STUDENT, "low": 0.0, "high": 0.5, "length": 3},
    {"truth": COIN, "teacher": LEANING, "student": STUDENT, "low": 0.2, "high": 0.667, "length": 2},
    {
        "truth": ((0.5, 0.5), (0.5, 0.5), (0.0, 1.0)),
        "teacher": ((0.5, 0.5), (0.5, 0.5), (1.0, 0.0)),
        "student": ((0.5, 0.5), (0.5, 0.5), (0.01, 0.99)),
        "low": 0.0,
        "high": 1.0,
        "length": 2,
    },
)


def steps(truth: Array, teacher: Array, student: Array, omega: float, rho: float, length: int) -> Array:
    return np.array(differences(losses(student, teacher, omega, rho, length), chances(truth, length)))


def mean_steps(truth: Array, teacher: Array, student: Array, omega: float, rho: float, length: int) -> Array:
    """E[xi_t | the tokens before], for each t and every sequence."""
    weights = chances(truth, length)
    each = steps(truth, teacher, student, omega, rho, length)
    return np.array([np.broadcast_to(known(step, weights, t), step.shape) for t, step in enumerate(each)])


def deviation(truth: Array, teacher: Array, student: Array, omega: float, rho: float, length: int) -> Array:
    """E[l] - l(x) of every sequence that occurs."""
    weights, values = chances(truth, length), losses(student, teacher, omega, rho, length)
    return np.where(weights > 0, (weights * values).sum() - values, 0.0)


def last_log(truth: Array, student: Array, length: int) -> Array:
    """log P(x_T | before) / T of every sequence."""
    context = np.log(student)
    shape = (len(student) - 1,) * length
    return np.broadcast_to(context[0] if length == 1 else context[1:], shape) / length


def last_step_printed(truth: Array, teacher: Array, student: Array, omega: float, rho: float, length: int) -> Array:
    weights, logs = chances(truth, length), last_log(truth, student, length)
    return np.where(weights > 0, (1 - omega) * (logs - known(logs, weights, length - 1)), 0.0)


def last_variance(truth: Array, student: Array, length: int) -> Array:
    """Var[log P(x_T | before) / T | before], for each context."""
    weights, logs = chances(truth, length), last_log(truth, student, length)
    return known((logs - known(logs, weights, length - 1)) ** 2, weights, length - 1)


def last_square(truth: Array, teacher: Array, student: Array, omega: float, rho: float, length: int) -> Array:
    """E[xi_T ** 2 | before], for each context."""
    return known(steps(truth, teacher, student, omega, rho, length)[-1] ** 2, chances(truth, length), length - 1)


def total_variance(truth: Array, teacher: Array, student: Array, omega: float, length: int) -> float:
    return sum(bounds(losses(student, teacher, omega, 1.0, length), chances(truth, length))[1])


EQUATIONS = (
    Equation(
        "salt",
        "eq8-sum",
        "Eq. 8, Section 3.2; Eq. 26, App. B.2",
        "xi_1 + ... + xi_T = E[l] - l(x)",
        deviation,
        lambda **state: steps(**state).sum(0),
        LANGUAGES,
    ),
    Equation(
        "salt",
        "eq8-mean",
        "Eq. 8, Section 3.2; Eq. 26, App. B.2",
        "the xi are martingale differences: each has mean 0 given the tokens before it",
        lambda **state: np.zeros((state["length"], *(len(state["truth"]) - 1,) * state["length"])),
        mean_steps,
        LANGUAGES,
    ),
    Equation(
        "salt",
        "eq68",
        "Eq. 68, App. D",
        "xi_T = (1 - omega) (E[-log P(x_T) / T | before] + log P(x_T) / T)",
        last_step_printed,
        lambda **state: steps(**state)[-1],
        LANGUAGES,
    ),
    Equation(
        "salt",
        "eq69",
        "Eq. 69, App. D",
        "E[xi_T ** 2] = (1 - omega) Var[log P(x_T) / T], given the tokens before",
        lambda truth, teacher, student, omega, rho, length: (1 - omega) * last_variance(truth, student, length),
        last_square,
        LANGUAGES,
        meant="(1 - omega) ** 2, and the left side given the tokens before as well",
        mended=lambda truth, teacher, student, omega, rho, length: (
            (1 - omega) ** 2 * last_variance(truth, student, length)
        ),
    ),
    Equation(
        "salt",
        "appD-last-variance",
        "App. D, below Eq. 69",
        "V_T does not grow with omega",
        lambda truth, teacher, student, low, high, length: last_square(truth, teacher, student, low, 1.0, length),
        lambda truth, teacher, student, low, high, length: last_square(truth, teacher, student, high, 1.0, length),
        OMEGAS,
        relation="at most",
    ),
    Equation(
        "salt",
        "sec3.3-variance",
        "Section 3.3; App. D",
        "the variance term sum_t V_t becomes smaller as omega grows",
        lambda truth, teacher, student, low, high, length: total_variance(truth, teacher, student, low, length),
        lambda truth, teacher, student, low, high, length: total_variance(truth, teacher, student, high, length),
        OMEGAS,
        relation="at most",
        meant="its last summand V_T does, and App. D shows no more; earlier ones grow where the context decides how "
        "well teacher and student agree",
    ),
)
