"""Every target that claims to be unbiased is, as a cache gives it back: head class by class, tail in groups.

Targets that no cache holds are tested as they are drawn.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from test_unbiased import ERRORS, REPETITIONS, SHAPES, VOCABULARY, exact, zipf_logits
from torch import Generator, Tensor

from replication.axes.targets.base import SparseTarget, Target
from replication.axes.targets.sampled import (
    HeadAndCountedTail,
    HeadAndSampledTail,
    RandomSampling,
    Stratified,
    Systematic,
    WithoutReplacement,
)
from replication.axes.targets.water_filling import AdaptiveWaterFilling, WaterFilling
from replication.cache.choose import codec_of
from replication.cache.codec import SetCodec
from replication.cache.headed import PARTS
from replication.cache.law import Law, law_of
from replication.cache.unigram import Unigram
from tests.cases import and_others

TARGETS = and_others([
    RandomSampling(50), Stratified(25), Systematic(25), WaterFilling(20), AdaptiveWaterFilling(0.04),
    HeadAndSampledTail(10, 20), HeadAndCountedTail(10, 20), WithoutReplacement(20),
])  # fmt: skip
# a softmax over 100,000 classes takes its time: REPETITIONS=200000 is the whole proof, a few minutes of it
MANY = int(os.environ.get("REPETITIONS", "3000"))


def groups(teacher: np.ndarray, alone: int, together: int) -> np.ndarray:
    """The group of each class, [V]: the most probable ones alone, the others by rank, in groups of equal ratio."""
    rank_V = np.argsort(np.argsort(-teacher, kind="stable"))
    edges = np.geomspace(alone, len(teacher), together + 1)[1:]
    return np.where(rank_V < alone, rank_V, alone + np.searchsorted(edges, rank_V, side="right"))


def cached(method: Target, target: SparseTarget, vocabulary: int, law: Law) -> SparseTarget:
    """What a cache gives back, its rows one sequence; the target itself where no cache holds it."""
    if method.storage(vocabulary) is None:
        return target
    codec, lengths = codec_of(method, vocabulary), method.lengths(target).numpy()[None]
    rows = target.ids_NK.numpy()[None], target.weights_NK.numpy()[None], lengths
    layout = Unigram(codec, law, lengths.shape[1]) if isinstance(codec, SetCodec) else codec.bits
    ids, weights, _ = codec.rows(layout.unpack(layout.pack(*codec.codes(*rows))), 1)
    return SparseTarget(torch.from_numpy(ids[0]), torch.from_numpy(weights[0]))


def assert_unbiased(method: Target, logits: Tensor, group_V: np.ndarray, rows: int, chunk: int) -> None:
    """Every group's mean weight within 4 standard errors, as the weights themselves scatter."""
    teacher, count, generator = exact(logits), int(group_V.max()) + 1, Generator().manual_seed(8)
    total, squares = np.zeros(count), np.zeros(count)
    law = law_of(np.random.default_rng(0).permutation(teacher), 20)  # of another text
    for start in range(0, rows, chunk):
        size = min(chunk, rows - start)
        target = method(logits.expand(size, -1), torch.zeros(size, dtype=torch.int64), generator)
        target = cached(method, target, len(logits), law)
        place = torch.from_numpy(group_V)[target.ids_NK]
        weight_NG = torch.zeros(size, count, dtype=torch.float64).scatter_add_(1, place, target.weights_NK.double())
        total += weight_NG.sum(0).numpy()
        squares += weight_NG.square().sum(0).numpy()
    mean, wanted = total / rows, np.bincount(group_V, teacher, count)
    error = np.sqrt((squares / rows - mean**2).clip(0) / rows)
    # the teacher is a float32 softmax: its own rounding comes on top, and that of a head to parts of one
    rounding = 1e-6 * wanted + (1 / PARTS if isinstance(method, HeadAndCountedTail) else 0)
    errors = (np.abs(mean - wanted) - rounding) / (error + 1e-9)
    assert errors.max() < ERRORS, f"group {errors.argmax()} is {errors.max():.1f} errors off"


@pytest.mark.parametrize("method", TARGETS, ids=str)
@pytest.mark.parametrize(("shape", "classes", "alone"), [("gaussian", 64, 30), ("zipf", 400, 400)])
def test_200_000_targets_through_the_cache(method: Target, shape: str, classes: int, alone: int) -> None:
    logits = SHAPES[shape](classes)
    group_V = groups(exact(logits), alone, 5) if alone < classes else np.arange(classes)
    assert_unbiased(method, logits, group_V, REPETITIONS, chunk=20_000)


@pytest.mark.parametrize("method", TARGETS, ids=str)
def test_a_large_vocabulary_through_the_cache(method: Target) -> None:
    logits = 1.2 * zipf_logits(VOCABULARY)[torch.randperm(VOCABULARY, generator=Generator().manual_seed(9))]
    assert_unbiased(method, logits, groups(exact(logits), 30, 20), MANY, chunk=500)


def test_a_bias_of_a_percent_is_found() -> None:
    """Or the tests above could not fail: the head a hundredth too small, the tail as much too large."""

    class Shrunk(HeadAndSampledTail):
        def __call__(self, *given: Any) -> SparseTarget:
            target = super().__call__(*given)
            factor_K = torch.where(torch.arange(target.weights_NK.shape[1]) < self.k, 0.99, 1.02)
            return replace(target, weights_NK=target.weights_NK * factor_K)

    logits = zipf_logits(400)
    with pytest.raises(AssertionError, match="errors off"):
        assert_unbiased(Shrunk(10, 20), logits, groups(exact(logits), 30, 5), 20_000, chunk=20_000)
