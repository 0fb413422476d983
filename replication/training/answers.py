"""Answers: what a finished student answers to the tasks at hand, in one file beside its record's summary."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from replication.data.conversations import read
from replication.data.corpus import Corpus, open_corpus, parts_of
from replication.evaluate import fine_tuned
from replication.evaluate.tasks.at_hand.answering import NUMERICS, Asked, answered, asked, harness
from replication.evaluate.tasks.at_hand.makers import MAKERS
from replication.experiment.lineage import SameText
from replication.experiment.run import Run
from replication.machine.device import Machine
from replication.model.decoder import fingerprint, load, precise_weights
from replication.records.record import Record, record_of, write
from replication.training.weights import model_folder

ANSWERS = "answers.json"


def answer(run: Run, corpus: Corpus, record: Record, machine: Machine, step: int | None = None) -> bool:
    """Writes answers.json of the run's published weights; False where these answers stand already.

    `machine` is set to the scale's precision. The weights are read from their checkpoint, so that a run answers at its
    end what it would answer at any later time. After a `step` on the way it is that step's checkpoint and file.
    """
    tasks = questions(run, corpus, machine)
    path, folder = record.folder / file_after(step), folder_after(step, run, machine)
    student = precise_weights(load(folder)).to(machine.device)
    known = {"suite": "at_hand", "numerics": {"tasks": NUMERICS}, "student": fingerprint(student)}
    if path.exists() and stands(json.loads(path.read_text()), known, tasks):
        return False
    from transformers import PreTrainedTokenizerFast

    # not AutoTokenizer, which splits as Qwen2 does beside a Qwen2, whatever the student was trained on
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    found = answered(student, tokenizer, tasks, machine.artifacts, bool(machine.autocast))
    write(path, {**known, "harness": harness(), "tasks": found})
    return True


def file_after(step: int | None) -> str:
    return ANSWERS if step is None else f"answers.{step}.json"


def folder_after(step: int | None, run: Run, machine: Machine) -> Path:
    """Of the weights after a step, while they answer; of the trained ones, for good."""
    place = model_folder(run, machine)
    return place if step is None else place.with_name(f"{place.name}.step-{step}")


def answers_after_tuning(run: Run, talks: Corpus, machine: Machine) -> dict[str, float]:
    """Of a student that was fine-tuned on these conversations: what its published weights answer to held-out ones."""
    from transformers import PreTrainedTokenizerFast

    folder = model_folder(run, machine)
    student = precise_weights(load(folder)).to(machine.device)
    held_out = [read(talks.documents[index]) for index in np.flatnonzero(talks.held_out)][: run.scale.task_rows]
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    answered = fine_tuned.answers(student, tokenizer, held_out, bool(machine.autocast))
    return {f"tuned_{name}": value for name, value in fine_tuned.scores(held_out, answered).items()}


def questions(run: Run, corpus: Corpus, machine: Machine) -> list[Asked]:
    """The tasks of the run's text, of the text that its models read before, and of each part of one that is joined.

    Each task is of one of them: the one with most tasks goes first, and of equals the one with most items. A document
    that one of them holds out none of the others has among its training documents.
    """
    own, background = run.scale.corpus_of(run.recipe.text), run.recipe.background
    names = [own] if isinstance(background, SameText) else [own, run.scale.corpus_of(background.text)]
    texts = list(dict.fromkeys(part for text in names for part in parts_of(text)))
    corpora = [corpus if text == own else open_corpus(text) for text in texts]
    found = [asked(each, run.scale.task_rows, machine.artifacts) for each in corpora]
    chosen: dict[str, Asked] = {}
    for tasks in sorted(found, key=lambda tasks: (len(tasks), sum(each.of for each in tasks)), reverse=True):
        for each in tasks:
            chosen.setdefault(each.task, each)
    return [chosen[task] for task in MAKERS if task in chosen]


def stands(before: dict[str, Any], known: dict[str, Any], tasks: list[Asked]) -> bool:
    """Whether these are answers of the same student to the same items, asked in the same way and kept in full."""
    same = all(before.get(key) == value for key, value in known.items())
    same &= all("easy" in found for found in before["tasks"].values())
    return same and {name: found["data"] for name, found in before["tasks"].items()} == {
        each.task: each.data for each in tasks
    }


def answer_later(runs: Iterable[Run], machine: Machine) -> Iterator[tuple[Run, str]]:
    """Of each run that is trained already: "answered", "has answers", or why it cannot answer."""
    corpora: dict[str, Corpus] = {}
    for run in runs:
        if not run.scale.tasks:
            raise ValueError(f"Scale {run.scale.name!r} has no tasks at hand: add tasks = 'at hand' to it.")
        why = hindrance(run, machine)
        if not why:
            text = run.scale.corpus_of(run.recipe.text)
            corpora[text] = corpora.get(text) or open_corpus(text)
            why = in_time(run, corpora[text], machine)
        yield run, why


def hindrance(run: Run, machine: Machine) -> str:
    """Why a run cannot answer, seen from its files; "" where it can."""
    record = record_of(run, machine)
    if not record.done:
        return "it is not finished here"
    if json.loads((record.folder / "summary.json").read_text())["diverged"]:
        return "it diverged and has no weights"
    if not (model_folder(run, machine) / "config.json").exists():
        return f"its weights are not in {model_folder(run, machine).parent}"
    return ""


def in_time(run: Run, corpus: Corpus, machine: Machine) -> str:
    record = record_of(run, machine)
    then = record.config["corpus"]["fingerprint"]
    if then != corpus.fingerprint:
        return f"its text was {then}, and here it is {corpus.fingerprint}"
    return "answered" if answer(run, corpus, record, machine.at(run.scale.precision)) else "it has answers already"
