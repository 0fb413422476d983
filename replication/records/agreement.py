"""Agreement: how near numbers that are made again come to those that were logged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Word = Literal["identical", "agrees", "differs", "cannot"]
WORDS: tuple[Word, ...] = ("differs", "cannot", "agrees", "identical")  # the worst first
# Relative, over a run's first steps. In float32 another order of summation is within 4e-7 there and a fault above 1e-5;
# in bfloat16 the two cannot be told apart, so that agreement says less.
TOLERANCE = {"float32": 1e-5, "bfloat16": 1e-3}
WHOLE = 1e-3  # of what is run to its end, where rounding has had time to grow


@dataclass(frozen=True)
class Verdict:
    """What came of making a run again, and the numbers or the reason."""

    run_id: str
    word: Word
    why: str


def of_numbers(run_id: str, logged: dict[str, float], now: dict[str, float], tolerance: float, what: str) -> Verdict:
    """The same numbers by name, where both have one; `what` they are, for the verdict's words."""
    common = [name for name in logged if name in now]
    if not common:
        return Verdict(run_id, "cannot", f"the record holds none of the {what} that are made now")
    distances = {name: relative(logged[name], now[name]) for name in common}
    worst = max(distances, key=distances.__getitem__)
    if all(logged[name] == now[name] for name in common):
        return Verdict(run_id, "identical", f"all {len(common)} {what}")
    words = f"{worst} {now[worst]:.9g} instead of {logged[worst]:.9g}, {distances[worst]:.1e} off"
    agrees = distances[worst] <= tolerance
    return Verdict(
        run_id, "agrees" if agrees else "differs", f"{words} (of {len(common)} {what}, at most {tolerance:g})"
    )


def relative(one: float, other: float) -> float:
    if one == other:
        return 0.0
    size = max(abs(one), abs(other))
    return abs(one - other) / size if math.isfinite(size) else math.inf


def by_name(lines: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Logged steps as numbers by name: 'loss at step 3'."""
    return {f"{key} at step {line['step']}": number(line[key]) for line in lines for key in ("loss", "gradient_norm")}


def number(value: float | None) -> float:
    """null stands for what was not finite."""
    return math.inf if value is None else float(value)
