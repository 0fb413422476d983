"""What the report calls things, and where it puts them."""

from __future__ import annotations

import re

from analysis.claims import State, Verdict
from analysis.ledger import Entry, logged
from paper_tables.spec import PAPERS, Exhibit, file_stem

TITLES = {
    "rskd": "Sparse Logit Sampling: Accelerating Knowledge Distillation in LLMs",
    "tad": "Don’t Ignore the Tail: Decoupling Top-K Probabilities for Efficient Language Model Distillation",
    "sekd": "Rethinking Selective Knowledge Distillation",
    "salt": "A Little Help Goes a Long Way: Efficient LLM Training by Leveraging Small LMs",
    "ours": "What the papers did not measure",
}
OURS_ALONE = "ours"  # exhibits of our own: nothing of them is published
MEANING: dict[State, str] = {
    "fails": "the numbers decide against the claim",
    "inconclusive": "a tie, a single seed, or an interval that crosses the bound",
    "waiting": "runs of it exist, of another numerics, teacher or precision than the table's others",
    "untested": "nothing measured or printed decides it yet",
    "holds": "the numbers bear the claim out",
}
STATUS_SHORT = {
    "replicated": "replicated",
    "partly": "partly replicated",
    "runnable": "runnable",
    "reprint": "reprint",
    "published": "not run yet",
}
STATUS = {
    "replicated": "replicated: logged records fill it",
    "partly": "partly replicated: logged records fill some of its rows",
    "runnable": "runnable: the suite can run it, nothing is logged yet",
    "reprint": "reprint: judged where the paper prints it",
    "published": "not run yet",
}


def by_side(entries: list[Entry]) -> dict[str, list[Verdict]]:
    """'published', 'logged' and 'yours', each with its verdicts; a side that has none is left out."""
    sides = {
        "published": [entry.published for entry in entries if entry.paper != OURS_ALONE],
        "logged": [logged(entry) for entry in entries if entry.ours],
        "yours": [entry.ours["yours"] for entry in entries if "yours" in entry.ours],
    }
    return {side: verdicts for side, verdicts in sides.items() if verdicts}


def tokens(entries: list[Entry]) -> str:
    """What the verdict filter looks for: 'published:holds ours:fails'."""
    found = {f"published:{entry.published.state}" for entry in entries if entry.paper != OURS_ALONE}
    found |= {f"ours:{verdict.state}" for entry in entries for verdict in entry.ours.values()}
    return " ".join(sorted(found))


def short(exhibit: Exhibit) -> str:
    """'Table 6'."""
    return f"{exhibit.kind.capitalize()} {exhibit.number}"


def called(name: str) -> str:
    """'rskd/table06' -> 'RS-KD Table 6'; 'rskd/said' -> 'RS-KD, text'; 'rskd/equations' -> 'RS-KD, equations'."""
    paper, _, stem = name.partition("/")
    if found := re.fullmatch(r"(table|figure|poster)0*(\d+[a-z]?)", stem):
        return f"{PAPERS[paper]} {found[1].capitalize()} {found[2]}"
    return f"{PAPERS[paper]}, {'text' if stem == 'said' else stem}"


def page(name: str) -> str:
    """The address of an exhibit's page from the site's root; '' for the prose, which has none."""
    paper, _, stem = name.partition("/")
    return f"exhibits/{paper}-{stem}.html" if re.match(r"table|figure|poster", stem) else ""


def anchor(entry: Entry) -> str:
    """A claim's id, the same on its exhibit's page and on the page of all claims."""
    return f"{slug(entry.exhibit)}--{slug(entry.claim.id)}"


def address(entry: Entry) -> str:
    """Where a claim stands: on its exhibit's page, or on the page of all claims where no exhibit decides it."""
    return f"{page(entry.exhibit) or 'claims.html'}#{anchor(entry)}"


def slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def identity(exhibit: Exhibit) -> str:
    return f"{exhibit.paper}-{file_stem(exhibit.kind, exhibit.number)}"


def commands(exhibit: Exhibit) -> tuple[str, str]:
    """What shows the exhibit from its records, and what runs it here; posters and ours have no make target."""
    verb = "figure" if exhibit.kind == "figure" else "table"
    if exhibit.kind == "poster" or exhibit.paper == OURS_ALONE:
        return f"python -m analysis {verb} {exhibit.name}", f"python -m workflow {exhibit.name}"
    target = f"{'' if exhibit.paper == 'rskd' else exhibit.paper + '-'}{verb}-{exhibit.number}"
    return f"make {target}", f"make replicate-{target}"
