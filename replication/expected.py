"""Expected: how many classes a target keeps and how far it is off, from the teacher's probabilities alone.

The squared errors of the draws stand with them in sampled.py. N positions, V classes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from replication.filling import AdaptiveWaterFilling, WaterFilling, drawn_error, levelled
from replication.sampled import HeadAndSampledTail, RandomSampling, Stratified, Systematic, WithoutReplacement
from replication.target import Target
from replication.targets import Full, OneHot, TopK

PRICED = 256  # of water-filling, from a hundred-thousandth to one, at which `least_error` is asked for
SHARES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)  # of a prior; without it first


def expected_error(target: Target, probs_NV: Tensor) -> Tensor | None:
    """Mean squared distance to the teacher, summed over classes, [N]; None where no closed form is known.

    Of TopK, whose weights are the teacher's own, it is the squares of what is left out: a bias, the same every time.
    """
    match target:
        case TopK(k=k):
            return probs_NV.square().sum(1) - probs_NV.topk(k, dim=1).values.square().sum(1)
        case Full(exponent=1):
            return torch.zeros_like(probs_NV[:, 0])
        case RandomSampling(exponent=1) | Stratified() | Systematic() | HeadAndSampledTail():
            return target.squared_error(probs_NV)
        case WaterFilling() | AdaptiveWaterFilling():
            return target.squared_error(probs_NV)
    return None


def expected_gradient_error(target: Target, probs_NV: Tensor) -> Tensor | None:
    """Mean squared error of the gradient in the logits at a student that equals the teacher, [N] (docs/theory.md, 4).

    That of the target where its weights sum to one, as those of all closed forms but TopK's do.
    """
    left_out_N = expected_error(target, probs_NV)
    if not isinstance(target, TopK) or left_out_N is None:
        return left_out_N
    head_NK = probs_NV.topk(target.k, dim=1).values
    mass_N = head_NK.sum(1)
    return (1 - mass_N).square() * head_NK.square().sum(1) + mass_N.square() * left_out_N


def expected_classes(target: Target, probs_NV: Tensor) -> Tensor | None:
    """How many different classes are kept, [N]; None where no closed form is known."""
    possible_N = (probs_NV > 0).sum(1)
    match target:
        case OneHot():
            return torch.ones_like(probs_NV[:, 0])
        case Full():
            return possible_N.to(probs_NV.dtype)
        case TopK(k=k):
            return torch.full_like(probs_NV[:, 0], k)
        case WithoutReplacement(classes=wanted):
            return possible_N.clamp_max(wanted).to(probs_NV.dtype)
        case WaterFilling() | AdaptiveWaterFilling():
            _, tail_N1, level_N1 = filled_head(target, probs_NV)
            tail_N1 = tail_N1 * (tail_N1 * level_N1 * target.parts).clamp_max(1)
            return expected_heads(target, probs_NV) + tail_N1[:, 0]
        case Systematic(draws=draws):
            return (probs_NV * draws).clamp_max(1).sum(1)
        case Stratified(draws=draws):
            return touched(probs_NV, draws).sum(1)
        case RandomSampling(draws=draws, exponent=1):
            return drawn_at_all(probs_NV, draws).sum(1)
        case HeadAndSampledTail(k=k, draws=draws):
            tail_NV = probs_NV.scatter(1, probs_NV.topk(k, dim=1).indices, 0.0)
            of_tail_NV = tail_NV / tail_NV.sum(1, keepdim=True).clamp_min(torch.finfo(tail_NV.dtype).tiny)
            return possible_N.clamp_max(k) + drawn_at_all(of_tail_NV, draws).sum(1)
    return None


def filled_head(target: WaterFilling | AdaptiveWaterFilling, probs_NV: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The probabilities of the head, zero elsewhere, [N, K]; how many are drawn besides, and their level, [N, 1]."""
    most = target.classes if isinstance(target, WaterFilling) else target.most
    largest_NK = probs_NV.topk(min(most, probs_NV.shape[1]), dim=1).values
    head_N1, tail_N1, level_N1 = levelled(largest_NK, target.wanted(largest_NK))
    in_head_NK = torch.arange(largest_NK.shape[1], device=probs_NV.device) < head_N1
    return largest_NK * in_head_NK, tail_N1, level_N1


def expected_heads(target: WaterFilling | AdaptiveWaterFilling, probs_NV: Tensor) -> Tensor:
    """How many of the kept classes have a weight of their own, [N]: those that are not rounded to nothing."""
    head_NK, _, _ = filled_head(target, probs_NV)
    return (head_NK * target.parts).clamp_max(1).sum(1)


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
    """No unbiased target with so many classes on average has less, wherever it spends them; `price_L` on average.

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


def drawn_at_all(probs_NV: Tensor, draws: int) -> Tensor:
    """The chance that a class is drawn at least once, 1 - (1 - p) ** draws."""
    return -(draws * (-probs_NV).log1p()).expm1()


def touched(probs_NV: Tensor, draws: int) -> Tensor:
    """The chance that a class is hit by one of `draws` stratified points: surely, where it covers a whole stratum."""
    end_NV = probs_NV.cumsum(1) * draws
    begin_NV = end_NV - probs_NV * draws
    first_NV, last_NV = begin_NV.ceil(), end_NV.floor()
    in_two_NV = 1 - (1 - (first_NV - begin_NV)) * (1 - (end_NV - last_NV))
    chance_NV = torch.where(first_NV > last_NV, end_NV - begin_NV, in_two_NV)
    return torch.where(last_NV - first_NV >= 1, torch.ones_like(chance_NV), chance_NV)


def set_entropy(chances_V: Tensor) -> Tensor:
    """Bits of a set that each class belongs to with its own chance, whatever the others do.

    Where the chances are how often a cache keeps each class, no code of single classes takes fewer on average.
    """
    return (torch.special.entr(chances_V) + torch.special.entr(1 - chances_V)).sum() / math.log(2)
