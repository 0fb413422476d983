"""Closed forms: the least error that an unbiased target of so many classes can have, and what a prior would save.

Both follow from the teacher's probabilities alone. The closed forms of one target stand on its class. N positions, V
classes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from replication.axes.targets.water_filling import WaterFilling, drawn_error, levelled

PRICED = 256  # of water-filling, from a hundred-thousandth to one, at which `least_error` is asked for
SHARES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)  # of a prior; without it first


def prices(probs_NV: Tensor) -> Tensor:
    """The least of error + level^2 * classes that unbiased targets can have, [PRICED] float64, summed over positions.

    A class that is kept with chance c adds at least t^2 (1 / c - 1) to the error: the sum over classes of that and of
    level^2 c is least where c = min(1, t / level) (docs/theory.md, 4).
    """
    level_L, prob_X = priced_levels(probs_NV.device), probs_NV.double().flatten()
    above_X = torch.bucketize(prob_X, level_L, right=True)  # the first of the levels that is larger

    def below(value_X: Tensor | None) -> Tensor:
        """Sums over what lies below each level."""
        return torch.bincount(above_X, value_X, minlength=PRICED + 1)[:PRICED].cumsum(0)

    return (len(prob_X) - below(None)) * level_L**2 + 2 * level_L * below(prob_X) - below(prob_X**2)


def least_error(price_L: Tensor, classes: float) -> float:
    """The squared error below which no unbiased target of so many classes on average can come; `price_L` on average.

    That follows for each level; the best of them says most.
    """
    return max(0.0, float((price_L - priced_levels(price_L.device) ** 2 * classes).max()))


def priced_levels(device: torch.device) -> Tensor:
    return torch.logspace(-5, 0, PRICED, dtype=torch.float64, device=device)


def corrected_error(target: WaterFilling, probs_NV: Tensor, prior_V: Tensor) -> Tensor:
    """Expected error, [N, S], where each of SHARES of a prior is taken out and only the rest is drawn; not rounded.

    A control variate. The prior, the text's unigram law for one, costs no bytes: as many classes are drawn as without
    it, by water-filling of |probability - share * prior|, with weights that are signed and need not sum to one.
    """
    errors = []
    for share in SHARES:
        rest_NV = (probs_NV - share * prior_V).abs()
        size_N1 = rest_NV.sum(1, keepdim=True)
        rest_NV = rest_NV / size_N1
        largest_NK = rest_NV.topk(min(target.classes, rest_NV.shape[1]), dim=1).values
        _, _, level_N1 = levelled(largest_NK, target.wanted(largest_NK))
        errors.append(size_N1[:, 0].square() * drawn_error(rest_NV, level_N1))
    return torch.stack(errors, 1)


def set_entropy(chances_V: Tensor) -> Tensor:
    """Bits of a set that each class belongs to with its own chance, whatever the others do.

    Where the chances are how often a cache keeps each class, no code of single classes takes fewer on average.
    """
    return (torch.special.entr(chances_V) + torch.special.entr(1 - chances_V)).sum() / math.log(2)
