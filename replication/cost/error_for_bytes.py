"""Error for bytes: how far a target is off on a teacher's positions, what it costs, the least budget for an error.

Errors and classes in closed form (the targets' own), bytes from the codecs. N positions, V classes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from replication.axes.targets.base import AnyTarget, SparseTarget, Target
from replication.axes.targets.drawing import held
from replication.axes.targets.sampled import RandomSampling, Systematic
from replication.axes.targets.storage import LARGEST_NUMERATOR, NUMERATOR_BITS
from replication.axes.targets.water_filling import AdaptiveWaterFilling, WaterFilling
from replication.cache.choose import codec_of
from replication.cache.codec import SetCodec
from replication.cache.unigram import Unigram
from replication.cache.writer import law_for
from replication.cost.flops import bytes_per_token

Form = Callable[[Tensor], Tensor | None]  # a target's, of probs_NV, [N]
REFERENCE = RandomSampling(50)  # RS-KD's
FEW = 16  # one position of so many
DRAWS = range(1, LARGEST_NUMERATOR + 1)  # that the counts codec takes
# two digits, as a recipe would state them, from 0.3 to 0.001
LEVELS = [round(digits / 10**places, places) for places in (2, 3, 4) for digits in range(99, 9, -1)][69:]
# each draw's targets from the least budget to the largest: ever more classes, ever less error
FAMILIES: dict[str, Sequence[Target]] = {
    "RS-KD": [RandomSampling(draws) for draws in DRAWS],
    "Systematic": [Systematic(draws) for draws in DRAWS],
    "Water-filling": [WaterFilling(classes) for classes in range(1, 257)],
    "Adaptive water-filling": [AdaptiveWaterFilling(level) for level in LEVELS],
}


def mean(form: Form, probs_NV: Tensor) -> float | None:
    """A target's closed form over all positions, a few at a time in float64; None where it is not known."""
    rows = max(1, held(probs_NV.device) // (2 * probs_NV.shape[1]))
    parts = [form(part_NV.double()) for part_NV in probs_NV.split(rows)]
    known = [part_N for part_N in parts if part_N is not None]
    return float(torch.cat(known).mean()) if known else None


def error_of(target: Target, probs_NV: Tensor) -> float:
    """Of a target whose closed form is known: that of the gradient in a position's logits, squared."""
    error = mean(target.gradient_error, probs_NV)
    assert error is not None, target
    return error


def least(
    family: Sequence[Target], error: float, probs_NV: Tensor, looked: Callable[[], object] = lambda: None
) -> Target | None:
    """The family's smallest budget whose error is at most this one; None where its largest is not enough.

    A few of the positions say about where it is, all of them decide: most of the work is done on the few. `looked` is
    called whenever all were asked.
    """

    @cache
    def enough(place: int) -> bool:
        looked()
        return error_of(family[place], probs_NV) <= error

    few_NV = probs_NV[::FEW]
    low = high = bisect_left(family, -error, key=lambda target: -error_of(target, few_NV))
    step = 1
    while high < len(family) and not enough(high):
        low, high, step = high + 1, min(len(family), high + step), 2 * step
    while low > 0 and enough(low - 1):
        low, high, step = max(0, low - step), low - 1, 2 * step
    place = bisect_left(range(len(family)), True, low, high, key=enough)
    return family[place] if place < len(family) else None


@dataclass(frozen=True)
class Size:
    """Bytes a position, everything but a shard's index."""

    packed: float  # ids and numerators side by side, as RS-KD stores them
    coded: float  # in the smallest way that the suite has; ids against the text's unigram law where that can be


def size_of(target: Target, kept: AnyTarget, length: int, frequencies_V: NDArray[np.int64]) -> Size:
    """Of one draw over whole sequences of this length. `frequencies_V`: how often each class occurs in the text.

    Of a target that no codec stores: what an id and seven bits for each weight would take. Of what is not sparse:
    flops.bytes_per_token.
    """
    vocabulary = len(frequencies_V)
    if target.stored is None:
        size = bytes_per_token(target, vocabulary, vocabulary)
        return Size(size, size)
    assert isinstance(kept, SparseTarget)
    lengths_N = target.lengths(kept)
    if target.storage(vocabulary) is None:
        bits = (vocabulary - 1).bit_length() + NUMERATOR_BITS
        size = float(lengths_N.double().mean()) * bits / 8
        return Size(size, size)
    codec = codec_of(target, vocabulary)
    shape = (-1, length, kept.ids_NK.shape[1])
    ids_BLK, weights_BLK = (part.view(shape).cpu().numpy() for part in (kept.ids_NK, kept.weights_NK))
    codes = codec.codes(ids_BLK, weights_BLK, lengths_N.view(-1, length).cpu().numpy())
    packed = weight(codec.bits.pack(*codes), len(lengths_N))
    if not isinstance(codec, SetCodec):
        return Size(packed, packed)
    return Size(packed, weight(Unigram(codec, law_for(codec, frequencies_V), length).pack(*codes), len(lengths_N)))


def weight(blocks: Sequence[bytes], positions: int) -> float:
    return sum(map(len, blocks)) / positions
