"""A claim as the pages show it: its text, and each side's verdict with the numbers that decided it."""

from __future__ import annotations

from dataclasses import dataclass

from analysis.claims import STATES, State
from analysis.ledger import Entry
from analysis.report import words
from paper_tables.spec import Undecided


@dataclass(frozen=True)
class Said:
    side: str  # 'published', 'logged', 'yours'
    state: State
    numbers: str


@dataclass(frozen=True)
class Claim:
    id: str
    text: str
    where: str
    paper: str
    exhibit: str  # 'RS-KD Table 6'
    href: str  # from the site's root, where it stands in full
    said: list[Said]
    tokens: str
    needs: str = ""  # of a claim that no exhibit decides


def view(entry: Entry) -> Claim:
    sides = entry.ours if entry.paper == words.OURS_ALONE else {"published": entry.published, **entry.ours}
    judged = f"judged on our runs in {words.called(entry.reprints)}" if entry.reprints else ""
    return Claim(
        id=words.anchor(entry),
        text=entry.claim.text,
        where=f"{entry.claim.where}; {judged}" if judged else entry.claim.where,
        paper=entry.paper,
        exhibit=words.called(entry.exhibit),
        href=words.address(entry),
        said=[Said(side, verdict.state, sentence(verdict.numbers)) for side, verdict in sides.items()],
        tokens=words.tokens([entry]),
        needs=entry.claim.needs if isinstance(entry.claim, Undecided) else "",
    )


def sentence(text: str) -> str:
    return text if not text or text.endswith(".") else f"{text}."


def worst_first(entries: list[Entry]) -> list[Entry]:
    """Failed on our runs, then failed on the published numbers, then by our verdict as everywhere."""

    def rank(entry: Entry) -> tuple[int, int]:
        ours = min((STATES.index(verdict.state) for verdict in entry.ours.values()), default=len(STATES))
        theirs = STATES.index(entry.published.state)
        return (0, theirs) if ours == 0 else (1, ours) if theirs == 0 else (2 + ours, theirs)

    return sorted(entries, key=rank)


def failed(entries: list[Entry], side: str) -> list[Claim]:
    """The claims that failed on the published numbers, or on ours ('ours')."""
    if side == "published":
        return [view(entry) for entry in entries if entry.published.state == "fails"]
    return [view(entry) for entry in entries if any(verdict.state == "fails" for verdict in entry.ours.values())]
