"""RS-KD Section 3.2 and App. A.5: the ghost token."""

from __future__ import annotations

import numpy as np

from paper_tables.equations.calculus import derivative, ghost, kept, kl, softmax, top
from paper_tables.equations.equation import Array, Equation
from paper_tables.equations.rskd_gradients import HEADS, jacobian_printed

MATCHED = tuple(
    {"teacher": (0.4, 0.3, 0.15, 0.1, 0.05), "tail": tail, "k": 2} for tail in ((1.0, 1.0, 1.0), (0.01, 0.09, 0.9))
)


def masses(teacher: Array, student: Array, k: int) -> tuple[Array, Array, float, float]:
    """K, the student, and the mass that teacher and student give to K."""
    head, probs = top(teacher, k), softmax(student)
    return head, probs, teacher[head].sum(), probs[head].sum()


# as printed


def ghost_chain(teacher: Array, student: Array, k: int) -> Array:
    head, _, t, p = masses(teacher, student, k)
    return (1 - t) / (1 - p) * jacobian_printed(student)[:, head].sum(1)


def ghost_cases(teacher: Array, student: Array, k: int) -> Array:
    head, probs, t, p = masses(teacher, student, k)
    return np.where(head, (1 - t) * probs, -(1 - t) / (1 - p) * probs * p)


def total_cases(teacher: Array, student: Array, k: int) -> Array:
    head, probs, t, p = masses(teacher, student, k)
    return np.where(head, probs - teacher, (t - p) / (1 - p) * probs)


def tail_rewritten(teacher: Array, student: Array, k: int) -> Array:
    head, probs, t, p = masses(teacher, student, k)
    return probs[~head] - (1 - t) / (1 - p) * probs[~head]


# what follows


def ghost_slope(teacher: Array, student: Array, k: int) -> Array:
    return derivative(lambda x: ghost(teacher, x, k), student)


def total(teacher: Array, student: Array, k: int) -> Array:
    return kl(kept(teacher, k), student) + ghost(teacher, student, k)


def total_slope(teacher: Array, student: Array, k: int) -> Array:
    return derivative(lambda x: total(teacher, x, k), student)


def matched_head(teacher: Array, tail: Array, k: int) -> Array:
    """Logits of a student equal to the teacher on K only; `tail` says how the rest is shared."""
    head = top(teacher, k)
    probs = teacher.copy()
    probs[~head] = teacher[~head].sum() * tail / tail.sum()
    return np.log(probs)


def matched_slope(teacher: Array, tail: Array, k: int) -> Array:
    student = matched_head(teacher, tail, k)
    return np.array([*total_slope(teacher, student, k), total(teacher, student, k)])


EQUATIONS = (
    Equation(
        "rskd",
        "appA5-chain",
        "App. A.5, derivation of dL_ghost/dx_j",
        "dL_ghost/dx_j = (1 - sum_K t) / (1 - sum_K p) sum_K dp_i/dx_j",
        ghost_chain,
        ghost_slope,
        HEADS,
    ),
    Equation(
        "rskd",
        "appA5-cases",
        "App. A.5, first pair of cases",
        "dL_ghost/dx_j = (1 - sum_K t) p_j on K, -(1 - sum_K t) / (1 - sum_K p) p_j sum_K p elsewhere",
        ghost_cases,
        ghost_slope,
        HEADS,
    ),
    Equation(
        "rskd",
        "appA5-total",
        "App. A.5, second pair of cases; Section 3.2",
        "dL/dx_j = p_j - t_j on K, as with the full teacher, and p_j sum_K (t - p) / (1 - sum_K p) elsewhere",
        total_cases,
        total_slope,
        HEADS,
    ),
    Equation(
        "rskd",
        "appA5-ghost-tail",
        "App. A.5, rewritten gradient of the other classes",
        "dL_ghost/dx_j = p_j - (1 - sum_K t) / (1 - sum_K p) p_j outside K",
        tail_rewritten,
        lambda teacher, student, k: ghost_slope(teacher, student, k)[~top(teacher, k)],
        HEADS,
        meant="dL/dx_j, the gradient of the whole loss; L_ghost alone has -(1 - sum_K t) / (1 - sum_K p) p_j sum_K p",
        mended=lambda teacher, student, k: ghost_cases(teacher, student, k)[~top(teacher, k)],
    ),
    Equation(
        "rskd",
        "appA5-target",
        "App. A.5, target of the other classes",
        "outside K the whole loss pulls p_j to (1 - sum_K t) / (1 - sum_K p) p_j",
        tail_rewritten,
        lambda teacher, student, k: total_slope(teacher, student, k)[~top(teacher, k)],
        HEADS,
    ),
    Equation(
        "rskd",
        "appA5-optimum",
        "App. A.5, last sentence",
        "a student equal to the teacher on K alone has gradient 0 and the least loss, 0",
        lambda teacher, tail, k: np.zeros(len(teacher) + 1),
        matched_slope,
        MATCHED,
    ),
)
