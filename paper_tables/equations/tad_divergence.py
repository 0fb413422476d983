"""TAD Eq. 2, 5 to 7 and 10, App. B: the KL divergence split into head and tail, and the loss made of it."""

from __future__ import annotations

import numpy as np

from paper_tables.equations.calculus import derivative, kl, softmax, top
from paper_tables.equations.equation import Array, Equation

TEACHER = (0.4, 0.3, 0.15, 0.1, 0.05)
STUDENT = (1.0, -0.5, 0.3, 2.0, -1.0)
# plain; a sure student; neither has an opinion; a class that the teacher rules out
PAIRS = (
    {"teacher": TEACHER, "student": STUDENT},
    {"teacher": (0.6, 0.2, 0.1, 0.06, 0.04), "student": (9.0, -4.0, 0.0, -6.0, 2.0)},
    {"teacher": (0.2, 0.2, 0.2, 0.2, 0.2), "student": (0.0, 0.0, 0.0, 0.0, 0.0)},
    {"teacher": (0.5, 0.25, 0.25, 0.0), "student": (0.5, 1.5, -1.0, 0.0)},
)
HEADS = tuple({**pair, "k": k} for pair in PAIRS for k in (1, 2))
SCALES = tuple({**state, "scale": scale} for state in HEADS for scale in (1.0, 4.0, 0.5))
UNSORTED = tuple(
    {"teacher": teacher, "k": k} for teacher in ((0.4, 0.3, 0.2, 0.1), (0.1, 0.6, 0.3), (0.2, 0.1, 0.7)) for k in (1, 2)
)

# definitions


def first(teacher: Array, student: Array, k: int) -> Array:
    """D_KL1: the K classes, and all others as one."""
    head, probs = top(teacher, k), softmax(student)
    grouped = np.concatenate([probs[..., head], probs[..., ~head].sum(-1, keepdims=True)], axis=-1)
    return kl(np.append(teacher[head], teacher[~head].sum()), np.log(grouped))


def second(teacher: Array, student: Array, k: int) -> Array:
    """D_KL2: the other classes among themselves."""
    tail = ~top(teacher, k)
    return kl(teacher[tail] / teacher[tail].sum(), student[..., tail])


def divergence(teacher: Array, student: Array, k: int, scale: float) -> Array:
    alpha = teacher[~top(teacher, k)].sum()
    return first(teacher, student, k) + scale * alpha * second(teacher, student, k)


def divergence_slope(teacher: Array, student: Array, k: int, scale: float) -> Array:
    return derivative(lambda x: divergence(teacher, x, k, scale), student)


def masses(teacher: Array, student: Array, k: int) -> tuple[Array, Array, float, float]:
    head, probs = top(teacher, k), softmax(student)
    return head, probs, teacher[head].sum(), probs[head].sum()


# as printed


def kth_as_printed(teacher: Array, k: int) -> float:
    """The largest of what is left when the probabilities of the first k - 1 classes are taken out of the set."""
    return max(set(teacher.tolist()) - set(teacher[: k - 1].tolist()))


def tail_gradient(teacher: Array, student: Array, k: int, scale: float) -> Array:
    _, probs, t, p = masses(teacher, student, k)
    return probs - teacher + (scale - 1) * (probs * (1 - t) / (1 - p) - teacher)


def gradient(teacher: Array, student: Array, k: int, scale: float) -> Array:
    return np.where(top(teacher, k), softmax(student) - teacher, tail_gradient(teacher, student, k, scale))


EQUATIONS = (
    Equation(
        "tad",
        "eq2",
        "Eq. 2, Section 2; Eq. 8, App. B",
        "KL = D_KL1 + alpha_K D_KL2",
        lambda teacher, student, k: divergence(teacher, student, k, 1.0),
        lambda teacher, student, k: kl(teacher, student),
        HEADS,
    ),
    Equation(
        "tad",
        "eq2-kth",
        "above Eq. 2, Section 2; App. B",
        "the k-th largest probability is the largest after those of tokens 1 to k - 1 are taken out of the set",
        kth_as_printed,
        lambda teacher, k: np.sort(teacher)[-k],
        UNSORTED,
        meant="those of the k - 1 most probable tokens (a hat is missing, unless our text of the paper lost it)",
        mended=lambda teacher, k: teacher[top(teacher, k)].min(),
    ),
    Equation(
        "tad",
        "eq5",
        "Eq. 5, Section 2.1; Eq. 10 and 11, App. C",
        "dL_KLD/dz_i = p_i - t_i",
        lambda teacher, student: softmax(student) - teacher,
        lambda teacher, student: derivative(lambda x: kl(teacher, x), student),
        PAIRS,
    ),
    Equation(
        "tad",
        "eq6",
        "Eq. 6, Section 2.1; end of App. C",
        "dL_DIV/dz_i = p_i - t_i on K; p_i - t_i + (beta(X) - 1) (p_i (1 - sum t) / (1 - sum p) - t_i) elsewhere",
        gradient,
        divergence_slope,
        SCALES,
    ),
    Equation(
        "tad",
        "eq7",
        "Eq. 7, App. B",
        "divided by one minus the mass of K, the tail of teacher and student sums to one",
        lambda teacher, student, k: np.ones(2),
        lambda teacher, student, k: np.array(
            [
                (teacher / (1 - masses(teacher, student, k)[2]))[~top(teacher, k)].sum(),
                (softmax(student) / (1 - masses(teacher, student, k)[3]))[~top(teacher, k)].sum(),
            ]
        ),
        HEADS,
    ),
    Equation(
        "tad",
        "eq17-sum",
        "below Eq. 17, App. C",
        "L_DIV = L_KLD + (beta(X) - 1) (1 - sum t) D_KL2",
        lambda teacher, student, k, scale: (
            kl(teacher, student) + (scale - 1) * (1 - masses(teacher, student, k)[2]) * second(teacher, student, k)
        ),
        divergence,
        SCALES,
    ),
)
