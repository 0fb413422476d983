"""TAD Eq. 1, 3 and 4, and what Sections 2.1 and 3.2 conclude from the gradients."""

from __future__ import annotations

import numpy as np

from paper_tables.equations.calculus import cross_entropy, kl, slope, softmax, top
from paper_tables.equations.equation import Array, Equation
from paper_tables.equations.tad_divergence import PAIRS, STUDENT, TEACHER, divergence, divergence_slope

SEQUENCES = tuple(
    {"teachers": (TEACHER, (0.9, 0.05, 0.02, 0.02, 0.01)), "students": (STUDENT, (0.0, 1.0, 0.0, -1.0, 0.5)), "k": k}
    for k in (1, 2)
)
# the student gives K more than the teacher does, and shares its tail as the teacher, almost so, the other way round
ABOVE = (
    {"teacher": (0.5, 0.3, 0.1, 0.1), "probs": (0.6, 0.3, 0.05, 0.05), "k": 2, "scale": 4.0},
    {"teacher": (0.5, 0.3, 0.12, 0.08), "probs": (0.5, 0.35, 0.095, 0.055), "k": 2, "scale": 4.0},
    {"teacher": (0.5, 0.3, 0.01, 0.19), "probs": (0.5, 0.31, 0.18, 0.01), "k": 2, "scale": 4.0},
)
SAME_HEAD = tuple(
    {"teacher": (0.5, 0.3, 0.15, 0.05), "probs": probs, "k": 2, "scale": 4.0}
    for probs in ((0.3, 0.5, 0.05, 0.15), (0.4, 0.4, 0.1, 0.1), (0.75, 0.05, 0.19, 0.01))
)
STARTS = tuple({**pair, "k": 2, "scale": 4.0} for pair in PAIRS[:2])
ACCURACIES = (
    {"accuracy": 43.0, "vanilla": 40.7},
    {"accuracy": 25.9, "vanilla": 24.2},
    {"accuracy": 1.0, "vanilla": 2.0},
)


def tail_slope(teacher: Array, probs: Array, k: int, scale: float) -> Array:
    return divergence_slope(teacher, np.log(probs), k, scale)[~top(teacher, k)]


def tail_growth(teacher: Array, probs: Array, k: int, scale: float) -> Array:
    """How fast the student's tail mass grows along the descent of the loss."""
    student, tail = np.log(probs), ~top(teacher, k)
    downhill = -divergence_slope(teacher, student, k, scale)
    return slope(lambda step: softmax(student + step * downhill)[tail].sum(), 0.0)


def rest(teacher: Array, student: Array, k: int, scale: float) -> Array:
    """Where descent ends that starts at the student."""
    for _ in range(110):
        student = student - 2 * divergence_slope(teacher, student, k, scale)
    return softmax(student)


def scale_of(teachers: Array, k: int, beta: float) -> float:
    """beta(X)."""
    return beta / float(np.mean([teacher[~top(teacher, k)].sum() for teacher in teachers]))


EQUATIONS = (
    Equation(
        "tad",
        "eq4",
        "Eq. 1, 3 and 4, Section 2",
        "with beta(X) = 1 the loss of Eq. 4 is that of Eq. 1",
        lambda teachers, students, k: sum(
            cross_entropy(np.eye(teacher.size)[0], student) + divergence(teacher, student, k, 1.0)
            for teacher, student in zip(teachers, students, strict=True)
        ),
        lambda teachers, students, k: sum(
            -np.log(softmax(student)[0]) + kl(teacher, student)
            for teacher, student in zip(teachers, students, strict=True)
        ),
        SEQUENCES,
    ),
    Equation(
        "tad",
        "sec2.1-beta",
        "Section 2.1, below Eq. 6",
        "beta >= 1 makes beta(X) > 1",
        lambda teachers, students, k: 1.0,
        lambda teachers, students, k: scale_of(teachers, k, 1.0),
        SEQUENCES,
        relation="at least",
    ),
    Equation(
        "tad",
        "sec2.1-bound",
        "Section 2.1, below Eq. 6",
        "where the student gives K at least the teacher's mass, dL_DIV/dz_i >= beta(X) (p_i - t_i) in the tail",
        lambda teacher, probs, k, scale: scale * (probs - teacher)[~top(teacher, k)],
        tail_slope,
        (*ABOVE, *SAME_HEAD),
        relation="at least",
    ),
    Equation(
        "tad",
        "sec2.1-stronger",
        "Section 2.1, below Eq. 6",
        "where the student gives K at least the teacher's mass, |dL_DIV/dz_i| >= |p_i - t_i| in the tail",
        lambda teacher, probs, k, scale: abs(probs - teacher)[~top(teacher, k)],
        lambda teacher, probs, k, scale: abs(tail_slope(teacher, probs, k, scale)),
        ABOVE,
        relation="at least",
        meant="stronger where p_i > t_i; for p_i < t_i the bound is from below, and the gradient may be weaker or turn",
    ),
    Equation(
        "tad",
        "sec2.1-tail-rises",
        "Section 2.1, below Eq. 6",
        "where the student gives K at least the teacher's mass, each gradient step raises its tail mass: growth >= 0",
        lambda teacher, probs, k, scale: 0.0,
        tail_growth,
        ABOVE,
        relation="at least",
        meant="where the student shares its tail as the teacher does; a step on a tail shared wrongly may lower it",
    ),
    Equation(
        "tad",
        "sec2.1-second-term",
        "Section 2.1, second term of Eq. 6",
        "where the student gives K at least the teacher's mass, the second term of Eq. 6 adds to that growth",
        lambda teacher, probs, k, scale: 0.0,
        lambda teacher, probs, k, scale: tail_growth(teacher, probs, k, scale) - tail_growth(teacher, probs, k, 1.0),
        ABOVE,
        relation="at least",
        meant="over the tail the second term sums to 0: it only moves mass within the tail, and may lower its sum",
    ),
    Equation(
        "tad",
        "sec2.1-same-head",
        "Section 2.1, below Eq. 6",
        "where both give K the same mass, dL_DIV/dz_i = beta(X) (p_i - t_i) in the tail",
        lambda teacher, probs, k, scale: scale * (probs - teacher)[~top(teacher, k)],
        tail_slope,
        SAME_HEAD,
    ),
    Equation(
        "tad",
        "sec2.1-fixed-point",
        "Section 2.1, below Eq. 6; Section 2, below Eq. 3",
        "training comes to rest where p = t, as with KL",
        lambda teacher, student, k, scale: teacher,
        rest,
        STARTS,
    ),
    Equation(
        "tad",
        "sec3.2-relative",
        "Section 3.2.1",
        "100 log(a / b) is symmetric: the change from b to a is minus that from a to b",
        lambda accuracy, vanilla: 100 * np.log(accuracy / vanilla),
        lambda accuracy, vanilla: -100 * np.log(vanilla / accuracy),
        ACCURACIES,
    ),
)
