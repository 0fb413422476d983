"""RS-KD Section 4, 5.3 and 7.1, App. A.6 and A.7: what draws from the teacher are on average, how much they vary."""

from __future__ import annotations

import numpy as np

from paper_tables.equations.calculus import derivative, entropy, kl, powered, slope, softmax, top
from paper_tables.equations.draws import Estimate, by_number, counts, expectation, normalised, sequences, variance
from paper_tables.equations.equation import Array, Equation

TEACHERS = ((0.6, 0.3, 0.1), (0.9, 0.08, 0.02), (0.5, 0.5, 0.0))
AT_ONE = tuple({"teacher": teacher, "draws": draws} for teacher in TEACHERS for draws in (1, 2, 4))
TAUS = tuple(
    {"teacher": teacher, "draws": draws, "tau": tau}
    for tau in (1.0, 0.8, 1.2, 0.0)
    for teacher in TEACHERS
    for draws in (1, 3)
    if tau > 0 or min(teacher) > 0  # whether "uniform" proposes what the teacher rules out is not said
)
SEEN = tuple(
    {"teacher": (0.6, 0.3, 0.1), "drawn": drawn, "student": (0.2, -1.0, 0.5)}
    for drawn in ((0, 0, 1), (1, 1, 1, 1), (2,))
)
STUDENTS = tuple({**state, "student": (0.2, -1.0, 0.5)} for state in TAUS if state["teacher"] != TEACHERS[1])
PROPOSALS = ((0.2, 0.3, 0.5), (0.6, 0.3, 0.1), (0.34, 0.33, 0.33), (0.8, 0.1, 0.1))
VALUES = ((1.0, -2.0, 0.5), (0.0, 1.0, 0.0), (3.0, 3.0, 3.0))
TAU_GRID = (0.0, 0.4, 0.8, 1.0, 1.2, 1.6, 2.0, 3.0, 4.0)
NEAR_ONE = tuple(tau for tau in TAU_GRID if 0.8 <= tau <= 1.2)


def mean_normalised(teacher: Array, draws: int, tau: float) -> Array:
    return expectation(lambda drawn: normalised(teacher, drawn, tau), powered(teacher, tau), draws)


def mean_by_number(teacher: Array, draws: int, tau: float) -> Array:
    return expectation(lambda drawn: by_number(teacher, drawn, tau), powered(teacher, tau), draws)


def spread(teacher: Array, proposal: Array, values: Array) -> float:
    """Variance of one weighted value, drawn from the proposal."""
    weighted = values * teacher / proposal
    return float((proposal * weighted**2).sum() - (proposal * weighted).sum() ** 2)


def spread_at_best(teacher: Array, values: Array) -> Array:
    """At q proportional to t |f|; where f is 0 nothing needs to be drawn."""
    best = teacher * abs(values)
    inside = best > 0
    least = spread(teacher[inside], best[inside] / best.sum(), values[inside])
    return np.full(len(PROPOSALS), least)


def least_variance(estimate: Estimate, teacher: Array, draws: int, taus: tuple[float, ...]) -> float:
    return min(variance(estimate, teacher, tau, draws) for tau in taus)


def errors_of_draws(teacher: Array, draws: int) -> Array:
    """L1 error of c / N for every sequence of draws."""
    return np.array(
        [abs(counts(drawn, len(teacher)) / draws - teacher).sum() for drawn, _ in sequences(teacher, draws)]
    )


def errors_of_top(teacher: Array, draws: int) -> Array:
    """L1 error, 2 (1 - a), of the normalised top-K that keeps as many classes as each sequence of draws."""
    return np.array([2 * (1 - teacher[top(teacher, len(set(drawn)))].sum()) for drawn, _ in sequences(teacher, draws)])


EQUATIONS = (
    Equation(
        "rskd",
        "sec4-importance",
        "Section 4, Motivation",
        "the mean of f(x) t(x) / q(x) over draws from q is the mean of f over t",
        lambda teacher, proposal, values: expectation(
            lambda drawn: (values * teacher / proposal)[list(drawn)].mean(), proposal, 2
        ),
        lambda teacher, proposal, values: (teacher * values).sum(),
        tuple(
            {"teacher": teacher, "proposal": proposal, "values": values}
            for teacher in TEACHERS
            for proposal in PROPOSALS[:2]
            for values in VALUES
        ),
    ),
    Equation(
        "rskd",
        "sec4-best-proposal",
        "Section 4, Motivation",
        "no proposal has a lower variance than q proportional to t |f|",
        spread_at_best,
        lambda teacher, values: np.array([spread(teacher, np.array(proposal), values) for proposal in PROPOSALS]),
        tuple({"teacher": teacher, "values": values} for teacher in TEACHERS for values in VALUES),
        relation="at least",
    ),
    Equation(
        "rskd",
        "sec4-proposal",
        "Section 4, Sampling Distribution",
        "q = t ** tau is the distribution that is drawn from, so that it sums to one",
        lambda teacher, tau: 1.0,
        lambda teacher, tau: (teacher[teacher > 0] ** tau).sum(),
        tuple({"teacher": teacher, "tau": tau} for tau in (1.0, 0.8, 1.2) for teacher in TEACHERS),
        meant="q = t ** tau / sum t ** tau",
    ),
    Equation(
        "rskd",
        "sec4-temperature",
        "Section 4, Motivation; Section 7.1",
        "tau in q = t ** tau is a temperature: as it grows, the entropy of q grows as that of softmax(x / tau)",
        lambda teacher, tau: slope(lambda s: entropy(softmax(np.log(teacher) / s)), tau),
        lambda teacher, tau: slope(lambda s: entropy(powered(teacher, s)), tau),
        tuple({"teacher": teacher, "tau": tau} for tau in (0.8, 1.0, 1.2) for teacher in TEACHERS[:2]),
        meant="tau is an inverse temperature: q is the softmax of tau x",
        mended=lambda teacher, tau: slope(lambda s: entropy(softmax(np.log(teacher) * s)), tau),
    ),
    Equation(
        "rskd",
        "sec4-counts",
        "Section 4, Obtaining Sampled Probabilities",
        "at tau = 1 the normalised ratios are c_i / N",
        lambda teacher, drawn, student: counts(tuple(drawn), len(teacher)) / len(drawn),
        lambda teacher, drawn, student: normalised(teacher, tuple(drawn), 1.0),
        SEEN,
    ),
    Equation(
        "rskd",
        "sec4-sum-of-ce",
        "Section 4, Loss Calculation",
        "at tau = 1 KL(t^s || p) teaches what the sum over draws of -log p of the drawn class teaches",
        lambda teacher, drawn, student: derivative(lambda x: -np.log(softmax(x))[:, drawn].sum(-1), student),
        lambda teacher, drawn, student: derivative(lambda x: kl(normalised(teacher, tuple(drawn), 1.0), x), student),
        SEEN,
        meant="the mean over draws: the sum has N times the gradient",
        mended=lambda teacher, drawn, student: derivative(lambda x: -np.log(softmax(x))[:, drawn].mean(-1), student),
    ),
    Equation(
        "rskd",
        "appA6-unbiased",
        "App. A.6; Section 4; poster, panel 4",
        "at tau = 1 the mean of c_i / N is t_i",
        lambda teacher, draws: teacher,
        lambda teacher, draws: expectation(lambda drawn: counts(drawn, len(teacher)) / draws, teacher, draws),
        AT_ONE,
    ),
    Equation(
        "rskd",
        "sec4-unbiased",
        "Section 4, Obtaining Sampled Probabilities; Section 5.3 (always unbiased); App. A.6",
        "the ratios t_i / q_i of N draws from q = t ** tau, summed and normalised, are t on average",
        mean_normalised,
        lambda teacher, draws, tau: teacher,
        TAUS,
        meant="the sums divided by N, q normalised; divided by their own sum they are biased unless tau = 1",
        mended=mean_by_number,
    ),
    Equation(
        "rskd",
        "eq6",
        "Eq. 6, App. A.7",
        "where t^s is t on average, the gradient is on average the full one, p_j - t_j",
        lambda teacher, draws, tau, student: softmax(student) - teacher,
        lambda teacher, draws, tau, student: expectation(
            lambda drawn: derivative(lambda x: kl(by_number(teacher, drawn, tau), x), student),
            powered(teacher, tau),
            draws,
        ),
        STUDENTS,
    ),
    Equation(
        "rskd",
        "sec5.3-least-error",
        "Section 5.3; Section 2",
        "a sampled target is never nearer to t in L1 than the top-K target with as many classes",
        errors_of_top,
        errors_of_draws,
        AT_ONE,
        relation="at least",
    ),
    Equation(
        "rskd",
        "sec7.1-variance",
        "Section 7.1",
        "the estimate of Section 4 varies least for some tau from 0.8 to 1.2",
        lambda teacher, draws: least_variance(normalised, teacher, draws, NEAR_ONE),
        lambda teacher, draws: least_variance(normalised, teacher, draws, TAU_GRID),
        ({"teacher": (0.4, 0.35, 0.25), "draws": 2}, {"teacher": (0.9, 0.08, 0.02), "draws": 2}),
        meant="before normalising it varies least at tau = 1; normalised it may vary least where it is most biased",
    ),
    Equation(
        "rskd",
        "sec7.1-before-normalising",
        "Section 7.1, read for the estimate before it is normalised",
        "divided by N the estimate varies least for some tau from 0.8 to 1.2",
        lambda teacher, draws: least_variance(by_number, teacher, draws, NEAR_ONE),
        lambda teacher, draws: least_variance(by_number, teacher, draws, TAU_GRID),
        ({"teacher": (0.4, 0.35, 0.25), "draws": 2}, {"teacher": (0.9, 0.08, 0.02), "draws": 2}),
    ),
)
