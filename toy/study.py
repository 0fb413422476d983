"""A study's run: (setting, scale, seed), its identity, and what its sizes are at a scale.

A study is a module of this folder with a frozen dataclass `Setting` (its fields are the paper's sizes by default, its
`target` and other axes are those of `replication`) and `run(setting, seed) -> (metrics, curves)`.
"""

from __future__ import annotations

import importlib
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from replication.experiment.identity import identified, named, plain, plain_words, without_defaults
from replication.experiment.recipe import AXES, made, method, one_of
from replication.machine.files import ROOT
from replication.records.numerics import SHARED, of_methods, of_module
from replication.records.source_hint import digest_of

STUDIES = ("zipf", "classification", "listing", "cifar", "fields", "martingale", "risk", "tradeoff")
CODE = (ROOT / "toy", ROOT / "replication" / "axes")  # the folders of it
SIZES = Path(__file__).with_name("sizes.toml")

Metrics = dict[str, float]
Curves = dict[str, dict[str, list[Any]]]


@dataclass(frozen=True)
class Run:
    """One setting, stated in the paper's sizes; `sized` is what really runs at the scale."""

    study: str
    setting: Any
    scale: str
    seed: int

    @property
    def recipe(self) -> dict[str, Any]:
        """Every field, axis values as {name, fields...}: what a record holds and a row is matched with."""
        return {"toy": self.study, **{item.name: plain(getattr(self.setting, item.name)) for item in self.fields}}

    @property
    def changed(self) -> dict[str, Any]:
        """What differs from the defaults, and always toy and axis values: what the id depends on."""
        found: dict[str, Any] = {"toy": self.study}
        for item in self.fields:
            value = plain(getattr(self.setting, item.name))
            if item.name in AXES:
                found[item.name] = without_defaults(value, type(getattr(self.setting, item.name)))
            elif value != item.default:
                found[item.name] = value
        return found

    @property
    def fields(self) -> Any:
        return fields(self.setting)

    @property
    def id(self) -> str:
        axes = [named(self.changed[axis]) for axis in AXES if axis in self.changed]
        words = axes or [f"{key}-{value}" for key, value in self.changed.items() if key != "toy"]
        return identified(
            plain_words("-".join([self.study, *words]))[:64].strip("-."), self.changed, self.scale, self.seed
        )

    @property
    def sizes(self) -> dict[str, Any]:
        """The fields that the scale sets to other sizes than the stated ones."""
        stated = {key: plain(getattr(self.setting, key)) for key in self.at_scale}
        return {key: value for key, value in self.at_scale.items() if value != stated[key]}

    @cached_property
    def at_scale(self) -> dict[str, Any]:
        """Field -> its size at this scale; a table in sizes.toml maps stated values one by one."""
        found = {}
        for key, value in sizes().get(self.scale, {}).get(self.study, {}).items():
            stated = getattr(self.setting, key)
            found[key] = value.get(str(stated), stated) if isinstance(value, dict) else value
        return found

    @property
    def sized(self) -> Any:
        return replace(self.setting, **self.sizes)

    def execute(self) -> tuple[Metrics, Curves]:
        run: Callable[[Any, int], tuple[Metrics, Curves]] = study(self.study).run
        return run(self.sized, self.seed)


def stated_run(stated: dict[str, Any], scale: str, seed: int) -> Run:
    """The run that a row states. Raises ValueError, one line, for unknown words or numbers that do not fit."""
    values = {key: value for key, value in stated.items() if key != "toy"}
    one_of("study", str(stated["toy"]), STUDIES)
    values |= {axis: method(axis, values[axis]) for axis in AXES if axis in values}
    return Run(stated["toy"], made(study(stated["toy"]).Setting, values), scale, seed)


def study(name: str) -> Any:
    return importlib.import_module(f"toy.{name}")


def sizes() -> dict[str, Any]:
    return tomllib.loads(SIZES.read_text())


def numerics(run: Run) -> dict[str, int]:
    """The integers of the study and of the methods that its setting names (see `replication.records.numerics`)."""
    return {f"toy.{run.study}": of_module(study(run.study)), "loss": SHARED["loss"], **of_methods(run.setting)}


@cache
def code() -> str:
    """One word for how all code is written that a study may use: names what is kept between runs, never a record.

    Once a process: a file that is edited while the study runs does not part it from its teacher.
    """
    return digest_of(CODE)
