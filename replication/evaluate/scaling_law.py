"""L(D) = E + B * D**-beta: how a loss falls with the tokens D that are read, at one size of model.

Hoffmann et al. 2022 fit it by the Huber loss of the logarithms, from many starts; TAD's Table 5 goes by it. What is far
beyond the budgets hangs on E and beta, and over few budgets the two trade against each other: see `Law`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

HUBER = 1e-3  # residuals of logarithms beyond it count linearly (Hoffmann et al. 2022)
# where the search begins: the share of the least loss that is the floor, and the exponent
STARTS = tuple(product((0.01, 0.5, 0.8, 0.95), (0.1, 0.3, 0.6, 1.0, 2.0)))
STEEPEST = 4.0  # exponent


@dataclass(frozen=True)
class Law:
    """`floor` (E) is what no budget goes below, `fall` (B) what is above it after one token, `exponent` (beta).

    Over less than a decade of budgets only the loss and its slope are well known, not the curvature that tells the
    floor from the exponent: laws of very different floors pass through the same losses there, and part far beyond.
    """

    floor: float  # nats
    fall: float  # nats
    exponent: float

    def at(self, tokens: float) -> float:
        return float(self.floor + self.fall * tokens**-self.exponent)


def fitted(tokens_P: Iterable[float], loss_P: Iterable[float], like: Law | None = None) -> Law:
    """The law nearest to these losses, at three budgets or more; `like` is where to begin, if that is known.

    ValueError, one line, for fewer budgets, or losses that are no positive numbers.
    """
    from scipy.optimize import minimize  # takes as long to import as a fit

    tokens, loss = np.asarray(list(tokens_P), float), np.asarray(list(loss_P), float)
    if len(set(tokens)) < 3 or not (np.isfinite(loss) & (loss > 0)).all():
        raise ValueError(
            f"A law of three constants needs losses above 0 at three budgets or more, and these are {loss.tolist()} at "
            f"{tokens.tolist()}: give more budgets, or leave out runs that diverged."
        )
    middle = float(np.exp(np.log(tokens).mean()))  # budgets are measured by it, so that fall and exponent part
    apart_P, log_P = np.log(tokens / middle), np.log(loss)

    def objective(place_3: np.ndarray) -> tuple[float, np.ndarray]:
        """The mean Huber loss and its gradient in log E, log(B * middle**-beta) and beta."""
        parts_2P = np.stack([np.full_like(apart_P, place_3[0]), place_3[1] - place_3[2] * apart_P])
        sum_P = np.logaddexp(*parts_2P)
        off_P = (sum_P - log_P) / HUBER
        beyond_P = np.abs(off_P) > 1
        value = np.where(beyond_P, np.abs(off_P) - 0.5, off_P**2 / 2).mean()
        slope_P = np.clip(off_P, -1, 1) / HUBER / len(off_P)
        share_2P = np.exp(parts_2P - sum_P)
        return float(value), np.stack(
            [slope_P * share_2P[0], slope_P * share_2P[1], -slope_P * share_2P[1] * apart_P]
        ).sum(1)

    least = float(loss.min())
    bounds = [(np.log(least) - 20, np.log(least)), (None, None), (1e-3, STEEPEST)]

    def searched(place_3: Sequence[float], most: int) -> Any:
        """From one start, in at most so many steps."""
        settings = {"maxiter": most, "ftol": 1e-15, "gtol": 1e-10}
        return minimize(objective, place_3, jac=True, method="L-BFGS-B", bounds=bounds, options=settings)

    if like is None:
        over = float(np.exp(log_P.mean()))
        starts = [(np.log(part * least), np.log(over - part * least), steep) for part, steep in STARTS]
        begin = min((searched(start, 60) for start in starts), key=lambda each: float(each.fun)).x
    else:
        begin = np.array([np.log(like.floor), np.log(like.fall) - like.exponent * np.log(middle), like.exponent])
    found = searched(begin, 2000)
    floor, fall, exponent = float(np.exp(found.x[0])), float(np.exp(found.x[1])), float(found.x[2])
    return Law(floor, fall * middle**exponent, exponent)
