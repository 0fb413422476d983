"""The bars that the suite set itself, and whether a result meets them."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from benchmarks.race import Spread, ratio, spread
from benchmarks.result import Group, Result

State = Literal["met", "not met", "not measured here"]
FILE = Path(__file__).parent / "bars.toml"


@dataclass(frozen=True)
class Bar:
    """`measure`: "time" and "rate" are ratios of ours to theirs, "seconds" is ours; anything else a group's value,
    divided by theirs where that is named. `case`: what the group's sizes must be. `by`: what measures it instead.
    """

    text: str
    part: str = ""
    name: str = ""
    case: dict[str, int | str] = field(default_factory=dict)
    device: str = ""
    measure: str = ""
    ours: str = ""
    theirs: str = ""
    at_most: float | None = None
    at_least: float | None = None
    by: str = ""

    @property
    def wanted(self) -> str:
        return f"≤ {self.at_most:g}" if self.at_most is not None else f"≥ {self.at_least:g}"

    def met(self, number: float) -> bool:
        return number <= self.at_most if self.at_most is not None else number >= (self.at_least or 0)


@dataclass(frozen=True)
class Verdict:
    """The median decides."""

    bar: Bar
    state: State
    measured: Spread | None
    why: str = ""

    def plain(self) -> dict[str, Any]:
        measured = asdict(self.measured) if self.measured else None
        return {
            "text": self.bar.text,
            "wanted": self.bar.wanted,
            "state": self.state,
            "measured": measured,
            "why": self.why,
        }


def bars(path: Path = FILE) -> list[Bar]:
    return [Bar(**entry) for entry in tomllib.loads(path.read_text())["bar"]]


def judged(result: Result, wanted: list[Bar]) -> list[Verdict]:
    return [verdict(bar, result) for bar in wanted]


def verdict(bar: Bar, result: Result) -> Verdict:
    if bar.by:
        return Verdict(bar, "not measured here", None, f"{bar.by} measures it")
    if bar.device not in ("", result.machine.device):
        here = "this machine has none" if bar.device == "cuda" else "this result is of a GPU"
        return Verdict(bar, "not measured here", None, f"needs a {'GPU' if bar.device == 'cuda' else 'CPU'}; {here}")
    for group in result.groups:
        same = all(group.case.get(key) == value for key, value in bar.case.items())
        if (group.part, group.name) == (bar.part, bar.name) and same:
            measured = value_of(bar, group)
            if measured is not None:
                return Verdict(bar, "met" if bar.met(measured.median) else "not met", measured)
            lacking = [group.missing[name] for name in (bar.ours, bar.theirs) if name in group.missing]
            if lacking:
                return Verdict(bar, "not measured here", None, lacking[0])
    return Verdict(bar, "not measured here", None, f"no such sizes or contenders in this run of {bar.part}")


def value_of(bar: Bar, group: Group) -> Spread | None:
    """What the group says of the bar; None where it lacks a contender or the quantity."""
    if bar.measure in ("time", "rate", "seconds"):
        if bar.ours not in group.seconds or bar.theirs not in ("", *group.seconds):
            return None
        ours = group.seconds[bar.ours]
        if bar.measure == "seconds":
            return spread(ours)
        theirs = group.seconds[bar.theirs]
        return ratio(ours, theirs) if bar.measure == "time" else ratio(theirs, ours)
    numbers = group.values.get(bar.measure, {})
    if bar.ours not in numbers or bar.theirs not in ("", *numbers):
        return None
    number = numbers[bar.ours] / numbers[bar.theirs] if bar.theirs else numbers[bar.ours]
    return Spread(number, number, number)
