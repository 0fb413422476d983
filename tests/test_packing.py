"""Every token once, no document on both sides, and the way from one shuffle to another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from replication.data import packing as packing_module
from replication.data.corpus import Corpus, collect, is_validation, open_corpus
from replication.data.packing import Packing, pack, positions_in, validation, write_tokens
from replication.data.tokenizer import Tokenizer, open_tokenizer

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"


def documents(count: int) -> list[str]:
    return [
        f"document {index} speaks of {' and '.join('abcdef'[: index % 7])}, {index}.\n" * (1 + index % 4)
        for index in range(count)
    ]


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return collect("words", documents(1100) + documents(40))  # 40 stand twice


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("artifacts")


@pytest.fixture(scope="module")
def tokenizer(corpus: Corpus, folder: Path) -> Tokenizer:
    return open_tokenizer("bpe:300", corpus, folder)


def stream(packing: Packing) -> np.ndarray:
    """The whole stream, rebuilt from rows as a training loop sees them, then the dropped tail."""
    rows = packing.rows(np.argsort(packing.order_R))
    covered = np.concatenate([rows[:1, 0], rows[:, 1:].ravel()])
    return np.concatenate([covered, packing.tokens_of(np.arange(len(covered), packing.tokens))])


def place_in_stream(packing: Packing, positions: np.ndarray) -> np.ndarray:
    """Of a position counted by rows (row * length + column)."""
    return packing.order_R[positions // packing.length] * packing.length + positions % packing.length


def texts(packing: Packing, tokenizer: Tokenizer) -> list[str]:
    ends = np.flatnonzero(stream(packing) == tokenizer.end_of_text)
    assert ends[-1] == packing.tokens - 1
    return [tokenizer.decode(part[:-1]) for part in np.split(stream(packing), ends[:-1] + 1)]


@pytest.mark.parametrize("length", [1, 7, 64])
def test_every_document_of_a_split_is_in_its_stream_once(
    length: int, corpus: Corpus, tokenizer: Tokenizer, folder: Path
) -> None:
    train, held_out = pack(corpus, tokenizer, 3, length, folder), validation(corpus, tokenizer, length, folder)
    assert sorted(texts(train, tokenizer)) == sorted(corpus.training_documents)
    assert sorted(texts(held_out, tokenizer)) == sorted(filter(is_validation, corpus.documents))
    assert set(texts(train, tokenizer)).isdisjoint(texts(held_out, tokenizer))


def test_rows_overlap_by_one_and_drop_less_than_a_row(corpus: Corpus, tokenizer: Tokenizer, folder: Path) -> None:
    packing = pack(corpus, tokenizer, 0, 16, folder)
    rows = packing.rows(np.arange(len(packing)))
    assert rows.shape == (len(packing), 17) and rows.dtype == np.int64
    in_stream = rows[np.argsort(packing.order_R)]
    assert np.array_equal(in_stream[:-1, -1], in_stream[1:, 0])
    assert 1 <= packing.tokens - len(packing) * 16 <= 16
    assert np.array_equal(packing.rows([5, 2, 5]), rows[[5, 2, 5]])
    for outside in (-1, len(packing)):
        with pytest.raises(IndexError, match=f"rows 0 to {len(packing) - 1}"):
            packing.rows([outside])


def test_rows_are_shuffled_and_each_comes_once(corpus: Corpus, tokenizer: Tokenizer, folder: Path) -> None:
    """Else a batch would be one long document."""
    first, other = (pack(corpus, tokenizer, seed, 16, folder).order_R for seed in (0, 1))
    assert np.array_equal(np.sort(first), np.arange(len(first)))
    assert np.abs(np.diff(first)).mean() > len(first) / 4  # a third, where neighbours are strangers
    assert not np.array_equal(first[:50], other[:50])


def test_the_seed_shuffles_training_only(corpus: Corpus, tokenizer: Tokenizer, folder: Path) -> None:
    first, again, other = (pack(corpus, tokenizer, seed, 16, folder) for seed in (0, 0, 1))
    assert np.array_equal(stream(first), stream(again))
    assert not np.array_equal(stream(first), stream(other))
    assert texts(first, tokenizer) != corpus.training_documents
    one, two = (validation(corpus, tokenizer, 16, folder) for _ in range(2))
    assert np.array_equal(stream(one), stream(two)) and one.fingerprint == two.fingerprint


def test_the_order_is_the_same_on_every_machine_and_for_ever() -> None:
    assert packing_module.shuffled(8, "0").tolist() == GOLDEN


GOLDEN = [0, 7, 6, 5, 1, 3, 2, 4]


def test_the_fingerprint_says_what_decides_the_rows(
    corpus: Corpus, tokenizer: Tokenizer, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = pack(corpus, tokenizer, 0, 16, folder).fingerprint
    renamed = replace(corpus, name="elsewhere")
    assert pack(renamed, tokenizer, 0, 16, tmp_path).fingerprint == base
    tokenizer.save(tmp_path / "saved")
    assert pack(corpus, open_tokenizer(str(tmp_path / "saved"), corpus, tmp_path), 0, 16, folder).fingerprint == base
    others = [
        pack(corpus, tokenizer, 1, 16, folder),
        pack(corpus, tokenizer, 0, 17, folder),
        pack(collect("fewer", corpus.documents[1:]), tokenizer, 0, 16, tmp_path),
        pack(corpus, open_tokenizer("bpe:299", corpus, folder), 0, 16, folder),
        validation(corpus, tokenizer, 16, folder),
    ]
    monkeypatch.setattr(packing_module, "FORMAT", 99)
    others.append(pack(corpus, tokenizer, 0, 16, folder))
    assert len({base, *(other.fingerprint for other in others)}) == 1 + len(others)


def test_tokenising_happens_once_and_leaves_nothing_else(
    corpus: Corpus,
    tokenizer: Tokenizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(packing_module, "BATCH", 500)  # many batches, one file
    small_batches = stream(pack(corpus, tokenizer, 0, 16, tmp_path))
    assert "tokenise" in capsys.readouterr().err
    assert sorted(path.name.partition(".")[2] for path in tmp_path.iterdir()) == ["npy", "offsets.npy"]
    monkeypatch.setattr(packing_module, "write_tokens", None)
    assert np.array_equal(stream(pack(corpus, tokenizer, 0, 16, tmp_path)), small_batches)
    tokens = np.load(next(path for path in tmp_path.iterdir() if "offsets" not in path.name), mmap_mode="r")
    assert tokens.dtype == np.uint16 and (tokens == tokenizer.end_of_text).sum() == len(corpus.documents)


def test_a_tokenising_that_dies_leaves_nothing(
    corpus: Corpus, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(texts: list[str]) -> None:
        raise OSError(28, "No space left on device")

    broken = replace(tokenizer)
    object.__setattr__(broken, "encode_batch", dies)
    with pytest.raises(OSError, match="No space"):
        pack(corpus, broken, 0, 16, tmp_path)
    assert list(tmp_path.iterdir()) == []
    pack(corpus, tokenizer, 0, 16, tmp_path)
    offsets, tokens = sorted(tmp_path.iterdir(), key=lambda path: "offsets" not in path.name)
    whole = tokens.read_bytes(), offsets.read_bytes()
    for path in (tokens, offsets):
        for size in (0, 50, path.stat().st_size - 10):
            path.write_bytes(path.read_bytes()[:size])
            with pytest.raises(ValueError, match="is damaged. Delete it") as caught:
                pack(corpus, tokenizer, 0, 16, tmp_path)
            Path(str(caught.value).partition(" is damaged")[0]).unlink()  # as it says
            pack(corpus, tokenizer, 0, 16, tmp_path)
            assert (tokens.read_bytes(), offsets.read_bytes()) == whole


def test_ids_beyond_16_bits_are_stored_whole(corpus: Corpus, tokenizer: Tokenizer, tmp_path: Path) -> None:
    class Wide:
        end_of_text = 70_000
        vocabulary = 70_001

        def encode_batch(self, texts: list[str]) -> list[np.ndarray]:
            return [np.array([65_536 + len(text)]) for text in texts]

    with (tmp_path / "tokens.npy").open("wb") as file:
        offsets = write_tokens(file, corpus, Wide())  # type: ignore[arg-type]
    tokens = np.load(tmp_path / "tokens.npy")
    assert tokens.dtype == np.uint32 and tokens[1] == 70_000 and tokens[0] == 65_536 + len(corpus.documents[0])
    assert offsets[-1] == len(tokens) == 2 * len(corpus.documents)


@pytest.mark.parametrize(("seed", "length"), [(0, 16), (1, 16), (0, 5), (2, 37)])
def test_positions_lead_to_the_same_token_of_the_same_document(
    seed: int, length: int, corpus: Corpus, tokenizer: Tokenizer, folder: Path
) -> None:
    mine, other = pack(corpus, tokenizer, 0, 16, folder), pack(corpus, tokenizer, seed, length, folder)
    indices = np.arange(len(mine))[::-1]
    positions = positions_in(other, mine, indices)
    inputs = mine.rows(indices)[:, :-1]
    found = positions >= 0
    assert positions.shape == (len(mine), 16)
    # Read as a cache is read: by row and column of the other packing.
    rows, columns = positions[found] // length, positions[found] % length
    assert np.array_equal(other.rows(np.arange(len(other)))[rows, columns], inputs[found])
    # Not merely an equal token: the whole text before it, back to its document's first token.
    ends = {packing: stream(packing) == tokenizer.end_of_text for packing in (mine, other)}
    streams = {packing: stream(packing) for packing in (mine, other)}

    def before(packing: Packing, position: int) -> list[int]:
        start = max(np.flatnonzero(ends[packing][:position]), default=-1) + 1
        return streams[packing][start : position + 1].tolist()

    here = place_in_stream(mine, (indices[:, None] * 16 + np.arange(16))[found])
    there = place_in_stream(other, positions[found])
    for index in np.random.default_rng(0).choice(len(here), 200, replace=False):
        assert before(mine, here[index]) == before(other, there[index])
    # Each at most once; what is missing was dropped there.
    assert len(np.unique(positions[found])) == found.sum()
    assert (~found).sum() <= other.tokens - len(other) * length <= length
    if (seed, length) == (0, 16):
        assert np.array_equal(positions, indices[:, None] * 16 + np.arange(16))


def test_the_dropped_tail_is_minus_one(corpus: Corpus, tokenizer: Tokenizer, folder: Path) -> None:
    mine, other = pack(corpus, tokenizer, 0, 1, folder), pack(corpus, tokenizer, 5, 300, folder)
    missing = (positions_in(other, mine, np.arange(len(mine))) == -1).sum()
    dropped = other.tokens - len(other) * 300
    assert dropped > 1 and dropped - 1 <= missing <= dropped  # the last token of mine is in no row of mine


def test_unlike_packings_do_not_align(corpus: Corpus, tokenizer: Tokenizer, folder: Path, tmp_path: Path) -> None:
    mine = pack(corpus, tokenizer, 0, 16, folder)
    fewer = pack(collect("fewer", corpus.documents[1:]), tokenizer, 0, 16, tmp_path)
    for other in (fewer, validation(corpus, tokenizer, 16, folder)):
        with pytest.raises(ValueError, match="one corpus, tokenizer and split"):
            positions_in(other, mine, [0])


def test_too_little_text_or_length(corpus: Corpus, tokenizer: Tokenizer, folder: Path) -> None:
    with pytest.raises(ValueError, match=r"The train split of corpus 'words' has \d+ tokens, too few"):
        pack(corpus, tokenizer, 0, 10**6, folder)
    with pytest.raises(ValueError, match="length 0"):
        pack(corpus, tokenizer, 0, 0, folder)
    tokens = pack(corpus, tokenizer, 0, 16, folder).tokens
    assert len(pack(corpus, tokenizer, 0, tokens - 1, folder)) == 1
    with pytest.raises(ValueError, match="too few"):
        pack(corpus, tokenizer, 0, tokens, folder)


@pytest.mark.skipif(not DATA.exists(), reason="NO REAL DATA: ../shared/data is absent, this did not run")
def test_real_questions_pack_and_align(tmp_path: Path) -> None:
    corpus = open_corpus(f"path:{DATA / 'eval_arc' / 'ARC-Easy-validation.jsonl.gz'}#question")
    tokenizer = open_tokenizer("bpe:512", corpus, tmp_path)
    mine, other = pack(corpus, tokenizer, 0, 128, tmp_path), pack(corpus, tokenizer, 1, 512, tmp_path)
    assert sorted(texts(mine, tokenizer)) == sorted(corpus.training_documents)
    positions = positions_in(other, mine, np.arange(len(mine)))
    found = positions >= 0
    there = other.tokens_of(place_in_stream(other, positions[found]))
    assert np.array_equal(there, mine.rows(np.arange(len(mine)))[:, :-1][found])
