"""What each equation of paper_tables/equations should come to, by tests/oracle.py: one function of a state for each.

The oracle's loops and closed forms share nothing with the complex steps and enumerations they are held against.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import oracle

from paper_tables.equations.rskd_draws import PROPOSALS, TAU_GRID
from paper_tables.equations.salt_concentration import BELOW_3, EPSILONS, LAMBDAS
from paper_tables.equations.salt_risk import SAMPLES

Oracle = Callable[..., Any]


def in_order(function: Oracle) -> Oracle:
    """A function of the oracle, given a state's entries in their order: it has names of its own for them."""
    return lambda **state: function(*state.values())


def head(teacher: np.ndarray, k: int) -> np.ndarray:
    return np.array([i in oracle.largest(teacher, k) for i in range(len(teacher))])


def jacobian(student: np.ndarray) -> np.ndarray:
    return np.array(
        [oracle.numerical_gradient(lambda x, i=i: oracle.softmax(x)[i], student) for i in range(len(student))]
    ).T


def zipf(classes: int) -> np.ndarray:
    return np.array([1 / (i + 1) for i in range(classes)]) / math.fsum(1 / (i + 1) for i in range(classes))


def l1_of_draws(teacher: np.ndarray, draws: int) -> list[float]:
    possible = [i for i, t in enumerate(teacher) if t > 0]
    return [
        sum(abs(t - c) for t, c in zip(teacher, oracle.listed_draws(drawn, len(teacher)), strict=True))
        for drawn in itertools.product(possible, repeat=draws)
    ]


def spread(teacher: np.ndarray, proposal: tuple[float, ...], values: np.ndarray) -> float:
    weighted = [v * t / q for v, t, q in zip(values, teacher, proposal, strict=True)]
    mean = sum(q * w for q, w in zip(proposal, weighted, strict=True))
    return sum(q * (w - mean) ** 2 for q, w in zip(proposal, weighted, strict=True))


def least_variance(teacher: np.ndarray, draws: int, normalise: bool) -> float:
    return min(oracle.variance_of_sampled(teacher, draws, tau, normalise) for tau in TAU_GRID)


def mean_naive_fix(classes: int, k: int) -> np.ndarray:
    teacher = zipf(classes)
    return sum(t * oracle.naive_fix(teacher, k, label) for label, t in enumerate(teacher))


def by_inverse(teacher: np.ndarray, points: np.ndarray) -> list[int]:
    return [oracle.drawn_by_inverse(teacher, point) for point in sorted(points)]


def tad_tail(teacher: np.ndarray, probs: np.ndarray, k: int, scale: float) -> np.ndarray:
    return oracle.tad_gradient(teacher, np.log(probs), k, scale)[~head(teacher, k)]


def over_positions(weights: np.ndarray, draws: int, value: Callable[[tuple[int, ...]], float]) -> float:
    return float(oracle.expected_over_counts([w / sum(weights) for w in weights], draws, value))


def budgets(lengths: Any, keep: float) -> list[int]:
    return [sum(oracle.top_fraction([0.0] * int(length), str(keep))) for length in lengths]


def corrected(weights: np.ndarray, losses: np.ndarray, draws: int) -> float:
    chances = [w / sum(weights) for w in weights]

    def estimate(counts: tuple[int, ...]) -> float:
        return sum(c * loss / q for c, loss, q in zip(counts, losses, chances, strict=True) if c) / draws / len(losses)

    return over_positions(weights, draws, estimate)


# SALT on a language


def language(truth, teacher, student, omega, rho, length):
    chances = oracle.sentences(truth, length)
    return {x: oracle.sentence_loss(student, teacher, x, omega, rho) for x in chances}, chances


def as_array(values: dict[tuple[int, ...], float], classes: int, length: int) -> np.ndarray:
    return np.array([values[x] for x in itertools.product(range(classes), repeat=length)]).reshape((classes,) * length)


def steps(truth, teacher, student, omega, rho, length) -> list[np.ndarray]:
    losses, chances = language(truth, teacher, student, omega, rho, length)
    none = [0.0] * length
    each = {x: oracle.salt_differences(losses, chances, x) if chances[x] > 0 else none for x in chances}
    return [as_array({x: each[x][t] for x in each}, len(truth[0]), length) for t in range(length)]


def last_square(truth, teacher, student, omega, rho, length) -> np.ndarray:
    moments = oracle.salt_second_moments(*language(truth, teacher, student, omega, rho, length), length - 1)
    contexts = itertools.product(range(len(truth[0])), repeat=length - 1)
    return np.array([moments.get(context, 0.0) for context in contexts])


def constants(losses, chances) -> tuple[float, list[float]]:
    """The least C and V_t of Assumption 3.3."""
    length = len(next(iter(chances)))
    largest = max(
        abs(step) for x, p in chances.items() if p > 0 for step in oracle.salt_differences(losses, chances, x)
    )
    return largest, [max(oracle.salt_second_moments(losses, chances, t).values()) for t in range(length)]


def deviations(losses, chances) -> list[tuple[float, float]]:
    mean = oracle.known(losses, chances, ())
    return [(mean - losses[x], chance) for x, chance in chances.items()]


def generating(sign: float, scaled: bool, **state) -> list[float]:
    losses, chances = language(**state)
    c = (constants(losses, chances)[0] or 1.0) if scaled else 1.0
    return [sum(p * math.exp(sign * lam * d / c) for d, p in deviations(losses, chances)) for lam in LAMBDAS]


def tail(scaled: bool, **state) -> list[float]:
    losses, chances = language(**state)
    c = (constants(losses, chances)[0] or 1.0) if scaled else 1.0
    mean = oracle.known(losses, chances, ())
    drawn = oracle.samples(losses, chances, SAMPLES)
    return [sum(p for average, p in drawn if mean - average >= e * c - 1e-12) for e in EPSILONS]


def risk(truth, teacher, student, omega, rho, length) -> float:
    losses, chances = language(truth, teacher, student, omega, rho, length)
    return oracle.known(losses, chances, ())


def moved(truth, teacher, students, omega, rho, length) -> float:
    gaps = [
        risk(truth, teacher, student, 0.0, rho, length) - risk(truth, teacher, student, omega, rho, length)
        for student in students[:2]
    ]
    return gaps[0] - gaps[1]


def excess(truth, teacher, students, omega, rho, length) -> list[float]:
    averages = [
        [average for average, _ in oracle.samples(*language(truth, teacher, each, omega, rho, length), SAMPLES)]
        for each in students
    ]
    plain = [risk(truth, teacher, each, 0.0, rho, length) for each in students]
    return [
        plain[min(range(len(students)), key=lambda s: per_model[s])] - min(plain)
        for per_model in zip(*averages, strict=True)
    ]


def fan(lam: float, s: float) -> float:
    return math.log((math.exp(-lam * s) + s * math.exp(lam)) / (1 + s))


def budget(kd_steps: int, steps: int) -> list[int]:
    first = sum(oracle.salt_weights(j, kd_steps, 0.5)[0] > 0 for j in range(1, steps + 1))
    return [first, steps - first]


def temperature_slope(logits: np.ndarray, tau: float) -> float:
    """Of the entropy of softmax(x / tau): that of the exponent 1 / tau, and d(1 / tau) / d tau."""
    return oracle.entropy_slope(np.exp(logits), 1 / tau) * -1 / tau**2


ORACLES: dict[str, Oracle] = {
    "rskd/eq1": in_order(oracle.kl_gradient),
    "rskd/eq2": lambda teacher, student, k: oracle.kl_gradient(oracle.top_k(teacher, k), student),
    "rskd/eq4": in_order(oracle.kl_gradient),
    "rskd/appA1-softmax": jacobian,
    "rskd/appA1-chain": in_order(oracle.kl_gradient),
    "rskd/appA2-loss": in_order(oracle.cross_entropy),
    "rskd/appA2-gradient": in_order(oracle.kl_gradient),
    "rskd/appA2-optimum": in_order(oracle.cross_entropy),
    "rskd/appA3-l1": lambda teacher, k: [
        oracle.l1_error_of_normalised(teacher, ids) for ids in itertools.combinations(range(len(teacher)), k)
    ],
    "rskd/appA3-least": lambda teacher, k: oracle.l1_error_of_normalised(teacher, oracle.largest(teacher, k)),
    "rskd/appA4-rest": lambda teacher, k: [*[0.0] * len(teacher), (m := sum(oracle.top_k(teacher, k))) * math.log(m)],
    "rskd/appA4-optimum": lambda teacher, student, k: oracle.kl(oracle.top_k(teacher, k), student),
    "rskd/appA5-chain": lambda teacher, student, k: oracle.ghost_residual_gradient(oracle.top_k(teacher, k), student),
    "rskd/appA5-cases": lambda teacher, student, k: oracle.ghost_residual_gradient(oracle.top_k(teacher, k), student),
    "rskd/appA5-total": lambda teacher, student, k: oracle.ghost_gradient(oracle.top_k(teacher, k), student),
    "rskd/appA5-ghost-tail": lambda teacher, student, k: oracle.ghost_residual_gradient(
        oracle.top_k(teacher, k), student
    )[~head(teacher, k)],
    "rskd/appA5-target": lambda teacher, student, k: oracle.ghost_gradient(oracle.top_k(teacher, k), student)[
        ~head(teacher, k)
    ],
    "rskd/sec4-importance": lambda teacher, proposal, values: math.fsum(teacher * values),
    "rskd/sec4-best-proposal": lambda teacher, values: [spread(teacher, each, values) for each in PROPOSALS],
    "rskd/sec4-proposal": lambda teacher, tau: sum(t**tau for t in teacher if t > 0),
    "rskd/sec4-temperature": in_order(oracle.entropy_slope),
    "rskd/sec4-counts": lambda teacher, drawn, student: oracle.listed_draws(drawn, len(teacher)),
    "rskd/sec4-sum-of-ce": lambda teacher, drawn, student: oracle.kl_gradient(
        oracle.listed_draws(drawn, len(teacher)), student
    ),
    "rskd/appA6-unbiased": lambda teacher, draws: oracle.expected_random_sampling(teacher, 1.0, draws),
    "rskd/eq6": lambda teacher, draws, tau, student: oracle.kl_gradient(teacher, student),
    "rskd/sec5.3-least-error": l1_of_draws,
    "rskd/sec7.1-variance": lambda teacher, draws: least_variance(teacher, draws, normalise=True),
    "rskd/sec7.1-before-normalising": lambda teacher, draws: least_variance(teacher, draws, normalise=False),
    "rskd/appK-draws": lambda teacher, drawn: oracle.listed_draws(drawn, len(teacher)),
    "rskd/appK-kl-div": in_order(oracle.listed_loss),
    "rskd/appK-alpha": lambda alpha, ce, kd: [oracle.listed_mixture(alpha, ce, kd), ce - kd],
    "rskd/appK-toy-topk": lambda classes, k: oracle.top_k(zipf(classes), k) / sum(oracle.top_k(zipf(classes), k)),
    "rskd/appK-toy-naive-fix": mean_naive_fix,
    "rskd/appK-toy-sampling": lambda drawn, classes: oracle.toy_sampling([drawn], classes)[0],
    "rskd/appK-toy-mean": lambda classes, draws: oracle.expected_random_sampling(zipf(classes), 1.0, draws),
    "rskd/appK-toy-unique": lambda drawn, classes: oracle.toy_sampling([drawn], classes)[1],
    "rskd/appK-mlp-topk": in_order(oracle.top_k),
    "rskd/appK-mlp-draws": lambda teacher, points: oracle.listed_draws(by_inverse(teacher, points), len(teacher)),
    "rskd/appK-mlp-search": by_inverse,
    "rskd/appK-mlp-loss": lambda targets, students: np.mean(list(map(oracle.cross_entropy, targets, students))),
    "rskd/appD1-bits": in_order(oracle.bits),
    "rskd/appD1-ratio": in_order(oracle.ratio_code_error),
    "rskd/sec5.5-storage": lambda vocabulary, tokens: [
        n * tokens * (oracle.bits(vocabulary) + 7) / 8e12 for n in (1, 300, 12)
    ],
    "rskd/poster-storage": lambda vocabulary, tokens: 12 * tokens * (oracle.bits(vocabulary) + 7) / 8e9,
    "sekd/sec7.1-bytes": lambda vocabulary, tokens: [
        n * share * tokens * (oracle.bits(vocabulary) + 7) / 8e12 for n in (64, 12) for share in (1, 0.2)
    ],
    "sekd/sec7.1-id-bits": in_order(oracle.bits),
    "sekd/sec7.1-unique": lambda teacher, draws: sum(1 - (1 - t) ** draws for t in teacher),
    "tad/eq2": lambda teacher, student, k: oracle.kl(teacher, student),
    "tad/eq2-kth": lambda teacher, k: teacher[oracle.largest(teacher, k)[-1]],
    "tad/eq4": lambda teachers, students, k: sum(
        oracle.cross_entropy(oracle.one_hot(0, len(t)), x) + oracle.kl(t, x)
        for t, x in zip(teachers, students, strict=True)
    ),
    "tad/eq5": in_order(oracle.kl_gradient),
    "tad/eq6": in_order(oracle.tad_gradient),
    "tad/eq17-sum": in_order(oracle.tad),
    "tad/eq9": jacobian,
    "tad/eq12": lambda teacher, student, k: oracle.kl_gradient(oracle.top_k(teacher, k), student),
    "tad/eq12-cases": lambda teacher, student, k: oracle.kl_gradient(oracle.top_k(teacher, k), student),
    "tad/eq13-loss": lambda teacher, student, k: (
        oracle.tad_complement(teacher, student, k) - oracle.tad_complement(teacher, np.zeros(len(teacher)), k)
    ),
    "tad/eq13-chain": in_order(oracle.tad_complement_gradient),
    "tad/eq13": in_order(oracle.tad_complement_gradient),
    "tad/eq14": lambda teacher, student, k: oracle.ghost_gradient(oracle.top_k(teacher, k), student),
    "tad/eq15": lambda teacher, student, k: oracle.numerical_gradient(
        lambda x: oracle.tad_parts(teacher, x, k)[1], student
    ),
    "tad/eq17": lambda teacher, student, k: (
        oracle.tad_gradient(teacher, student, k, 2.0) - oracle.tad_gradient(teacher, student, k, 1.0)
    )[~head(teacher, k)],
    "tad/sec2.1-beta": lambda teachers, students, k: oracle.tad_scale(teachers, k, 1.0),
    "tad/sec2.1-bound": tad_tail,
    "tad/sec2.1-stronger": lambda **state: abs(tad_tail(**state)),
    "tad/sec2.1-tail-rises": lambda teacher, probs, k, scale: oracle.tail_growth(teacher, np.log(probs), k, scale),
    "tad/sec2.1-second-term": lambda teacher, probs, k, scale: (
        oracle.tail_growth(teacher, np.log(probs), k, scale) - oracle.tail_growth(teacher, np.log(probs), k, 1.0)
    ),
    "tad/sec2.1-same-head": tad_tail,
    "sekd/eq3": lambda teacher, student, draws: oracle.kl_gradient(teacher, student),
    "sekd/eq5": lambda losses, masks, selected: oracle.selective_loss(np.nan_to_num(losses), masks, selected),
    "sekd/eq2": lambda losses, masks, selected: np.mean([np.mean([x for x in row if x == x]) for row in losses]),
    "sekd/eq6": lambda scores, keep: sum(oracle.top_fraction(scores, str(keep))),
    "sekd/sec5-gls": lambda size, percent: size * percent // 100,
    "sekd/appA-counts": lambda weights, losses, draws: oracle.expected_over_counts(
        [w / sum(weights) for w in weights], draws, np.array
    ),
    "sekd/appA-weighted": lambda weights, losses, draws: over_positions(
        weights, draws, lambda counts: sum(c * loss for c, loss in zip(counts, losses, strict=True)) / draws
    ),
    "sekd/appA-corrected": corrected,
    "sekd/appA-zero-weight": corrected,
    "sekd/code-random-count": budgets,
    "sekd/code-length": budgets,
    "salt/eq1": lambda student, length: as_array(
        {x: math.log(p) for x, p in oracle.sentences(student, length).items()}, len(student[0]), length
    ),
    "salt/eq2": in_order(oracle.kl_gradient),
    "salt/eq3": lambda logits, exponent: oracle.entropy_slope(oracle.softmax(logits), exponent),
    "salt/eq11": lambda logits, exponent: temperature_slope(logits, exponent),
    "salt/eq4": lambda truth, teacher, student, omega, rho, length: [
        [np.real(oracle.salt_loss([t], [np.log(p)], [label], omega, rho)) for label in range(len(p))]
        for t, p in zip(teacher, student, strict=True)
    ],
    "salt/eq10": in_order(oracle.salt_score),
    "salt/alg1": budget,
    "salt/eq8-sum": lambda **state: sum(steps(**state)),
    "salt/eq68": lambda **state: steps(**state)[-1],
    "salt/eq69": last_square,
    "salt/appD-last-variance": lambda truth, teacher, student, low, high, length: last_square(
        truth, teacher, student, high, 1.0, length
    ),
    "salt/sec3.3-variance": lambda truth, teacher, student, low, high, length: sum(
        constants(*language(truth, teacher, student, high, 1.0, length))[1]
    ),
    "salt/eq29": lambda **state: generating(1.0, True, **state),
    "salt/eq33": lambda values: [np.mean([fan(lam, s) for s in values]) for lam in LAMBDAS],
    "salt/eq40": lambda s: [[fan(lam, s) for lam in BELOW_3], [(math.exp(lam) - 1 - lam) * s for lam in BELOW_3]],
    "salt/eq35": lambda **state: tail(True, **state),
    "salt/eq61": lambda **state: generating(1.0, False, **state),
    "salt/eq57": lambda **state: generating(-1.0, False, **state),
    "salt/eq58": lambda **state: tail(False, **state),
    "salt/eq53": lambda **state: tail(False, **state),
    "salt/appB1-risk": lambda **state: risk(**state),
    "salt/eq19-ii": moved,
    "salt/eq19-iv": lambda **state: abs(moved(**state)),
    "salt/eq18": excess,
    "salt/eq21": lambda **state: as_array(language(**state)[0], len(state["truth"][0]), state["length"]),
    "salt/eq24": lambda values: sum((v - sum(values) / len(values)) ** 2 for v in values) / (len(values) - 1),
    "salt/eq63": lambda truth, best, student, length: oracle.wrong_tokens(truth, student, length),
    "salt/eq64": lambda truth, best, student, length: (
        oracle.wrong_tokens(truth, student, length) - oracle.wrong_tokens(truth, best, length)
    ),
}
# The printed side of what is printed wrong, where the oracle has that too.
PRINTED: dict[str, Oracle] = {
    "rskd/appA5-ghost-tail": lambda teacher, student, k: oracle.ghost_residual_tail_gradient_as_printed(
        oracle.top_k(teacher, k), student
    )[~head(teacher, k)],
    "rskd/sec4-unbiased": lambda teacher, draws, tau: oracle.expected_random_sampling(teacher, tau, draws),
    "rskd/appK-draws": lambda teacher, drawn: oracle.listed_draws_as_printed(drawn, len(teacher)),
    "rskd/appK-kl-div": in_order(oracle.listed_loss_as_printed),
    "rskd/appK-alpha": lambda alpha, ce, kd: [oracle.listed_mixture_as_printed(alpha, ce, kd), kd - ce],
    "rskd/appK-toy-sampling": lambda drawn, classes: oracle.toy_sampling_as_printed([drawn], classes)[0],
    "rskd/appK-toy-unique": lambda drawn, classes: oracle.toy_sampling_as_printed([drawn], classes)[1],
    "tad/eq13": in_order(oracle.tad_complement_gradient_as_printed),
    "salt/eq10": in_order(oracle.salt_score_as_printed),
}
# The truth is a number that needs no oracle, or one that the oracle would have to copy.
WITHOUT = {
    "rskd/appA5-optimum": "gradient and loss are zero",
    "rskd/sec4-unbiased": "the teacher itself; its printed side has an oracle",
    "rskd/appK-toy-matched": "a whole number of classes",
    "rskd/appD1-counts": "x / N itself",
    "rskd/appD1-128": "1 to N themselves",
    "sekd/sec7.1-full": "a product",
    "tad/eq7": "one",
    "tad/sec2.1-fixed-point": "the teacher itself",
    "tad/sec3.2-relative": "a logarithm",
    "sekd/eq4-drawn": "a weighted mean; that of Eq. 4's estimate is the printed side",
    "sekd/sec5-corrected": "a mean",
    "sekd/code-sample-ratio": "a ratio of two sums, less one",
    "sekd/code-proposal": "shares of a sum",
    "sekd/code-corrected": "a mean",
    "sekd/code-gls-switch": "off and on",
    "sekd/code-ratio-entropy": "an order of three sums",
    "sekd/code-counts": "x / U itself",
    "sekd/code-ids": "the ids themselves",
    "sekd/code-tail-entropy": "an entropy",
    "sekd/code-cache-key": "as many as there are rows",
    "salt/eq8-mean": "zero",
    "salt/eq41": "the least of a function of one number",
    "salt/eq45": "one exponential",
    "salt/eq60": "one exponential",
    "salt/eq23": "one",
    "salt/theorem3.4": "zero: the bound is never broken; eq18 holds the excess risk",
}
