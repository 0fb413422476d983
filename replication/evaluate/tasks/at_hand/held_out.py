"""Held-out documents as lines, each knowing whether a training document has it too: such a line is never asked for."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from replication.data.corpus import Corpus

LONGEST = 160  # characters; a longer line is prose without line breaks, and its sentences are taken instead
COMMON = 1000  # words of the training documents
WORD = re.compile(r"(?<![A-Za-z0-9_])[A-Za-z][A-Za-z0-9_]*")
SENTENCE = re.compile(r"[^ ].*?(?:[.!?][\"')]*(?= )|$)")


@dataclass(frozen=True)
class Line:
    """text[start:end] of its document, indentation included, the line break not; `new`: of no training document."""

    start: int
    end: int
    new: bool


@dataclass(frozen=True, eq=False)
class Document:
    text: str
    lines: list[Line]  # none is blank
    common: frozenset[str]  # the words that training documents have most often

    def words(self, line: Line) -> str:
        return self.text[line.start : line.end]

    @cached_property
    def starts(self) -> list[int]:
        return [line.start for line in self.lines]

    def before(self, position: int, limit: int) -> str:
        """The whole lines among the `limit` characters before the position; of one that is longer, its end."""
        first = bisect_left(self.starts, position - limit)
        begin = self.starts[first] if first < len(self.starts) else position
        return self.text[begin if begin < position else max(0, position - limit) : position]


def held_out(corpus: Corpus) -> list[Document]:
    """The documents that training never reads, in the corpus's order, each once."""
    texts = list(dict.fromkeys(corpus.documents[index] for index in np.flatnonzero(corpus.held_out)))
    spans = [list(spans_of(text)) for text in texts]
    new = {text[begin:end].strip() for text, found in zip(texts, spans, strict=True) for begin, end in found}
    counts: Counter[str] = Counter()
    for document in corpus.training_documents:
        new.difference_update(document[begin:end].strip() for begin, end in spans_of(document))
        counts.update(WORD.findall(document))
    common = frozenset(sorted(counts, key=lambda word: (-counts[word], word))[:COMMON])
    return [
        Document(text, [Line(begin, end, text[begin:end].strip() in new) for begin, end in found], common)
        for text, found in zip(texts, spans, strict=True)
    ]


def spans_of(text: str) -> Iterator[tuple[int, int]]:
    """(start, end) of each line that is not blank; of a long one, those of its sentences."""
    start = 0
    for line in text.split("\n"):
        if len(line) <= LONGEST:
            if length := len(line.rstrip()):
                yield start, start + length
        else:
            yield from ((start + part.start(), start + part.end()) for part in SENTENCE.finditer(line.rstrip()))
        start += len(line) + 1
