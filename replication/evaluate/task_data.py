"""Task data: from the Hugging Face hub, or from a directory of the tasks' public releases.

TASK_DATA names the directory. A task's data is read from `<task>/<split>.jsonl` there, with the hub's field names, or
made from the release's own files (RELEASES), once, under artifacts. The harness's task is then run on it with nothing
changed but the source of its rows: `tasks/<task>.yaml` says so, in the harness's own language.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from replication.corpus import first_line
from replication.record import replace_text

TASKS = Path(__file__).parent / "tasks"
HUB = "hub"  # TASK_DATA=hub: the default, said aloud
WAYS = (
    "Task data comes from the Hugging Face hub, which this machine would have to reach (or HF_HUB_OFFLINE=1, if all of "
    "it is in the hub's cache here), or from a directory: TASK_DATA=<folder> (laid out as task_data.py says)."
)
Row = dict[str, Any]


def directory() -> Path | None:
    """The folder that TASK_DATA names; None for the hub. ValueError if there is no such folder."""
    named = os.environ.get("TASK_DATA", "")
    if named in ("", HUB):
        return None
    folder = Path(named).expanduser()
    if not folder.is_dir():
        raise ValueError(f"TASK_DATA is {named!r}, which is no folder. Name one of task data, or 'hub'.")
    return folder.resolve()


def ready(tasks: Iterable[str]) -> None:
    """ValueError, one line, now, if the data of these tasks will not be had later."""
    folder = directory()
    if folder is None:
        hub()
        return
    for task in tasks:
        check(task, folder)


@cache
def hub() -> None:
    """ValueError if the hub does not answer; not asked where HF_HUB_OFFLINE says that all is in its local cache."""
    from huggingface_hub import constants, get_session

    if not constants.HF_HUB_OFFLINE:
        try:
            get_session().head(constants.ENDPOINT, timeout=5)
        except Exception as error:  # whatever its HTTP library raises
            raise ValueError(f"{constants.ENDPOINT} does not answer ({first_line(error)}). {WAYS}") from None


@contextmanager
def unreachable(task: str) -> Iterator[None]:
    """What the harness raises where it cannot load a task, in one line."""
    try:
        yield
    except ImportError as error:
        raise ValueError(f"Task {task} needs a package: {first_line(error)}. pip install 'lm_eval[{task}]'.") from None
    except OSError as error:
        raise ValueError(f"Task {task} cannot be loaded: {first_line(error)}. {WAYS}") from None


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


def check(task: str, folder: Path) -> None:
    """ValueError, one line, if the directory lacks data of the task."""
    for split, (_, names) in RELEASES[task].items():
        own = folder / task / f"{split}.jsonl"
        lacking = [name for name in names if not (folder / name).exists()]
        if lacking and not own.exists():
            raise ValueError(
                f"TASK_DATA={folder} has no data of {task}: neither {task}/{split}.jsonl, in the hub's form, nor "
                f"{lacking[0]}. Add one of them, or set TASK_DATA=hub."
            )


def rows_of(task: str, folder: Path, artifacts: Path) -> dict[str, Path]:
    """Split -> a file of JSON lines that the harness's task reads; made where it is not there yet."""
    check(task, folder)
    found: dict[str, Path] = {}
    for split, (make, names) in RELEASES[task].items():
        found[split] = folder / task / f"{split}.jsonl"
        if found[split].exists():
            continue
        contents = [(folder / name).read_bytes() for name in names]
        made_from = hashlib.sha256(b"".join([Path(__file__).read_bytes(), *contents])).hexdigest()[:16]
        found[split] = artifacts / "tasks" / task / f"{split}-{made_from}.jsonl"
        if not found[split].exists():
            texts = [(gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode() for raw in contents]
            replace_text(found[split], "".join(json.dumps(row) + "\n" for row in make(*texts)))
    return found


def specification(task: str, shots: int, folder: Path | None, artifacts: Path) -> Path:
    """The harness's own task with `shots` examples, and with the rows of `folder` where that is not None (the hub).

    `lm_eval run --tasks <this file>` runs the same.
    """
    import lm_eval.tasks
    from lm_eval.tasks._yaml_loader import load_yaml

    harness = Path(lm_eval.tasks.__file__).parent
    ours = load_yaml(TASKS / f"{task}.yaml", resolve_func=False, recursive=False)
    stated = {"include": str(harness / ours["include"]), "num_fewshot": shots}
    if folder is not None:
        files = {split: str(path.resolve()) for split, path in rows_of(task, folder, artifacts).items()}
        arrow = str((artifacts / "tasks" / "arrow").resolve())
        stated = {**ours, **stated, "dataset_kwargs": {"data_files": files, "cache_dir": arrow}}
    text = json.dumps(stated, indent=1) + "\n"  # which is YAML too
    path = artifacts / "tasks" / task / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.yaml"
    if not path.exists():
        replace_text(path, text)
    return path
