"""Each task at hand: how its items are made, how the harness asks them, and what is right."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from replication.data.corpus import Corpus
from replication.evaluate.tasks.at_hand.docstring import docstring
from replication.evaluate.tasks.at_hand.held_out import Document, held_out
from replication.evaluate.tasks.at_hand.instruct import instruct, obeyed
from replication.evaluate.tasks.at_hand.item import Item, drawn
from replication.evaluate.tasks.at_hand.last_word import last_word
from replication.evaluate.tasks.at_hand.next_line import next_line
from replication.evaluate.tasks.at_hand.pairs import pairs
from replication.evaluate.tasks.at_hand.signature import signature
from replication.evaluate.tasks.at_hand.sums import sums

RESULT = re.compile(r"A: (-?\d+)")
Row = dict[str, Any]


@dataclass(frozen=True)
class Maker:
    items: Callable[[Document], Iterator[Item]]
    output: Literal["multiple_choice", "loglikelihood", "generate_until"] = "multiple_choice"
    # the harness's, first the one that counts; mutual information is that of a choice with its context, since some
    # choices are likely behind any
    metrics: tuple[str, ...] = ("acc_mutual_info", "acc")
    until: str = ""  # what ends an answer that is written
    tokens: int = 0  # of it, at most
    right: Callable[[Row, list[str]], dict[str, float]] | None = None  # of what is written


def right_sum(row: Row, written: list[str]) -> dict[str, float]:
    found = RESULT.search(written[0])
    return {"exact_match": float(found is not None and found.group(1) == row["target"])}


def right_line(row: Row, written: list[str]) -> dict[str, float]:
    return {"acc": float(obeyed(row["kind"], row["target"], written[0]))}


MAKERS = {
    "next_line": Maker(next_line),
    "last_word": Maker(last_word, "loglikelihood", ("acc", "perplexity")),
    "pairs": Maker(pairs, metrics=("acc",)),
    "docstring": Maker(docstring),
    "signature": Maker(signature),
    "sums": Maker(sums, "generate_until", ("exact_match",), "\n\n", 48, right_sum),
    "instruct": Maker(instruct, "generate_until", ("acc",), "\n", 24, right_line),
}


def made(corpus: Corpus, rows: int | None) -> dict[str, tuple[list[Item], int]]:
    """Task -> (at most `rows` items, of how many); only tasks of which the corpus has any."""
    documents = held_out(corpus)
    found = {}
    for name, maker in MAKERS.items():
        each = ((document, item) for document in documents for item in maker.items(document))
        items = list(dict.fromkeys(item for document, item in each if fair(document, item)))
        if items:
            # to write an answer takes about four times as long as to choose one
            most = rows if rows is None or maker.right is None else max(1, rows // 4)
            found[name] = drawn(name, items, most), len(items)
    return found


def fair(document: Document, item: Item) -> bool:
    """Whether the document, which may say one thing twice, has no wrong answer behind the same context."""
    wrong = [text for place, text in enumerate(item.choices) if place != item.answer]
    return not any(item.context + text in document.text for text in wrong)
