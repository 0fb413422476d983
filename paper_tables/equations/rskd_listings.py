"""RS-KD App. K, first and third listing: training on sparse targets, operation by operation, against the text."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np

from paper_tables.equations.calculus import cross_entropy, kept, kl, softmax
from paper_tables.equations.draws import counts, normalised
from paper_tables.equations.equation import Array, Equation

TEACHER = (0.4, 0.3, 0.15, 0.1, 0.05)
DRAWN = tuple({"teacher": TEACHER, "drawn": drawn} for drawn in ((0, 2, 4), (0, 0, 1), (1, 1, 1, 1)))
BATCH = {
    "targets": ((0.6, 0.4, 0.0), (0.0, 0.0, 1.0)),
    "students": ((0.1, -0.3, 0.4), (2.0, 1.0, 0.0)),
}
LOSSES = tuple({"alpha": alpha, "ce": 5.0, "kd": 2.0} for alpha in (0.5, 0.1, 0.3))
# plain; the largest float below one, where the running sum ends lower; 0, where the first class has no probability
POINTS = (
    {"teacher": (0.5, 0.25, 0.25), "points": (0.1, 0.6, 0.9)},
    {"teacher": (1 / 7,) * 7, "points": (0.5, 1 - 2.0**-53)},
    {"teacher": (0.0, 0.5, 0.5), "points": (0.0, 0.3, 0.7)},
)

# first listing: sparse targets, their loss, its weight


def scatter(teacher: Array, drawn: Array) -> Array:
    """zeros_like, then `scatter_`: a class drawn again is set again."""
    target = np.zeros(len(teacher))
    target[drawn] = 1 / len(drawn)
    return target


def scatter_add(teacher: Array, drawn: Array) -> Array:
    target = np.zeros(len(teacher))
    np.add.at(target, drawn, 1 / len(drawn))
    return target


def pointwise(targets: Array, students: Array) -> Array:
    """What `kl_div` sums or averages: t (log t - log p), 0 where t is 0."""
    logs = np.log(np.where(targets > 0, targets, 1)) - np.log(softmax(students))
    return np.where(targets > 0, targets * logs, 0.0)


def mean_of_kl(targets: Array, students: Array) -> float:
    return float(np.mean([kl(target, student) for target, student in zip(targets, students, strict=True)]))


def weighed(alpha: float, first: float, second: float) -> Array:
    """The loss, and how it moves with alpha."""
    return np.array([alpha * first + (1 - alpha) * second, first - second])


# third listing: the synthetic classification task


def mlp_topk(probs: Array, k: int) -> Array:
    ids = np.argsort(-probs, kind="stable")[:k]
    values = probs[ids]  # a copy, as `topk` makes one
    probs *= 0
    np.add.at(probs, ids, values)
    return probs


def mlp_ids(teacher: Array, points: Array) -> Array:
    return np.searchsorted(teacher.cumsum(), np.sort(points))


def mlp_draws(probs: Array, points: Array) -> Array:
    ids = mlp_ids(probs, points)
    ones = np.ones_like(probs)  # as long as the vocabulary: the first N of them are read
    probs *= 0  # the running sum was taken before
    np.add.at(probs, ids, ones[: len(ids)])
    probs /= probs.sum()
    return probs


def ids_exactly(teacher: Array, points: Array) -> Array:
    """The class whose share of [0, total) holds the point, in fractions: no rounding, no class of probability 0."""
    edges = list(itertools.accumulate(Fraction(float(probability)) for probability in teacher))
    wanted = [Fraction(float(point)) * edges[-1] for point in np.sort(points)]
    return np.array([next(i for i, edge in enumerate(edges) if point < edge) for point in wanted])


def ids_mended(teacher: Array, points: Array) -> Array:
    edges = teacher.cumsum()
    scaled = np.minimum(np.sort(points) * edges[-1], np.nextafter(edges[-1], 0))
    return np.searchsorted(edges, scaled, side="right")


def mlp_loss(targets: Array, students: Array) -> float:
    log_sum = np.log(np.exp(students).sum(-1, keepdims=True))
    return float((-targets * (students - log_sum)).sum(-1).mean())


EQUATIONS = (
    Equation(
        "rskd",
        "appK-draws",
        "App. K, first listing, create_prob and downsample_ours",
        "scatter_ of 1/N at the drawn ids makes the target c_i / N of Section 4",
        scatter,
        lambda teacher, drawn: normalised(teacher, tuple(drawn), 1.0),
        DRAWN,
        meant="scatter_add_: a class that is drawn again is overwritten, so that the target is flat and sums to less",
        mended=scatter_add,
    ),
    Equation(
        "rskd",
        "appK-kl-div",
        "App. K, first listing, distillation_loss",
        "kl_div with its default reduction is the loss of Section 4, a sum over classes averaged over positions",
        lambda targets, students: pointwise(targets, students).mean(),
        mean_of_kl,
        (BATCH,),
        meant="reduction='batchmean': the default also divides by the number of classes",
        mended=lambda targets, students: pointwise(targets, students).sum() / len(targets),
    ),
    Equation(
        "rskd",
        "appK-alpha",
        "App. K, first listing, train_step, against Section 6.3",
        "the loss is alpha KD + (1 - alpha) CE; entry 1: how it moves with alpha",
        lambda alpha, ce, kd: weighed(alpha, kd, ce),
        lambda alpha, ce, kd: weighed(alpha, ce, kd),
        LOSSES,
        meant="alpha CE + (1 - alpha) KD, as in Section 6.3, where alpha is the weight of cross-entropy",
    ),
    Equation(
        "rskd",
        "appK-mlp-topk",
        "App. K, third listing, loss_kd, top-K",
        "emptying the teacher in place and adding the kept values gives top-K, not normalised (Section 2)",
        lambda teacher, k: mlp_topk(teacher.copy(), k),
        kept,
        tuple({"teacher": TEACHER, "k": k} for k in (1, 3, 5)),
    ),
    Equation(
        "rskd",
        "appK-mlp-draws",
        "App. K, third listing, loss_kd, random sampling",
        "running sum, search, emptying in place, adding ones: c_i / N of the classes that the points fall on",
        lambda teacher, points: mlp_draws(teacher.copy(), points),
        lambda teacher, points: counts(tuple(ids_exactly(teacher, points)), len(teacher)) / len(points),
        (
            {"teacher": TEACHER, "points": (0.05, 0.3, 0.45, 0.99, 0.39)},
            {"teacher": (0.2, 0.2, 0.2, 0.2, 0.2), "points": (0.9, 0.1)},
        ),
    ),
    Equation(
        "rskd",
        "appK-mlp-search",
        "App. K, third listing, loss_kd, searchsorted",
        "the search finds a class of positive probability for every number that rand may return",
        mlp_ids,
        ids_exactly,
        POINTS,
        meant="points scaled to the end of the running sum, which rounding leaves below one, and right=True; as "
        "printed an id may be V, which scatter_reduce_ refuses, and 0 finds a class without probability",
        mended=ids_mended,
    ),
    Equation(
        "rskd",
        "appK-mlp-loss",
        "App. K, third listing, loss_kd, last lines",
        "x - log sum exp x, weighed by the target, summed over classes and averaged: cross-entropy to the target",
        mlp_loss,
        lambda targets, students: np.mean([cross_entropy(t, x) for t, x in zip(targets, students, strict=True)]),
        (BATCH,),
    ),
)
