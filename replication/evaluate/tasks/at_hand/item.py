"""An item: one question of a task, in characters."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from replication.seeds import seed_for


@dataclass(frozen=True)
class Item:
    """What stands before, and what may follow; of a single choice: what is to be written."""

    context: str
    choices: tuple[str, ...]
    answer: int = 0  # the place of the right one
    kind: str = ""  # of a task that has several

    def row(self) -> dict[str, Any]:
        """As the harness reads it."""
        return asdict(self) | {"choices": list(self.choices), "target": self.choices[self.answer]}


def chance(*purpose: Any) -> int:
    """A number by purpose, 63 bits: a die that falls alike on every machine."""
    return seed_for(0, "tasks at hand", *purpose)


def choice(task: str, context: str, right: str, wrong: Iterable[str], kind: str = "") -> Item:
    """The right answer stands anywhere among the wrong ones, so that a tie is no point for it."""
    choices = sorted([right, *wrong], key=lambda text: chance("order", task, context, text))
    return Item(context, tuple(choices), choices.index(right), kind)


def drawn(task: str, items: Iterable[Item], rows: int | None) -> list[Item]:
    """At most `rows` of the items, of each kind as many as of the others where there are enough."""
    kinds: dict[str, list[Item]] = {}
    for item in dict.fromkeys(items):
        kinds.setdefault(item.kind, []).append(item)
    found: list[Item] = []
    left = sum(map(len, kinds.values())) if rows is None else rows
    ordered = sorted(kinds, key=lambda kind: (len(kinds[kind]), kind))
    for place, kind in enumerate(ordered):
        mixed = sorted(kinds[kind], key=lambda item: chance("rows", task, item.context, item.choices))
        taken = mixed[: left // (len(ordered) - place)]
        found += taken
        left -= len(taken)
    return found


def digest(items: Iterable[Item]) -> str:
    """16 hex digits over all that is asked, in order."""
    found = hashlib.sha256()
    for item in items:
        found.update(json.dumps(item.row(), sort_keys=True).encode() + b"\n")
    return found.hexdigest()[:16]
