"""A sheet: all that a printed exhibit says (cells, header, verdicts, notes), before it takes a form."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis import origin
from analysis.cells import Cell, cells, own_text, published_text
from analysis.chance import LEGEND, beside
from analysis.claims import STATES, Verdict, judge
from analysis.counts import counts, in_words
from analysis.differences import noted
from analysis.load import Record, choose, frame
from paper_tables.spec import PAPERS, TEXT, Claim, Column, Exhibit, Row, load

OURS = ("logged", "yours")
VOICES = ("published", *OURS)
ARROWS = {"lower": "\u00a0↓", "higher": "\u00a0↑", "none": ""}


@dataclass(frozen=True)
class Sheet:
    exhibit: Exhibit
    scale: str
    frames: dict[str, pd.DataFrame]  # by voice: "logged", "yours"
    cells: dict[str, dict[tuple[str, str], Cell]]  # by voice, then (row label, column key)
    seeds: dict[str, list[int]]  # by voice
    header: list[str]  # one line each
    verdicts: list[tuple[str, Claim, Verdict]]  # voice, claim, verdict; failed first
    notes: list[str]
    beside: dict[str, dict[tuple[str, str], str]]  # by voice, then (row label, column key): an accuracy's company

    def text(self, row: Row, column: Column, voice: str) -> str:
        if voice == "published":
            return published_text(row, column)
        own = own_text(self.cells[voice].get((row.label, column.key)), column, len(self.seeds[voice]))
        return f"{own} {self.beside[voice].get((row.label, column.key), '')}".strip()

    def title(self, column: Column) -> str:
        """The column's label, its unit unless the label says it, the better direction, and the footnote's mark."""
        unit = f" ({column.unit})" if column.unit not in ("", TEXT) and column.unit not in column.label else ""
        mark = f" [{self.footnotes.index(column) + 1}]" if column in self.footnotes else ""
        return f"{column.label}{unit}{ARROWS[column.better]}{mark}"

    @property
    def footnotes(self) -> list[Column]:
        return [column for column in self.exhibit.columns if column.why]

    @property
    def status(self) -> str:
        """The exhibit's; 'partly' where it is replicated and rows of it that the suite runs are empty; 'reprint'."""
        if self.exhibit.status == "replicated" and empty(self.exhibit, self.frames):
            return "partly"
        return "reprint" if self.exhibit.reprints else self.exhibit.status

    def verdict_lines(self) -> list[str]:
        return [
            f"{verdict.state.upper():<12}  {voice}: {claim.text} ({claim.where}) {verdict.numbers}."
            for voice, claim, verdict in self.verdicts
        ]


def sheet(exhibit: Exhibit, scale: str, records: dict[str, list[Record]], notes: list[str] | None = None) -> Sheet:
    """The sheet of an exhibit from the records of each voice; `notes` are the caller's own, e.g. unfinished runs."""
    frames = {voice: frame(exhibit, records[voice], voice) for voice in OURS}
    chosen = {voice: choose(exhibit, records[voice]).kept for voice in OURS}
    told = [line for column in exhibit.columns if column.why for line in [footnote(exhibit, column)]]
    for voice in OURS:
        told += [f"{voice}: {note}" for note in frames[voice].attrs["notes"]]
        told += gaps(exhibit, voice, frames[voice]) if exhibit.status != "published" else []
    company = {voice: beside(exhibit, chosen[voice]) for voice in OURS}
    told += [LEGEND] if any(company.values()) else []
    told += [f"Row {row.label!r}: {row.note}" for row in exhibit.rows if row.note]
    told += [
        f"Row {row.label!r} is not run by the suite."
        for row in exhibit.rows
        if exhibit.status != "published" and row.recipe is None and not row.note  # of the others the header says it
    ]
    scale = exhibit.at(scale)
    return Sheet(
        exhibit=exhibit,
        scale=scale,
        frames=frames,
        cells={voice: cells(table) for voice, table in frames.items()},
        seeds={voice: seeds_of(table) for voice, table in frames.items()},
        header=[*header(exhibit, scale, chosen, empty(exhibit, frames)), *pointer(exhibit, records)],
        verdicts=verdicts(exhibit, frames),
        notes=[*told, *(notes or []), *exhibit.notes, *noted(exhibit, frames)],
        beside=company,
    )


def footnote(exhibit: Exhibit, column: Column) -> str:
    mark = [other.key for other in exhibit.columns if other.why].index(column.key) + 1
    return f"[{mark}] {column.label}: {column.why}."


def verdicts(exhibit: Exhibit, frames: dict[str, pd.DataFrame]) -> list[tuple[str, Claim, Verdict]]:
    """Every claim judged for each voice that ran any of it (for the logged one if none did), failed first.

    A reprint has none: its numbers are judged once, where the paper prints them.
    """
    if exhibit.reprints:
        return []
    spoken = [voice for voice in OURS if len(frames[voice])] or ["logged"]
    found = [(voice, claim, judge(claim, exhibit, frames[voice])) for claim in exhibit.claims for voice in spoken]
    return sorted(found, key=lambda entry: STATES.index(entry[2].state))


def pointer(exhibit: Exhibit, records: dict[str, list[Record]]) -> list[str]:
    """Of a reprint one line: how many claims of the exhibit that it reprints hold on our runs."""
    if not exhibit.reprints:
        return []
    other = load(exhibit.reprints)
    found = verdicts(other, {voice: frame(other, records[voice], voice) for voice in OURS})
    by_voice = {voice: [verdict for spoken, _, verdict in found if spoken == voice] for voice in OURS}
    told = [f"{voice} {in_words(counts(own))}" for voice, own in by_voice.items() if own]
    return [
        f"Verdicts of {PAPERS[other.paper]} {other.kind.capitalize()} {other.number} ({other.name}): {'; '.join(told)}."
    ]


def gaps(exhibit: Exhibit, voice: str, table: pd.DataFrame) -> list[str]:
    """Which rows a voice lacks altogether."""
    if not len(table):
        hint = " `make replicate-...` runs them here." if voice == "yours" else ""
        return [f"{voice}: no finished run of this exhibit.{hint}"]
    of_what: dict[str, list[str]] = {}
    for label in lacking(exhibit, table):
        found = {why: None for (row, _), why in table.attrs["waiting"].items() if row == label}
        of_what.setdefault(" or ".join(found), []).append(label)
    return [
        f"{voice}: runs exist for {', '.join(map(repr, labels))}, of {why}."
        if why
        else f"{voice}: no finished run for {', '.join(map(repr, labels))}."
        for why, labels in of_what.items()
    ]


def lacking(exhibit: Exhibit, table: pd.DataFrame) -> list[str]:
    """Rows that the suite runs and a voice leaves empty."""
    return [row.label for row in exhibit.rows if row.recipe is not None and row.label not in set(table["row"])]


def empty(exhibit: Exhibit, frames: dict[str, pd.DataFrame]) -> list[str]:
    """Rows that are empty in the logged voice, of an exhibit of which it says anything."""
    return lacking(exhibit, frames["logged"]) if len(frames["logged"]) else []


def seeds_of(table: pd.DataFrame) -> list[int]:
    return sorted(int(seed) for seed in table["seed"].unique())


def header(exhibit: Exhibit, scale: str, chosen: dict[str, list[Record]], empty: list[str]) -> list[str]:
    lines = [f"Paper: {exhibit.where}. Scale: {scale}."]
    if exhibit.status == "published":
        lines.append(f"Published numbers only: {exhibit.why}.")
    if exhibit.status == "replicated" and empty:
        lines.append(f"Partly replicated: nothing logged stands in {', '.join(map(repr, empty))}; the notes say why.")
    for voice, records in chosen.items():
        if records:
            lines.append(f"{voice}: {provenance(records)}")
    if words := meanings([record for records in chosen.values() for record in records]):
        lines.append(f"At this scale: {'; '.join(words)}.")
    return lines


def provenance(records: list[Record]) -> str:
    corpus = records[0].config.corpus
    seeds = sorted({record.seed for record in records})
    hardware = sorted({compact(record.config.hardware) for record in records if record.config.hardware})
    many = f"{len(seeds)} seed{'s' * (len(seeds) > 1)} ({', '.join(map(str, seeds))})"
    machines = " / ".join(hardware) or "hardware not recorded"
    made = ", ".join(origin.told(records))
    runs = len({record.run_id for record in records})  # a training and what it answered are one
    return f"corpus {corpus.name} ({corpus.fingerprint}), {many}, {runs} runs, {made}, on {machines}."


def meanings(records: list[Record]) -> list[str]:
    """What the recipes' words stand for: 'student 300M: ...', each once."""
    found: dict[str, None] = {}
    for record in records:
        for key in ("student", "teacher", "teacher_read", "adapted_for", "tokens", "tuned_on", "tasks", "judge"):
            if key in record.config.settings:
                word, value = str(record.config.recipe.get(key, "")), compact(record.config.settings[key])
                found[f"{key} {value}" if value.startswith(word) else f"{key} {word}: {value}"] = None
    return list(found)


def compact(value: Any) -> str:
    """One line, no braces: 'layers 4, width 128'."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {compact(entry)}" for key, entry in value.items() if entry is not None)
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return value if isinstance(value, str) else json.dumps(value)
