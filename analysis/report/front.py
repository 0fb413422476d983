"""The first screen: how many claims hold, what failed, and every exhibit with what to search it by."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from analysis import origin
from analysis.counts import Counts, counts
from analysis.ledger import Entry
from analysis.load import Record
from analysis.report import claim, words
from analysis.sheet import Sheet, compact
from paper_tables.finding import SEVERITIES, Finding
from paper_tables.spec import PAPERS, Exhibit


@dataclass(frozen=True)
class Tally:
    """A line of the table of verdicts."""

    side: str
    counts: Counts

    @property
    def total(self) -> int:
        return sum(self.counts.values())


@dataclass(frozen=True)
class Listed:
    """An exhibit in the list."""

    id: str
    href: str
    number: str
    title: str
    status: str
    sides: dict[str, Counts]
    tokens: str
    findings: str  # '1 contradictory', '' where rounding explains everything


@dataclass(frozen=True)
class Group:
    """A paper on the first screen."""

    paper: str
    name: str
    title: str
    tallies: list[Tally]
    listed: list[Listed]


@dataclass(frozen=True)
class Front:
    claims: int  # of the papers
    exhibits: int
    cells: int
    papers: list[str]
    groups: list[Group]
    total: list[Tally]
    failed: dict[str, list[claim.Claim]]  # 'ours', 'published'
    severities: dict[str, int]
    sources: list[str]


def front(
    sheets: list[Sheet], entries: list[Entry], findings: list[Finding], records: dict[str, list[Record]]
) -> Front:
    exhibits = [each.exhibit for each in sheets]
    present = {each.paper for each in exhibits} | {entry.paper for entry in entries}
    papers = [paper for paper in PAPERS if paper in present]
    return Front(
        claims=sum(entry.paper != words.OURS_ALONE for entry in entries),
        exhibits=sum(exhibit.paper != words.OURS_ALONE for exhibit in exhibits),
        cells=sum(len(row.published) for exhibit in exhibits for row in exhibit.rows),
        papers=[PAPERS[paper] for paper in papers if paper != words.OURS_ALONE],
        groups=[group(paper, sheets, entries, findings) for paper in papers],
        total=tallies(entries),
        failed={side: claim.failed(entries, side) for side in ("ours", "published")},
        severities={severity: sum(f.severity == severity for f in findings) for severity in SEVERITIES},
        sources=[source(voice, own) for voice, own in records.items() if own],
    )


def group(paper: str, sheets: list[Sheet], entries: list[Entry], findings: list[Finding]) -> Group:
    mine = [entry for entry in entries if entry.paper == paper]
    listing = [listed(each, entries, findings) for each in sheets if each.exhibit.paper == paper]
    return Group(paper, PAPERS[paper], words.TITLES[paper], tallies(mine), listing)


def tallies(entries: list[Entry]) -> list[Tally]:
    return [Tally(side, counts(verdicts)) for side, verdicts in words.by_side(entries).items()]


def listed(sheet: Sheet, entries: list[Entry], findings: list[Finding]) -> Listed:
    exhibit = sheet.exhibit
    mine = [entry for entry in entries if entry.exhibit == exhibit.name]
    serious = Counter(finding.severity for finding in findings if finding.exhibit == exhibit.name)
    return Listed(
        id=words.identity(exhibit),
        href=words.page(exhibit.name),
        number=words.short(exhibit),
        title=exhibit.title,
        status=sheet.status,
        sides={side: counts(verdicts) for side, verdicts in words.by_side(mine).items()} if mine else {},
        tokens=words.tokens(mine),
        findings=", ".join(f"{serious[severity]} {severity}" for severity in SEVERITIES[:2] if serious[severity]),
    )


def search_text(exhibits: list[Exhibit], entries: list[Entry]) -> dict[str, str]:
    """Exhibit id -> what it can be found by beyond what the list shows: rows, columns, claims, where it stands."""
    claims: dict[str, list[str]] = {}
    for entry in entries:
        claims.setdefault(entry.exhibit, []).append(entry.claim.text)
    found = {}
    for exhibit in exhibits:
        labels = [exhibit.where, *(c.label for c in exhibit.columns), *(row.label for row in exhibit.rows)]
        found[words.identity(exhibit)] = " · ".join([*labels, *claims.get(exhibit.name, [])]).lower()
    return found


def source(voice: str, records: list[Record]) -> str:
    """One line: how many runs, of what source, precision and teacher, on what text and machine."""
    corpora = sorted({f"{r.config.corpus.name} ({r.config.corpus.fingerprint})" for r in records})
    machines = sorted({compact(record.config.hardware) for record in records if record.config.hardware})
    seeds = len({record.seed for record in records})
    known = {"source": origin.sources(records), "precision of products": origin.products(records)}
    known |= {"teacher": origin.teachers(records)}
    made = [f"{len(text.split(' / '))} {word}s" if " / " in text else f"{word} {text}" for word, text in known.items()]
    return (
        f"{voice}: {len(records)} runs, up to {seeds} seed{'s' * (seeds > 1)}, {', '.join(made)}, "
        f"corpus {', '.join(corpora)}, on {' / '.join(machines) or 'hardware not recorded'}"
    )
