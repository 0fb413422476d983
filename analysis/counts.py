"""How many verdicts of each state, and how that is said."""

from __future__ import annotations

from collections.abc import Iterable

from analysis.relations import STATES, State, Verdict

Counts = dict[State, int]
# As predicates of a count: '3 fail', '1 holds'.
ONE: dict[State, str] = {s: s for s in STATES}
MANY: dict[State, str] = {**ONE, "fails": "fail", "holds": "hold"}


def counts(verdicts: Iterable[Verdict]) -> Counts:
    """How many of each state, failures first, every state present."""
    states = [verdict.state for verdict in verdicts]
    return {state: states.count(state) for state in STATES}


def in_words(found: Counts) -> str:
    """'1 fails, 4 hold'; 'no claims' where there are none."""
    parts = [f"{n} {(ONE if n == 1 else MANY)[state]}" for state, n in found.items() if n]
    return ", ".join(parts) or "no claims"
