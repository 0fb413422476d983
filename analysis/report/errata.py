"""The audit's findings as the pages show them."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from analysis.report import words
from paper_tables.errata import MEANING
from paper_tables.finding import SEVERITIES, Finding, Severity
from paper_tables.spec import PAPERS


@dataclass(frozen=True)
class Line:
    exhibit: str
    href: str
    place: str
    relation: str
    printed: str
    follows: str
    interval: str
    severity: Severity
    note: str


@dataclass(frozen=True)
class Sound:
    """How much of an exhibit is consistent; its page has every line."""

    exhibit: str
    href: str
    n: int


@dataclass(frozen=True)
class OfPaper:
    paper: str
    name: str
    title: str
    counts: dict[str, int]  # by severity
    odd: list[Line]
    sound: list[Sound]
    consistent: list[Line]  # of the prose, which has no page to list them


@dataclass(frozen=True)
class Errata:
    meaning: dict[str, str]
    papers: list[OfPaper]
    counts: dict[str, int]


def errata(findings: list[Finding]) -> Errata:
    """Every finding, grouped by paper; what is not consistent first."""
    papers = []
    for paper, name in PAPERS.items():
        if paper == words.OURS_ALONE:  # ours prints nothing
            continue
        odd, consistent = by_severity([finding for finding in findings if finding.paper == paper])
        on_pages = Counter(finding.exhibit for finding in consistent if words.page(finding.exhibit))
        papers.append(
            OfPaper(
                paper=paper,
                name=name,
                title=words.TITLES[paper],
                counts=counts([*odd, *consistent]),
                odd=list(map(line, odd)),
                sound=[Sound(words.called(exhibit), words.page(exhibit), n) for exhibit, n in on_pages.items()],
                consistent=[line(finding) for finding in consistent if not words.page(finding.exhibit)],
            )
        )
    return Errata(dict(MEANING), papers, counts(findings))


def counts(findings: list[Finding]) -> dict[str, int]:
    return {severity: sum(finding.severity == severity for finding in findings) for severity in SEVERITIES}


def by_severity(findings: list[Finding]) -> tuple[list[Finding], list[Finding]]:
    """What is not consistent, worst first, and what is."""
    ranked = sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
    return [f for f in ranked if f.severity != "consistent"], [f for f in ranked if f.severity == "consistent"]


def line(finding: Finding) -> Line:
    return Line(
        exhibit=words.called(finding.exhibit),
        href=words.page(finding.exhibit),
        place=finding.place,
        relation=finding.relation,
        printed=finding.printed,
        follows=finding.follows,
        interval=interval(finding),
        severity=finding.severity,
        note=finding.note,
    )


def interval(finding: Finding) -> str:
    """What rounding allows; '' where nothing is rounded or nothing is computed."""
    if not (math.isfinite(finding.low) and math.isfinite(finding.high)) or finding.low == finding.high:
        return ""
    return f"{finding.low:.5g} to {finding.high:.5g}"
