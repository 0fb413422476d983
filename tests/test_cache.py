"""The cache on disk: writing, resuming, reading, refusing, verifying, and what it costs."""

from __future__ import annotations

import errno
import os
import pickle
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from replication.cache import gather, ownership, thread
from replication.cache.codec import Codec, Rows
from replication.cache.manifest import FILE, UNFINISHED, Expected, Header, Target, check, read_manifest
from replication.cache.reader import Reader
from replication.cache.shard import file_name
from replication.cache.stats import stats
from replication.cache.verify import verify
from replication.cache.writer import Writer

LENGTH, SEQUENCES, IN_SHARD = 16, 22, 4  # the last shard is short
SAMPLING = Target(name="RandomSampling", fields={"draws": 20, "exponent": 1.0})
TOP_K = Target(name="TopK", fields={"k": 5})
TOP_P = Target(name="TopP", fields={"p": 0.98, "cap": 60, "exponent": 1.0})
FLAT = Target(name="RandomSampling", fields={"draws": 20, "exponent": 0.5})
TARGETS = pytest.mark.parametrize("target", [SAMPLING, TOP_K, TOP_P, FLAT], ids=["counts", "top-k", "top-p", "flat"])


def header(target: Target = SAMPLING, vocabulary: int = 1000, length: int = LENGTH, **other: Any) -> Header:
    named = {"teacher": "teacher-a", "tokenizer": "tokenizer-a", "packing": "packing-a", "seed": 0, **other}
    return Header(target=target, vocabulary=vocabulary, length=length, **named)


def rows(head: Header, sequences: np.ndarray | range, unique: float = 4) -> Rows:
    """Targets that depend on the sequence alone, as a teacher's do; sampled ones keep about `unique` classes."""
    made = [one_sequence(head, int(sequence), unique) for sequence in sequences]
    most = max(ids_LK.shape[1] for ids_LK, _, _ in made)
    widened = [[np.pad(part, ((0, 0), (0, most - part.shape[1]))) for part in sequence[:2]] for sequence in made]
    return (
        np.stack([ids_LK for ids_LK, _ in widened]),
        np.stack([weights_LK for _, weights_LK in widened]),
        np.stack([lengths_L for _, _, lengths_L in made]),
    )


def one_sequence(head: Header, sequence: int, unique: float) -> Rows:
    rng = np.random.default_rng(sequence)
    fields = head.target.fields
    draws = fields.get("draws", 0)
    if head.target.name == "TopK":
        lengths_L = np.full(head.length, fields["k"])
    else:
        most = min(draws or fields["cap"], 60)
        lengths_L = 1 + rng.binomial(most - 1, (unique - 1) / (most - 1), head.length)
    most = lengths_L.max()
    kept_LK = np.arange(most) < lengths_L[:, None]
    ids_LK = (rng.integers(0, head.vocabulary, (head.length, 1)) + 17 * np.arange(most)) % head.vocabulary * kept_LK
    if head.target.name == "RandomSampling" and fields["exponent"] == 1:
        weights_LK = kept_LK.astype(np.float32)
        weights_LK[:, 0] += draws - lengths_L
        weights_LK /= np.float32(draws)
    else:
        weights_LK = -np.sort(-rng.random((head.length, most)) * kept_LK, axis=1)
        weights_LK /= weights_LK.sum(1, keepdims=True) * (1 if draws else 1.02)
    return ids_LK, weights_LK.astype(np.float32), lengths_L


def fill(cache: Writer, batch: int = 3, stop_after: int | None = None, unique: float = 4) -> None:
    done = 0
    for span in cache.missing():
        for first in range(span.start, span.stop, batch):
            if stop_after is not None and done >= stop_after:
                return
            taken = range(first, min(first + batch, span.stop))
            cache.put(first, *rows(cache.plan.header, taken, unique))
            done += len(taken)


def build(directory: Path, head: Header | None = None, sequences: int = SEQUENCES, **how: Any) -> Path:
    unique = how.pop("unique", 4)
    options = {key: how.pop(key) for key in ("workers", "part", "compression", "frequencies_V") if key in how}
    with Writer(directory, head or header(), sequences, how.pop("shard_sequences", IN_SHARD), **options) as cache:
        fill(cache, unique=unique, **how)
    return directory


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


@TARGETS
@pytest.mark.parametrize("batch", [1, 3, 4, 22])
def test_what_goes_in_comes_out(tmp_path: Path, target: Target, batch: int) -> None:
    head = header(target)
    reader = Reader(build(tmp_path, head, batch=batch))
    order = np.random.default_rng(0).permutation(SEQUENCES)
    ids_BLK, weights_BLK, lengths_BL = rows(head, order)
    read_ids_BLK, read_weights_BLK = reader.rows(order)
    np.testing.assert_array_equal(read_ids_BLK, ids_BLK)
    np.testing.assert_array_equal(reader.lengths(order), lengths_BL)
    assert read_weights_BLK.dtype == np.float32
    np.testing.assert_allclose(read_weights_BLK, weights_BLK, atol=0.04 if target is not SAMPLING else 0)
    one = order[3]
    assert reader.rows([one])[0].shape[2] == lengths_BL[3].max()
    np.testing.assert_array_equal(reader.rows([one])[0][0], ids_BLK[3, :, : lengths_BL[3].max()])


def test_batches_do_not_show_in_the_files(tmp_path: Path) -> None:
    assert files(build(tmp_path / "a", batch=1)) == files(build(tmp_path / "b", batch=5))
    assert sorted(files(tmp_path / "a")) == [FILE, *(file_name(index) for index in range(6))]


@pytest.mark.parametrize("stop_after", [0, 1, 4, 11, 21])
def test_resume_is_the_same_as_one_go(tmp_path: Path, stop_after: int) -> None:
    with pytest.raises(ValueError, match="lacks .* sequences; run the same command again"):
        build(tmp_path / "resumed", batch=1, stop_after=stop_after)
    (tmp_path / "resumed" / "shard-000003.bin.tmp").write_bytes(b"half")
    safe = stop_after // IN_SHARD * IN_SHARD
    with Writer(tmp_path / "resumed", header(), SEQUENCES, IN_SHARD) as cache:
        assert cache.missing() == [range(safe, SEQUENCES)]
        fill(cache)
    assert files(tmp_path / "resumed") == files(build(tmp_path / "once"))


def test_resume_fills_gaps_and_replaces_a_cut_shard(tmp_path: Path) -> None:
    build(tmp_path / "once")
    build(tmp_path / "resumed")
    (tmp_path / "resumed" / FILE).unlink()
    with pytest.raises(ValueError, match=r"holds .* but no cache"):
        Writer(tmp_path / "resumed", header(), SEQUENCES, IN_SHARD)
    with Writer(tmp_path / "other", header(), SEQUENCES, IN_SHARD) as cache:
        (tmp_path / "resumed" / UNFINISHED).write_bytes((tmp_path / "other" / UNFINISHED).read_bytes())
        fill(cache)
    os.truncate(tmp_path / "resumed" / file_name(1), 100)
    (tmp_path / "resumed" / file_name(4)).unlink()
    with Writer(tmp_path / "resumed", header(), SEQUENCES, IN_SHARD) as cache:
        assert cache.missing() == [range(4, 8), range(16, 20)]
        fill(cache)
    assert files(tmp_path / "resumed") == files(tmp_path / "once")


def test_a_finished_cache_needs_nothing(tmp_path: Path) -> None:
    before = files(build(tmp_path))
    (tmp_path / UNFINISHED).write_text("killed between the manifest and this")
    with Writer(tmp_path, header(), SEQUENCES, IN_SHARD) as cache:
        assert cache.missing() == []
    assert files(tmp_path) == before


OTHER_HEADERS = {
    "teacher": (header(teacher="teacher-b"), "teacher is teacher-a in the cache but teacher-b here"),
    "tokenizer": (header(tokenizer="tok-b"), "tokenizer is tokenizer-a in the cache but tok-b here"),
    "packing": (header(packing="pack-b"), r"packing \(order or length .*\) is packing-a in the cache but pack-b here"),
    "length": (header(length=32), "sequence length is 16 in the cache but 32 here"),
    "vocabulary": (header(vocabulary=1024), "vocabulary is 1000 in the cache but 1024 here"),
    "seed": (header(seed=1), "seed is 0 in the cache but 1 here"),
    "target": (
        header(Target(name="RandomSampling", fields={"draws": 19, "exponent": 1.0})),
        r"target is RandomSampling\(draws=20, exponent=1.0\) in the cache but RandomSampling\(draws=19",
    ),
}


@pytest.mark.parametrize("key", OTHER_HEADERS)
@pytest.mark.parametrize("finished", [False, True])
def test_another_cache_is_never_continued(tmp_path: Path, key: str, finished: bool) -> None:
    if finished:
        build(tmp_path)
    else:
        with pytest.raises(ValueError, match="lacks"):
            build(tmp_path, stop_after=6)
    before = files(tmp_path)
    other, match = OTHER_HEADERS[key]
    with pytest.raises(ValueError, match=match) as caught:
        Writer(tmp_path, other, SEQUENCES, IN_SHARD)
    assert "\n" not in str(caught.value)
    assert files(tmp_path) == before
    with pytest.raises(ValueError, match="begun with sequences = 22, not 23"):
        Writer(tmp_path, header(), 23, IN_SHARD)
    with pytest.raises(ValueError, match="begun with shard_sequences = 4, not 5"):
        Writer(tmp_path, header(), SEQUENCES, 5)


@pytest.mark.parametrize("key", OTHER_HEADERS)
def test_reading_another_cache_is_refused(tmp_path: Path, key: str) -> None:
    build(tmp_path)
    other, match = OTHER_HEADERS[key]
    Reader(tmp_path, Expected(**{name: getattr(header(), name) for name in Header.model_fields}))
    with pytest.raises(ValueError, match=match) as caught:
        Reader(tmp_path, Expected(**{key: getattr(other, key)}))
    assert "\n" not in str(caught.value) and "build a cache for this run" in str(caught.value)


def test_everything_that_differs_is_named_and_nothing_else(tmp_path: Path) -> None:
    manifest = read_manifest(build(tmp_path))
    with pytest.raises(ValueError, match="teacher is .*; vocabulary is ") as caught:
        check(manifest, Expected(teacher="b", tokenizer="tokenizer-a", vocabulary=7))
    assert "tokenizer" not in str(caught.value)
    check(manifest, Expected())


def test_the_first_of_two_writers_has_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "PATIENCE", 0.1)
    with Writer(tmp_path, header(), SEQUENCES, IN_SHARD) as cache:
        with pytest.raises(ValueError, match="Another process is writing"):
            Writer(tmp_path, header(), SEQUENCES, IN_SHARD)
        fill(cache)
    Writer(tmp_path, header(), SEQUENCES, IN_SHARD).close()


def test_put_refuses_what_would_be_lost(tmp_path: Path) -> None:
    with Writer(tmp_path / "refused", header(), SEQUENCES, IN_SHARD) as cache:
        cache.put(0, *rows(header(), range(3)))
        with pytest.raises(ValueError, match="Sequence 2 is cached already"):
            cache.put(2, *rows(header(), range(2, 4)))
        with pytest.raises(ValueError, match="not among the 22"):
            cache.put(21, *rows(header(), range(2)))
        with pytest.raises(ValueError, match=r"shape \(2, 8\)"):
            cache.put(3, *rows(header(length=8), range(2)))
        fill(cache)
    assert files(tmp_path / "refused") == files(build(tmp_path / "once"))


def test_an_error_of_the_thread_reaches_the_teacher(tmp_path: Path) -> None:
    ids_BLK, weights_BLK, lengths_BL = rows(header(), range(1))
    with pytest.raises(ValueError, match="Sequences 4 to 4: Class id 1000 is outside"):
        with Writer(tmp_path, header(), SEQUENCES, IN_SHARD) as cache:
            fill(cache, stop_after=4, batch=1)
            cache.put(4, np.where(weights_BLK > 0, 1000, 0), weights_BLK, lengths_BL)
            for sequence in range(5, SEQUENCES):  # many more than the queue holds: must not hang
                cache.put(sequence, *rows(header(), [sequence]))
                time.sleep(0.01)
    with Writer(tmp_path, header(), SEQUENCES, IN_SHARD) as cache:
        assert cache.missing() == [range(4, SEQUENCES)]
        fill(cache)
    assert verify(tmp_path) == []


def test_the_teacher_does_not_wait_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    real = gather.shard.write
    monkeypatch.setattr(gather.shard, "write", lambda *arguments: (release.wait(10), real(*arguments)))
    with Writer(tmp_path, header(), SEQUENCES, shard_sequences=1) as cache:
        begin = time.perf_counter()
        fill(cache, batch=1, stop_after=thread.WAITING)
        waited = time.perf_counter() - begin
        release.set()
        fill(cache)
    assert waited < 2
    assert verify(tmp_path) == []


def test_buffers_may_be_reused(tmp_path: Path) -> None:
    with Writer(tmp_path / "reused", header(TOP_K), SEQUENCES, IN_SHARD) as cache:
        ids_BLK, weights_BLK, lengths_BL = (part.copy() for part in rows(header(TOP_K), range(1)))
        for sequence in range(SEQUENCES):
            ids_BLK[:], weights_BLK[:], lengths_BL[:] = rows(header(TOP_K), [sequence])
            cache.put(sequence, ids_BLK, weights_BLK, lengths_BL)
            ids_BLK[:] = 0
    assert files(tmp_path / "reused") == files(build(tmp_path / "once", header(TOP_K)))


class Disk:
    """Files that fit `room` bytes in all, then no more."""

    def __init__(self, room: int) -> None:
        self.room = room

    def open(self, path: Path, mode: str) -> Any:
        file, disk = open(path, mode), self

        class Limited:
            def __enter__(self) -> Limited:
                return self

            def __exit__(self, *error: object) -> None:
                file.close()

            def write(self, part: bytes) -> None:
                disk.room -= len(part)
                if disk.room < 0:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                file.write(part)

            flush, fileno = file.flush, file.fileno

        return Limited()


@pytest.mark.parametrize("fit", [-1, 0, 2, 6])
def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fit: int) -> None:
    """Room for half the plan, the plan alone, two shards and their notes, all six but not the manifest."""
    once = build(tmp_path / "once")
    with pytest.raises(ValueError, match="lacks"):
        build(tmp_path / "plan", stop_after=0)
    plan = len((tmp_path / "plan" / UNFINISHED).read_bytes())
    room = plan // 2 if fit < 0 else plan + 50 + sum(64 + len(files(once)[file_name(index)]) for index in range(fit))
    safe = min(max(fit, 0) * IN_SHARD, SEQUENCES)
    with monkeypatch.context() as patched:
        patched.setattr("replication.machine.files.open", Disk(room).open, raising=False)
        with pytest.raises(OSError, match=f"Disk full .*: {safe} of 22 sequences are safe; .*same command") as caught:
            build(tmp_path / "full", batch=2)
    assert caught.value.errno == errno.ENOSPC and "\n" not in str(caught.value)
    assert not list((tmp_path / "full").glob("*.tmp"))
    with Writer(tmp_path / "full", header(), SEQUENCES, IN_SHARD) as cache:
        assert sum(map(len, cache.missing())) == SEQUENCES - safe
        fill(cache)
    assert files(tmp_path / "full") == files(once)


def test_lookup_by_position(tmp_path: Path) -> None:
    reader = Reader(build(tmp_path))
    ids_BLK, weights_BLK, _ = rows(header(), range(SEQUENCES))
    flat_BL = np.random.default_rng(0).integers(-1, SEQUENCES * LENGTH, (5, 9))
    flat_BL[0, :2] = -1, SEQUENCES * LENGTH - 1
    read_ids_BLK, read_weights_BLK = reader.positions(flat_BL)
    most = read_ids_BLK.shape[2]
    for (row, place), position in np.ndenumerate(flat_BL):
        sequence, offset = divmod(int(position), LENGTH)
        expected = (0, 0) if position < 0 else (ids_BLK[sequence, offset], weights_BLK[sequence, offset])
        for read, true in zip((read_ids_BLK, read_weights_BLK), expected, strict=True):
            np.testing.assert_array_equal(read[row, place], np.zeros(most) if position < 0 else true[:most])
    assert reader.positions(np.full((2, 3), -1))[1].shape == (2, 3, 0)
    with pytest.raises(ValueError, match="Position 352 is not in the cache"):
        reader.positions([[0, SEQUENCES * LENGTH]])
    with pytest.raises(ValueError, match="Position -2 is not in the cache"):
        reader.positions([[0, -2]])


def test_reader_refuses_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="There is no cache in"):
        Reader(tmp_path)
    with pytest.raises(ValueError, match="lacks"):
        build(tmp_path, stop_after=9)
    with pytest.raises(ValueError, match="is unfinished; to resume: python -m replication cache build"):
        Reader(tmp_path)
    reader = Reader(build(tmp_path))
    for wrong in (-1, SEQUENCES):
        with pytest.raises(ValueError, match=f"Sequence {wrong} is not in the cache; give 0 to 21"):
            reader.rows([0, wrong])
    os.truncate(tmp_path / file_name(2), 200)
    with pytest.raises(ValueError, match=r"shard-000002.bin has 200 bytes instead of"):
        Reader(tmp_path)
    (tmp_path / file_name(2)).unlink()
    with pytest.raises(ValueError, match=r"shard-000002.bin is missing"):
        Reader(tmp_path)


def test_shards_are_opened_once_and_not_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Reader(build(tmp_path))
    for _ in range(3):
        reader.rows(np.arange(SEQUENCES))
    kept = list(reader.mapped.values())
    reader.rows(np.arange(SEQUENCES))
    assert all(shard is before for shard, before in zip(reader.mapped.values(), kept, strict=True))
    monkeypatch.setattr("replication.cache.reader.OPEN_SHARDS", 2)
    few = pickle.loads(pickle.dumps(reader))
    np.testing.assert_array_equal(few.rows(np.arange(SEQUENCES))[0], reader.rows(np.arange(SEQUENCES))[0])
    assert len(few.mapped) == 2


@TARGETS
def test_every_flipped_bit_is_found(tmp_path: Path, target: Target) -> None:
    assert verify(build(tmp_path, header(target))) == []
    rng = np.random.default_rng(0)
    paths = sorted(tmp_path.iterdir())
    for flip in range(60):
        path = paths[flip % len(paths)]
        sound = path.read_bytes()
        place, bit = int(rng.integers(len(sound))), int(rng.integers(8))
        path.write_bytes(sound[:place] + bytes([sound[place] ^ 1 << bit]) + sound[place + 1 :])
        assert path.name in first_problem(tmp_path), (path.name, place, bit)
        path.write_bytes(sound)
    assert verify(tmp_path) == []


def first_problem(directory: Path) -> str:
    try:
        return verify(directory)[0]
    except ValueError as error:
        return str(error)


def test_every_bit_of_the_manifest_counts(tmp_path: Path) -> None:
    build(tmp_path, sequences=2)
    sound = (tmp_path / FILE).read_bytes()
    for place in range(len(sound)):
        (tmp_path / FILE).write_bytes(sound[:place] + bytes([sound[place] ^ 1 << place % 8]) + sound[place + 1 :])
        with pytest.raises(ValueError, match=r"manifest\.json"):
            read_manifest(tmp_path)


@dataclass
class FakePacking:
    fingerprint: str = "packing-a"
    length: int = LENGTH
    sequences: int = SEQUENCES

    def __len__(self) -> int:
        return self.sequences


def test_verify_compares_the_packing_and_the_files(tmp_path: Path) -> None:
    build(tmp_path)
    assert verify(tmp_path, FakePacking()) == verify(tmp_path, FakePacking(sequences=100)) == []
    assert verify(tmp_path, FakePacking("b")) == ["The packing is packing-a in the cache but b here."]
    assert verify(tmp_path, FakePacking(length=8)) == ["The sequence length is 16 in the cache but 8 here."]
    assert verify(tmp_path, FakePacking(sequences=21)) == ["The cache has 22 sequences, the packing only 21."]
    (tmp_path / file_name(0)).unlink()
    (tmp_path / file_name(1)).write_bytes((tmp_path / file_name(2)).read_bytes())
    problems = verify(tmp_path)
    assert len(problems) == 2 and "is missing (sequences 0 to 3)" in problems[0] and file_name(1) in problems[1]
    with pytest.raises(ValueError, match="There is no cache in .*: it is no folder"):
        verify(tmp_path / "nowhere")


@TARGETS
def test_verify_recomputes(tmp_path: Path, target: Target) -> None:
    build(tmp_path, header(target))

    def teacher(change: Callable[[np.ndarray, np.ndarray], None]) -> Callable[[np.ndarray], tuple[np.ndarray, ...]]:
        def recompute(indices: np.ndarray) -> tuple[np.ndarray, ...]:
            ids_BLK, weights_BLK, _ = rows(header(target), indices)
            change(ids_BLK, weights_BLK)
            return ids_BLK, weights_BLK

        return recompute

    def nothing(ids_BLK: np.ndarray, weights_BLK: np.ndarray) -> None:
        pass

    def another_class(ids_BLK: np.ndarray, weights_BLK: np.ndarray) -> None:
        ids_BLK[2, 5, 0] = (ids_BLK[2, 5, 0] + 1) % 1000

    def another_weight(ids_BLK: np.ndarray, weights_BLK: np.ndarray) -> None:
        weights_BLK[2, 5, 0] *= 0.7

    assert verify(tmp_path, FakePacking(), teacher(nothing)) == []
    for change in (another_class, another_weight):
        (problem,) = verify(tmp_path, FakePacking(), teacher(change))
        assert problem.startswith(
            "1 of 128 recomputed positions differ from the cache, the first at sequence 6, position 5"
        )


COSTS = [
    (Target(name="RandomSampling", fields={"draws": 50, "exponent": 1.0}), 12),
    (Target(name="RandomSampling", fields={"draws": 3, "exponent": 1.0}), 2.4),
    (Target(name="RandomSampling", fields={"draws": 50, "exponent": 0.8}), 12),
    (Target(name="TopK", fields={"k": 12}), 12),
    (Target(name="TopK", fields={"k": 50}), 50),
    (Target(name="TopP", fields={"p": 0.98, "cap": 100, "exponent": 1.0}), 12),
    (Target(name="TopP", fields={"p": 0.5, "cap": 100, "exponent": 1.0}), 2.4),
]


@pytest.mark.parametrize(
    ("vocabulary", "most", "length", "sequences"),
    [(50_304, 2.925, 1024, 24), (100_000, 3.05, 128, 256), (131_072, 3.05, 1024, 24), (151_936, 3.175, 1024, 24)],
)
def test_bytes_per_token(tmp_path: Path, vocabulary: int, most: float, length: int, sequences: int) -> None:
    """Everything on disk, over a few ten thousand positions, against the classes kept."""
    for number, (target, unique) in enumerate(COSTS):
        directory = tmp_path / str(number)
        build(directory, header(target, vocabulary, length), sequences, batch=64, shard_sequences=256, unique=unique)
        cost = stats(directory)
        size = sum(path.stat().st_size for path in directory.iterdir())
        assert cost["unique_classes"] == pytest.approx(unique, rel=0.03)
        assert cost["bytes_per_token"] == size / (length * sequences)
        assert cost["bytes_per_token"] <= most * cost["unique_classes"], (target, cost)


def test_stats_are_plain_numbers(tmp_path: Path) -> None:
    cost = stats(build(tmp_path, header(TOP_K)))
    assert cost["codec"] == "ratio"
    assert (cost["sequences"], cost["positions"], cost["classes"]) == (22, 352, 1760)
    assert cost["unique_classes"] == 5
    assert cost["bytes_per_class"] == cost["bytes"] / 1760
    assert cost["terabytes_per_100B_tokens"] == pytest.approx(cost["bytes_per_token"] / 10)


def test_the_manifest_says_what_the_cache_is(tmp_path: Path) -> None:
    manifest = read_manifest(build(tmp_path))
    assert manifest.header == header()
    assert isinstance(manifest.coder, Codec) and manifest.codec_parameters == {"draws": 20}
    assert [(entry.first, entry.sequences) for entry in manifest.shards][-1] == (20, 2)
    assert str(tmp_path) not in (tmp_path / FILE).read_text()
