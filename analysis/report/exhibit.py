"""The page of one exhibit."""

from __future__ import annotations

from dataclasses import dataclass

from analysis.counts import counts, in_words
from analysis.ledger import Entry
from analysis.load import Record
from analysis.report import claim, words
from analysis.report.drawing import Picture
from analysis.report.errata import Line, by_severity, line
from analysis.report.grids import Grid, grids
from analysis.report.runs import Group, by_row, groups
from analysis.sheet import Sheet
from paper_tables.finding import Finding
from paper_tables.spec import Exhibit


@dataclass(frozen=True)
class Link:
    href: str
    text: str


@dataclass(frozen=True)
class Page:
    id: str
    heading: str
    name: str  # 'RS-KD Table 6'
    title: str
    file: str  # 'paper_tables/rskd/table06.toml'
    shows: str  # the command, 'make table-6'
    runs: str
    status: str
    status_words: str
    why: str
    header: list[str]
    summary: dict[str, str]  # side -> '1 fails, 4 hold'
    grids: list[Grid]
    marks: list[str]  # how the paper marks cells: 'best', 'second'
    directed: bool  # whether a column says what is better
    ours: bool
    picture: Picture | None
    claims: list[claim.Claim]
    findings: list[Line]  # what is not consistent, worst first
    consistent: list[Line]
    notes: list[str]
    doubts: list[str]
    groups: list[Group]
    reprints: Link | None  # the exhibit whose numbers it reprints, which is judged in its place
    before: Link | None
    after: Link | None


def page(
    sheet: Sheet,
    entries: list[Entry],
    findings: list[Finding],
    records: dict[str, list[Record]],
    picture: Picture | None,
    neighbours: tuple[Exhibit | None, Exhibit | None],
) -> Page:
    exhibit = sheet.exhibit
    mine = [entry for entry in entries if entry.exhibit == exhibit.name]
    behind = groups(exhibit, records)
    odd, sound = by_severity([finding for finding in findings if finding.exhibit == exhibit.name])
    shows, runs = words.commands(exhibit)
    before, after = (link(other) if other else None for other in neighbours)
    return Page(
        id=words.identity(exhibit),
        heading=exhibit.heading,
        name=words.called(exhibit.name),
        title=exhibit.title,
        file=f"paper_tables/{exhibit.name}.toml",
        shows=shows,
        runs=runs,
        status=sheet.status,
        status_words=words.STATUS[sheet.status],
        why="" if exhibit.status == "published" else exhibit.why,  # which the header says of a published one
        header=sheet.header,
        summary={s: in_words(counts(v)) for s, v in words.by_side(mine).items()} if mine else {},
        grids=grids(sheet, by_row(exhibit, behind)),
        marks=[mark for mark in ("best", "second") if any(getattr(row, mark) for row in exhibit.rows)],
        directed=any(column.better != "none" for column in exhibit.columns),
        ours=bool(behind),
        picture=picture,
        claims=[claim.view(entry) for entry in claim.worst_first(mine)],
        findings=[line(finding) for finding in odd],
        consistent=[line(finding) for finding in sound],
        notes=sheet.notes,
        doubts=doubts(exhibit),
        groups=behind,
        reprints=Link(words.page(exhibit.reprints), words.called(exhibit.reprints)) if exhibit.reprints else None,
        before=before,
        after=after,
    )


def doubts(exhibit: Exhibit) -> list[str]:
    """What the extracted text of the paper leaves open."""
    of_rows = [f"Row {row.label!r}: {row.doubt}" for row in exhibit.rows if row.doubt]
    return [*([exhibit.doubt] if exhibit.doubt else []), *of_rows]


def link(exhibit: Exhibit) -> Link:
    return Link(words.page(exhibit.name), f"{words.called(exhibit.name)}: {exhibit.title}")
