"""Old caches open and are written as before; compressed ones are the same targets in fewer bytes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from replication.cache.manifest import FILE, UNFINISHED, Header, Target, read_manifest
from replication.cache.reader import Reader
from replication.cache.shard import Shard, file_name
from replication.cache.stats import stats
from replication.cache.verify import verify
from replication.cache.writer import Writer
from tests.test_cache import IN_SHARD, SEQUENCES, TARGETS, build, files, fill, header, rows

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


def test_a_damaged_compressed_cache_is_found(tmp_path: Path) -> None:
    build(tmp_path, compression="zstd")
    rng = np.random.default_rng(0)
    for path in sorted(tmp_path.iterdir()):
        sound = path.read_bytes()
        for _ in range(8):
            place, bit = int(rng.integers(len(sound))), int(rng.integers(8))
            path.write_bytes(sound[:place] + bytes([sound[place] ^ 1 << bit]) + sound[place + 1 :])
            problems = verify(tmp_path)
            assert problems and path.name in problems[0], (path.name, place, bit)
        path.write_bytes(sound)
    path = tmp_path / file_name(1)
    sound = path.read_bytes()
    shard = Shard(path, IN_SHARD)
    begin = int(shard.ends[2] - shard.sizes[2]) + 4  # beyond the count
    path.write_bytes(sound[:begin] + bytes(8) + sound[begin + 8 :])
    with pytest.raises(ValueError, match=r"The cache is damaged: .*\. Verify the cache to find where") as caught:
        Reader(tmp_path).rows([6])
    assert "\n" not in str(caught.value)
    Reader(tmp_path).rows([5, 7])  # each block is compressed alone


def test_an_unknown_compression_is_refused(tmp_path: Path) -> None:
    build(tmp_path, compression="zstd")
    text = (tmp_path / FILE).read_text()
    (tmp_path / FILE).write_text(text.replace('"zstd"', '"lzma"'))
    with pytest.raises(ValueError, match="damaged at compression: Input should be 'none', 'zstd' or 'unigram'"):
        read_manifest(tmp_path)
