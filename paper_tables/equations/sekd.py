"""SE-KD Eq. 2 to 6, Section 5, App. A: the selective loss, the positions it selects, what drawn positions estimate.

`weights` say how often a position is drawn, `losses` what it costs. Samples may have different lengths: a position that
is not there is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from paper_tables.equations.calculus import derivative, kl
from paper_tables.equations.draws import counts, expectation
from paper_tables.equations.equation import Array, Equation, State

NO = math.nan
BATCHES = (
    {"losses": ((1.0, 2.0, 4.0), (0.5, 3.0, NO)), "masks": ((1, 1, 1), (1, 1, 0)), "selected": (1, 1)},
    {"losses": ((1.0, NO, NO), (0.5, 3.0, 2.0)), "masks": ((1, 0, 0), (1, 1, 1)), "selected": (1, 1)},
)
PARTIAL = (
    *BATCHES,
    {"losses": ((1.0, 2.0, 4.0), (0.5, 3.0, NO)), "masks": ((0, 1, 1), (1, 0, 0)), "selected": (1, 1)},
    {"losses": ((1.0, 2.0, 4.0), (0.5, 3.0, 7.0)), "masks": ((0, 1, 0), (1, 0, 1)), "selected": (0, 1)},
)
SCORES = (
    {"scores": (0.1, 2.0, 0.7, 1.5, 0.3), "keep": 0.2},
    {"scores": (0.1, 2.0, 0.7, 1.5, 0.3, 0.9), "keep": 0.5},
    {"scores": (0.1, 2.0, 0.7), "keep": 1.0},
)
TIED = (*SCORES, {"scores": (0.5, 0.5, 0.5, 0.2), "keep": 0.5})
QUEUE = tuple({"size": size, "percent": percent} for size in (100, 1000) for percent in (20, 1, 50))
WEIGHTED = tuple(
    {"weights": weights, "losses": losses, "draws": draws}
    for weights in ((2.0, 1.0, 1.0), (0.1, 3.0, 0.9))
    for losses in ((1.0, 2.0, 4.0), (0.0, 5.0, 0.5))
    for draws in (1, 2, 4)
)
ZERO_WEIGHT: tuple[State, ...] = (*WEIGHTED[:2], {"weights": (2.0, 1.0, 0.0), "losses": (1.0, 2.0, 4.0), "draws": 2})
CLASSES = tuple(
    {"teacher": teacher, "student": (0.2, -1.0, 0.5), "draws": draws}
    for teacher in ((0.6, 0.3, 0.1), (0.5, 0.5, 0.0))
    for draws in (1, 3)
)


def share(weights: Array) -> Array:
    return weights / weights.sum()


def selective(losses: Array, masks: Array, selected: Array) -> float:
    """Eq. 4 and 5 as sums of 0/1 indicators."""
    rows = np.nansum(masks * losses, axis=1) / masks.sum(1)
    return float((selected * rows).sum() / selected.sum())


def mean_of_means(losses: Array, masks: Array, selected: Array) -> float:
    """The mean loss of each chosen sample over its chosen positions, averaged over the chosen samples."""
    rows = [row[mask == 1].mean() for row, mask, chosen in zip(losses, masks, selected, strict=True) if chosen]
    return float(np.mean(rows))


def everywhere(losses: Array, masks: Array, selected: Array) -> float:
    """Eq. 2: every position of every sample."""
    return float(np.mean([np.nanmean(row) for row in losses]))


def above_threshold(scores: Array, keep: float) -> int:
    """How many scores reach the threshold, for the threshold that comes nearest to ceil(k (L - 1)) of them."""
    wanted = math.ceil(keep * len(scores))
    return min((int((scores >= threshold).sum()) for threshold in scores), key=lambda n: (abs(n - wanted), n))


def by_rank(scores: Array, keep: float) -> int:
    return len(np.argsort(-scores, kind="stable")[: math.ceil(keep * len(scores))])


def queue(size: int) -> Array:
    """Scores without ties, in no order."""
    return np.sin(7.0 * np.arange(size)) + 1e-3 * np.arange(size)


def of_draws(losses: Array, drawn: tuple[int, ...]) -> float:
    return float(losses[list(drawn)].mean())


def of_indicators(losses: Array, drawn: tuple[int, ...]) -> float:
    """Eq. 4 with m_t = 1 for every position that was drawn, however often."""
    return float(losses[sorted(set(drawn))].mean())


def weighted(weights: Array, losses: Array, draws: int) -> float:
    return float((weights * losses).sum() / weights.sum())


def corrected(weights: Array, losses: Array, draws: int) -> float:
    """The mean of (1 / (K N)) sum L / q over what can be drawn."""
    q = share(weights)
    return float(expectation(lambda drawn: np.sum([losses[t] / q[t] for t in drawn]) / (draws * len(losses)), q, draws))


def mean_slope(target: Callable[[tuple[int, ...]], Array], teacher: Array, student: Array, draws: int) -> Array:
    """The gradient of KL to a target made of drawn classes, averaged over what can be drawn."""
    return expectation(lambda drawn: derivative(lambda x: kl(target(drawn), x), student), teacher, draws)


def teacher_on(teacher: Array, drawn: tuple[int, ...]) -> Array:
    return np.where(counts(drawn, len(teacher)) > 0, teacher, 0.0)


EQUATIONS = (
    Equation(
        "sekd",
        "eq3",
        "Eq. 3, Section 3, with C_t drawn as in Table 1 (RS-KD)",
        "the gradient of KL_C(p || q), p on the drawn classes, is on average that of KL(p || q)",
        lambda teacher, student, draws: mean_slope(lambda drawn: teacher_on(teacher, drawn), teacher, student, draws),
        lambda teacher, student, draws: derivative(lambda x: kl(teacher, x), student),
        CLASSES,
        meant="the sampled target of Table 1, counts over draws, in the place of p: p on a subset is biased like top-K",
        mended=lambda teacher, student, draws: mean_slope(
            lambda drawn: counts(drawn, len(teacher)) / draws, teacher, student, draws
        ),
    ),
    Equation(
        "sekd",
        "eq5",
        "Eq. 4 and 5, Section 3",
        "the loss is the mean over selected samples of the mean over their selected positions",
        selective,
        mean_of_means,
        PARTIAL,
    ),
    Equation(
        "sekd",
        "eq2",
        "Eq. 2 with Eq. 4 and 5, Section 3",
        "with every class, position and sample selected it is the loss of Full KD",
        selective,
        everywhere,
        BATCHES,
    ),
    Equation(
        "sekd",
        "eq6",
        "Eq. 6, Section 4",
        "the positions that reach a threshold can be exactly ceil(k (L - 1)) ones",
        above_threshold,
        lambda scores, keep: math.ceil(keep * len(scores)),
        TIED,
        meant="the ceil(k (L - 1)) first ones by rank: where scores tie no threshold gives that number",
        mended=by_rank,
    ),
    Equation(
        "sekd",
        "sec5-gls",
        "Section 5, GLS",
        "k % of the scores in the queue reach its (100 - k)-th percentile",
        lambda size, percent: percent * size / 100,
        lambda size, percent: (queue(size) >= np.percentile(queue(size), 100 - percent)).sum(),
        QUEUE,
    ),
    Equation(
        "sekd",
        "appA-counts",
        "App. A",
        "a position is drawn K q(t) times on average",
        lambda weights, losses, draws: draws * share(weights),
        lambda weights, losses, draws: expectation(lambda drawn: counts(drawn, len(weights)), share(weights), draws),
        WEIGHTED,
    ),
    Equation(
        "sekd",
        "appA-weighted",
        "App. A; Section 5, Pos RS-KD",
        "the mean loss of K drawn positions is on average the weighted loss sum w L / sum w",
        weighted,
        lambda weights, losses, draws: expectation(lambda drawn: of_draws(losses, drawn), share(weights), draws),
        WEIGHTED,
    ),
    Equation(
        "sekd",
        "eq4-drawn",
        "Eq. 4 (m_t is 0 or 1) with Section 5, Pos RS-KD",
        "Eq. 4 over the drawn positions is on average the weighted loss",
        lambda weights, losses, draws: expectation(lambda drawn: of_indicators(losses, drawn), share(weights), draws),
        weighted,
        WEIGHTED,
        meant="m_t is the number of times that t was drawn, as in App. A",
        mended=lambda weights, losses, draws: expectation(
            lambda drawn: (counts(drawn, len(losses)) * losses).sum() / draws, share(weights), draws
        ),
    ),
    Equation(
        "sekd",
        "appA-corrected",
        "App. A, importance-corrected",
        "(1 / (K N)) sum over draws of L / q(t) is on average the mean loss of all positions",
        lambda weights, losses, draws: losses.mean(),
        corrected,
        WEIGHTED,
    ),
    Equation(
        "sekd",
        "appA-zero-weight",
        "App. A, importance-corrected, with w(t) only said to be non-negative",
        "the same for every non-negative weight",
        lambda weights, losses, draws: losses.mean(),
        corrected,
        ZERO_WEIGHT,
        meant="every positive weight: a position of weight 0 is never drawn and its loss is lost",
        mended=lambda weights, losses, draws: losses[weights > 0].sum() / len(losses),
    ),
    Equation(
        "sekd",
        "sec5-corrected",
        "Section 5, Pos RS-KD*",
        "losses of K drawn positions, each times 1 / q(t), average to the loss of Full KD",
        lambda weights, losses, draws: expectation(
            lambda drawn: np.mean([losses[t] / share(weights)[t] for t in drawn]), share(weights), draws
        ),
        lambda weights, losses, draws: losses.mean(),
        WEIGHTED,
        meant="1 / (N q(t)), as in App. A: without N it is the sum over positions, N times the loss of Full KD",
        mended=corrected,
    ),
)
