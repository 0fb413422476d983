"""Draws from logits and how often each class was drawn: ours, and what a user would take instead."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from replication.axes.targets.base import Target
from replication.axes.targets.drawing import counted, draw
from replication.axes.targets.kept import TopK
from replication.axes.targets.sampled import (
    HeadAndSampledTail,
    RandomSampling,
    Stratified,
    Systematic,
    WithoutReplacement,
)
from replication.axes.targets.water_filling import AdaptiveWaterFilling, WaterFilling

Drawn = tuple[Tensor, Tensor]  # ids_NK, counts_NK; unused slots are id 0, count 0


@dataclass(frozen=True)
class Sizes:
    positions: int = 512
    classes: int = 100_278
    draws: int = 50


def block_sums(logits_NV: Tensor, draws: int, random: Generator) -> Drawn:
    return counted(draw(logits_NV, draws, random))


def multinomial(logits_NV: Tensor, draws: int, random: Generator) -> Drawn:
    """As in RS-KD App. K, `downsample_ours`."""
    probs_NV = torch.softmax(logits_NV, -1)
    return counted(torch.multinomial(probs_NV, draws, replacement=True, generator=random).sort(1)[0])


def cumulative(logits_NV: Tensor, draws: int, random: Generator) -> Drawn:
    """As in RS-KD App. K, `loss_kd`: a running sum over all classes, in the precision of the probabilities."""
    upto_NV = torch.softmax(logits_NV, -1).cumsum(-1)
    points_ND = torch.rand(len(logits_NV), draws, device=logits_NV.device, generator=random).sort(-1)[0]
    # beyond the last class where float32 sums end below one, which the listing does not look at
    return counted(torch.searchsorted(upto_NV, points_ND).clamp_max(logits_NV.shape[1] - 1))


OURS, MULTINOMIAL, CUMULATIVE = "block sums", "softmax, torch.multinomial", "App. K, running sum"
LOGSUMEXP, READ = "torch.logsumexp", "reading the logits (amax)"
Method = Callable[[Tensor, int, Generator], Drawn]
METHODS: dict[str, Method] = {OURS: block_sums, MULTINOMIAL: multinomial, CUMULATIVE: cumulative}
# whole targets, ids and weights; of budgets that keep about as many classes of these logits as 50 random draws
RANDOM = "random sampling"
TARGETS: dict[str, Target] = {
    RANDOM: RandomSampling(50),
    "stratified": Stratified(50),
    "systematic": Systematic(50),
    "head and sampled tail": HeadAndSampledTail(10, 24),
    "water-filling": WaterFilling(31),
    "adaptive water-filling": AdaptiveWaterFilling(0.02),
    "without replacement": WithoutReplacement(31),
    "top-K": TopK(31),
}


def logits(sizes: Sizes, seed: int = 0) -> Tensor:
    """Of a teacher that is about as sharp as a trained one: 50 draws hit about thirty classes."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    random = Generator(device).manual_seed(seed)
    return 4.0 * torch.randn(sizes.positions, sizes.classes, generator=random, device=device)


def step(name: str, sizes: Sizes) -> Callable[[], object]:
    return step_on(name, logits(sizes), sizes.draws)


def step_on(name: str, logits_NV: Tensor, draws: int) -> Callable[[], object]:
    if name == LOGSUMEXP:
        return lambda: logits_NV.logsumexp(-1)
    if name == READ:
        return lambda: logits_NV.amax(-1)
    random = Generator(logits_NV.device).manual_seed(1)
    if name in TARGETS:
        labels_N = torch.zeros(len(logits_NV), dtype=torch.int64, device=logits_NV.device)
        return lambda: TARGETS[name](logits_NV, labels_N, random)
    return lambda: METHODS[name](logits_NV, draws, random)
