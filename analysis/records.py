"""Records: what finished runs left in results/, read from plain files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from analysis.answers import Answers

Model = TypeVar("Model", bound=BaseModel)


class Corpus(BaseModel):
    name: str
    fingerprint: str


class Precision(BaseModel):
    """How a run's arithmetic was done; only the products decide what may be averaged with what."""

    model_config = ConfigDict(extra="allow")
    products: str  # "float32", "bfloat16", or "unrecorded" of the oldest runs


class Source(BaseModel):
    """Where a run's code came from. A hint: shown, never compared."""

    model_config = ConfigDict(extra="allow")
    code: str = ""
    commit: str = ""


class Config(BaseModel):
    model_config = ConfigDict(extra="allow")
    format: Literal[2]
    run_id: str
    recipe: dict[str, Any]
    changed: dict[str, Any]
    scale: str
    seed: int
    corpus: Corpus
    # of all that the run went through: "loss" of a shared part, "target.TopK" of a method, "toy.zipf" of a study
    numerics: dict[str, int]
    inputs: dict[str, str] = Field(default_factory=dict)  # what the run read, by content: "teacher", "packing", ...
    precision: Precision | None = None  # of what trains or reads a model
    source: Source = Field(default_factory=Source)
    settings: dict[str, Any] = Field(default_factory=dict)
    hardware: Any = None


class Summary(BaseModel):
    model_config = ConfigDict(extra="allow")
    metrics: dict[str, float | None]
    curves: dict[str, dict[str, list[Any]]] = Field(default_factory=dict)
    diverged: bool = False
    machine: dict[str, Any] = Field(default_factory=dict)


class Record(BaseModel):
    """One finished run: `results/<scale>/<run-id>/`."""

    config: Config
    summary: Summary
    answers: Answers | None = None  # which items of its tasks it answered rightly
    on_the_way: Mapping[int, Answers] = Field(default_factory=dict)  # and after which steps which

    @property
    def run_id(self) -> str:
        return self.config.run_id

    @property
    def seed(self) -> int:
        return self.config.seed


def records(folder: Path) -> list[Record]:
    """Every finished run under results/<scale>/, in the order of their ids; none where the folder does not exist.

    Raises ValueError, one line naming the file, where a file is not what results/README.md says or of an old format.
    """
    return [
        Record(config=read(path.parent / "config.json", Config), summary=read(path, Summary))
        for path in sorted(folder.glob("*/summary.json"))
    ]


def unfinished(folder: Path) -> int:
    """How many runs were begun under the folder and have no summary."""
    return sum(not (path.parent / "summary.json").exists() for path in folder.glob("*/config.json"))


def read(path: Path, model: type[Model]) -> Model:
    try:
        content = json.loads(path.read_text())
        if model is Config and isinstance(content, dict) and content.get("format") == 1:
            raise ValueError(
                f"{path} is of format 1: run `python -m tools.migrate_records` once; it changes no number."
            )
        return model.model_validate(content)
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: a finished run has config.json and summary.json.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON: {error}. Delete the folder and run it again.") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ValueError(f"{path}, {place}: {first['msg']}. results/README.md has the format.") from None
