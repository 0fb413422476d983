"""SALT Eq. 63 and 64, App. B.4: from the risk of the loss to the number of wrong tokens."""

from __future__ import annotations

import math

import numpy as np

from paper_tables.equations.equation import Array, Equation
from paper_tables.equations.language import COIN, STUDENT, chances, contexts, risk, summed

# the best model is the truth; so it is, with two tokens; it is not; every token wrong, twice
MODELS = (
    {"truth": ((0.9, 0.1),) * 3, "best": ((0.9, 0.1),) * 3, "student": ((0.4, 0.6),) * 3, "length": 1},
    {"truth": COIN, "best": COIN, "student": STUDENT, "length": 2},
    {"truth": ((0.9, 0.1),) * 3, "best": ((0.51, 0.49),) * 3, "student": ((0.49, 0.51),) * 3, "length": 1},
    {"truth": ((0.9, 0.1),) * 3, "best": ((0.9, 0.1),) * 3, "student": ((0.49, 0.51),) * 3, "length": 2},
)


def errors(truth: Array, student: Array, length: int) -> float:
    """R_{0/1} of Eq. 63: the expected number of wrong tokens in a sequence."""
    wrong = np.ones_like(student)
    wrong[np.arange(len(student)), student.argmax(1)] = 0
    return float((chances(truth, length) * summed(wrong, length)).sum())


def calibration(surplus: float) -> float:
    """The inverse of g on [0, 1], by bisection; 1 beyond g(1) = log 2."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        g = ((1 - middle) * math.log(1 - middle) + (1 + middle) * math.log(1 + middle)) / 2
        low, high = (middle, high) if g < surplus else (low, middle)
    return high


def surplus(truth: Array, best: Array, student: Array, length: int) -> float:
    """R(student) - R(best)."""
    return risk(student, truth, student, 0.0, 1.0, length) - risk(best, truth, best, 0.0, 1.0, length)


EQUATIONS = (
    Equation(
        "salt",
        "eq63",
        "Eq. 63, App. B.4",
        "the expected number of wrong tokens is the sum over positions of E[sum_v D(v) 1{argmax P is not v}]",
        lambda truth, best, student, length: (
            length * contexts(truth, length) @ (1 - truth[np.arange(len(truth)), student.argmax(1)])
        ),
        lambda truth, best, student, length: errors(truth, student, length),
        MODELS,
    ),
    Equation(
        "salt",
        "eq64",
        "Eq. 64, App. B.4",
        "R_0/1(theta-hat) - R_0/1(theta*) <= g^-1(R(theta-hat) - R(theta*))",
        lambda truth, best, student, length: calibration(surplus(truth, best, student, length)),
        lambda truth, best, student, length: errors(truth, student, length) - errors(truth, best, length),
        MODELS,
        relation="at most",
        meant="T g^-1(R(theta-hat) - R(D)): Eq. 63 sums over tokens, Eq. 1 averages; and calibration compares with the "
        "truth D, not with the best model of a class",
        mended=lambda truth, best, student, length: length * calibration(surplus(truth, truth, student, length)),
    ),
)
