"""RS-KD App. K, second listing: the toy distribution of Figure 2a, operation by operation, against the text."""

from __future__ import annotations

import numpy as np

from paper_tables.equations.calculus import kept
from paper_tables.equations.draws import counts, expectation
from paper_tables.equations.equation import Array, Equation

ZIPF = tuple({"classes": classes, "k": k} for classes, k in ((6, 2), (6, 5), (100, 20)))
ROUNDS = tuple({"drawn": drawn, "classes": 3} for drawn in ((1,), (0, 1), (0, 0, 1), (2, 2, 2, 2)))
SMALL_ROUNDS = tuple({"classes": classes, "draws": draws} for classes, draws in ((3, 1), (3, 3), (2, 5)))


def zipf(classes: int) -> Array:
    probs = 1 / np.arange(1, classes + 1)
    return probs / probs.sum()


def toy_naive_fix(classes: int, k: int) -> Array:
    teacher = zipf(classes)
    target = np.zeros_like(teacher)
    target[:k] = teacher[:k]
    target += teacher * (1 - np.sum(target))
    return target


def mean_naive_fix(classes: int, k: int) -> Array:
    """Section 3.3: top-K, the rest to the ground truth; the mean over ground truths that the teacher would draw."""
    teacher, mean = zipf(classes), np.zeros(classes)
    for label, chance in enumerate(teacher):
        target = kept(teacher, k)
        target[label] += 1 - target.sum()
        mean += chance * target
    return mean


def toy_round(drawn: tuple[int, ...], classes: int) -> tuple[Array, int]:
    """One round with the printed indentation: what it adds to the sum of targets and to the number of classes."""
    current, added, unique = np.zeros(classes), np.zeros(classes), 0
    for i in drawn:
        current[i] += 1
        unique += int(np.count_nonzero(current))
        current /= len(drawn)
        added += current
    return added, unique


def toy_round_mended(drawn: tuple[int, ...], classes: int) -> tuple[Array, int]:
    current = np.zeros(classes)
    for i in drawn:
        current[i] += 1
    return current / len(drawn), int(np.count_nonzero(current))


def toy_target(drawn: Array, classes: int) -> Array:
    added = toy_round(tuple(drawn.tolist()), classes)[0]
    return added / added.sum()


def toy_mean(classes: int, draws: int) -> Array:
    curve = expectation(lambda drawn: toy_round(drawn, classes)[0], zipf(classes), draws)
    return curve / curve.sum()


EQUATIONS = (
    Equation(
        "rskd",
        "appK-toy-topk",
        "App. K, second listing, apply_top_k",
        "the curve is top-K, normalised; the zero put in for the eye moves nothing",
        lambda classes, k: np.array([*zipf(classes)[:k] / np.sum(zipf(classes)[:k]), 0, *np.zeros(classes - k)])[:-1],
        lambda classes, k: kept(zipf(classes), k) / kept(zipf(classes), k).sum(),
        ZIPF,
    ),
    Equation(
        "rskd",
        "appK-toy-naive-fix",
        "App. K, second listing, apply_naive_fix, against Section 3.3",
        "adding (1 - a) t to top-K is the naive fix, averaged over ground truths drawn from the teacher",
        toy_naive_fix,
        mean_naive_fix,
        ZIPF,
    ),
    Equation(
        "rskd",
        "appK-toy-sampling",
        "App. K, second listing, apply_random_sampling",
        "one round adds c_i / N",
        toy_target,
        lambda drawn, classes: counts(tuple(drawn), classes) / len(drawn),
        ROUNDS,
        meant="count, divide and add once a round: as indented, a draw is divided and added again at every later one",
        mended=lambda drawn, classes: toy_round_mended(tuple(drawn.tolist()), classes)[0],
    ),
    Equation(
        "rskd",
        "appK-toy-mean",
        "App. K, second listing, apply_random_sampling",
        "over many rounds the curve is the teacher",
        toy_mean,
        lambda classes, draws: zipf(classes),
        SMALL_ROUNDS,
    ),
    Equation(
        "rskd",
        "appK-toy-unique",
        "App. K, second listing, num_samples_effective",
        "one round adds the number of different classes drawn",
        lambda drawn, classes: toy_round(tuple(drawn.tolist()), classes)[1],
        lambda drawn, classes: len(set(drawn.tolist())),
        ROUNDS,
        meant="count once a round: as indented, the classes of every prefix of the round are added up",
        mended=lambda drawn, classes: toy_round_mended(tuple(drawn.tolist()), classes)[1],
    ),
    Equation(
        "rskd",
        "appK-toy-matched",
        "App. K, second listing, settings; App. C",
        "22 draws from 100,000 Zipf classes give about as many different ones as TOP_K = 20",
        lambda classes, draws: 20,
        lambda classes, draws: np.round((1 - (1 - zipf(classes)) ** draws).sum()),
        ({"classes": 100_000, "draws": 22},),
    ),
)
