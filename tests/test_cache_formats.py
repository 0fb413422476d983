"""Old caches open and are written as before; compressed ones are the same targets in fewer bytes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Generator

from replication.axes.targets.base import SparseTarget
from replication.axes.targets.water_filling import AdaptiveWaterFilling
from replication.cache.law import FILE as LAW
from replication.cache.law import law_of
from replication.cache.manifest import FILE, UNFINISHED, Header, Target, read_manifest, write_manifest
from replication.cache.part import Part
from replication.cache.reader import Reader
from replication.cache.shard import Shard, checksum, file_name
from replication.cache.stats import stats
from replication.cache.verify import by_id, flat, verify
from replication.cache.writer import Writer
from replication.training.supervision import drawn
from replication.training.teacher_pass import put
from tests.test_cache import (
    FLAT,
    IN_SHARD,
    SEQUENCES,
    TARGETS,
    TOP_K,
    TOP_P,
    build,
    files,
    fill,
    first_problem,
    header,
    rows,
)

# of all files, as they were written before caches could be compressed
BEFORE = "1d92030561fe9a17ed0559df55e313b55ce70d1bf2e46379d14120416c415947"


def test_what_is_not_compressed_is_written_as_ever(tmp_path: Path) -> None:
    """So every cache from before opens: its manifest is compared with what would be written today."""
    digest = hashlib.sha256()
    for name, fields in (("RandomSampling", {"draws": 20, "exponent": 1.0}), ("TopK", {"k": 3})):
        target = Target(name=name, fields=fields)
        head = Header(teacher="t", tokenizer="k", packing="p", target=target, seed=0, vocabulary=1000, length=8)
        with Writer(tmp_path / name, head, 5, 2) as cache:
            ids_BLK = np.arange(5 * 8 * 3).reshape(5, 8, 3) * 37 % 1000
            weights_BLK = np.broadcast_to(np.array([0.5, 0.35, 0.15], np.float32), ids_BLK.shape)
            cache.put(0, ids_BLK, weights_BLK, np.full((5, 8), 3))
    for path in sorted(tmp_path.rglob("*")):
        if path.is_file():
            digest.update(path.relative_to(tmp_path).as_posix().encode() + path.read_bytes())
    assert digest.hexdigest() == BEFORE
    assert "compression" not in (tmp_path / "TopK" / FILE).read_text()


def test_an_unfinished_cache_from_before_is_continued(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lacks"):
        build(tmp_path, stop_after=9)
    assert "compression" not in (tmp_path / UNFINISHED).read_text()
    with Writer(tmp_path, header(), SEQUENCES, IN_SHARD) as cache:
        fill(cache)
    assert verify(tmp_path) == []


@TARGETS
@pytest.mark.parametrize("workers", [0, 1])
def test_compressed_targets_are_the_same(tmp_path: Path, target: Target, workers: int) -> None:
    plain = Reader(build(tmp_path / "plain", header(target)))
    small = Reader(build(tmp_path / "small", header(target), compression="zstd", workers=workers))
    assert small.manifest.compression == "zstd" and small.manifest.classes == plain.manifest.classes
    order = np.random.default_rng(0).permutation(SEQUENCES)
    for ours, theirs in zip(small.decoded(order), plain.decoded(order), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert verify(tmp_path / "small") == []


def test_what_repeats_is_compressed(tmp_path: Path) -> None:
    head = header(length=512)
    parts = [np.repeat(part[:, :1], 512, 1) for part in rows(header(), range(8))]  # every position like the first
    for compression in ("none", "zstd"):
        with Writer(tmp_path / compression, head, 8, IN_SHARD, compression=compression) as cache:
            cache.put(0, *parts)
    plain, small = stats(tmp_path / "none"), stats(tmp_path / "zstd")
    assert (plain["compression"], small["compression"]) == ("none", "zstd")
    assert small["bytes"] < plain["bytes"] / 3
    assert small["unique_classes"] == plain["unique_classes"]


def test_a_compressed_cache_resumes_as_such_only(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lacks"):
        build(tmp_path / "resumed", compression="zstd", stop_after=9)
    with pytest.raises(ValueError, match="begun with compression = zstd, not none; resume with the same"):
        build(tmp_path / "resumed")
    with Writer(tmp_path / "resumed", header(), SEQUENCES, IN_SHARD, compression="zstd") as cache:
        assert cache.missing() == [range(8, SEQUENCES)]
        fill(cache)
    assert files(tmp_path / "resumed") == files(build(tmp_path / "once", compression="zstd"))


def as_if_written(directory: Path) -> None:
    """What is in the files gets the right checksums: only decoding can find it."""
    found = read_manifest(directory)
    shards = [entry.model_copy(update={"sha256": checksum(directory / entry.file)}) for entry in found.shards]
    write_manifest(directory, found.model_copy(update={"shards": shards}))


def test_a_damaged_compressed_cache_is_found(tmp_path: Path) -> None:
    build(tmp_path, compression="zstd")
    rng = np.random.default_rng(0)
    for path in sorted(tmp_path.iterdir()):
        sound = path.read_bytes()
        for _ in range(8):
            place, bit = int(rng.integers(len(sound))), int(rng.integers(8))
            path.write_bytes(sound[:place] + bytes([sound[place] ^ 1 << bit]) + sound[place + 1 :])
            assert path.name in first_problem(tmp_path), (path.name, place, bit)
        path.write_bytes(sound)
    path = tmp_path / file_name(1)
    sound = path.read_bytes()
    shard = Shard(path, IN_SHARD)
    begin = int(shard.ends[2] - shard.sizes[2]) + 4  # beyond the count
    path.write_bytes(sound[:begin] + bytes(8) + sound[begin + 8 :])
    as_if_written(tmp_path)
    with pytest.raises(ValueError, match=r"The cache is damaged: .*\. Verify the cache to find where") as caught:
        Reader(tmp_path).rows([6])
    assert "\n" not in str(caught.value)
    Reader(tmp_path).rows([5, 7])  # each block is compressed alone


UNIGRAM: dict[str, Any] = {"compression": "unigram", "frequencies_V": 1000 - np.arange(1000)}
WATER = Target(name="AdaptiveWaterFilling", fields={"level": 0.1})


@pytest.mark.parametrize("workers", [0, 2])
def test_ids_coded_by_frequency_are_the_same_sets(tmp_path: Path, workers: int) -> None:
    plain, small = Reader(build(tmp_path / "plain")), Reader(build(tmp_path / "small", workers=workers, **UNIGRAM))
    assert small.manifest.compression == "unigram"
    assert small.manifest.law == law_of(UNIGRAM["frequencies_V"], small.codec.usual).fingerprint
    assert small.manifest.classes == plain.manifest.classes
    order = np.random.default_rng(0).permutation(SEQUENCES)
    ids_BLK, weights_BLK, lengths_BL = small.decoded(order)
    other_ids_BLK, other_weights_BLK, other_lengths_BL = plain.decoded(order)
    np.testing.assert_array_equal(lengths_BL, other_lengths_BL)
    found = by_id(flat(ids_BLK), flat(weights_BLK))[:2]
    for ours, theirs in zip(found, by_id(flat(other_ids_BLK), flat(other_weights_BLK))[:2], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert verify(tmp_path / "small") == []


def test_water_filling_is_cached_in_any_format(tmp_path: Path) -> None:
    """Through the files: from drawn positions to what a student reads, to the last bit."""
    head, logits_BLV = header(WATER, vocabulary=300), 3 * torch.randn(8, 16, 300, generator=Generator().manual_seed(0))
    target = drawn(AdaptiveWaterFilling(0.1), logits_BLV, torch.zeros(8, 16, dtype=torch.long), np.arange(8), seed=0)
    assert isinstance(target, SparseTarget)
    for how in ({}, {"compression": "zstd"}, {**UNIGRAM, "frequencies_V": np.ones(300)}):
        folder = tmp_path / str(how.get("compression"))
        with Writer(folder, head, 8, IN_SHARD, **how) as cache:
            put(cache, 0, AdaptiveWaterFilling(0.1), target, 16)
        assert verify(folder) == []
        ids_BLK, weights_BLK = Reader(folder).rows(np.arange(8))
        found = SparseTarget(*(torch.from_numpy(flat(part)) for part in (ids_BLK, weights_BLK)))
        assert torch.equal(found.dense(300), target.dense(300))


def test_one_law_for_all_who_write(tmp_path: Path) -> None:
    for number in (2, 1):
        build(tmp_path / "parts", part=Part(number, 2), **UNIGRAM)
    build(tmp_path / "parts", **UNIGRAM)
    assert files(tmp_path / "parts") == files(build(tmp_path / "once", **UNIGRAM))
    with pytest.raises(ValueError, match="begun with law = "):
        build(tmp_path / "parts", compression="unigram", frequencies_V=np.arange(1000))


def test_a_damaged_law_is_found(tmp_path: Path) -> None:
    build(tmp_path, **UNIGRAM)
    raw = (tmp_path / LAW).read_bytes()
    (tmp_path / LAW).write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    assert verify(tmp_path) == [f"{tmp_path / LAW} is damaged: its checksum differs"]
    with pytest.raises(ValueError, match=r"law\.bin is damaged"):
        Reader(tmp_path)
    (tmp_path / LAW).unlink()
    with pytest.raises(ValueError, match=r"law\.bin is missing"):
        Reader(tmp_path)


def test_a_law_is_asked_for_and_of_sets_only(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs how often each of the 1000 classes occurs in the text; found .* None"):
        build(tmp_path, compression="unigram")
    with pytest.raises(ValueError, match=r"needs how often each of the 1000 classes .* shape \(999,\)"):
        build(tmp_path, compression="unigram", frequencies_V=np.ones(999))
    for target in (TOP_K, TOP_P, FLAT):
        with pytest.raises(ValueError, match="order of their weights.*use 'zstd' or 'none'"):
            build(tmp_path, header(target), **UNIGRAM)
    assert not list(tmp_path.iterdir())


def test_an_unknown_compression_is_refused(tmp_path: Path) -> None:
    build(tmp_path, compression="zstd")
    text = (tmp_path / FILE).read_text()
    (tmp_path / FILE).write_text(text.replace('"zstd"', '"lzma"'))
    with pytest.raises(ValueError, match="damaged at compression: Input should be 'none', 'zstd' or 'unigram'"):
        read_manifest(tmp_path)
