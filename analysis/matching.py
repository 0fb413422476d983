"""Which records fill which cells of an exhibit."""

from __future__ import annotations

import json
from typing import Any

from analysis.records import Record
from paper_tables.spec import Column, Exhibit, Row


def match(stated: dict[str, Any], config: dict[str, Any]) -> bool:
    """Whether a config.json is a run of the stated recipe: all that is stated is so, all that was changed is stated."""
    return agrees(stated, config["recipe"]) and covers(stated, config["changed"])


def matches(stated: dict[str, Any], record: Record) -> bool:
    return match(stated, {"recipe": record.config.recipe, "changed": record.config.changed})


def agrees(stated: Any, resolved: Any) -> bool:
    if isinstance(stated, dict) or isinstance(resolved, dict):
        stated, resolved = by_name(stated), by_name(resolved)
        if stated is None or resolved is None:
            return False
        return all(key in resolved and agrees(value, resolved[key]) for key, value in stated.items())
    if isinstance(stated, list) and isinstance(resolved, list):
        return len(stated) == len(resolved) and all(map(agrees, stated, resolved))
    # Python takes True for 1; a recipe does not
    return isinstance(stated, bool) == isinstance(resolved, bool) and bool(stated == resolved)


def covers(stated: Any, changed: Any) -> bool:
    if isinstance(stated, dict) or isinstance(changed, dict):
        stated, changed = by_name(stated), by_name(changed)
        if stated is None or changed is None:
            return False
        return all(key in stated and covers(stated[key], value) for key, value in changed.items())
    return True


def by_name(value: Any) -> dict[str, Any] | None:
    """'Full' and {name = 'Full'} are the same method; anything else that is no dict is no method."""
    if isinstance(value, dict):
        return value
    return {"name": value} if isinstance(value, str) else None


def source(exhibit: Exhibit, column: Column) -> Column:
    """The column whose measurement fills this one: itself, or what it is derived from."""
    if column.derive is None:
        return column
    key = str(column.derive["of"])
    known = [other for other in exhibit.columns if other.key == key and other.derive is None]
    return known[0] if known else Column(key=key, label=key, better="lower", probe=column.probe, recipe=column.recipe)


def recipe_of(exhibit: Exhibit, row: Row, column: Column) -> dict[str, Any] | None:
    filled_by = column if column.key in row.companions else source(exhibit, column)
    return exhibit.recipe_of_cell(row, filled_by)


def by_cell(exhibit: Exhibit, records: list[Record]) -> dict[tuple[str, str], list[Record]]:
    """(row label, column key) -> the records that fill the cell."""
    cells: dict[tuple[str, str], list[Record]] = {}
    found: dict[str, list[Record]] = {}
    for row in exhibit.rows:
        for column in exhibit.columns:
            stated = recipe_of(exhibit, row, column)
            key = json.dumps(stated, sort_keys=True)
            if key not in found:
                found[key] = [] if stated is None else [r for r in records if matches(stated, r)]
            cells[row.label, column.key] = found[key]
    return cells
