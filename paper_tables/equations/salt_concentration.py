"""SALT App. B.2 and B.3: how far the training loss may be from its mean, Lemmas B.4, B.5, B.9 and B.10."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from paper_tables.equations.equation import Array, Equation
from paper_tables.equations.language import LANGUAGES, SAMPLES, bounds, chances, differences, known, losses, risk, sums

LAMBDAS = np.array([0.0, 0.3, 1.0, 2.0, 5.0])
EPSILONS = np.array([0.05, 0.2, 0.5, 1.0])
BELOW_3 = np.linspace(0, 2.999, 2000)
SIDES = ({"s": 0.01}, {"s": 1.0}, {"s": 20.0})
RATES = tuple(
    {"variance": variance, "c": c, "n": n, "classes": 5, "delta": 0.1}
    for variance, c, n in ((0.02, 0.3, 10), (1.0, 2.0, 3), (0.0, 1.0, 7))
)
PROXIES = ({"n": 3, "epsilon": 0.5, "proxy": 0.8}, {"n": 10, "epsilon": 0.2, "proxy": 2.0})
# a rare token with a large loss: the deviation E - value has its long tail on the negative side
SKEWED = {
    "truth": ((0.9, 0.1),) * 3,
    "teacher": ((0.9, 0.1),) * 3,
    "student": ((0.9, 0.1),) * 3,
    "omega": 0.0,
    "rho": 1.0,
    "length": 1,
}


def exact(truth: Array, teacher: Array, student: Array, omega: float, rho: float, length: int) -> tuple[Array, Array]:
    """The loss of every sequence and its chance."""
    return losses(student, teacher, omega, rho, length), chances(truth, length)


def f(lam: Array, s: float) -> Array:
    """Eq. 30."""
    return np.log(np.exp(-lam * s) / (1 + s) + s / (1 + s) * np.exp(lam))


def generating(lam: Array, values: Array, weights: Array) -> Array:
    """E[exp(lam times a deviation E - value)], for each lam."""
    deviation = (weights * values).sum() - values
    return np.array([(weights * np.exp(each * deviation)).sum() for each in lam])


def lemma_b4(**state: Any) -> Array:
    values, weights = exact(**state)
    c, variances = bounds(values, weights)
    c = c or 1.0
    return np.exp(len(variances) * f(LAMBDAS, sum(variances) / len(variances) / c**2))


def scaled_generating(**state: Any) -> Array:
    values, weights = exact(**state)
    return generating(LAMBDAS / (bounds(values, weights)[0] or 1.0), values, weights)


def tail(values: Array, weights: Array, thresholds: Array) -> Array:
    """P(the mean over the sample of E - value >= threshold)."""
    deviation, chance = sums((weights * values).sum() - values, weights, SAMPLES)
    return np.array([chance[deviation >= SAMPLES * each - 1e-12].sum() for each in thresholds])


def lemma_b5(**state: Any) -> Array:
    c, variances = bounds(*exact(**state))
    return np.exp(-SAMPLES * EPSILONS**2 / (2 * (sum(variances) / (c or 1.0) ** 2 + EPSILONS / 3)))


def exact_tail(**state: Any) -> Array:
    values, weights = exact(**state)
    return tail(values, weights, EPSILONS * (bounds(values, weights)[0] or 1.0))


def least_exponential(s: float, epsilon: float) -> float:
    lam = np.append(BELOW_3, epsilon / (s + epsilon / 3))  # the grid alone would miss the least value by its own width
    return math.exp(float((-lam * epsilon + lam**2 * s / (2 * (1 - lam / 3))).min()))


def gamma(variance: float, c: float, n: int, classes: int, delta: float) -> float:
    """Eq. 45."""
    log = math.log(2 * classes / delta)
    return 2 * c / (3 * n) * log + math.sqrt(2 / n * variance * log)


# subgaussian instead of bounded (Theorem B.7)

GRID = np.concatenate([LAMBDAS[1:], np.geomspace(1e-3, 40, 50)])


def proxies(values: Array, weights: Array) -> float:
    """The sum over t of the least sigma_t that Eq. 49 allows, which asks for lambda >= 0 only."""
    total = 0.0
    for t, step in enumerate(differences(values, weights)):
        moments = known(np.exp(np.multiply.outer(GRID, step)), weights, t).reshape(len(GRID), -1).max(1)
        total += max(float((2 * np.log(moments) / GRID**2).max()), float(known(step**2, weights, t).max()))
    return total


def quadratic(linear: float, curvature: float) -> float:
    """The least exp(-linear lam + curvature lam ** 2) over lam."""
    return math.exp(-(linear**2) / (4 * curvature))


def shifted_tail(own: bool = False, **state: Any) -> Array:
    """P(R - R_N^omega >= threshold); with `own` P(R^omega - R_N^omega >= threshold)."""
    values, weights = exact(**state)
    omega = state["omega"] if own else 0.0
    expected = risk(state["student"], state["truth"], state["teacher"], omega, state["rho"], state["length"])
    deviation, chance = sums(expected - values, weights, SAMPLES)
    return np.array([chance[deviation >= SAMPLES * each - 1e-12].sum() for each in EPSILONS])


EQUATIONS = (
    Equation(
        "salt",
        "eq29",
        "Eq. 29, Lemma B.4, App. B.2",
        "E[exp(lambda (Z_0 - Z_T) / C)] <= exp(T f(lambda, mean V_t / C ** 2))",
        lemma_b4,
        scaled_generating,
        LANGUAGES,
        relation="at most",
    ),
    Equation(
        "salt",
        "eq33",
        "Eq. 33, App. B.2",
        "the mean of f(lambda, s_t) is at most f(lambda, mean of s_t)",
        lambda values: f(LAMBDAS, values.mean()),
        lambda values: np.mean([f(LAMBDAS, each) for each in values], axis=0),
        ({"values": (0.1, 0.5)}, {"values": (0.0, 1.0, 30.0)}),
        relation="at most",
    ),
    Equation(
        "salt",
        "eq40",
        "Eq. 40, App. B.2",
        "f(lambda, s) <= (exp(lambda) - 1 - lambda) s <= lambda ** 2 s / (2 (1 - lambda / 3)) for lambda below 3",
        lambda s: np.array([(np.exp(BELOW_3) - 1 - BELOW_3) * s, BELOW_3**2 * s / (2 * (1 - BELOW_3 / 3))]),
        lambda s: np.array([f(BELOW_3, s), (np.exp(BELOW_3) - 1 - BELOW_3) * s]),
        SIDES,
        relation="at most",
    ),
    Equation(
        "salt",
        "eq41",
        "Eq. 41, App. B.2",
        "the least exp(-lambda e + lambda ** 2 s / (2 (1 - lambda / 3))) is at most exp(-e ** 2 / (2 (s + e / 3)))",
        lambda s: np.exp(-(EPSILONS**2) / (2 * (s + EPSILONS / 3))),
        lambda s: np.array([least_exponential(s, epsilon) for epsilon in EPSILONS]),
        SIDES,
        relation="at most",
    ),
    Equation(
        "salt",
        "eq35",
        "Eq. 35, Lemma B.5, App. B.2",
        "P(sum of (E[l] - l) / C >= N e) <= exp(-N e ** 2 / (2 (sum V_t / C ** 2 + e / 3)))",
        lemma_b5,
        exact_tail,
        LANGUAGES,
        relation="at most",
    ),
    Equation(
        "salt",
        "eq45",
        "Eq. 44 and 45, App. B.2",
        "at the gamma of Eq. 45 the right side of Eq. 44 is at most delta / (2 |Theta|)",
        lambda variance, c, n, classes, delta: delta / (2 * classes),
        lambda variance, c, n, classes, delta: np.exp(
            -n
            * gamma(variance, c, n, classes, delta) ** 2
            / (2 * (variance + c * gamma(variance, c, n, classes, delta) / 3))
        ),
        RATES,
        relation="at most",
    ),
    Equation(
        "salt",
        "eq61",
        "Eq. 61, Lemma B.10, App. B.3",
        "with subgaussian xi, E[exp(lambda (Z_0 - Z_T))] <= exp(lambda ** 2 sum sigma_t / 2)",
        lambda **state: np.exp(LAMBDAS**2 * proxies(*exact(**state)) / 2),
        lambda **state: generating(LAMBDAS, *exact(**state)),
        LANGUAGES,
        relation="at most",
    ),
    Equation(
        "salt",
        "eq57",
        "Eq. 57, App. B.3, from Eq. 49, which is assumed for lambda >= 0",
        "the same argument with Z_T - Z_0: E[exp(lambda (Z_T - Z_0))] <= exp(lambda ** 2 sum sigma_t / 2)",
        lambda **state: np.exp(LAMBDAS**2 * proxies(*exact(**state)) / 2),
        lambda **state: generating(-LAMBDAS, *exact(**state)),
        (SKEWED, *LANGUAGES),
        relation="at most",
        meant="Eq. 49 assumed for every lambda: a bound on one side says nothing of the other",
    ),
    Equation(
        "salt",
        "eq58",
        "Eq. 58, Lemma B.9, App. B.3",
        "P(sum of E[l] - l >= N e) <= exp(-N ** 2 e ** 2 / (2 sum over i, t of sigma_t))",
        lambda **state: np.exp(-SAMPLES * EPSILONS**2 / (2 * proxies(*exact(**state)))),
        lambda **state: tail(*exact(**state), EPSILONS),
        LANGUAGES,
        relation="at most",
    ),
    Equation(
        "salt",
        "eq60",
        "Eq. 60 to Eq. 58, App. B.3",
        "the least exp(-N (lambda e - lambda ** 2 S / 2)), S the sum of all sigma, is exp(-N ** 2 e ** 2 / (2 S))",
        lambda n, epsilon, proxy: quadratic(n * epsilon, n * proxy / 2),
        lambda n, epsilon, proxy: np.exp(-(n**2) * epsilon**2 / (2 * proxy)),
        PROXIES,
        meant="exp(-N lambda e + lambda ** 2 S / 2): the sum over sequences is within S, N does not multiply it again",
        mended=lambda n, epsilon, proxy: quadratic(n * epsilon, proxy / 2),
    ),
    Equation(
        "salt",
        "eq53",
        "Eq. 53, App. B.3",
        "P(R - R_N^omega >= gamma) is P(mean of E[l^omega] - l^omega >= gamma)",
        lambda **state: shifted_tail(**state),
        lambda **state: tail(*exact(**state), EPSILONS),
        LANGUAGES,
        meant="R^omega in the place of R",
        mended=lambda **state: shifted_tail(**state, own=True),
    ),
)
