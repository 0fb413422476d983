"""What the cells of analysis/notebooks/ call: an exhibit, a paper's claims, its audit, and how far the suite has come.

    from analysis.notebook import audit, claims, overview, show
    show("rskd/table06")

Each returns something that Jupyter displays as HTML. A cell run again shows what has been run since.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

import paper_tables.audit
from analysis.claims import Verdict
from analysis.counts import MANY, ONE, counts, in_words
from analysis.ledger import Entry, ledger, tally
from analysis.load import Record, shown_at
from analysis.published import judge_published
from analysis.report import claim, words
from analysis.report.errata import by_severity, line
from analysis.report.grids import Grid, grids
from analysis.sheet import OURS, Sheet, sheet
from paper_tables.coverage import counts as coverage
from paper_tables.finding import SEVERITIES, Finding
from paper_tables.spec import PAPERS, load

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results"


@dataclass(frozen=True)
class Shown:
    """A cell's output. `print` shows its name, Jupyter its page."""

    name: str
    html: str

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return f"<{self.name}: displayed as HTML in Jupyter>"


def show(name: str, scale: str = "laptop") -> Shown:
    """An exhibit, e.g. 'rskd/table06': published, logged and yours; the figure; claims with verdicts; notes.

    Raises ValueError, naming the known, for an exhibit or a scale that does not exist.
    """
    exhibit, found = load(name), read(scale)
    made = sheet(exhibit, scale, found)
    odd, _ = by_severity([finding for finding in findings(exhibit.paper) if finding.exhibit == name])
    page = {
        "heading": exhibit.heading,
        "header": made.header,
        "grids": [without_runs(grid) for grid in grids(made, {})],
        "ours": any(len(table) for table in made.frames.values()),
        "figure": figure(made, found) if exhibit.plot else None,
        "claims": list(map(claim.view, claim.worst_first(judged(made)))),
        "findings": [line(finding) for finding in odd if finding.severity != "within rounding"],
        "notes": [*([f"Doubt: {exhibit.doubt}"] if exhibit.doubt else []), *made.notes],
    }
    return rendered(name, "exhibit", page)


def claims(paper: str, scale: str = "laptop") -> Shown:
    """Every claim of a paper, with the verdict on its own numbers and on ours."""
    entries = claim.worst_first(ledger(read(scale), [known(paper)]))
    sides = {side: in_words(counts(verdicts)) for side, verdicts in words.by_side(entries).items()}
    failed = [entry for entry in entries if "fails" in {v.state for v in (entry.published, *entry.ours.values())}]
    others = [entry for entry in entries if entry not in failed]
    return rendered(f"claims of {paper}", "claims", sides, list(map(claim.view, failed)), list(map(claim.view, others)))


def audit(paper: str) -> Shown:
    """What a paper prints that does not follow from what else it prints."""
    odd, sound = by_severity(findings(known(paper)))
    lines = [replace(line(finding), href="") for finding in odd]
    rounded = [one for one in lines if one.severity == "within rounding"]
    worse = [one for one in lines if one not in rounded]
    return rendered(f"audit of {paper}", "audit", PAPERS[paper], worse, rounded, len(sound))


def overview(scale: str = "laptop") -> Shown:
    """Per paper: what is on file and replicated, what became of its claims, and what its own numbers say."""
    on_file = coverage()
    states = tally(ledger(read(scale)))
    verdicts = [
        [PAPERS[paper], side, *each.values()] for paper, sides in states.items() for side, each in sides.items()
    ]
    audited = [
        [name, *(sum(finding.severity == severity for finding in findings(paper)) for severity in SEVERITIES)]
        for paper, name in PAPERS.items()
        if findings(paper)
    ]
    heads = ["Paper", "Numbers", *next(iter(states.values()))["ours"]]
    tables = [
        ("Exhibits on file", list(on_file[0]), [list(counted.values()) for counted in on_file]),
        (f"Claims by verdict, scale {scale}", heads, verdicts),
        ("Relations between printed numbers", ["Paper", *SEVERITIES], audited),
    ]
    return rendered("overview", "overview", tables)


def read(scale: str) -> dict[str, list[Record]]:
    """The records of each voice: logged ones, and this machine's."""
    places = dict(zip(OURS, (RESULTS / scale, RESULTS / "local" / scale), strict=True))
    if not any(place.is_dir() for place in places.values()):
        scales = sorted({path.parts[-3] for path in RESULTS.glob("*/*/summary.json")})
        raise ValueError(f"No records at scale {scale!r}. Scales with records: {', '.join(scales)}.")
    return {voice: parsed(place, stamp(place)) for voice, place in places.items()}


def stamp(place: Path) -> tuple[tuple[str, int], ...]:
    """Changes whenever a run finishes there."""
    finished = [*place.glob("*/summary.json"), *place.parent.glob("paper/*/summary.json")]
    return tuple((str(path), path.stat().st_mtime_ns) for path in sorted(finished))


@lru_cache(maxsize=8)
def parsed(place: Path, stamp: tuple[tuple[str, int], ...]) -> list[Record]:
    return shown_at(place.name, place.parent)


def known(paper: str) -> str:
    if paper not in PAPERS:
        raise ValueError(f"No paper {paper!r}. Known: {', '.join(PAPERS)}.")
    return paper


@cache  # the papers do not change, and every exhibit's own findings are among these
def findings(paper: str) -> list[Finding]:
    return paper_tables.audit.audit([paper])


def judged(made: Sheet) -> list[Entry]:
    """The exhibit's part of the ledger, without judging the rest of its paper."""
    on_print = judge_published(made.exhibit)
    ours: dict[str, dict[str, Verdict]] = {one.id: {} for one in made.exhibit.claims}
    for voice, one, verdict in made.verdicts:
        ours[one.id][voice] = verdict
    paper, name = made.exhibit.paper, made.exhibit.name
    reprints = made.exhibit.reprints
    return [Entry(paper, name, one, on_print[one.id], ours[one.id], reprints) for one in made.exhibit.claims]


def figure(made: Sheet, found: dict[str, list[Record]]) -> str | None:
    from analysis.figures import inline  # matplotlib takes a second to import, and tables do without

    return inline(made.exhibit, made.frames, found)


def without_runs(grid: Grid) -> Grid:
    """The report's grid less the column that points at its list of runs, which a cell does not show."""
    heads = [[head for head in line if head.text != "Runs"] for line in grid.heads]
    lines = [replace(line, cells=[cell for cell in line.cells if cell.voice != "runs"]) for line in grid.lines]
    return replace(grid, heads=heads, lines=lines)


def rendered(name: str, macro: str, *view: Any) -> Shown:
    html = getattr(environment().get_template("notebook.html.jinja").module, macro)(*view)
    return Shown(name, "\n".join(text for text in html.split("\n") if text.strip()))


@cache
def environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader([HERE, HERE / "report" / "templates"]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals.update(one=ONE, many=MANY, style=(HERE / "notebook.css").read_text())
    return made
