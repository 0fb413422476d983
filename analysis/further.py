"""Inconclusive claims, by how many more seeds would decide them, with the runs that this takes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from analysis.claims import Verdict
from paper_tables.spec import Claim, Exhibit

LISTED = 20  # seeds; whoever wants to run more writes a loop


@dataclass(frozen=True)
class Open:
    """An inconclusive claim."""

    exhibit: str
    voice: str
    claim: Claim
    verdict: Verdict
    runs: dict[str, set[int]]  # behind it, by their ids less seed and hash: the seeds of each

    @property
    def more(self) -> float:
        """Seeds that the claim needs beyond those at hand; infinite where no number of them is known."""
        outlook = self.verdict.outlook
        return math.inf if outlook is None or outlook.needs is None else outlook.needs - outlook.seeds

    def told(self, scale: str) -> list[str]:
        """How many more, and the verdict; then what to run, where a number is known that somebody may run."""
        many = "?" if math.isinf(self.more) else f"{self.more:.0f}"
        lines = [f"{many:>4} more  {self.exhibit:<16} {self.voice:<6} {self.claim.id}: {self.verdict.numbers}"]
        if self.more <= LISTED:
            # not one that only some of them have: that may be of another teacher
            first = 1 + max(map(max, self.runs.values()))
            seeds = ",".join(str(first + place) for place in range(int(self.more)))
            command = f"python -m workflow {self.exhibit} --scale {scale} --seeds {seeds}"
            lines.append(f"{'':11}{command}  # needed of it: {', '.join(self.runs)}")
        return lines


def still_open(
    exhibit: Exhibit, frames: dict[str, pd.DataFrame], verdicts: Iterable[tuple[str, Claim, Verdict]]
) -> list[Open]:
    """The exhibit's inconclusive claims."""
    found = []
    for voice, claim, verdict in verdicts:
        if verdict.state == "inconclusive":
            found.append(Open(exhibit.name, voice, claim, verdict, runs_behind(exhibit, claim, frames[voice])))
    return found


def runs_behind(exhibit: Exhibit, claim: Claim, table: pd.DataFrame) -> dict[str, set[int]]:
    """Run ids less seed and hash -> their seeds: of the claim's rows, and of those that its columns derive from."""
    columns = [exhibit.column(key) for key in claim.columns or [claim.column]]
    derived = [column.derive for column in columns if column.derive]
    keys = {column.key for column in columns} | {str(derive["of"]) for derive in derived}
    stated = [value for derive in derived for value in derive.values()]
    labels = {*claim.rows, *(label for value in stated for label in ([value] if isinstance(value, str) else value))}
    here = table[table["row"].isin(labels) & table["column"].isin(keys)]
    found: dict[str, set[int]] = {}
    for run, seed in zip(here["run_id"], here["seed"], strict=True):
        found.setdefault(re.sub(r"-s\d+(-[0-9a-f]{8})?$", "", run), set()).add(int(seed))
    return found
