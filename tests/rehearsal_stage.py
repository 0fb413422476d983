"""Where rehearsals take place: a text, a scale and a folder of their own, and runs that are killed once on the way.

The text is generated: the standard library, which the other tests read, differs between versions of Python.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from replication.execution.execute import execute
from replication.experiment.recipe import AXES, parse
from replication.experiment.run import Run
from replication.experiment.scale import Scale, load_scale
from replication.machine.device import CPU, Machine
from replication.planning.plan import Plan
from replication.records.record import record_of
from replication.training.teacher_pass import build
from replication.training.training import Training

WORDS = (
    "a teacher gives its student few classes of many and each weight is drawn so that nothing is lost on average while "
    "the tail keeps what the head leaves out but small models read slowly and forget soon"
).split()
LEARNING = "{{ peak_rate = 6e-2, final_rate = 6e-3, warmup = 0.25, batch = 4 }}"
SCALE = f"""
about = "rehearsals: 12 steps of 4 rows, the second epoch from the tenth step on"
corpus = "path:{{folder}}/text.jsonl"
tokenizer = "bpe:288"
evaluation_sequences = 6
probe_sequences = 8
completed_sequences = 3
log_every = 1
checkpoint_every = 5
tuning = {LEARNING}

[lengths]
"1" = 1
"5" = 2
"10" = 3
"30" = 4
"64" = 8
"100" = 5
"128" = 16
"256" = 32
"300" = 6
"512" = 64
"640" = 7
"1024" = 8
"1280" = 128
"4096" = 16

[tokens]
"10B" = 768
"50B" = 256
"0.125B" = 64
"0.25B" = 128
"0.5B" = 256
"1B" = 512
"2B" = 768
"4B" = 1024
short = 256
pretraining = 256
SFT = 768
teacher = 2560

[texts]
other = "path:{{folder}}/other.jsonl"
instructions = "path:{{folder}}/conversations.jsonl"

[roles."300M"]
layers = 1
width = 16
ffn = 32
heads = 2
kv_heads = 2
length = "4096"
optimiser = {LEARNING}

[roles."3B"]
layers = 2
width = 16
ffn = 32
heads = 2
kv_heads = 1
length = "4096"
optimiser = {LEARNING}

[roles.shallow]
layers = 1
width = 16
ffn = 16
heads = 2
kv_heads = 1
length = "4096"
optimiser = {LEARNING}

[roles.narrow]
layers = 2
width = 8
ffn = 16
heads = 2
kv_heads = 1
length = "4096"
optimiser = {LEARNING}

[roles.tied]
family = "qwen2"
layers = 1
width = 16
ffn = 32
heads = 2
kv_heads = 1
tied = true
length = "4096"
optimiser = {LEARNING}
"""
PARTS = ("data", "model", "loss", "optimiser", "delivery", "evaluate")  # that every run shares
KILLED_AFTER = 7  # steps: two beyond the last checkpoint


class Killed(BaseException):
    """No error that anything under rehearsal would catch."""


class Stage:
    """Runs at the scale of rehearsals, in torch's default precision; each is done once, whoever asks for it."""

    def __init__(self, folder: Path, autocast: bool = False) -> None:
        self.folder = folder
        self.machine = Machine(CPU, autocast, folder / "results", folder / "artifacts")
        self.used: set[str] = set()  # components of the runs performed so far
        write_texts(folder)

    @property
    def scale(self) -> Scale:
        return load_scale(str(self.folder / "rehearsal.toml"))

    def run(self, **stated: Any) -> Run:
        return Run(parse(stated), self.scale, 0)

    def perform(self, **stated: Any) -> dict[str, Any]:
        """What the run of this recipe leaves behind; before it the runs and caches that it reads."""
        run, wanted = self.run(**stated), Plan()
        wanted.add(run)
        for each in (wanted.teachers | wanted.runs).values():
            self.used |= {*PARTS, *components_of(each.recipe), *components_of(each.recipe.training_recipe)}
        for teacher in wanted.teachers.values():
            self.interrupted(teacher)
        build(wanted.needs, self.machine)
        for each in wanted.runs.values():
            self.interrupted(each)
        return numbers_of(record_of(run, self.machine).folder)

    def interrupted(self, run: Run) -> None:
        """A training is killed in the middle and begun again."""
        if run.recipe.probe == "train" and not record_of(run, self.machine).done:
            with killed_after(KILLED_AFTER):
                try:
                    execute(run, self.machine)
                except Killed:
                    pass
        execute(run, self.machine)


def components_of(holder: Any) -> set[str]:
    """The classes that a recipe or a study's setting names on its axes."""
    return {f"{axis}.{type(getattr(holder, axis)).__name__}" for axis in AXES if hasattr(holder, axis)}


@contextmanager
def killed_after(steps: int) -> Iterator[None]:
    """What lies on disk stays; the weights, the optimiser and the place in the text are gone."""
    advance = Training.advance

    def until(training: Training) -> tuple[float, float, float]:
        if training.step == steps:
            raise Killed
        return advance(training)

    with patch.object(Training, "advance", until):
        yield


@contextmanager
def of_default(precision: torch.dtype) -> Iterator[None]:
    """What is not said to be of another precision has this one: models, sums, weights of positions."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(precision)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def numbers_of(folder: Path) -> dict[str, Any]:
    """Loss and gradient norm of every step, the final metrics, and a few numbers of each curve."""
    summary = json.loads((folder / "summary.json").read_text())
    found = {"metrics": summary["metrics"], "curves": thinned(summary["curves"])}
    log = folder / "metrics.jsonl"
    if log.exists():
        steps = [json.loads(line) for line in log.read_text().splitlines()]
        found |= {name: [step[name] for step in steps] for name in ("loss", "gradient_norm", "learning_rate")}
    return found


def thinned(curves: Any, most: int = 8) -> Any:
    """Of a long list every so many; nothing of what says no number."""
    if isinstance(curves, dict):
        return {key: thinned(value, most) for key, value in curves.items()}
    if isinstance(curves, list):
        return [thinned(value, most) for value in curves[:: -(-len(curves) // most) or 1]]
    return curves


def write_texts(folder: Path) -> None:
    """Text of both corpora, conversations, instructions, and the scale that names them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rehearsal.toml").write_text(SCALE.format(folder=folder))
    write_rows(folder / "text.jsonl", [{"text": text} for text in documents(0, 6, 36)])
    write_rows(folder / "other.jsonl", [{"text": text} for text in documents(1, 6, 36)])
    said = documents(2, 140, 4)
    talks = [{"prompt": asked, "response": answer} for asked, answer in zip(said[::2], said[1::2], strict=True)]
    write_rows(folder / "conversations.jsonl", talks)
    asked = [{"instruction": row["prompt"], "input": "", "output": row["response"]} for row in talks[:3]]
    write_rows(folder / "tasks" / "dolly" / "test.jsonl", asked)
    write_rows(folder / "tasks" / "lambada_openai" / "test.jsonl", [{"text": text} for text in said[:5]])
    choices = [
        {
            "question": said[n],
            "choices": {"text": said[n + 1 : n + 5], "label": list("ABCD")},
            "answerKey": "ABCD"[n % 4],
        }
        for n in range(5)
    ]
    for split in ("train", "validation", "test"):
        write_rows(folder / "tasks" / "arc_easy" / f"{split}.jsonl", choices)


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def documents(seed: int, count: int, words: int) -> list[str]:
    """A word is followed by one of four, so that there is something to learn. Raw streams never change."""
    steps = np.random.PCG64(seed).random_raw(count * words) % 4
    places = (np.cumsum(steps + 1, dtype=np.int64) + seed * 7) % len(WORDS)
    return [" ".join(WORDS[place] for place in row) for row in places.reshape(count, words)]


def programs(seed: int, count: int) -> list[str]:
    """Texts that look like code: eight documented functions each, which call one another."""
    random = iter((np.random.PCG64(seed).random_raw(count * 400) % len(WORDS)).tolist())

    def word() -> str:
        return WORDS[next(random)]

    def function() -> str:
        name, one, two, three = f"{word()}_{word()}_{word()}", f"{word()}_1", f"{word()}_2", f"{word()}_3"
        said = " ".join(word() for _ in range(6)).capitalize()
        return "\n".join(
            [
                f"def {name}({one}, {two}):",
                f'    """{said}.\n\n    {" ".join(word() for _ in range(9))}\n    """',
                f"    # {word()} {word()} {word()}",
                f"    {three} = {word()}_{word()}({two}, {one})",
                f"    if {three} in {one}:",
                f"        return {word()}({three}[{two}])",
                f"    for {word()} in [{two}, {word()}_{word()}({three}, {two})]:",
                f"        {one}.append({word()})",
                f"    return {three}\n",
            ]
        )

    return ["\n\n".join(function() for _ in range(8)) for _ in range(count)]
