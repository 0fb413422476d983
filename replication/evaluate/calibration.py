"""How far probabilities can be believed: calibration of the likeliest class and of all classes, with intervals.

Sums are kept by group (a held-out sequence, a span of positions, a task's row), so that intervals resample groups: the
tokens of one text are no independent samples. What is held grows with the groups, not with tokens or classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

BINS = 15  # of equal width; neither RS-KD nor TAD states its number
RESAMPLES = 1000
PAIRS, CONFIDENCE, HITS = range(3)


@dataclass
class Calibration:
    """(token, class) pairs in bins of the class's probability: how many, how probable, how often the class came.

    `add` counts each token's likeliest class (ECE, Guo et al. 2017), `add_all` all of its classes (Full-ECE, Liu et
    al. 2024, which TAD reports). `group_N` numbers the groups from 0; without it all tokens are of one.
    """

    groups: int = 1
    sums_3GB: Tensor = field(init=False)
    tokens_G: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.sums_3GB = torch.zeros(3, self.groups, BINS, dtype=torch.float64)
        self.tokens_G = torch.zeros(self.groups, dtype=torch.float64)

    def add(self, confidence_N: Tensor, correct_N: Tensor, group_N: Tensor | None = None) -> None:
        group_N = one_group(confidence_N) if group_N is None else group_N
        bin_N, once_N = bin_of(confidence_N), torch.ones_like(group_N)
        self.put(PAIRS, group_N, bin_N, once_N)
        self.put(CONFIDENCE, group_N, bin_N, confidence_N)
        self.put(HITS, group_N, bin_N, correct_N)
        add_to(self.tokens_G, group_N, once_N)

    def add_all(self, probs_NV: Tensor, labels_N: Tensor, group_N: Tensor | None = None) -> None:
        group_N = one_group(labels_N) if group_N is None else group_N
        first_N, once_N = torch.zeros_like(labels_N), torch.ones_like(labels_N)
        # at most BINS - 1 classes of a token lie above the first bin, so only these are looked at one by one
        owner_M, class_M = (probs_NV > 1 / BINS).nonzero(as_tuple=True)
        confidence_M = probs_NV[owner_M, class_M].double()
        large_N = torch.zeros_like(labels_N, dtype=torch.float64).index_add_(0, owner_M, confidence_M)
        self.put(PAIRS, group_N[owner_M], bin_of(confidence_M), torch.ones_like(owner_M))
        self.put(CONFIDENCE, group_N[owner_M], bin_of(confidence_M), confidence_M)
        self.put(PAIRS, group_N, first_N, probs_NV.shape[1] - torch.bincount(owner_M, minlength=len(labels_N)))
        self.put(CONFIDENCE, group_N, first_N, (1 - large_N).clamp_min(0))
        self.put(HITS, group_N, bin_of(probs_NV.gather(1, labels_N[:, None])[:, 0]), once_N)
        add_to(self.tokens_G, group_N, once_N)

    def put(self, kind: int, group_M: Tensor, bin_M: Tensor, values_M: Tensor) -> None:
        add_to(self.sums_3GB[kind].view(-1), group_M * BINS + bin_M, values_M)

    @property
    def gap_GB(self) -> Tensor:
        """How often the classes of a bin came, less how often they were said to."""
        return self.sums_3GB[HITS] - self.sums_3GB[CONFIDENCE]

    def error(self) -> float:
        """The sum over bins of |hits - confidence| per token, a fraction.

        Of the likeliest class: the mean over tokens of |accuracy - confidence| of their bin.
        """
        return float(self.gap_GB.sum(0).abs().sum() / self.tokens_G.sum())

    def errors(self) -> list[float]:
        """The same within each group."""
        return (self.gap_GB.abs().sum(1) / self.tokens_G).tolist()

    def interval(self) -> list[float]:
        """95 %, basic: noise fills bins, so that a resampled error lies as far above the error as that above truth."""
        error = self.error()
        resampled_R = bootstrap(self.tokens_G, self.gap_GB, lambda gap_RB: np.abs(gap_RB).sum(1))
        low, high = np.quantile(resampled_R, [0.025, 0.975])
        return [max(0.0, 2 * error - float(high)), max(0.0, 2 * error - float(low))]

    def curve(self) -> dict[str, list[Any]]:
        """The reliability diagram: mean confidence, accuracy and number of the bins that are not empty."""
        count_B, confidence_B, hits_B = self.sums_3GB.sum(1)
        filled = count_B > 0
        return {
            "confidence": (confidence_B[filled] / count_B[filled]).tolist(),
            "accuracy": (hits_B[filled] / count_B[filled]).tolist(),
            "count": count_B[filled].long().tolist(),
        }


@dataclass
class Mean:
    """The mean over tokens of a number that each of them has."""

    groups: int = 1
    sum_G: Tensor = field(init=False)
    tokens_G: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.sum_G = torch.zeros(self.groups, dtype=torch.float64)
        self.tokens_G = torch.zeros(self.groups, dtype=torch.float64)

    def add(self, values_N: Tensor, group_N: Tensor | None = None) -> None:
        group_N = one_group(values_N) if group_N is None else group_N
        add_to(self.sum_G, group_N, values_N)
        add_to(self.tokens_G, group_N, torch.ones_like(group_N))

    def value(self) -> float:
        return float(self.sum_G.sum() / self.tokens_G.sum())

    def values(self) -> list[float]:
        """Of each group."""
        return (self.sum_G / self.tokens_G).tolist()

    def interval(self) -> list[float]:
        """95 %."""
        resampled_R = bootstrap(self.tokens_G, self.sum_G[:, None], lambda sum_R1: sum_R1[:, 0])
        return np.quantile(resampled_R, [0.025, 0.975]).tolist()


def brier(probs_NV: Tensor, labels_N: Tensor) -> Tensor:
    """[N] squared distances from the one-hot labels, 0 to 2 (Brier 1950)."""
    of_label_N = probs_NV.gather(1, labels_N[:, None])[:, 0].double()
    return probs_NV.square().sum(1, dtype=torch.float64) - 2 * of_label_N + 1


def bin_of(confidence_N: Tensor) -> Tensor:
    """Bins are (0, 1/15], (1/15, 2/15], ..."""
    return (confidence_N.double() * BINS).ceil().long().clamp(1, BINS) - 1


def one_group(values_N: Tensor) -> Tensor:
    return torch.zeros(len(values_N), dtype=torch.long, device=values_N.device)


def add_to(sums: Tensor, place_N: Tensor, values_N: Tensor) -> None:
    # on the CPU, where float64 sums do not depend on the order of threads
    sums.index_add_(0, place_N.cpu(), values_N.cpu().double())


def bootstrap(tokens_G: Tensor, sums_GB: Tensor, total: Callable[[Any], Any]) -> Any:
    """total(sums) per token, RESAMPLES times, each over as many groups as there are, drawn with replacement."""
    groups = len(tokens_G)
    drawn_RG = np.random.default_rng(0).multinomial(groups, np.full(groups, 1 / groups), RESAMPLES)
    return total(drawn_RG @ sums_GB.numpy()) / (drawn_RG @ tokens_G.numpy())
