"""RS-KD Eq. 1 to 5, App. A.1 to A.4, the poster: losses on logits, their gradients, their optima."""

from __future__ import annotations

import itertools

import numpy as np

from paper_tables.equations.calculus import cross_entropy, derivative, kept, kl, softmax, top
from paper_tables.equations.equation import Array, Equation

# plain; a sure student; a student and a teacher without opinion; two classes
PAIRS = (
    {"teacher": (0.4, 0.3, 0.15, 0.1, 0.05), "student": (1.0, -0.5, 0.3, 2.0, -1.0)},
    {"teacher": (0.6, 0.2, 0.1, 0.06, 0.04), "student": (9.0, -4.0, 0.0, -6.0, 2.0)},
    {"teacher": (0.2, 0.2, 0.2, 0.2, 0.2), "student": (0.0, 0.0, 0.0, 0.0, 0.0)},
    {"teacher": (0.75, 0.25), "student": (0.1, -0.2)},
)
RULED_OUT = {"teacher": (0.6, 0.25, 0.15, 0.0, 0.0), "student": (0.5, 1.5, -1.0, 0.0, 2.0)}
HEADS = tuple({**pair, "k": k} for pair in (*PAIRS, RULED_OUT) for k in (1, 2) if k < len(pair["teacher"]))
STUDENTS = tuple({"student": pair["student"]} for pair in PAIRS)
# a target need not sum to one
TARGETS = tuple(
    {"target": target, "student": PAIRS[0]["student"]}
    for target in ((0.4, 0.3, 0.0, 0.0, 0.0), (0.0, 0.0, 0.9, 0.0, 0.8), (0.0, 0.0, 0.0, 0.0, 0.0))
)
SUBSETS = tuple({"teacher": pair["teacher"], "k": k} for pair in PAIRS for k in (1, 2) if k < len(pair["teacher"]))


def difference(teacher: Array, student: Array) -> Array:
    return softmax(student) - teacher


def jacobian_printed(student: Array) -> Array:
    probs = softmax(student)
    return np.array([[p_i * ((i == j) - p_j) for i, p_i in enumerate(probs)] for j, p_j in enumerate(probs)])  # [j, i]


def chain_printed(target: Array, student: Array) -> Array:
    return -jacobian_printed(student) @ (target / softmax(student))


def mass_times_student(target: Array, student: Array) -> Array:
    return target.sum() * softmax(student) - target


def mass_times_student_k(teacher: Array, student: Array, k: int) -> Array:
    return mass_times_student(kept(teacher, k), student)


def kl_slope(target: Array, student: Array) -> Array:
    return derivative(lambda x: kl(target, x), student)


def kl_slope_k(teacher: Array, student: Array, k: int) -> Array:
    return kl_slope(kept(teacher, k), student)


def own_term(teacher: Array) -> Array:
    """sum t log t, the part of KL that no student moves."""
    positive = teacher[teacher > 0]
    return (positive * np.log(positive)).sum()


# which classes to keep (A.3)


def l1_by_mass(teacher: Array, k: int) -> Array:
    return np.array([2 * (1 - teacher[list(ids)].sum()) for ids in itertools.combinations(range(len(teacher)), k)])


def l1_directly(teacher: Array, k: int) -> Array:
    errors = []
    for ids in itertools.combinations(range(len(teacher)), k):
        target = np.zeros(len(teacher))
        target[list(ids)] = teacher[list(ids)] / teacher[list(ids)].sum()
        errors.append(abs(teacher - target).sum())
    return np.array(errors)


# where top-K comes to rest (A.4)


def scaled_up(teacher: Array, k: int) -> Array:
    """Logits of t / sum_K t on K; e^-800 is 0 in floats."""
    target = kept(teacher, k)
    return np.where(target > 0, np.log(np.where(target > 0, target, 1) / target.sum()), -800.0)


def at_rest_printed(teacher: Array, k: int) -> Array:
    mass = kept(teacher, k).sum()
    return np.array([*np.zeros(len(teacher)), mass * np.log(mass)])


def at_rest(teacher: Array, k: int) -> Array:
    student, target = scaled_up(teacher, k), kept(teacher, k)
    return np.array([*kl_slope(target, student), kl(target, student)])


EQUATIONS = (
    Equation(
        "rskd",
        "eq1",
        "Eq. 1, Section 2.2.1",
        "with the full teacher, dL/dx_i = p_i - t_i",
        difference,
        lambda teacher, student: kl_slope(teacher, student),
        (*PAIRS, RULED_OUT),
    ),
    Equation(
        "rskd",
        "eq2",
        "Eq. 2, Section 2.2.1; Eq. 5, App. A.4",
        "with a top-K target, dL/dx_i = (sum_K t) p_i - t_i",
        mass_times_student_k,
        kl_slope_k,
        HEADS,
    ),
    Equation(
        "rskd",
        "eq4",
        "Eq. 4, App. A.1",
        "with any weights as target, dL/dx_j = (sum t) p_j - t_j, L of Eq. 3",
        mass_times_student,
        kl_slope,
        TARGETS,
    ),
    Equation(
        "rskd",
        "appA1-softmax",
        "App. A.1, gradient through softmax",
        "dp_i/dx_j = p_i (1{i = j} - p_j)",
        jacobian_printed,
        lambda student: derivative(softmax, student),
        STUDENTS,
    ),
    Equation(
        "rskd",
        "appA1-chain",
        "App. A.1, first line of the derivation of Eq. 4",
        "dL/dx_j = - sum_i (t_i / p_i) dp_i/dx_j",
        chain_printed,
        kl_slope,
        TARGETS,
    ),
    Equation(
        "rskd",
        "appA2-loss",
        "App. A.2",
        "cross-entropy = KL - sum t log t",
        lambda teacher, student: kl(teacher, student) - own_term(teacher),
        lambda teacher, student: cross_entropy(teacher, student),
        (*PAIRS, RULED_OUT),
    ),
    Equation(
        "rskd",
        "appA2-gradient",
        "App. A.2",
        "the gradient of cross-entropy is that of KL, p_j - t_j",
        difference,
        lambda teacher, student: derivative(lambda x: cross_entropy(teacher, x), student),
        (*PAIRS, RULED_OUT),
    ),
    Equation(
        "rskd",
        "appA2-optimum",
        "App. A.2",
        "the loss is least where p = t",
        lambda teacher, student: -own_term(teacher),
        lambda teacher, student: cross_entropy(teacher, student),
        (*PAIRS, RULED_OUT),
        relation="at least",
    ),
    Equation(
        "rskd",
        "appA3-l1",
        "App. A.3",
        "K classes of mass a, normalised, are off by an L1 error of 2 (1 - a)",
        l1_by_mass,
        l1_directly,
        SUBSETS,
    ),
    Equation(
        "rskd",
        "appA3-least",
        "App. A.3",
        "no K classes have a smaller L1 error than the K most probable ones",
        lambda teacher, k: 2 * (1 - teacher[top(teacher, k)].sum()),
        lambda teacher, k: l1_directly(teacher, k).min(),
        SUBSETS,
    ),
    Equation(
        "rskd",
        "appA4-rest",
        "App. A.4; poster, panel 3",
        "at p_i = t_i / sum_K t on K, 0 elsewhere, the gradient is 0 and the loss a log a < 0",
        at_rest_printed,
        at_rest,
        SUBSETS,
    ),
    Equation(
        "rskd",
        "appA4-optimum",
        "App. A.4",
        "no student has a smaller top-K loss than a log a, a = sum_K t",
        lambda teacher, student, k: at_rest_printed(teacher, k)[-1],
        lambda teacher, student, k: kl(kept(teacher, k), student),
        HEADS,
        relation="at least",
    ),
)
