"""The site: every page rendered and written; the same inputs give the same bytes."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from analysis.counts import MANY, ONE
from analysis.ledger import Entry, ledger
from analysis.load import Record
from analysis.report import claim, words
from analysis.report.drawing import drawn
from analysis.report.errata import errata
from analysis.report.exhibit import page
from analysis.report.front import front, search_text
from analysis.sheet import sheet
from paper_tables.audit import audit
from paper_tables.finding import Finding
from paper_tables.spec import PAPERS, Exhibit, load, names

HERE = Path(__file__).parent
PLAIN = ("report.css", "report.js")


@dataclass(frozen=True)
class World:
    """All that the report is about."""

    scale: str
    exhibits: list[Exhibit]
    entries: list[Entry]  # every claim with its verdicts
    findings: list[Finding]  # of the audit
    records: dict[str, list[Record]]  # by voice


def gathered(scale: str, records: dict[str, list[Record]]) -> World:
    """Everything on file, judged by these records."""
    return World(scale, [load(name) for name in names()], ledger(records), audit(), records)


def write(world: World, folder: Path) -> Path:
    """Write the site into `folder` and return its index.html; pages and figures that it no longer has are removed."""
    (folder / "exhibits").mkdir(parents=True, exist_ok=True)
    templates = environment(world)

    def render(template: str, name: str, **view: Any) -> Path:
        path = folder / name
        root = "../" * name.count("/")
        path.write_text(templates.get_template(f"{template}.html.jinja").render(root=root, **view), encoding="utf-8")
        return path

    for name in PLAIN:
        shutil.copyfile(HERE / name, folder / name)
    texts = json.dumps(search_text(world.exhibits, world.entries), indent=0, sort_keys=True)
    (folder / "search.js").write_text(f"window.reportTexts = {texts};\n", encoding="utf-8")
    sheets = [sheet(exhibit, world.scale, world.records) for exhibit in world.exhibits]
    pictures = drawn(sheets, world.records, folder)
    written = []
    for place, one in enumerate(sheets):
        around = neighbours(world.exhibits, place)
        picture = pictures.get(one.exhibit.name)
        view = page(one, world.entries, world.findings, world.records, picture, around)
        written.append(render("exhibit", words.page(one.exhibit.name), page=view))
    kept = {*written, *(folder / picture.href for picture in pictures.values())}
    for stale in {*folder.glob("exhibits/*.html"), *folder.glob("figures/*.svg")} - kept:
        stale.unlink()
    render("claims", "claims.html", groups=claims(world))
    render("errata", "errata.html", errata=errata(world.findings))
    return render("index", "index.html", front=front(sheets, world.entries, world.findings, world.records))


def environment(world: World) -> Environment:
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    odd = sum(finding.severity in ("contradictory", "inconsistent") for finding in world.findings)
    made.globals.update(scale=world.scale, odd_count=odd)
    made.globals.update(exhibit_count=len(world.exhibits), claim_count=len(world.entries))
    present = {each.paper for each in world.exhibits} | {entry.paper for entry in world.entries}
    made.globals.update(papers={paper: name for paper, name in PAPERS.items() if paper in present})
    made.globals.update(meaning=words.MEANING, one=ONE, many=MANY, statuses=words.STATUS_SHORT)
    made.filters["code"] = code
    return made


def code(text: str) -> Markup:
    """What stands between backticks, as code; the rest escaped."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def neighbours(exhibits: list[Exhibit], place: int) -> tuple[Exhibit | None, Exhibit | None]:
    before = exhibits[place - 1] if place else None
    return before, exhibits[place + 1] if place + 1 < len(exhibits) else None


def claims(world: World) -> list[tuple[str, str, list[claim.Claim]]]:
    """(name, title, claims) of each paper, failed first."""
    found = []
    for paper, name in PAPERS.items():
        mine = claim.worst_first([entry for entry in world.entries if entry.paper == paper])
        if mine:
            found.append((name, words.TITLES[paper], list(map(claim.view, mine))))
    return found
