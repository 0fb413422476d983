"""Small instances of methods: a test over a whole axis takes up a new class by itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import MISSING, Field, fields
from typing import Any, TypeVar

from replication.axes.targets.base import Target
from replication.axes.targets.kept import SAMPLED, TARGETS

WHOLE, SHARE = 4, 0.8  # what a number of classes or draws is, and a probability or share that has no default
Method = TypeVar("Method")


def example(cls: type[Method]) -> Method:
    """One that fits a dozen classes."""
    return cls(**{item.name: small(item) for item in fields(cls) if item.type == "int" or item.default is MISSING})  # type: ignore[arg-type]


def small(item: Field[Any]) -> Any:
    return WHOLE if item.type == "int" else SHARE


def and_others(stated: Iterable[Target], classes: Iterable[type[Target]] = SAMPLED) -> list[Target]:
    """The stated instances, then an example of each of the classes that none of them is of."""
    stated = list(stated)
    return stated + [example(cls) for cls in classes if cls not in {type(one) for one in stated}]


EXAMPLES = {name: example(cls) for name, cls in TARGETS.items()}
