"""The ledger: every claim of the four papers with its verdict on the papers' own numbers and on ours."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from analysis.claims import STATES, Verdict
from analysis.load import Record, frame
from analysis.published import judge_published
from analysis.sheet import OURS, verdicts
from paper_tables.spec import PAPERS, Claim, Undecided, load, names, said


@dataclass(frozen=True)
class Entry:
    paper: str
    exhibit: str  # "rskd/table06"; "rskd/said" for a claim that no table or data figure decides
    claim: Claim | Undecided
    published: Verdict
    ours: dict[str, Verdict]  # by voice: "logged" always, "yours" where this machine ran any; a reprint has none
    reprints: str = ""  # the exhibit whose verdicts on our runs stand for this one's


def ledger(records: dict[str, list[Record]], papers: list[str] | None = None) -> list[Entry]:
    """Every claim in the record's order. `records`: by voice, as `analysis.load.records` reads them."""
    entries: list[Entry] = []
    for paper in papers or PAPERS:
        for exhibit in (load(name) for name in names() if name.startswith(f"{paper}/")):
            on_print = judge_published(exhibit)
            frames = {voice: frame(exhibit, records[voice], voice) for voice in OURS}
            ours: dict[str, dict[str, Verdict]] = {claim.id: {} for claim in exhibit.claims}
            for voice, claim, verdict in verdicts(exhibit, frames):
                ours[claim.id][voice] = verdict
            entries += [
                Entry(paper, exhibit.name, claim, on_print[claim.id], ours[claim.id], exhibit.reprints)
                for claim in exhibit.claims
            ]
        for undecided in said(paper).claims:
            needs = Verdict("untested", f"no table or data figure decides it; {undecided.needs}")
            entries.append(Entry(paper, f"{paper}/said", undecided, needs, {"logged": needs}))
    return entries


def logged(entry: Entry) -> Verdict:
    """Our verdict that counts: on the logged records, or on this machine's where nothing is logged."""
    return entry.ours.get("logged") or next(iter(entry.ours.values()))


def tally(entries: list[Entry]) -> dict[str, dict[str, Counter[str]]]:
    """paper -> "published" or "ours" -> state -> how many claims, every state present."""
    found: dict[str, dict[str, Counter[str]]] = {}
    for paper in PAPERS:
        mine = [entry for entry in entries if entry.paper == paper]
        sides = {
            "published": [entry.published for entry in mine],
            "ours": [logged(entry) for entry in mine if entry.ours],
        }
        found[paper] = {
            side: Counter({state: sum(verdict.state == state for verdict in verdicts) for state in STATES})
            for side, verdicts in sides.items()
        }
    return found
