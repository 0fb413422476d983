"""Targets decoded ahead: the right ones in any order, not too many, with the thread's errors, and an end."""

from __future__ import annotations

import threading
import time
import traceback
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch

from replication.axes.targets.base import SparseTarget
from replication.axes.targets.kept import NaiveFix, TopK
from replication.axes.targets.sampled import RandomSampling
from replication.cache.reader import Reader
from replication.training.supervision import Batch, FromCache, Prefetched
from tests.test_cache import LENGTH, SEQUENCES, TOP_K, build, header

ROWS = np.arange(SEQUENCES) * 3  # the packing's rows that are cached
LABELS = torch.arange(2 * LENGTH).view(2, LENGTH)
FIRST = np.zeros(2, int)  # epoch


@pytest.fixture
def cached(tmp_path: Path) -> FromCache:
    return FromCache(Reader(build(tmp_path)), RandomSampling(20), ROWS)


def batches(number: int) -> list[np.ndarray]:
    return [np.random.default_rng(step).choice(ROWS, 2) for step in range(number)]


def same(ours: Batch, theirs: Batch) -> bool:
    one, other = ours.target, theirs.target
    assert isinstance(one, SparseTarget) and isinstance(other, SparseTarget)
    return torch.equal(one.ids_NK, other.ids_NK) and torch.equal(one.weights_NK, other.weights_NK)


@pytest.mark.parametrize(
    "order", [range(20), [0, 1, 3, 2, 7, 5, 6, 8, 19, 9], [5, 4, 3, 2, 1, 0], [2, 2, 2, 3], [19, 18, 0, 1]]
)
def test_any_order_gives_what_the_cache_holds(cached: FromCache, order: list[int]) -> None:
    expected = batches(20)
    with Prefetched(cached, expected) as prefetched:
        for step in order:
            assert same(
                prefetched(expected[step], FIRST, LABELS, LABELS), cached(expected[step], FIRST, LABELS, LABELS)
            )


def test_targets_are_completed_with_the_labels_of_the_call(tmp_path: Path) -> None:
    cached = FromCache(Reader(build(tmp_path, header(TOP_K))), NaiveFix(5), ROWS)
    indices_B = batches(1)[0]
    with Prefetched(cached, [indices_B]) as prefetched:
        assert same(prefetched(indices_B, FIRST, LABELS, LABELS), cached(indices_B, FIRST, LABELS, LABELS))
    assert cached.target.stored == TopK(5)


def test_it_decodes_ahead_in_its_own_thread_and_not_too_far(cached: FromCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """The batches never end: only so many may be taken from them, some at a time."""
    decoded: list[str] = []
    real = Reader.batches

    def watched(self: Reader, batches: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        decoded.extend([threading.current_thread().name] * len(batches))
        return real(self, batches)

    monkeypatch.setattr(Reader, "batches", watched)
    asked, some = batches(3), Prefetched.TOGETHER
    with Prefetched(cached, (asked[step % 3] for step in count())) as prefetched:
        for step in range(2 * some + 1):
            wait_for(decoded, Prefetched.AHEAD + step // some * some)
            prefetched(asked[step % 3], FIRST, LABELS, LABELS)
    assert all(name.startswith("prefetch") for name in decoded)


def wait_for(decoded: list[str], number: int) -> None:
    deadline = time.monotonic() + 10
    while len(decoded) < number and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.01)
    assert len(decoded) == number


def test_an_error_is_raised_where_its_batch_is_needed(cached: FromCache) -> None:
    good, bad = batches(1)[0], np.array([0, 10_000])
    with Prefetched(cached, [good, bad, good]) as prefetched:
        prefetched(good, FIRST, LABELS, LABELS)
        with pytest.raises(ValueError, match="Sequence 22 is not in the cache; give 0 to 21") as caught:
            prefetched(bad, FIRST, LABELS, LABELS)
        frames = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
        assert "decoded" in frames  # where it went wrong, not only where it was told
        prefetched(good, FIRST, LABELS, LABELS)


@pytest.mark.parametrize("interrupted", [False, True])
def test_the_thread_ends_with_the_block(cached: FromCache, interrupted: bool) -> None:
    before = threading.active_count()
    try:
        with Prefetched(cached, batches(50)) as prefetched:
            prefetched(batches(1)[0], FIRST, LABELS, LABELS)
            assert threading.active_count() == before + 1
            if interrupted:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert threading.active_count() == before
