"""Scale: what the paper's words ("300M", "10B") stand for here. A scale changes sizes, never paths."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from replication.experiment.suggestion import suggestion

FOLDER = Path(__file__).parent / "scales"
CHECKPOINT = "or give a checkpoint: a folder, or a Hugging Face name (owner/model)"
Share = Annotated[float, Field(gt=0, lt=1)]


class Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Optimiser(Entry):
    """Adam with warm-up and cosine decay (RS-KD Tables 17 to 19)."""

    peak_rate: float
    final_rate: float
    warmup: float  # share of the steps
    beta1: float = 0.9
    beta2: float = 0.95
    clip: float = 1.0  # gradient norm
    batch: int  # sequences


class Role(Entry):
    """A model's shape (RS-KD Table 20) and how it is trained."""

    family: Literal["llama", "qwen2", "qwen3", "gemma2", "phi", "phi3"] = "llama"
    layers: int
    width: int
    ffn: int
    heads: int
    kv_heads: int
    head_width: int | None = None  # of attention; none: the width, shared out among the heads
    tied: bool = False  # input and output embeddings shared
    vocabulary: int | None = None  # classes, where they are not those of the scale's tokenizer
    # a trained checkpoint of the role's name, to be had from elsewhere: shape and classes say what it costs
    ready_made: bool = False
    length: str  # of the sequences it is trained on, in the paper's words
    optimiser: Optimiser

    @property
    def of_head(self) -> int:
        """Width of one attention head."""
        return self.head_width or self.width // self.heads


class Scale(Entry):
    name: str
    about: str
    corpus: str
    tokenizer: str
    vocabulary: int | None = None  # the tokenizer's classes, where its name does not say
    precision: Literal["float32", "bfloat16"] = "float32"  # of matrix products, on every machine
    corpus_tokens: int | None = None  # of one epoch, about
    lengths: dict[str, int]
    tokens: dict[str, int]
    texts: dict[str, str] = {}  # corpora beside the scale's own
    roles: dict[str, Role]
    tuning: Optimiser | None = None  # of students on instructions, whatever their role (RS-KD Table 19)
    evaluation_sequences: int
    probe_sequences: int  # largest batch of the gradient probe
    timed_turns: int = 40  # of the throughput probe, each one step of the run and one of plain training
    # what stands for the papers' tasks where TASK_DATA names none: our own, answered at the end of a training
    tasks: Literal["", "at hand"] = ""
    task_rows: int | None = None  # of each downstream task, drawn; none: all of them
    completed_sequences: int = 32  # held-out rows whose prefixes an oracle completes
    log_every: int  # steps
    evaluate_at: tuple[Share, ...] = ()  # of training, beside its end: held-out loss, accuracy and calibration
    checkpoint_every: int  # steps

    def role(self, name: str) -> Role:
        return self.word("role", name, self.roles, f"; {CHECKPOINT}")

    def trains(self, name: str) -> bool:
        """Whether the model of this name is one that the suite makes; a checkpoint, by name or path, is not."""
        return name in self.roles and not self.roles[name].ready_made

    def length(self, name: str) -> int:
        return self.word("length", name, self.lengths, f". Add it to [lengths] of {self.name}.toml")

    def budget(self, name: str) -> int:
        """Tokens: a word of the scale, or a plain number."""
        if name.replace("_", "").isdigit():
            return int(name)
        return self.word("token budget", name, self.tokens, "; or give a plain number of tokens, such as 5_000_000")

    def corpus_of(self, text: str) -> str:
        """The corpus that a recipe's text names: a word of the scale, or a corpus; "" and "own" are the scale's."""
        return self.corpus if text in ("", "own") else self.texts.get(text, text)

    @property
    def classes(self) -> int:
        """The tokenizer's, before it is at hand. ValueError where neither its name nor the scale says."""
        kind, _, number = self.tokenizer.partition(":")
        if self.vocabulary is None and not (kind == "bpe" and number.isdigit()):
            raise ValueError(
                f"Scale {self.name!r} does not say how many classes tokenizer {self.tokenizer!r} has. "
                f"Add vocabulary = ... to it."
            )
        return int(number) if self.vocabulary is None else self.vocabulary

    @property
    def tuner(self) -> Optimiser:
        if self.tuning is None:
            raise ValueError(
                f"Scale {self.name!r} does not say how students are tuned: add tuning = {{ peak_rate = ..., "
                "final_rate = ..., warmup = ..., batch = ... }."
            )
        return self.tuning

    def word(self, kind: str, name: str, known: dict[str, Any], otherwise: str) -> Any:
        if name not in known:
            near = "" if name.isdigit() else suggestion(name, known)  # a number is not misspelt
            raise ValueError(
                f"Scale {self.name!r} does not say what {kind} {name!r} is{near}. Known: {', '.join(known)}{otherwise}."
            )
        return known[name]


def load_scale(name: str) -> Scale:
    """A scale by name ('laptop') or the path of a TOML file of the same form. ValueError if unknown or malformed."""
    path = Path(name).expanduser() if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if not path.exists():
        known = ", ".join(sorted(file.stem for file in FOLDER.glob("*.toml")))
        raise ValueError(f"Unknown scale {name!r}. Known: {known}; or give the path of a .toml file that is there.")
    try:
        return Scale.model_validate({"name": path.stem, **tomllib.loads(path.read_text())})
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"Scale file {path.name} is not TOML: {error}.") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"Scale file {path.name}, {'.'.join(map(str, first['loc']))}: {first['msg']}.") from None
