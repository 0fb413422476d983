"""Closed forms of the better draws (axes/targets/sampled.py): how their weights scatter, class by class and in groups.

The teacher is sorted, most probable class first. Groups are of neighbours, so that a group lies in the running sum as a
single class does, and scatters by the same rule. V classes, G groups of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from replication.axes.targets.base import Target
from replication.axes.targets.sampled import HeadAndSampledTail, Stratified, Systematic
from replication.axes.targets.water_filling import AdaptiveWaterFilling, WaterFilling, filled_head
from toy.expectations import Group, Law, mean_deviation


@dataclass(frozen=True)
class Scatter(Law):
    """Unbiased; `variances` are those of each group of one round's target."""

    variances: Callable[[Group], Tensor] | None = None

    @property
    def random(self) -> bool:
        return True

    def variance_G(self, group: Group) -> Tensor:
        assert self.variances is not None
        return self.variances(group)

    def noise(self, rounds: int, group: Group) -> float:
        return float((2 / math.pi / rounds * self.variance_G(group)).sqrt().sum())


def scatter(target: Target, teacher_V: Tensor) -> Scatter | None:
    """None for any other target."""
    match target:
        case Systematic(draws=draws):
            step = 1 / draws
            return made(target, teacher_V, lambda group: spaced(group(teacher_V), step), off(teacher_V, step))
        case Stratified(draws=draws):
            return made(target, teacher_V, lambda group: strata(group(teacher_V), draws), off_strata(teacher_V, draws))
        case HeadAndSampledTail(k=k, draws=draws):
            tail_V = beyond(teacher_V, k)
            rest = float(tail_V.sum())
            off_V = rest * mean_deviation(tail_V / rest, draws)
            return made(target, teacher_V, lambda group: group(tail_V) * (rest - group(tail_V)) / draws, off_V)
        case WaterFilling() | AdaptiveWaterFilling():
            return filling(target, teacher_V)
    return None


def filling(target: WaterFilling | AdaptiveWaterFilling, teacher_V: Tensor) -> Scatter:
    """Head and tail's mass are rounded to parts of one; the tail's classes are points a level apart, that share it."""
    kept_1K, tail_11, level_11 = filled_head(target, teacher_V[None])
    part, number, level = 1 / target.parts, int(tail_11), float(level_11)
    tail_V = beyond(teacher_V, int((kept_1K > 0).sum()))
    head_V = teacher_V - tail_V
    rounding = spaced(tail_V.sum(), part)

    def variances(group: Group) -> Tensor:
        head_G, tail_G = group(head_V), group(tail_V)
        if not number:
            return spaced(head_G, part)
        hits_G, drawn_G = tail_G / level, spaced(tail_G, level)
        shared_G = rounding * (hits_G**2 + drawn_G / level**2) / number**2
        # the classes before a group that holds the end of the head are rounded to what it and the tail leave
        before_G = spaced(1 - head_G - tail_V.sum(), part)
        joint_G = hits_G / number * (before_G - spaced(head_G, part) - rounding)
        return spaced(head_G, part) + drawn_G + shared_G + joint_G

    return made(target, teacher_V, variances, off(head_V, part) + off_tail(tail_V, number, level, part))


def off_tail(tail_V: Tensor, number: int, level: float, part: float) -> Tensor:
    """E |weight - probability| of classes that are hit with chance probability / level, and then share what is left."""
    if not number:
        return torch.zeros_like(tail_V)
    units = number * level / part
    shares = [(math.floor(units) + up) * part / number for up in (0, 1)]
    hit_V = sum(
        chance * (share - tail_V).abs() for share, chance in zip(shares, (1 - units % 1, units % 1), strict=True)
    )
    return (1 - tail_V / level) * tail_V + tail_V / level * hit_V


def made(target: Target, teacher_V: Tensor, variances: Callable[[Group], Tensor], off_V: Tensor) -> Scatter:
    """`off_V`: the expected distance of each class's weight to its probability."""
    classes_N = target.kept(teacher_V[None])
    assert classes_N is not None
    return Scatter(teacher_V, teacher_V, float(classes_N), float(off_V.sum()), variances=variances)


def beyond(teacher_V: Tensor, head: int) -> Tensor:
    return torch.where(torch.arange(len(teacher_V)) < head, 0.0, teacher_V)


def spaced(mass_G: Tensor, level: float) -> Tensor:
    """Of points `level` apart a mass holds as many as fit or one more: level^2 f (1 - f), f the fraction left over."""
    return level / 2 * off(mass_G, level)


def off(mass_G: Tensor, level: float) -> Tensor:
    """E |weight - mass|: 2 level f (1 - f)."""
    fraction_G = (mass_G / level).frac() if level else mass_G * 0
    return 2 * level * fraction_G * (1 - fraction_G)


def strata(mass_G: Tensor, draws: int) -> Tensor:
    """Of the strata that a mass covers in part, at most two, each adds a (1 - a) of a draw."""
    return sum((part * (1 - part) for part in parts(mass_G, draws)), torch.zeros_like(mass_G)) / draws**2


def off_strata(mass_G: Tensor, draws: int) -> Tensor:
    a, b = parts(mass_G, draws)
    one = (a * (1 - b) + b * (1 - a)) * (1 - a - b).abs()
    return ((1 - a) * (1 - b) * (a + b) + one + a * b * (2 - a - b)) / draws


def parts(mass_G: Tensor, draws: int) -> tuple[Tensor, Tensor]:
    """The shares of the first and the last stratum that belong to a mass which does not fill them."""
    end_G = mass_G.cumsum(0) * draws
    begin_G = end_G - mass_G * draws
    first_G, last_G = begin_G.ceil(), end_G.floor()
    inside_G = first_G > last_G
    return torch.where(inside_G, end_G - begin_G, first_G - begin_G), (end_G - last_G) * ~inside_G
