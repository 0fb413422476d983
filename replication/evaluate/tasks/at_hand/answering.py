"""Answering: a student is asked the tasks at hand, by the harness that asks the papers' tasks too."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from replication.data.corpus import Corpus
from replication.evaluate.calibration import Calibration
from replication.evaluate.tasks.at_hand.difficulty import sure_of_choice, sure_of_text, sure_of_word, thirds
from replication.evaluate.tasks.at_hand.item import Item, digest
from replication.evaluate.tasks.at_hand.likelihoods import Likelihood, likelihoods
from replication.evaluate.tasks.at_hand.makers import MAKERS, made
from replication.evaluate.tasks.harness import reader
from replication.evaluate.tasks.zero_shot import wilson, words_of
from replication.machine.files import replace_text

NUMERICS = 1  # of all that decides these numbers but the student: items, prompts, scores


@dataclass(frozen=True)
class Asked:
    """The items of one task, in a file of JSON lines."""

    task: str
    file: Path
    items: list[Item]
    of: int  # how many the corpus has

    @property
    def data(self) -> str:
        return digest(self.items)


def asked(corpus: Corpus, rows: int | None, artifacts: Path) -> list[Asked]:
    """The tasks of which this corpus has items; made once, under artifacts."""
    folder = artifacts / "tasks" / "at_hand" / f"{corpus.fingerprint}-{rows or 'all'}-{NUMERICS}"
    index = folder / "index.json"
    if not index.exists():
        counts = {}
        for name, (items, of) in made(corpus, rows).items():
            replace_text(folder / f"{name}.jsonl", "".join(json.dumps(item.row()) + "\n" for item in items))
            counts[name] = of
        replace_text(index, json.dumps(counts) + "\n")
    return [read(name, folder / f"{name}.jsonl", of) for name, of in json.loads(index.read_text()).items()]


def read(task: str, file: Path, of: int) -> Asked:
    rows = [json.loads(line) for line in file.read_text().split("\n") if line]
    items = [Item(row["context"], tuple(row["choices"]), row["answer"], row["kind"]) for row in rows]
    return Asked(task, file, items, of)


def answered(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tasks: list[Asked], artifacts: Path, autocast: bool
) -> dict[str, dict[str, Any]]:
    """Task -> what the record keeps of it (results/README.md)."""
    if not tasks:
        return {}
    from lm_eval.evaluator import evaluate

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    student = reader(model.eval(), tokenizer, autocast)
    known: dict[tuple[str, str], Likelihood] = {}
    student.loglikelihood = partial(judged, student, known)
    found = evaluate(
        student, {"tasks": {each.task: harness_task(each, artifacts) for each in tasks}}, bootstrap_iters=0
    )
    return {each.task: scored(each, found, student, known) for each in tasks}


def harness_task(given: Asked, artifacts: Path) -> Any:
    """The harness's own task over the items."""
    from lm_eval.api.task import ConfigurableTask

    maker = MAKERS[given.task]
    chosen = maker.output == "multiple_choice"
    written: dict[str, Any] = {}
    if maker.right is not None:
        written = {
            "generation_kwargs": {"until": [maker.until], "max_gen_toks": maker.tokens, "do_sample": False},
            "process_results": maker.right,
        }
    stated = {
        "task": given.task,
        "dataset_path": "json",
        "dataset_kwargs": {
            "data_files": {"test": str(given.file.resolve())},
            "cache_dir": str((artifacts / "tasks" / "arrow").resolve()),
        },
        "test_split": "test",
        "output_type": maker.output,
        "doc_to_text": "context",
        "doc_to_target": "answer" if chosen else "target",
        "target_delimiter": "",
        "metric_list": [
            {"metric": name, "aggregation": AGGREGATION[name], "higher_is_better": True} for name in maker.metrics
        ],
        **({"doc_to_choice": "choices"} if chosen else {}),
        **written,
    }
    return ConfigurableTask(config=stated)


AGGREGATION = {"acc": "mean", "acc_mutual_info": "mean", "exact_match": "mean", "perplexity": "perplexity"}


def judged(student: Any, known: dict[tuple[str, str], Likelihood], requests: list[Any], **_: Any) -> list[Any]:
    """The harness's log-likelihoods of its requests; what else is known of each answer is kept in `known`."""
    pairs = [request.args for request in requests]
    encoded = encode(student, pairs)
    longest: dict[str, int] = {}  # of a question's answers: its context is cut once for all
    for (words, _), (context, answer) in zip(pairs, encoded, strict=True):
        longest[words] = max(longest.get(words, 0), len(context) + len(answer))
    student.cut |= {pair for pair in pairs if longest[pair[0]] > student.max_length + 1}
    with torch.autocast(student.device.type, dtype=torch.bfloat16, enabled=student.mixed_precision_dtype is not None):
        found = likelihoods(student.model, encoded, student.max_length)
    known.update(zip(pairs, found, strict=True))
    return [(each.nats, each.greedy) for each in found]


def encode(student: Any, pairs: list[tuple[str, str]]) -> list[tuple[list[int], list[int]]]:
    """As the harness does one by one: blanks at the end of a context begin the answer, and what the whole has more
    tokens than its context is the answer; without a context it follows the token that begins a text."""
    alone = list(dict.fromkeys(answer for context, answer in pairs if not context))
    behind = list(
        dict.fromkeys(text for context, answer in pairs if context for text in (context.rstrip(), context + answer))
    )
    bare = tokens_of(student, alone, add_special_tokens=False)
    ids = tokens_of(student, behind)
    found = []
    for context, answer in pairs:
        if not context:
            found.append(([student.prefix_token_id], bare[answer]))
            continue
        whole = ids[context + answer]
        length = min(len(ids[context.rstrip()]), len(whole) - 1)
        found.append((whole[:length], whole[length:]))
    return found


def tokens_of(student: Any, texts: list[str], **how: bool) -> dict[str, list[int]]:
    return dict(zip(texts, student.tokenizer(texts, **how)["input_ids"], strict=True)) if texts else {}


def scored(given: Asked, found: Any, student: Any, known: dict[tuple[str, str], Likelihood]) -> dict[str, Any]:
    metric = MAKERS[given.task].metrics[0]
    samples = found["samples"][given.task]
    right = [bool(sample[metric]) for sample in samples]
    arguments = [sample["arguments"] for sample in samples]
    output, kinds = MAKERS[given.task].output, list(dict.fromkeys(item.kind for item in given.items))
    low, high = wilson(sum(right) / len(right), len(right))
    score = {
        "metric": f"{metric},none",  # no filter
        "shots": 0,
        "rows": len(given.items),
        "of": given.of,
        "chance": sum(1 / len(item.choices) for item in given.items) / len(right)
        if output == "multiple_choice"
        else 0.0,
        "cut": sum(any(words_of(each) in student.cut for each in row) for row in arguments) / len(right),
        "data": given.data,
        "accuracy": sum(right) / len(right),
        "low": low,
        "high": high,
        "correct": packed(right),
    }
    sure = confidences(given, samples, student, known)
    easy, hard = thirds(right, sure)
    score |= {"easy": packed(easy), "hard": packed(hard)}
    if output == "multiple_choice":
        score["ece"] = of_choices(sure, right).error()
    if output == "loglikelihood":
        score["ece"] = of_tokens([known[tuple(each)] for (each,) in arguments]).error()
        score["perplexity"] = float(found["results"][given.task]["perplexity,none"])
    if len(kinds) > 1:
        score["kinds"] = {kind: share(right, [item.kind == kind for item in given.items]) for kind in kinds}
    return score


@dataclass(frozen=True)
class Asking:
    """A request, as far as `judged` reads it."""

    args: tuple[str, str]


def confidences(
    given: Asked, samples: list[Any], student: Any, known: dict[tuple[str, str], Likelihood]
) -> list[float]:
    """How sure the student is of what it answers to each item."""
    maker = MAKERS[given.task]
    if maker.output == "multiple_choice":
        return [sure_of_choice(nats_of(sample, maker.metrics[0])) for sample in samples]
    pairs = [tuple(sample["arguments"][0][:2]) for sample in samples]
    if maker.output == "loglikelihood":
        return [sure_of_word(known[pair]) for pair in pairs]
    written = [
        (words, sample["filtered_resps"][0] + maker.until) for (words, _), sample in zip(pairs, samples, strict=True)
    ]
    judged(student, known, [Asking(pair) for pair in written])
    return [sure_of_text(known[pair]) for pair in written]


def nats_of(sample: Any, metric: str) -> list[float]:
    """Of each choice; where these are compared by mutual information, of its ratio to what it has without context."""
    nats = [each for each, _ in sample["filtered_resps"]]
    if metric != "acc_mutual_info":
        return nats
    behind, alone = nats[: len(nats) // 2], nats[len(nats) // 2 :]
    return [one - other for one, other in zip(behind, alone, strict=True)]


def of_choices(sure: list[float], right: list[bool]) -> Calibration:
    found = Calibration(len(right))
    found.add(torch.tensor(sure, dtype=torch.float64), torch.tensor(right), torch.arange(len(right)))
    return found


def of_tokens(answers: list[Likelihood]) -> Calibration:
    """Of the likeliest token at each token of the answers."""
    found = Calibration(len(answers))
    for row, each in enumerate(answers):
        found.add(each.confidence_T, each.correct_T, torch.full((len(each.correct_T),), row))
    return found


def share(right: list[bool], chosen: list[bool]) -> dict[str, float]:
    own = [each for each, is_one in zip(right, chosen, strict=True) if is_one]
    return {"rows": len(own), "accuracy": sum(own) / len(own)}


def packed(right: list[bool]) -> str:
    """A bit an item, in hexadecimal digits; the first is the largest bit of the first byte."""
    padded = right + [False] * (-len(right) % 8)
    return bytes(
        sum(bit << (7 - place) for place, bit in enumerate(padded[start : start + 8]))
        for start in range(0, len(padded), 8)
    ).hex()


def harness() -> str:
    return version("lm_eval")
