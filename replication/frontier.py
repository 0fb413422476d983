"""Frontier: what a target costs and how far it is off on a teacher's own positions, and the least budget for an error.

All of it in closed form (expected.py); probes/frontier.py measures beside. N positions, V classes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from replication.cache.codec import LARGEST_NUMERATOR, NUMERATOR_BITS
from replication.caching import BATCH, teacher_for
from replication.cost import bytes_per_token
from replication.draws import held
from replication.expected import expected_classes, expected_error, expected_heads
from replication.machine import Machine
from replication.run import Data, Run, order_of
from replication.target import Target
from replication.targets import AdaptiveWaterFilling, RandomSampling, Systematic, WaterFilling

Form = Callable[[Target, Tensor], Tensor | None]  # of a target and probs_NV, [N]
FILLING = (WaterFilling, AdaptiveWaterFilling)
REFERENCE = RandomSampling(50)  # RS-KD's
# two digits, as a recipe would state them, from 0.3 to 0.001
LEVELS = [round(digits / 10**places, places) for places in (2, 3, 4) for digits in range(99, 9, -1)][69:]
# Each draw's targets, from the least budget to the largest that its codec takes: ever more classes, ever less error.
FAMILIES: dict[str, Sequence[Target]] = {
    "RS-KD": [RandomSampling(draws) for draws in range(1, LARGEST_NUMERATOR + 1)],
    "Systematic": [Systematic(draws) for draws in range(1, LARGEST_NUMERATOR + 1)],
    "Water-filling": [WaterFilling(classes) for classes in range(1, 257)],
    "Adaptive water-filling": [AdaptiveWaterFilling(level) for level in LEVELS],
}


@dataclass(frozen=True)
class Point:
    """A target over some positions; all numbers are means over them."""

    target: Target
    classes: float
    bytes: float
    error: float  # expected squared distance to the teacher, summed over classes: that of the logits' gradient


def point(target: Target, probs_NV: Tensor) -> Point:
    """Of a target whose closed forms are all known."""
    classes, size, error = (mean(form, target, probs_NV) for form in (expected_classes, expected_bytes, expected_error))
    assert classes is not None and size is not None and error is not None, target
    return Point(target, classes, size, error)


def mean(form: Form, target: Target, probs_NV: Tensor) -> float | None:
    """A closed form over all positions, a few at a time in float64; None where it is not known."""
    rows = max(1, held(probs_NV.device) // (2 * probs_NV.shape[1]))
    parts = [form(target, part_NV.double()) for part_NV in probs_NV.split(rows)]
    known = [part_N for part_N in parts if part_N is not None]
    return float(torch.cat(known).mean()) if known else None


def expected_bytes(target: Target, probs_NV: Tensor) -> Tensor | None:
    """As packed codes, [N]: an id a class and seven bits a weight; the tail of water-filling needs no weights.

    None where the number of classes is not known. Of what is not sparse: see cost.bytes_per_token.
    """
    vocabulary = probs_NV.shape[1]
    classes_N = expected_classes(target, probs_NV)
    if classes_N is None:
        return None
    if target.stored is None:
        return torch.full_like(classes_N, bytes_per_token(target, vocabulary, vocabulary))
    id_bits = (vocabulary - 1).bit_length()
    weights_N = expected_heads(target, probs_NV) if isinstance(target, FILLING) else classes_N
    return (classes_N * id_bits + weights_N * NUMERATOR_BITS) / 8


def least(family: Sequence[Target], error: float, probs_NV: Tensor) -> Point | None:
    """The family's smallest budget whose error is at most this one; None where its largest is not enough."""
    place = bisect_left(family, -error, key=lambda target: -point(target, probs_NV).error)
    return point(family[place], probs_NV) if place < len(family) else None


@torch.no_grad()
def probabilities(run: Run, data: Data, positions: int, machine: Machine) -> Tensor:
    """The teacher's next-token distributions at the first positions of the run's training order, [N, V] float32.

    Whole sequences: `positions` or a few more. ValueError where the text has fewer. Holds four bytes a class.
    """
    from replication.model import logits_of

    rows_R = order_of(run, data)[: -(-positions // data.train.length)]
    if len(rows_R) * data.train.length < positions:
        raise ValueError(
            f"{positions:,} positions are more than the {len(rows_R) * data.train.length:,} of the text; ask for fewer."
        )
    teacher, found = teacher_for(run, machine), []
    for indices_B in np.split(rows_R, range(BATCH, len(rows_R), BATCH)):
        rows = torch.from_numpy(data.train.rows(indices_B)).to(machine.device)
        with machine.precision():
            logits_BLV = logits_of(teacher, rows[:, :-1], data.tokenizer.vocabulary)
        found.append(logits_BLV.float().softmax(-1).flatten(0, 1))
    return torch.cat(found)
