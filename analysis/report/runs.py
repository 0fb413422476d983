"""The runs behind an exhibit's cells: one group per recipe and voice."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from analysis import origin
from analysis.load import Record, choose
from analysis.matching import matches, recipe_of
from analysis.sheet import OURS, compact
from paper_tables.spec import Exhibit


@dataclass(frozen=True)
class Group:
    number: int  # what the table's last column refers to
    voice: str
    fills: dict[str, list[str]]  # row label -> the labels of the columns, [] for all of them
    recipe: str
    runs: list[tuple[int, str]]  # seed and run id
    made: list[
        tuple[str, str]
    ]  # commit, source, numerics, precision, teacher, corpus, hardware, time: a word and its values

    @property
    def cells(self) -> list[str]:
        """'Top-K 12', or 'Smoothing: Top-k loss' where it fills that column alone."""
        return [f"{label}: {', '.join(columns)}" if columns else label for label, columns in self.fills.items()]


def groups(exhibit: Exhibit, records: dict[str, list[Record]]) -> list[Group]:
    """Every group that fills a cell, the logged ones first, in the order of the rows."""
    found: list[Group] = []
    for voice in OURS:
        chosen = choose(exhibit, records[voice]).kept
        for stated, fills in recipes(exhibit).values():
            behind = sorted((r for r in chosen if matches(stated, r)), key=lambda r: (r.seed, r.run_id))
            if behind:
                runs = [(record.seed, record.run_id) for record in behind]
                found.append(Group(len(found) + 1, voice, fills, in_words(stated), runs, made(behind)))
    return found


def recipes(exhibit: Exhibit) -> dict[str, tuple[dict[str, Any], dict[str, list[str]]]]:
    """Each recipe that the exhibit states, and what it fills: row label -> column labels ([] for all of them)."""
    found: dict[str, tuple[dict[str, Any], dict[str, list[str]]]] = {}
    for row in exhibit.rows:
        for column in exhibit.columns:
            stated = recipe_of(exhibit, row, column)
            if stated is not None:
                _, fills = found.setdefault(json.dumps(stated, sort_keys=True), (stated, {}))
                fills.setdefault(row.label, []).append(column.label)
    apart = any(column.probe for column in exhibit.columns)
    for _, fills in found.values():
        for label, columns in fills.items():
            fills[label] = columns if apart or exhibit.row(label).companions else []
    return found


def by_row(exhibit: Exhibit, found: list[Group]) -> dict[str, tuple[int, ...]]:
    """Row label -> the numbers of the groups behind its cells."""
    return {row.label: tuple(group.number for group in found if row.label in group.fills) for row in exhibit.rows}


def in_words(stated: dict[str, Any]) -> str:
    """'student 300M; target TopK(k=12); divergence GhostToken': what the exhibit's file states, on one line."""
    return "; ".join(f"{key} {method(value)}" for key, value in stated.items()) or "all defaults"


def method(value: Any) -> str:
    if not isinstance(value, dict) or "name" not in value:
        return compact(value)
    fields = ", ".join(f"{key}={compact(entry)}" for key, entry in value.items() if key != "name")
    return f"{value['name']}({fields})" if fields else str(value["name"])


def made(records: list[Record]) -> list[tuple[str, str]]:
    seconds = [record.summary.machine["seconds"] for record in records if "seconds" in record.summary.machine]
    told = {
        "commit": origin.commits(records),
        "source": origin.sources(records),
        "numerics": origin.numerics(records) or "1 of every part",
        "precision": origin.products(records) or "float64 or none",
        "teacher": origin.teachers(records) or "none",
        "corpus": origin.each(f"{r.config.corpus.name} ({r.config.corpus.fingerprint})" for r in records),
        "hardware": origin.each(compact(record.config.hardware) for record in records if record.config.hardware),
        "time": f"{sum(seconds) / len(seconds):,.0f} s a run" if seconds else "",
    }
    return [(word, value or "not recorded") for word, value in told.items()]
