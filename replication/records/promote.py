"""Promote a machine's own records to logged ones, which are committed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from replication.machine.files import ROOT

WEIGHTS = "weights"  # in a record's folder: the model that other records were made with
SMALL = 2**24  # bytes of weights that are committed with their record: those of the laptop scale's teacher


def promote(run_ids: Iterable[str], scale: str, local: Path, logged: Path = ROOT / "results") -> list[Path]:
    """Copy the records of these runs from `local`/<scale> to `logged`/<scale>.

    All or nothing: ValueError if one is missing or unfinished, or if not all of them may stand in one table.
    """
    sources = {run_id: local / scale / run_id for run_id in run_ids}
    unfinished = [name for name, folder in sources.items() if not (folder / "summary.json").exists()]
    if unfinished:
        raise ValueError(
            f"{len(unfinished)} of {len(sources)} records are not complete on this machine, first {unfinished[0]}. "
            "Run the exhibit (make replicate-...) to the end, then record it."
        )
    configs = {name: json.loads((folder / "config.json").read_text()) for name, folder in sources.items()}
    if differing := apart(configs):
        what, values = next(iter(differing.items()))
        (first, one), (second, other) = values.items()
        raise ValueError(
            f"These records differ in {what} ({one}: {first}, {other}: {second}): they cannot stand in one table. "
            f"Delete the older ones under {local / scale} and run the exhibit again."
        )
    written = []
    for name, folder in sources.items():
        draft, place = logged / scale / f".{name}", logged / scale / name
        shutil.rmtree(draft, ignore_errors=True)
        shutil.copytree(folder, draft)
        shutil.rmtree(place, ignore_errors=True)
        draft.rename(place)
        written.append(place)
    return written


def keep_weights(model: Path, record: Path) -> None:
    """A model in the record of its training, where it is small, so that what was made with it can be made again."""
    parts = [part for part in (model / "config.json", model / "model.safetensors") if part.exists()]
    if len(parts) == 2 and sum(part.stat().st_size for part in parts) <= SMALL:
        (record / WEIGHTS).mkdir(parents=True, exist_ok=True)
        for part in parts:
            shutil.copy(part, record / WEIGHTS)


def apart(configs: dict[str, dict[str, Any]]) -> dict[str, dict[str, str]]:
    """What these records are not one in: its name -> two of its values, each with a run that has it.

    Methods, shared parts, precision and text must be one; a teacher must be one wherever it has one name, since
    exhibits compare students of several teachers.
    """
    found: dict[str, dict[str, str]] = {}
    for run_id, config in configs.items():
        for what, value in facts(config).items():
            found.setdefault(what, {}).setdefault(value, run_id)
    return {what: dict(sorted(values.items())[:2]) for what, values in sorted(found.items()) if len(values) > 1}


def facts(config: dict[str, Any]) -> dict[str, str]:
    known = {f"numerics of {part}": str(number) for part, number in config["numerics"].items()}
    known["text"] = config["corpus"]["fingerprint"]
    if "precision" in config:
        known["products"] = config["precision"]["products"]
    recipe, settings = config["recipe"], config["settings"]
    words = [recipe.get(key) for key in ("teacher", "text", "background")] + [
        settings.get("teacher"),
        settings.get("teacher_tokens"),
    ]
    for what in ("teacher", "tokenizer"):
        if what in config["inputs"]:
            known[f"{what} of {json.dumps(words)}"] = config["inputs"][what]
    return known
