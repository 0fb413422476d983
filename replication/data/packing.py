"""Packing: the documents of one split, shuffled, end to end, cut into rows, and the rows shuffled (RS-KD App. D.3).

Attention is not masked across documents. A row holds L + 1 tokens of the stream: L inputs and, one further, L labels.
Neighbours share a token, so each token but the stream's first is predicted exactly once; the last partial row is
dropped. Rows are shuffled too (as Megatron does, with which RS-KD trained): else a batch would be one long document.

Documents are joined by ends of text alone. A teacher whose tokenizer begins every sequence with a token of its own, a
<bos>, can be given it: before each row, which is what the teacher sees as a sequence and where evaluation puts it; or
before each document, as most of them were trained, where rows that begin inside a document have none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Literal

import numpy as np
from tqdm import tqdm

from replication.data.corpus import Corpus
from replication.data.tokenizer import Tokenizer
from replication.machine.files import replacing

FORMAT = 2
BATCH = 2_000_000  # characters tokenised between two writes
Split = Literal["train", "validation"]
COUNTED = 2**22  # tokens that are counted for the law against which a cache codes its ids


@dataclass(frozen=True, eq=False)
class Packing:
    """A virtual stream over the memory-mapped token file: shuffling costs three integers per document.

    T tokens on file, D documents in this split. Documents are in stream order.
    """

    split: Split
    fingerprint: str
    length: int
    vocabulary: int
    source: str  # fingerprint of the token file
    tokens_T: np.ndarray
    documents_D: np.ndarray  # index in the corpus
    begins_D: np.ndarray  # where the document begins on file
    starts_D: np.ndarray  # where it starts in the stream
    tokens: int  # in the stream
    order_R: np.ndarray  # row i is the order_R[i]-th of the stream
    before: int | None = None  # a token that stands before every row and is none of the stream's

    def __len__(self) -> int:
        """Rows."""
        return len(self.order_R)

    def rows(self, indices: np.ndarray | list[int]) -> np.ndarray:
        """int64 [B, L + 1]: inputs are [:, :-1], labels [:, 1:]. Raises IndexError outside 0 .. len(self) - 1."""
        if self.before is None:
            return self.tokens_of(self.positions_of(indices, self.length + 1))
        return np.insert(self.tokens_of(self.positions_of(indices, self.length)), 0, self.before, axis=1)

    def positions_of(self, indices: np.ndarray | list[int], width: int) -> np.ndarray:
        """Stream positions of the first `width` tokens of each row, int64 [B, width]."""
        rows = np.asarray(indices, dtype=np.int64).reshape(-1)
        if len(rows) and (rows.min() < 0 or rows.max() >= len(self)):
            raise IndexError(f"Rows {rows.min()} to {rows.max()} asked of a packing with rows 0 to {len(self) - 1}.")
        return self.order_R[rows][:, None] * self.length + np.arange(width)

    def tokens_of(self, positions: np.ndarray) -> np.ndarray:
        """The tokens at these stream positions, int64, same shape."""
        place, offset = self.place_of(positions)
        return self.tokens_T[self.begins_D[place] + offset].astype(np.int64)

    @cached_property
    def by_document(self) -> np.ndarray:
        """The indices along D, in the corpus's order."""
        return np.argsort(self.documents_D)

    def place_of(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(index along D, offset within that document) of each stream position."""
        place = np.searchsorted(self.starts_D, positions, side="right") - 1
        return place, positions - self.starts_D[place]


def positions_in(other: Packing, mine: Packing, row_indices: np.ndarray | list[int]) -> np.ndarray:
    """Where `other` holds the input tokens of my rows: same document, same offset. int64 [B, L].

    A target cached for row p // other.length of `other`, column p % other.length, is the teacher's prediction after
    the same token, behind another context (Table 16). It names the same next token, but for a document's end, where
    another document follows. -1 where the counterpart is no input of a row of `other`: the last 1 to other.length
    tokens of its stream. Raises ValueError when the two hold different tokens.
    """
    if (other.source, other.split) != (mine.source, mine.split):
        raise ValueError(
            f"Cannot align a {mine.split} packing of tokens {mine.source} with a {other.split} packing of tokens "
            f"{other.source}: pack both from one corpus, tokenizer and split."
        )
    place, offset = mine.place_of(mine.positions_of(row_indices, mine.length))
    sorter = other.by_document
    counterpart = sorter[np.searchsorted(other.documents_D, mine.documents_D[place], sorter=sorter)]
    stream = other.starts_D[counterpart] + offset
    row_of_R = np.argsort(other.order_R)
    inside = stream < len(other) * other.length
    row = row_of_R[np.where(inside, stream, 0) // other.length]
    return np.where(inside, row * other.length + stream % other.length, -1)


def pack(corpus: Corpus, tokenizer: Tokenizer, seed: int, length: int, directory: Path) -> Packing:
    """The training documents, shuffled by seed. Tokenises the corpus on the first call, into `directory`."""
    return packed(corpus, tokenizer, "train", str(seed), length, directory)


def validation(corpus: Corpus, tokenizer: Tokenizer, length: int, directory: Path) -> Packing:
    """The held-out documents, in one order for all seeds."""
    return packed(corpus, tokenizer, "validation", "validation", length, directory)


def packed(corpus: Corpus, tokenizer: Tokenizer, split: Split, order: str, length: int, directory: Path) -> Packing:
    if length < 1:
        raise ValueError(f"Cannot pack rows of length {length}: give at least 1.")
    chosen = np.flatnonzero(corpus.held_out if split == "validation" else ~corpus.held_out)
    documents_D = chosen[shuffled(len(chosen), order)]
    tokens_T, offsets = tokenised(corpus, tokenizer, directory)
    begins: tuple[str | int, ...] = () if tokenizer.begins == "none" else (tokenizer.begins, *tokenizer.before)
    before = tokenizer.before[0] if tokenizer.begins == "rows" else None
    sizes_D = (offsets[1:] - offsets[:-1])[documents_D]
    ends_D = np.cumsum(sizes_D)
    if ends_D[-1] <= length:
        raise ValueError(
            f"The {split} split of corpus {corpus.name!r} has {ends_D[-1]} tokens, too few for one row of length "
            f"{length}: use more text or shorter rows."
        )
    source = fingerprint_of(FORMAT, corpus.fingerprint, tokenizer.fingerprint, *begins)
    return Packing(
        split=split,
        fingerprint=fingerprint_of(FORMAT, corpus.fingerprint, tokenizer.fingerprint, order, length, split, *begins),
        length=length,
        vocabulary=tokenizer.vocabulary,
        source=source,
        tokens_T=tokens_T,
        documents_D=documents_D,
        begins_D=offsets[:-1][documents_D],
        starts_D=ends_D - sizes_D,
        tokens=int(ends_D[-1]),
        order_R=shuffled((int(ends_D[-1]) - (before is None)) // length, f"rows of {order}"),
        before=before,
    )


def shuffled(count: int, order: str) -> np.ndarray:
    """A permutation of 0 .. count - 1, the same in every NumPy: raw streams are guaranteed, shuffles are not."""
    seed = int.from_bytes(hashlib.sha256(repr(("packing", order)).encode()).digest(), "big")
    return np.argsort(np.random.PCG64(seed).random_raw(count), kind="stable")


def fingerprint_of(*parts: str | int) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def tokenised(corpus: Corpus, tokenizer: Tokenizer, directory: Path) -> tuple[np.ndarray, np.ndarray]:
    """(tokens [T] uint16 or uint32, memory-mapped; offsets [documents + 1] int64). Every document ends in end-of-text.

    Two files, each written aside and renamed: a run killed here leaves nothing that a later one would believe.
    """
    before = tokenizer.before if tokenizer.begins == "documents" else ()
    stem = "-".join(map(str, ("tokens", corpus.fingerprint, tokenizer.fingerprint, *before)))
    tokens_path, offsets_path = directory / f"{stem}.npy", directory / f"{stem}.offsets.npy"
    if not (tokens_path.exists() and offsets_path.exists()):
        directory.mkdir(parents=True, exist_ok=True)
        with replacing(tokens_path) as tokens_file:
            offsets = write_tokens(tokens_file, corpus, tokenizer, before)
            with replacing(offsets_path) as offsets_file:
                np.save(offsets_file, offsets)
    try:
        tokens_T, offsets = np.load(tokens_path, mmap_mode="r"), np.load(offsets_path)
    except (ValueError, EOFError):  # EOFError: of a file without a byte
        tokens_T, offsets = np.empty(0), np.array([-1])
    if len(offsets) != len(corpus.documents) + 1 or offsets[-1] != len(tokens_T):
        raise ValueError(f"{tokens_path} is damaged. Delete it; it is then written again.")
    return tokens_T, offsets


def write_tokens(file: IO[bytes], corpus: Corpus, tokenizer: Tokenizer, before: tuple[int, ...] = ()) -> np.ndarray:
    """Write all tokens as one .npy, a batch at a time, those `before` a document in front of each; give the offsets."""
    dtype = np.dtype(np.uint16 if tokenizer.vocabulary <= 1 << 16 else np.uint32)
    sizes: list[int] = []
    progress = tqdm(total=corpus.bytes, desc="tokenise", unit="B", unit_scale=True, mininterval=1.0)
    with progress:
        body = write_header(file, dtype, 0)
        for texts in batches(corpus.documents):
            for ids in tokenizer.encode_batch(texts):
                tokens = np.concatenate([before, ids, [tokenizer.end_of_text]], dtype=dtype, casting="unsafe")
                file.write(tokens.tobytes())
                sizes.append(len(tokens))
            progress.update(sum(len(text.encode()) for text in texts))
        file.seek(0)
        assert write_header(file, dtype, sum(sizes)) == body  # NumPy pads headers so that the first axis can grow
    return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])


def write_header(file: IO[bytes], dtype: np.dtype, count: int) -> int:
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(file, header)
    return file.tell()


def batches(documents: list[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document)
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def frequencies(packing: Packing) -> np.ndarray:
    """How often each class occurs in the first rows of a packing, which are shuffled: int64 [V]."""
    rows = min(len(packing), -(-COUNTED // packing.length))
    return np.bincount(packing.rows(np.arange(rows)).ravel(), minlength=packing.vocabulary)
