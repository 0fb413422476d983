"""Conversations in rows: whole ones, several to a row, with a mask of what the assistant says and is learned.

A row holds L + 1 tokens: L inputs and, one further, L labels, as a row of text does. Each conversation goes into the
fullest row that has room for it (best fit); what stays free is ends of text that nobody says. Attention is not masked
between them, as in pre-training. One that is longer than a row loses the beginning of its first prompt, down to half a
row, and then its end.
"""

from __future__ import annotations

import json
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from replication.data.chat import encoded
from replication.data.conversations import read
from replication.data.corpus import Corpus
from replication.data.packing import fingerprint_of, shuffled
from replication.data.tokenizer import Tokenizer
from replication.machine.files import replace_text, replacing

FORMAT = 1
Split = Literal["train", "held out"]
SPLITS: tuple[Split, Split] = ("train", "held out")


@dataclass(frozen=True, eq=False)
class Conversations:
    """R rows. In `coded_RL` a token that is learned stands as its complement, which is negative."""

    fingerprint: str
    length: int
    coded_RL: np.ndarray  # int32, [R, L + 1]
    order_R: np.ndarray  # row i is this one of the file
    count: int  # conversations
    cut: int  # of them longer than a row

    def __len__(self) -> int:
        """Rows."""
        return len(self.order_R)

    def rows(self, indices: np.ndarray | list[int]) -> np.ndarray:
        """int64 [B, L + 1]: inputs are [:, :-1], labels [:, 1:]."""
        coded_BL = self.coded(indices)
        return np.where(coded_BL < 0, ~coded_BL, coded_BL)

    def responses(self, indices: np.ndarray | list[int]) -> np.ndarray:
        """bool [B, L]: the label at this position is to be learned."""
        return self.coded(indices)[:, 1:] < 0

    def coded(self, indices: np.ndarray | list[int]) -> np.ndarray:
        return self.coded_RL[self.order_R[np.asarray(indices, dtype=np.int64)]].astype(np.int64)


def pack_conversations(
    corpus: Corpus, split: Split, tokenizer: Tokenizer, seed: int, length: int, directory: Path
) -> Conversations:
    """Into `directory` at the first call, once for all seeds: a seed shuffles the rows, but for those held out."""
    words = (FORMAT, corpus.fingerprint, tokenizer.fingerprint, length, split)
    place = directory / f"conversations-{fingerprint_of(*words)}.npy"
    about = place.with_suffix(".json")
    if not (place.exists() and about.exists()):
        chosen = np.flatnonzero(corpus.held_out if split == "held out" else ~corpus.held_out)
        parts = [encoded(read(corpus.documents[index]), tokenizer) for index in chosen]
        coded = [np.where(said_T, ~tokens_T, tokens_T) for tokens_T, said_T in parts]
        fitted = [cut(each, length + 1) for each in coded]
        longer = sum(len(each) > length + 1 for each in coded)
        rows = best_fit([len(each) for each in fitted], length + 1)
        coded_RL = np.full((len(rows), length + 1), tokenizer.end_of_text, dtype=np.int32)
        for row, members in zip(coded_RL, rows, strict=True):
            together = np.concatenate([fitted[member] for member in members])
            row[: len(together)] = together
        replace_text(about, json.dumps({"count": len(coded), "cut": longer}) + "\n")
        with replacing(place) as file:
            np.save(file, coded_RL)
    try:
        found, coded_RL = json.loads(about.read_text()), np.load(place, mmap_mode="r")
    except (ValueError, EOFError):
        raise ValueError(f"{place} or {about.name} beside it is damaged. Delete both: they are made again.") from None
    order = "held out" if split == "held out" else str(seed)
    return Conversations(
        fingerprint=fingerprint_of(*words, order),
        length=length,
        coded_RL=coded_RL,
        order_R=shuffled(len(coded_RL), f"conversations of {order}"),
        count=found["count"],
        cut=found["cut"],
    )


def cut(coded_T: np.ndarray, room: int) -> np.ndarray:
    """At most `room` tokens, of which the first prompt takes at most half."""
    first = int(np.argmax(coded_T < 0))  # that is learned
    begin = min(max(0, len(coded_T) - room), max(0, first - room // 2))
    return coded_T[begin : begin + room]


def best_fit(sizes: Sequence[int], room: int) -> list[list[int]]:
    """Which items share a row: each goes where it leaves least room, in the order given."""
    rows: list[list[int]] = []
    left: list[tuple[int, int]] = []  # (room left, row), ascending
    smallest = min(sizes, default=0)
    for item, size in enumerate(sizes):
        place = bisect_left(left, (size, -1))
        if place < len(left):
            space, row = left.pop(place)
        else:
            space, row = room, len(rows)
            rows.append([])
        rows[row].append(item)
        if space - size >= smallest:
            insort(left, (space - size, row))
    return rows
