"""Records: what finished runs left in results/, read from plain files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Model = TypeVar("Model", bound=BaseModel)


class Corpus(BaseModel):
    name: str
    fingerprint: str


class Config(BaseModel):
    model_config = ConfigDict(extra="allow")
    run_id: str
    recipe: dict[str, Any]
    changed: dict[str, Any]
    scale: str
    seed: int
    corpus: Corpus
    code: str
    methods: dict[str, str] = Field(default_factory=dict)  # digests of the recipe's own methods
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

    @property
    def run_id(self) -> str:
        return self.config.run_id

    @property
    def seed(self) -> int:
        return self.config.seed

    @property
    def group(self) -> tuple[str, str, str]:
        """Scale, corpus fingerprint, code digest: only records that share all three may be averaged."""
        return self.config.scale, self.config.corpus.fingerprint, self.config.code


def records(folder: Path) -> list[Record]:
    """Every finished run under results/<scale>/, in the order of their ids; none where the folder does not exist.

    Raises ValueError, one line naming the file, where a file is not what results/README.md says.
    """
    return [
        Record(config=read(path.parent / "config.json", Config), summary=read(path, Summary))
        for path in sorted(folder.glob("*/summary.json"))
    ]


def shown_at(scale: str, results: Path) -> list[Record]:
    """The scale's finished runs, and what is computed at the papers' own sizes, which is shown at every scale."""
    own = records(results / scale)
    if scale == "paper":
        return own
    return [*own, *(record for record in records(results / "paper") if record.config.recipe.get("probe") == "cost")]


def unfinished(folder: Path) -> int:
    """How many runs were begun under the folder and have no summary."""
    return sum(not (path.parent / "summary.json").exists() for path in folder.glob("*/config.json"))


def read(path: Path, model: type[Model]) -> Model:
    try:
        return model.model_validate(json.loads(path.read_text()))
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: a finished run has config.json and summary.json.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON: {error}. Delete the folder and run it again.") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ValueError(f"{path}, {place}: {first['msg']}. results/README.md has the format.") from None
