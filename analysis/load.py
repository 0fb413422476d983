"""The frame: an exhibit's records as one long table, in printed units."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from analysis.answers import Answered, Task
from analysis.at_hand import Answers, with_answers
from analysis.choice import Choice, choose
from analysis.derived import FUNCTIONS
from analysis.matching import by_cell, match, source
from analysis.records import Record, read, unfinished
from analysis.records import records as finished
from paper_tables.spec import Column, Exhibit, Row

__all__ = ["Record", "as_number", "choose", "frame", "match", "published", "records", "shown_at", "unfinished"]
FRAME_COLUMNS = ["row", "column", "seed", "value", "voice", "run_id", "corpus"]


def records(folder: Path) -> list[Record]:
    """Every finished run under results/<scale>/, in the order of their ids, then what its answers to the tasks at hand
    stand for (`at_hand.py`). ValueError, one line, for a file that is not what results/README.md says."""
    answers = {path.parent.name: read(path, Answers) for path in sorted(folder.glob("*/answers.json"))}
    return with_answers(finished(folder), answers)


def shown_at(scale: str, results: Path) -> list[Record]:
    """The scale's finished runs, and what is computed at the papers' own sizes, which is shown at every scale."""
    own = records(results / scale)
    if scale == "paper":
        return own
    return [*own, *(record for record in records(results / "paper") if record.config.recipe.get("probe") == "cost")]


def worst(column: Column) -> float:
    """How a diverged run is written: worse than every finite value."""
    return -math.inf if column.better == "higher" else math.inf


def metric(row: Row, column: Column) -> str:
    """The record's metric that the cell shows."""
    return row.metrics.get(column.key) or column.metric or column.key


def measured(row: Row, column: Column, record: Record) -> float | None:
    """The record's value for the cell in printed units; infinite where the run diverged; None if not measured."""
    metrics = record.summary.metrics
    key = metric(row, column)
    if key not in metrics:
        lost = record.summary.diverged and column.better != "none" and not column.why
        return worst(column) if lost else None
    value = metrics[key]
    if value is None or not math.isfinite(value):
        return worst(column)
    return column.times * value


def frame(exhibit: Exhibit, records: list[Record], voice: str) -> pd.DataFrame:
    """One line per cell and seed: row, column, seed, value, voice, run_id, corpus (fingerprint).

    A diverged run stands as an infinite value. `attrs["notes"]` says which records were left out and why,
    `attrs["waiting"]` which cells are empty although finished runs of them exist: (row, column) -> of what they are,
    `attrs["answers"]` which items of tasks the runs of a cell answered rightly.
    """
    choice = choose(exhibit, records)
    notes, cells = choice.notes, by_cell(exhibit, choice.kept)
    lines, answered = [], defaultdict[tuple[str, str], dict[int, Mapping[str, Task]]](dict)
    for row in exhibit.rows:
        for column in exhibit.columns:
            for seed, record in by_seed(cells[row.label, column.key], row.label, notes).items():
                value = measured(row, column, record) if column.derive is None else None
                if column.derive is not None:
                    value = derive(exhibit, row, column, record, seed, cells, notes)
                if value is not None:
                    corpus = record.config.corpus.fingerprint
                    lines.append((row.label, column.key, seed, value, voice, record.run_id, corpus))
                if record.answers and column.derive is None and (tasks := record.answers.behind(metric(row, column))):
                    answered[row.label, column.key][seed] = tasks
    table = pd.DataFrame(lines, columns=FRAME_COLUMNS).astype({"seed": int, "value": float})
    table = with_deviations(exhibit, table)
    table.attrs["notes"] = list(dict.fromkeys(notes))
    table.attrs["waiting"] = waiting(exhibit, records, choice, {(line[0], line[1]) for line in lines})
    table.attrs["answers"] = Answered(answered)
    return table


def with_deviations(exhibit: Exhibit, table: pd.DataFrame) -> pd.DataFrame:
    """In columns of deviations each seed has that of all seeds of its row; a row of one seed has none."""
    wanted = table["column"].isin([column.key for column in exhibit.columns if column.deviation])
    over_seeds = table.groupby(["row", "column"])["value"].transform("std")
    return table.assign(value=table["value"].where(~wanted, over_seeds)).dropna(subset="value").reset_index(drop=True)


def waiting(
    exhibit: Exhibit, records: list[Record], choice: Choice, filled: set[tuple[str, str]]
) -> dict[tuple[str, str], str]:
    """Empty cells that all records together would fill -> what those are of: 'another numerics'."""
    left = {id(each.record): each.briefly for each in choice.left}
    if not left:
        return {}
    cells = by_cell(exhibit, records)
    found: dict[tuple[str, str], str] = {}
    for row, column in ((row, column) for row in exhibit.rows for column in exhibit.columns):
        needed = [((row.label, column.key), source(exhibit, column)), *referred(exhibit, row, column, cells).values()]
        behind = [
            [record for record in cells[place] if measured(exhibit.row(place[0]), of, record) is not None]
            for place, of in needed
        ]
        why = [left[id(record)] for records_of in behind for record in records_of if id(record) in left]
        if (row.label, column.key) not in filled and all(behind) and why:
            found[row.label, column.key] = " or ".join(dict.fromkeys(why))
    return found


def by_seed(records: list[Record], label: str, notes: list[str]) -> dict[int, Record]:
    chosen: dict[int, Record] = {}
    for record in records:
        if chosen.setdefault(record.seed, record) is not record:
            twice = f"{chosen[record.seed].run_id} and {record.run_id}"
            notes.append(f"Row {label!r}, seed {record.seed} has two records, {twice}: only the first is used.")
    return chosen


def derive(
    exhibit: Exhibit,
    row: Row,
    column: Column,
    record: Record,
    seed: int,
    cells: dict[tuple[str, str], list[Record]],
    notes: list[str],
) -> float | None:
    """A derived cell at one seed: the row's own value and those of the rows, or of its columns, that it refers to."""
    assert column.derive is not None
    name = column.derive["function"]
    if name not in FUNCTIONS:
        raise ValueError(f"{exhibit.name}, {column.key!r}: no function {name!r}. Known: {', '.join(FUNCTIONS)}.")
    others: dict[str, float] = {}
    for role, (place, measure) in referred(exhibit, row, column, cells).items():
        there = [r for r in cells[place] if r.seed == seed]
        value = measured(exhibit.row(place[0]), measure, there[0]) if there else None
        if value is None:
            label = column.derive[role]
            kind = "column" if any(other.key == label for other in exhibit.columns) else "row"
            notes.append(f"{column.label} needs {kind} {label!r} at seed {seed}, which is missing.")
            return None
        others[role] = value
    own = measured(row, source(exhibit, column), record)
    value = None if own is None else FUNCTIONS[name](own, **others)
    if own is not None and value is None:
        notes.append(f"{column.label} is undefined at seed {seed}: {', '.join(column.derive.values())}.")
    return value


def referred(
    exhibit: Exhibit, row: Row, column: Column, cells: dict[tuple[str, str], list[Record]]
) -> dict[str, tuple[tuple[str, str], Column]]:
    """Role -> the other cell that a derived one refers to, and the column that is measured there."""
    of = source(exhibit, column)
    found: dict[str, tuple[tuple[str, str], Column]] = {}
    for role, label in (column.derive or {}).items():
        if role in ("function", "of"):
            continue
        beside = next((other for other in exhibit.columns if other.key == label), None)
        if beside is None and (label, column.key) not in cells:
            raise ValueError(f"{exhibit.name}, {column.key!r}: {role} = {label!r} is no row or column of the exhibit.")
        place = (row.label, label) if beside else (label, of.key if (label, of.key) in cells else column.key)
        found[role] = (place, beside or of)
    return found


def published(exhibit: Exhibit) -> pd.DataFrame:
    """The paper's numbers in the frame's layout, with seed -1."""
    lines = [
        (row.label, key, -1, number, "published", "", "")
        for row in exhibit.rows
        for key, value in row.published.items()
        if (number := as_number(value)) is not None
    ]
    return pd.DataFrame(lines, columns=FRAME_COLUMNS).astype({"seed": int, "value": float})


def as_number(value: float | str | None) -> float | None:
    """A printed value; "inf" is how an exhibit's file writes the paper's infinity. Words are no number."""
    if isinstance(value, str):
        return math.inf if value == "inf" else None
    return None if value is None else float(value)
