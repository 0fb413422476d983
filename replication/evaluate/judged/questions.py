"""The five instruction sets of RS-KD App. E.3 (after Gu et al. 2023): what is asked, and the true answers.

Read from the folder that TASK_DATA names, `<set>/test.jsonl` (columns instruction, input, output) or the release as it
lies there; without one from the Hugging Face hub. A set that a folder does not have is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replication.data.chat import asked
from replication.data.text_files import first_line, json_rows
from replication.evaluate.tasks.task_data import WAYS, directory, hub
from replication.experiment.suites import INSTRUCTION_SETS


@dataclass(frozen=True)
class Question:
    instruction: str
    answers: tuple[str, ...]  # the true ones; a judge reads the first


def file_in(folder: Path, name: str) -> Path | None:
    places = (folder / name / "test.jsonl", folder / INSTRUCTION_SETS[name].release)
    return next((place for place in places if place.exists()), None)


def questions_ready() -> None:
    """ValueError, one line, now, if there will be no questions later."""
    folder = directory()
    if folder is None:
        hub()
    elif all(file_in(folder, name) is None for name in INSTRUCTION_SETS):
        raise ValueError(
            f"TASK_DATA={folder} has no instruction set: neither <set>/test.jsonl, with columns instruction, input and "
            f"output, for a set of {', '.join(INSTRUCTION_SETS)}, nor {INSTRUCTION_SETS['dolly'].release}. Add one, or "
            "set TASK_DATA=hub."
        )


def questions(name: str, rows: int | None) -> list[Question]:
    """`rows` of the set's questions (None: all), drawn once for all models; none where a folder lacks the set."""
    folder = directory()
    path = downloaded(name) if folder is None else file_in(folder, name)
    if path is None:
        return []
    found = [question(row, where) for where, row in json_rows(path)]
    if rows is None or rows >= len(found):
        return found
    # with transformers, which takes seconds and a plan has no use for
    from replication.evaluate.tasks.zero_shot import drawn

    return [found[place] for place in drawn(name, len(found), rows)]


def downloaded(name: str) -> Path:
    import huggingface_hub

    repository, file = INSTRUCTION_SETS[name].hub
    try:
        return Path(huggingface_hub.hf_hub_download(repository, file, repo_type="dataset"))
    except Exception as error:  # the hub's library raises many kinds
        raise ValueError(f"Instruction set {name} cannot be had: {first_line(error)}. {WAYS}") from None


def question(row: dict[str, Any], place: str) -> Question:
    """ValueError, one line, for a row that is no question with an answer."""
    context = "" if row.get("input") is None else row["input"]
    match row:
        case {"instruction": str(said), "instances": [{"input": str(inner), "output": str(answer)}, *_]}:
            return Question(asked(said, inner), (answer,))
        case {"instruction": str(said), "output": str(answer)} if isinstance(context, str):
            return Question(asked(said, context), (answer,))
        case {"instruction": str(said), "output": [str(), *_] as answers} if isinstance(context, str):
            if all(isinstance(answer, str) for answer in answers):
                return Question(asked(said, context), tuple(answers))
    came = ", ".join(f"{name} ({type(value).__name__})" for name, value in row.items())
    raise ValueError(f"{place}: columns {came}, where instruction, input and output are wanted as text.")
