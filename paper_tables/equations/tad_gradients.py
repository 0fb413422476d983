"""TAD Eq. 9 and 12 to 17, App. C: the gradient of each part of the loss."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from paper_tables.equations.calculus import derivative, kl, softmax, top
from paper_tables.equations.equation import Array, Equation
from paper_tables.equations.tad_divergence import HEADS, PAIRS, first, masses, second, tail_gradient

# what follows


def head_loss(teacher: Array, student: Array, k: int) -> Array:
    """L_{1:K}, the other terms of D_KL1."""
    return kl(np.where(top(teacher, k), teacher, 0.0), student)


def complement(teacher: Array, student: Array, k: int) -> Array:
    """L_{K+1}, the last term of D_KL1."""
    tail = ~top(teacher, k)
    alpha = teacher[tail].sum()
    return alpha * np.log(alpha / softmax(student)[..., tail].sum(-1))


def slope_of(loss: Callable[[Array, Array, int], Array]) -> Callable[[Array, Array, int], Array]:
    return lambda teacher, student, k: derivative(lambda x: loss(teacher, x, k), student)


# as printed


def head_cases(teacher: Array, student: Array, k: int) -> Array:
    """The tail's case sums K times the tail class's own teacher probability."""
    head, probs, t, _ = masses(teacher, student, k)
    return np.where(head, probs * t - teacher, probs * k * teacher)


def head_cases_mended(teacher: Array, student: Array, k: int) -> Array:
    head, probs, t, _ = masses(teacher, student, k)
    return probs * t - np.where(head, teacher, 0)


def complement_chain(teacher: Array, student: Array, k: int) -> Array:
    head, probs, t, p = masses(teacher, student, k)
    inner = [sum(probs[j] * ((i == j) - probs[i]) for j in np.flatnonzero(head)) for i in range(len(probs))]
    return (1 - t) / (1 - p) * np.array(inner)


def complement_cases(teacher: Array, student: Array, k: int) -> Array:
    head, probs, t, p = masses(teacher, student, k)
    return np.where(head, probs * (1 - t), -probs * (1 - t) / (1 - p) * t)


def complement_cases_mended(teacher: Array, student: Array, k: int) -> Array:
    head, probs, t, p = masses(teacher, student, k)
    return np.where(head, probs * (1 - t), -probs * (1 - t) / (1 - p) * p)


def first_cases(teacher: Array, student: Array, k: int) -> Array:
    head, probs, t, p = masses(teacher, student, k)
    return np.where(head, probs - teacher, probs * (t - p) / (1 - p))


def second_cases(teacher: Array, student: Array, k: int) -> Array:
    head, probs, t, p = masses(teacher, student, k)
    return np.where(head, 0.0, probs / (1 - p) - teacher / (1 - t))


EQUATIONS = (
    Equation(
        "tad",
        "eq9",
        "Eq. 9, App. C",
        "dp_j/dz_i = p_j (1{i = j} - p_i)",
        lambda student: np.diag(softmax(student)) - np.outer(softmax(student), softmax(student)),
        lambda student: derivative(softmax, student),
        tuple({"student": pair["student"]} for pair in PAIRS),
    ),
    Equation(
        "tad",
        "eq12",
        "Eq. 12, App. C",
        "dL_{1:K}/dz_i = p_i sum_K t - sum_k t_k 1{i = k}",
        head_cases_mended,
        slope_of(head_loss),
        HEADS,
    ),
    Equation(
        "tad",
        "eq12-cases",
        "cases below Eq. 12, App. C",
        "dL_{1:K}/dz_i in the tail is p_i times the sum over k of t_i",
        head_cases,
        slope_of(head_loss),
        HEADS,
        meant="p_i times the sum over k of t_k: the subscript within the sum is k",
        mended=head_cases_mended,
    ),
    Equation(
        "tad",
        "eq13-loss",
        "above Eq. 13, App. C",
        "L_{K+1} = -alpha log(1 - sum_K p) + a constant: the same change from one student to another",
        lambda teacher, student, k: (
            -(1 - masses(teacher, student, k)[2])
            * (np.log(1 - masses(teacher, student, k)[3]) - np.log(1 - masses(teacher, 0 * student, k)[3]))
        ),
        lambda teacher, student, k: complement(teacher, student, k) - complement(teacher, 0 * student, k),
        HEADS,
    ),
    Equation(
        "tad",
        "eq13-chain",
        "above Eq. 13, App. C",
        "dL_{K+1}/dz_i = (1 - sum t) / (1 - sum p) sum_k p_k (1{i = k} - p_i)",
        complement_chain,
        slope_of(complement),
        HEADS,
    ),
    Equation(
        "tad",
        "eq13",
        "Eq. 13, App. C",
        "dL_{K+1}/dz_i = p_i (1 - sum t) on K, -p_i (1 - sum t) / (1 - sum p) sum_K t elsewhere",
        complement_cases,
        slope_of(complement),
        HEADS,
        meant="the last sum runs over the student's probabilities, as Eq. 14 needs it",
        mended=complement_cases_mended,
    ),
    Equation(
        "tad",
        "eq14",
        "Eq. 14, App. C",
        "dD_KL1/dz_i = p_i - t_i on K, p_i (sum t - sum p) / (1 - sum p) elsewhere",
        first_cases,
        slope_of(first),
        HEADS,
    ),
    Equation(
        "tad",
        "eq15",
        "Eq. 15, App. C, and the cases below it; Eq. 16",
        "dD_KL2/dz_i = 0 on K, p_i / (1 - sum p) - t_i / (1 - sum t) elsewhere",
        second_cases,
        slope_of(second),
        HEADS,
    ),
    Equation(
        "tad",
        "eq17",
        "Eq. 17, App. C",
        "(1 - sum t) dD_KL2/dz_i = p_i (1 - sum t) / (1 - sum p) - t_i in the tail",
        lambda teacher, student, k: (tail_gradient(teacher, student, k, 2.0) - softmax(student) + teacher)[
            ~top(teacher, k)
        ],
        lambda teacher, student, k: (
            (1 - masses(teacher, student, k)[2]) * slope_of(second)(teacher, student, k)[~top(teacher, k)]
        ),
        HEADS,
    ),
)
