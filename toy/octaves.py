"""Classes by rank: the most probable ones singly, the others by octaves, where noise averages out. V classes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

SHOWN = 50  # classes on their own
Curves = dict[str, dict[str, list[Any]]]


def grouped(values_V: Tensor) -> Tensor:
    """The first 50 classes, then sums over 51 to 100, 101 to 200, 201 to 400, ..."""
    ranks = torch.arange(len(values_V), dtype=torch.float64) / SHOWN
    group_V = torch.where(ranks < 1, ranks * SHOWN, SHOWN + ranks.clamp_min(1).log2().floor()).round().long()
    return torch.bincount(group_V, values_V)


def curves(teacher_V: Tensor, mean_V: Tensor) -> Curves:
    """`targets`, the first 50 classes: `class` (from 1), `teacher`, `mean_target`; `octaves`, the classes beyond.

    The latter: `first` and `last` class of each, and the sums `teacher`, `mean_target`.
    """
    shown = min(SHOWN, len(teacher_V))
    singles: dict[str, list[Any]] = {"class": list(range(1, shown + 1))}
    singles |= {"teacher": teacher_V[:shown].tolist(), "mean_target": mean_V[:shown].tolist()}
    teacher_G, mean_G = grouped(teacher_V)[shown:].tolist(), grouped(mean_V)[shown:].tolist()
    ends = [SHOWN * 2**octave for octave in range(len(teacher_G))]
    octaves = {"first": [end + 1 for end in ends], "last": [min(2 * end, len(teacher_V)) for end in ends]}
    return {"targets": singles, "octaves": {**octaves, "teacher": teacher_G, "mean_target": mean_G}}
