"""SALT Eq. 1 to 4, 10 and 11, Algorithm 1. Eq. 5 to 7 and 9 define; there is nothing in them to check."""

from __future__ import annotations

import numpy as np

from paper_tables.equations.calculus import cross_entropy, derivative, entropy, kl, powered, slope, softmax
from paper_tables.equations.equation import Array, Equation
from paper_tables.equations.language import LANGUAGES, STUDENT, SURE, chances, losses, per_token

PROBS = ((0.4, 0.3, 0.2, 0.1), (0.7, 0.1, 0.1, 0.1), (0.25, 0.3, 0.3, 0.15))
LOGITS = tuple({"logits": logits, "exponent": e} for logits in ((1.0, 0.0, -2.0), (0.3, 0.1, 0.2)) for e in (0.25, 2.0))
SCORED = (
    {"probs": PROBS, "labels": (0, 0, 1), "k": 2},
    {"probs": (*PROBS, *PROBS), "labels": (1, 0, 2, 3, 3, 3), "k": 2},
    {"probs": (*PROBS, *PROBS), "labels": (1, 3, 3, 3, 3, 3), "k": 2},
)
BUDGETS = ({"kd_steps": 3, "steps": 8}, {"kd_steps": 0, "steps": 4}, {"kd_steps": 5, "steps": 5})


def to_mixed_target(student: Array, teacher: Array, omega: float, rho: float) -> Array:
    """CE((1 - omega) one-hot + omega teacher ** rho, student) for each token after each context; Eq. 67."""
    classes = student.shape[1]
    mixed = (1 - omega) * np.eye(classes) + omega * powered(teacher, rho)[:, None, :]  # [context, token, class]
    return -(mixed * np.log(student)[:, None, :]).sum(-1)


def token_losses(probs: Array, labels: Array, k: int) -> tuple[Array, Array]:
    """-log P of each label, and whether it is among the k most probable classes."""
    rows = np.arange(len(labels))
    ranks = np.argsort(np.argsort(-probs, axis=1, kind="stable"), axis=1)
    return -np.log(probs[rows, labels]), ranks[rows, labels] < k


def score_printed(probs: Array, labels: Array, k: int) -> float:
    each, among = token_losses(probs, labels, k)
    return float(np.median(among * each))


def score(probs: Array, labels: Array, k: int) -> float:
    return float(np.median([loss for loss, keep in zip(*token_losses(probs, labels, k), strict=True) if keep]))


def score_mended(probs: Array, labels: Array, k: int) -> float:
    each, among = token_losses(probs, labels, k)
    return float(np.nanmedian(np.where(among, each, np.nan)))


def updates_printed(kd_steps: int, steps: int) -> Array:
    """KD and standard updates behind the output: theta_{j+1} from theta_j for j = 1 to n, theta_n returned."""
    theta = {1: np.zeros(2)}  # only theta_0 is initialised; taken as theta_1
    for j in range(1, kd_steps + 1):
        theta[j + 1] = theta[j] + (1, 0)
    for j in range(kd_steps + 1, steps + 1):
        theta[j + 1] = theta[j] + (0, 1)
    return theta[steps]


def updates_mended(kd_steps: int, steps: int) -> Array:
    theta = {0: np.zeros(2)}
    for j in range(1, steps + 1):
        theta[j] = theta[j - 1] + ((1, 0) if j <= kd_steps else (0, 1))
    return theta[steps]


EQUATIONS = (
    Equation(
        "salt",
        "eq1",
        "Eq. 1, Section 2",
        "the loss is the mean over tokens of the cross-entropy to the one-hot label, so that -T l is log P(x)",
        lambda student, length: -length * losses(student, student, 0.0, 1.0, length),
        lambda student, length: np.log(chances(student, length)),
        tuple({"student": student, "length": length} for student in (STUDENT, SURE) for length in (1, 3)),
    ),
    Equation(
        "salt",
        "eq2",
        "Eq. 2, Section 2",
        "minimising the cross-entropy to the teacher minimises KL: the gradients are equal",
        lambda teacher, student: derivative(lambda x: cross_entropy(teacher, x), student),
        lambda teacher, student: derivative(lambda x: kl(teacher, x), student),
        tuple({"teacher": PROBS[n], "student": (1.0, -0.5, 0.3, 2.0)} for n in range(3)),
    ),
    Equation(
        "salt",
        "eq3",
        "above Eq. 3, Section 2",
        "rho in P ** rho is a temperature: as it grows, the entropy of the teacher grows as that of softmax(x / rho)",
        lambda logits, exponent: slope(lambda s: entropy(softmax(logits / s)), exponent),
        lambda logits, exponent: slope(lambda s: entropy(powered(softmax(logits), s)), exponent),
        LOGITS,
        meant="rho is an inverse temperature: P ** rho is the softmax of rho x",
        mended=lambda logits, exponent: slope(lambda s: entropy(softmax(logits * s)), exponent),
    ),
    Equation(
        "salt",
        "eq4",
        "Eq. 4, Section 2; Eq. 67, App. D",
        "(1 - omega) CE + omega KD is cross-entropy to (1 - omega) one-hot + omega teacher ** rho",
        lambda truth, teacher, student, omega, rho, length: to_mixed_target(student, teacher, omega, rho),
        lambda truth, teacher, student, omega, rho, length: per_token(student, teacher, omega, rho),
        LANGUAGES,
    ),
    Equation(
        "salt",
        "eq10",
        "Eq. 10, Section 4",
        "the score is the median loss after losses of labels outside the top k are removed",
        score_printed,
        score,
        SCORED,
        meant="the median over tokens within the top k: times an indicator they stay in the set as zeros",
        mended=score_mended,
    ),
    Equation(
        "salt",
        "eq11",
        "Eq. 11, App. A.1",
        "tau in softmax(x / tau) is an (inverse) temperature: as it grows, the entropy falls as that of softmax(tau x)",
        lambda logits, exponent: slope(lambda s: entropy(softmax(logits * s)), exponent),
        lambda logits, exponent: slope(lambda s: entropy(np.exp(logits / s) / np.exp(logits / s).sum()), exponent),
        LOGITS,
        meant="tau is a temperature",
        mended=lambda logits, exponent: slope(lambda s: entropy(softmax(logits / s)), exponent),
    ),
    Equation(
        "salt",
        "alg1",
        "Algorithm 1",
        "the output has seen n_KD distillation steps and n - n_KD standard ones",
        updates_printed,
        lambda kd_steps, steps: np.array([kd_steps, steps - kd_steps]),
        BUDGETS,
        meant="theta_j from theta_{j-1}: as printed theta_1 is never set, and theta_n has seen n - 1 steps",
        mended=updates_mended,
    ),
)
