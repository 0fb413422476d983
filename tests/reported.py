"""A small world for the report: exhibits of every layout, claims with planted verdicts, findings, and what to parse."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

from planted import exhibit, plant_all

from analysis.claims import State, Verdict
from analysis.ledger import Entry
from analysis.load import Record, records
from analysis.report.drawing import Picture, address, has_numbers, seen
from analysis.report.site import World
from analysis.sheet import OURS, Sheet
from paper_tables.finding import Finding, Severity
from paper_tables.printed import Printed
from paper_tables.spec import Claim, Column, Exhibit, Row, Undecided

HOSTILE = "<script>document.title = 'owned'</script>"
DOTS = {"kind": "dots"}


def claim(id: str, text: str = "Planted.") -> Claim:
    return Claim(id=id, text=text, where="Section 1", relation="within", column="lm_loss", rows=["CE"], low=0)


def entry(exhibit: str, claim: Claim | Undecided, published: State, logged: State, yours: State | None = None) -> Entry:
    ours = {"logged": Verdict(logged, f"{claim.id} on ours")}
    if yours:
        ours["yours"] = Verdict(yours, f"{claim.id} on yours")
    return Entry(exhibit.split("/")[0], exhibit, claim, Verdict(published, f"{claim.id} as printed"), ours)


def finding(exhibit: str, severity: Severity, low: float = 0.5, high: float = 0.75) -> Finding:
    return Finding(
        paper=exhibit.split("/")[0],
        exhibit=exhibit,
        place="CE / lm_loss",
        relation=f"mean(of {severity})",
        printed="2.80",
        follows="0.6",
        low=low,
        high=high,
        severity=severity,
        note="",
    )


def hostile() -> Exhibit:
    """Text that a browser would run, wherever a text can stand."""
    return exhibit(
        paper="tad",
        number="2",
        title=HOSTILE,
        where=HOSTILE,
        status="published",
        why=HOSTILE,
        doubt=HOSTILE,
        notes=[HOSTILE, f"`{HOSTILE}`"],
        columns=[Column(key="a", label=HOSTILE, unit="text"), Column(key="b", label=f'"{HOSTILE}', better="higher")],
        rows=[Row(label=f"'{HOSTILE}", published={"a": HOSTILE, "b": Printed("2.80")}, note=HOSTILE, best=["b"])],
        plot=DOTS,
    )


def transposed() -> Exhibit:
    columns = [Column(key="loss", label="Loss", better="lower"), Column(key="size", label="Size", unit="text")]
    rows = [
        Row(label="Small", published={"loss": Printed("2.80"), "size": "300M"}, best=["loss"]),
        Row(label="Large", published={"loss": Printed("2.9")}, published_sd={"loss": Printed("0.10")}, second=["loss"]),
    ]
    return exhibit(
        paper="sekd", number="3", layout="transposed", columns=columns, rows=rows, status="published", why="no data"
    )


def crossed() -> Exhibit:
    rows = [Row(label=f"{a} / {b}", published={"loss": Printed(f"{a}.{b}")}) for a in (1, 2) for b in (3, 4)]
    columns = [Column(key="loss", label="Loss", better="lower")]
    return exhibit(paper="salt", number="4", layout="grid", columns=columns, rows=rows, status="runnable")


UNSEEN = Undecided(id="unseen", text="Nobody looked.", where="Section 9", needs="a look")
EXHIBITS = [exhibit(plot=DOTS, notes=["see `make test`"]), hostile(), transposed(), crossed()]
ENTRIES = [
    entry("rskd/table01", claim("wrong", "The sky is green."), "holds", "fails"),
    entry("rskd/table01", claim("right"), "holds", "holds"),
    entry("rskd/table01", claim("open"), "inconclusive", "inconclusive"),
    entry("rskd/said", UNSEEN, "untested", "untested"),
    entry("tad/table02", claim("hostile", HOSTILE), "fails", "untested"),
    entry("sekd/table03", claim("mine"), "holds", "untested", "holds"),
]  # fmt: skip
FINDINGS = [
    finding("rskd/table01", "contradictory"),
    finding("rskd/said", "inconsistent"),
    finding("rskd/said", "consistent"),
    finding("sekd/table03", "within rounding"),
    finding("sekd/table03", "consistent", math.nan, math.nan),
]


def world(folder: Path) -> World:
    """Three seeds are logged of every row, and this machine ran one of them."""
    plant_all(folder / "logged")
    plant_all(folder / "yours", {"FullKD": (3.5,)})
    return World("laptop", EXHIBITS, ENTRIES, FINDINGS, {voice: records(folder / voice) for voice in OURS})


def frames(sheets: list[Sheet], _: dict[str, list[Record]], root: Path) -> dict[str, Picture]:
    """In the place of `drawn`: an empty frame for each figure, as wide as the widest, which takes no time to draw."""
    (root / "figures").mkdir()
    found = {}
    for sheet in filter(has_numbers, sheets):
        picture = Picture(address(sheet.exhibit), 1700, 900, seen(sheet))
        (root / picture.href).write_text('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1700 900"/>')
        found[sheet.exhibit.name] = picture
    return found


INLINE = {"a", "b", "code", "i", "span", "strong", "u"}
VOID = {"meta", "link", "input", "img", "br"}
LOADS = {"src", "href", "srcset", "action", "data", "poster"}


@dataclass
class Page(HTMLParser):
    """What a test asks of a page. Raises AssertionError for tags that do not match."""

    path: Path
    tags: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    text: str = ""
    captions: int = 0

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.path.read_text())
        self.close()
        assert self.open == [], f"{self.path.name} leaves {self.open} open"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"{self.path.name}: <{tag}> names an attribute twice"
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if self.open and self.open[-1] == "table":
            self.captions += tag == "caption"
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"{self.path.name}: </{tag}> closes what is not open"
        self.text += "" if tag in INLINE else " "

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def ids(self) -> list[str]:
        return [attributes["id"] for _, attributes in self.tags if "id" in attributes]

    @property
    def addresses(self) -> list[str]:
        """Everything that the page loads or leads to."""
        found = [value for _, attributes in self.tags for name, value in attributes.items() if name in LOADS]
        return [address for address in found if address != "data:,"]
