"""The tasks' data as it was released, and the rows that the harness's tasks want: with the hub's fields and names."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

Row = dict[str, Any]


def lines(text: str) -> list[str]:
    # not splitlines: some texts hold other line breaks, U+2028 for one
    return [line.strip() for line in text.split("\n") if line.strip()]


def parsed(text: str) -> list[Row]:
    return [json.loads(line) for line in lines(text)]


def as_they_are(text: str) -> Iterator[Row]:
    yield from parsed(text)


def passages(text: str) -> Iterator[Row]:
    """One passage a line."""
    for line in lines(text):
        yield {"text": line}


def arc(text: str) -> Iterator[Row]:
    """Rows of {id, query, choices, gold}, or in the hub's form already."""
    for row in parsed(text):
        if "query" in row:
            row = {"id": row["id"], "question": question_of(row["query"]), **choices_of(row)}
        yield row


def openbookqa(text: str) -> Iterator[Row]:
    for row in parsed(text):
        if "query" in row:
            row = {"id": row["id"], "question_stem": question_of(row["query"]), **choices_of(row)}
        yield row


def choices_of(row: Row) -> Row:
    labels = "ABCDE"[: len(row["choices"])]
    return {"choices": {"text": row["choices"], "label": list(labels)}, "answerKey": labels[row["gold"]]}


def question_of(prompt: str) -> str:
    return prompt.removeprefix("Question: ").removesuffix("\nAnswer:")


def hellaswag(text: str) -> Iterator[Row]:
    """The harness capitalises the sentence that breaks off, so what is joined in `ctx` is taken apart again."""
    for row in parsed(text):
        broken = re.fullmatch(r"(.*[.!?]['\")]*)\s+([^.!?]*[^.!?'\")\]])", row["ctx"].rstrip(), re.DOTALL)
        whole, rest = broken.groups() if broken else (row["ctx"], "")
        yield {**row, "ctx_a": whole, "ctx_b": rest, "label": str(row["label"])}


def piqa(questions: str, labels: str) -> Iterator[Row]:
    for row, label in zip(parsed(questions), labels.split(), strict=True):
        yield {**row, "label": int(label)}


def boolq(text: str) -> Iterator[Row]:
    for row in parsed(text):
        yield {**row, "label": int(row["answer"])}


def triviaqa(text: str) -> Iterator[Row]:
    for row in parsed(text):
        question = question_of(row["context"])
        yield {"question": question, "answer": {"value": row["answer"], "aliases": row["aliases"]}}


def mbpp(text: str) -> Iterator[Row]:
    """Problems 11 to 510 are the test split."""
    yield from (row for row in parsed(text) if 11 <= row["task_id"] <= 510)


# task -> split -> (how its rows are made, from which files)
RELEASES: dict[str, dict[str, tuple[Callable[..., Iterator[Row]], tuple[str, ...]]]] = {
    "arc_easy": {split: (arc, (f"eval_arc/ARC-Easy-{split}.jsonl.gz",)) for split in ("train", "validation", "test")},
    "arc_challenge": {
        split: (arc, (f"eval_arc/ARC-Challenge-{split}.jsonl.gz",)) for split in ("train", "validation", "test")
    },
    "hellaswag": {"validation": (hellaswag, ("eval_hellaswag/hellaswag_val.jsonl.gz",))},
    "lambada_openai": {"test": (as_they_are, ("eval_lambada/lambada_test.jsonl.gz",))},
    "lambada_standard": {"test": (passages, ("eval_lambada/lambada_test_plain_text.txt.gz",))},
    "piqa": {"validation": (piqa, ("eval_piqa/valid.jsonl.gz", "eval_piqa/valid-labels.lst"))},
    "winogrande": {"validation": (as_they_are, ("eval_winogrande/validation.jsonl.gz",))},
    "openbookqa": {split: (openbookqa, (f"eval_openbookqa/{split}.jsonl.gz",)) for split in ("validation", "test")},
    "social_iqa": {"validation": (as_they_are, ("eval_siqa/validation.jsonl.gz",))},
    "boolq": {"validation": (boolq, ("eval_boolq/validation.jsonl.gz",))},
    "gsm8k": {split: (as_they_are, (f"eval_gsm8k/{split}.jsonl.gz",)) for split in ("train", "test")},
    "ifeval": {"train": (as_they_are, ("eval_ifeval/input_data.jsonl.gz",))},
    "triviaqa": {"validation": (triviaqa, ("eval_triviaqa/triviaqa_sm_sub.jsonl.gz",))},
    "nq_open": {"validation": (as_they_are, ("eval_nq_open/NQ-open.dev.jsonl.gz",))},
    "mbpp": {"test": (mbpp, ("eval_mbpp/mbpp.jsonl.gz",))},
}
