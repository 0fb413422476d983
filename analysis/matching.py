"""Which records fill which cells of an exhibit, and which of them may stand in one table."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
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
    key = column.derive["of"]
    known = [other for other in exhibit.columns if other.key == key and other.derive is None]
    return known[0] if known else Column(key=key, label=key, better="lower")


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


def comparable(exhibit: Exhibit, records: list[Record]) -> tuple[list[Record], list[str]]:
    """The exhibit's records of one scale, corpus and code (the most complete such group), and notes on the rest."""
    filled: Counter[tuple[str, str, str]] = Counter()
    members: dict[tuple[str, str, str], dict[str, Record]] = defaultdict(dict)
    for cell in by_cell(exhibit, records).values():
        for record in cell:
            filled[record.group] += 1
            members[record.group][record.run_id] = record
    if not members:
        return [], []
    best, *others = sorted(members, key=lambda group: (-filled[group], group))
    notes = []
    for other in others:
        kinds = ("scale", "corpus", "code")
        apart = [f"{kind} {o} instead of {b}" for kind, o, b in zip(kinds, other, best, strict=True) if o != b]
        notes.append(f"{len(members[other])} records left out, never averaged with the others: {', '.join(apart)}.")
    kept, old = of_one_code(sorted(members[best].values(), key=lambda record: record.run_id))
    if old:
        notes.append(f"{len(old)} records left out: a method of theirs had other code ({old[0].run_id}).")
    kept, odd = of_one_meaning(kept)
    if odd:
        notes.append(f"{len(odd)} records left out: the scale gave their words other sizes ({odd[0].run_id}).")
    return kept, notes


def of_one_code(records: list[Record]) -> tuple[list[Record], list[Record]]:
    """Records in which each method has one code (the more common one), and the others."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for record in records:
        for name, digest in record.config.methods.items():
            counts[name][digest] += 1
    common = {name: max(sorted(found), key=found.__getitem__) for name, found in counts.items()}

    def current(record: Record) -> bool:
        return all(common[name] == digest for name, digest in record.config.methods.items())

    return [each for each in records if current(each)], [each for each in records if not current(each)]


def of_one_meaning(records: list[Record]) -> tuple[list[Record], list[Record]]:
    """Records whose sizes' names stand for one thing (the more common one), and the others."""

    def words(record: Record) -> str:
        keys = ("student", "teacher", "tokens", "background", "tuning", "probe")
        return json.dumps([record.config.recipe.get(key) for key in keys])

    def meaning(record: Record) -> str:
        return json.dumps(record.config.settings, sort_keys=True)

    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for record in records:
        counts[words(record)][meaning(record)] += 1
    common = {word: max(sorted(found), key=found.__getitem__) for word, found in counts.items()}
    kept = [record for record in records if meaning(record) == common[words(record)]]
    return kept, [record for record in records if meaning(record) != common[words(record)]]
