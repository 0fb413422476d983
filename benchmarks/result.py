"""What a run of the benchmarks leaves: groups of contenders, timed side by side; as JSON, `results/README.md`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.machine import Machine
from benchmarks.race import Spread, ratio, spread
from replication.machine.files import replace_text

FORMAT = 1


@dataclass(frozen=True)
class Group:
    """Contenders that did the same work in turn; or one measured quantity of several.

    `case` are the sizes, `varied` the one of them that a series of groups varies. `seconds`: by contender, round by
    round. `values`: by quantity (its unit at the end of its name) and contender. `missing`: contenders that did not
    run here, and why.
    """

    part: str
    name: str
    case: dict[str, int | str]
    against: str = ""  # the contender that the others are compared with
    varied: str = ""
    seconds: dict[str, list[float]] = field(default_factory=dict)
    values: dict[str, dict[str, float]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def ratios(self) -> dict[str, Spread]:
        """Of times, to those of `against`."""
        if self.against not in self.seconds:
            return {}
        return {name: ratio(times, self.seconds[self.against]) for name, times in self.seconds.items()}

    @property
    def times(self) -> dict[str, Spread]:
        return {name: spread(times) for name, times in self.seconds.items()}


@dataclass(frozen=True)
class Result:
    machine: Machine
    date: str
    seconds: float  # that the whole took
    quick: bool  # small sizes: the numbers mean nothing
    groups: list[Group]

    @property
    def parts(self) -> list[str]:
        return list(dict.fromkeys(group.part for group in self.groups))


def write(result: Result, verdicts: Sequence[dict[str, Any]], path: Path) -> None:
    """`verdicts` and ratios are written for who reads the file; `read` makes the ratios anew."""
    content = {
        "format": FORMAT,
        "machine": result.machine.plain(),
        "date": result.date,
        "seconds": round(result.seconds),
        "quick": result.quick,
        "bars": list(verdicts),
        "groups": [plain(group) for group in result.groups],
    }
    replace_text(path, json.dumps(content, indent=1) + "\n")


def plain(group: Group) -> dict[str, Any]:
    found = {key: value for key, value in asdict(group).items() if value not in ("", {})}
    if "seconds" in found:
        found["seconds"] = {name: [shortened(each) for each in times] for name, times in group.seconds.items()}
    if group.ratios:
        found["ratios"] = {
            name: {key: shortened(value) for key, value in asdict(each).items()} for name, each in group.ratios.items()
        }
    return found


def shortened(number: float) -> float:
    return float(f"{number:.4g}")


def read(path: Path) -> Result:
    """ValueError for a file that is none of these."""
    try:
        content = json.loads(path.read_text())
        if content["format"] != FORMAT:
            raise ValueError(
                f"{path} has format {content['format']}; this version reads {FORMAT}: run make bench anew."
            )
        machine = Machine(**{**content["machine"], "load": tuple(content["machine"]["load"])})
        groups = [
            Group(**{key: value for key, value in group.items() if key != "ratios"}) for group in content["groups"]
        ]
        return Result(machine, content["date"], content["seconds"], content["quick"], groups)
    except (OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is no result of make bench ({type(error).__name__}: {error}).") from None
