"""A recipe as a record holds it, and the run id that follows from what differs from the defaults."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, fields, is_dataclass
from typing import Any

from replication.experiment.recipe import AXES, Recipe


def resolved(recipe: Recipe) -> dict[str, Any]:
    """Every field, methods as {name, fields...}: what a record holds."""
    return {item.name: plain(getattr(recipe, item.name)) for item in fields(recipe)}


def changed(recipe: Recipe) -> dict[str, Any]:
    """Only what differs from the defaults: what a run's id depends on.

    A method's own fields count against that method's defaults, so a new field with a default changes no id.
    """
    defaults = resolved(Recipe())
    return {
        key: without_defaults(value, AXES[key][value["name"]]) if key in AXES else value
        for key, value in resolved(recipe).items()
        if value != defaults[key]
    }


def without_defaults(value: dict[str, Any], cls: Any) -> dict[str, Any]:
    defaults = {item.name: item.default for item in fields(cls)}
    return {key: entry for key, entry in value.items() if key == "name" or entry != defaults[key]}


def plain(value: Any) -> Any:
    known = is_dataclass(value) and not isinstance(value, type)
    return {"name": type(value).__name__, **asdict(value)} if known else value


def run_id(recipe: Recipe, scale: str, seed: int) -> str:
    """'topk-k12-s0-1a2b3c4d': what a person needs to see, then what makes it unique."""
    return identified(slug(recipe), changed(recipe), scale, seed)


def identified(words: str, changed: dict[str, Any], scale: str, seed: int) -> str:
    key = json.dumps({"recipe": changed, "scale": scale, "seed": seed}, sort_keys=True)
    return f"{words}-s{seed}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"


def slug(recipe: Recipe) -> str:
    words = [] if recipe.probe == "train" else [recipe.probe]
    if recipe.teacher == "none":
        words.append(f"teacher-{recipe.student}")
    for axis, value in changed(recipe).items():
        if axis in AXES:
            words.append(named(value))
    if not recipe.cached and recipe.target.stored is not None:
        words.append("fresh" if recipe.delivery == "fresh" else "online")
    return plain_words("-".join(words or ["full"]))[:64].strip("-.")


def named(method: dict[str, Any]) -> str:
    """{name = "TopK", k = 12} as one word, TopK-k12."""
    return method["name"] + "".join(f"-{key}{entry}" for key, entry in method.items() if key != "name")


def plain_words(text: str) -> str:
    return re.sub(r"[^a-z0-9.-]+", "-", text.lower())
