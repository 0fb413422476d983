"""Verdicts: each claim's relation, decided by paired statistics over the seeds of one voice.

Rows are paired by seed; in a column of tasks by item, too, where it is on record which items each row answered. With
one seed nothing is decided: the state is inconclusive and the direction is stated.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd

from analysis.answers import Answered, Paired
from analysis.outlook import outlook
from analysis.relations import RELATIONS, STATES, Outlook, Sample, State, Tested, Values, Verdict
from analysis.values import value_of
from paper_tables.spec import Claim, Column, Exhibit

__all__ = ["STATES", "State", "Verdict", "check", "count_wins", "judge"]


def judge(claim: Claim, exhibit: Exhibit, frame: pd.DataFrame) -> Verdict:
    """The verdict of one voice's frame on a claim.

    Raises ValueError for an unknown relation and for a claim that does not state what its relation needs.
    """
    check(claim, exhibit)
    if exhibit.status == "published":
        return Verdict("untested", f"the suite does not run this exhibit: {exhibit.why}")
    if claim.relation == "wins":
        return judge_wins(claim, exhibit, frame)
    column = exhibit.column(claim.column)
    here = frame[frame["column"] == claim.column]
    table = here[here["row"].isin(claim.rows)].pivot(index="seed", columns="row", values="value")
    if why := awaited(claim, table, frame.attrs.get("waiting", {})):
        return Verdict("waiting", why)
    if lacking_why := missing(claim, exhibit, column, table):
        return Verdict("untested", lacking_why)
    common = table.dropna()
    seeds, values = [int(seed) for seed in common.index], {label: common[label].to_numpy() for label in claim.rows}
    answered: Answered | None = frame.attrs.get("answers")
    paired = (
        answered.paired(column.key, claim.rows, seeds, column.times) if answered and answered.has(column.key) else None
    )
    sample = Sample(values, paired if isinstance(paired, Paired) else None)
    state, numbers, tests = RELATIONS[claim.relation][0](claim, column, sample)
    if len(seeds) == 1:
        agrees = {"holds": "agrees", "fails": "disagrees"}.get(one_seed(claim, column, values), "is a tie")
        state, numbers = "inconclusive", f"1 seed: direction {agrees}; {numbers}"
    else:
        numbers = f"{numbers}, {basis(tests, len(seeds), paired)}"
    if state != "inconclusive":
        return Verdict(state, numbers + leaving_one_out(claim, column, sample, state))
    seen = outlook(tests, printed_effects(claim, exhibit, column), len(seeds))
    return undecided(numbers, seen)


def leaving_one_out(claim: Claim, column: Column, sample: Sample, state: State) -> str:
    """For an order in a mean over tasks: whether it is decided alike without any one of them."""
    paired = sample.paired
    if claim.relation not in ("order", "best") or paired is None or len(paired.tasks) < 2:
        return ""
    decide = RELATIONS[claim.relation][0]
    states = {task: decide(claim, column, replace(sample, paired=paired.without(task))).state for task in paired.tasks}
    other = [f"{found} without {task}" for task, found in states.items() if found != state]
    return f"; {', '.join(other)}" if other else f"; the same leaving out any one of {len(states)} tasks"


def undecided(numbers: str, seen: Outlook) -> Verdict:
    return Verdict("inconclusive", f"{numbers}; {seen.words}", seen)


def basis(tests: tuple[Tested, ...], seeds: int, paired: Paired | str | None) -> str:
    """What a verdict rests on: '3 seeds', 'paired over 2,000 items, 3 seeds', and why items of tasks are not paired."""
    if items := max((test.found.items for test in tests), default=0):
        return f"paired over {items:,} items, {seeds} seeds"
    if paired is None or not tests:
        return f"{seeds} seeds"
    why = paired if isinstance(paired, str) else "the relation is taken seed by seed"
    return f"{seeds} seeds, not paired by item: {why}"


def printed_effects(claim: Claim, exhibit: Exhibit, column: Column) -> dict[tuple[str, ...], float]:
    """A test's rows -> what the paper's numbers give for it; empty where they are not printed in the column's unit."""
    printed = {label: value_of(exhibit, label, column.key) for label in claim.rows}
    values = {label: np.array([value.mean]) for label, value in printed.items() if value is not None}
    if claim.printed_column or len(values) < len(printed):
        return {}
    found = RELATIONS[claim.relation][0](claim, column, Sample(values)).tests
    return {test.rows: test.found.value for test in found if math.isfinite(test.found.value)}


def judge_wins(claim: Claim, exhibit: Exhibit, frame: pd.DataFrame) -> Verdict:
    """By the orders of its columns; where they leave it open, by the one that would decide it with fewest seeds."""
    single = [as_order(claim, key) for key in claim.columns]
    found = {exhibit.column(one.column).label: judge(one, exhibit, frame) for one in single}
    if lacking := [verdict for verdict in found.values() if verdict.state in ("untested", "waiting")]:
        return min(lacking, key=lambda verdict: verdict.state == "waiting")
    state, numbers = count_wins(claim, {label: verdict.state for label, verdict in found.items()})
    if state != "inconclusive":
        return Verdict(state, numbers)
    seen = {label: verdict.outlook for label, verdict in found.items() if verdict.outlook}
    ordered = sorted(seen, key=lambda label: math.inf if (needs := seen[label].needs) is None else needs)
    won = sum(verdict.state == "holds" for verdict in found.values())
    last = ordered[(len(found) if claim.low is None else int(claim.low)) - won - 1]
    return undecided(numbers, replace(seen[last], words=f"of the open columns, {last}: {seen[last].words}"))


def as_order(claim: Claim, key: str) -> Claim:
    """One column of a `wins` claim: rows[0] is better than rows[1] there."""
    return claim.model_copy(update={"relation": "order", "column": key, "columns": [], "low": None})


def count_wins(claim: Claim, states: dict[str, State]) -> tuple[State, str]:
    """rows[0] is better than rows[1] in at least `low` of the columns; `states`: the verdicts of the single orders."""
    need = len(states) if claim.low is None else claim.low
    won = [label for label, state in states.items() if state == "holds"]
    lost = [label for label, state in states.items() if state == "fails"]
    state: State = "holds" if len(won) >= need else "fails" if len(states) - len(lost) < need else "inconclusive"
    against = f", behind in {', '.join(lost)}" if lost else ""
    return state, f"{claim.rows[0]} ahead of {claim.rows[1]} in {len(won)} of {len(states)}{against}"


def place(claim: Claim) -> str:
    return f"Claim {claim.id!r}"


def check(claim: Claim, exhibit: Exhibit) -> None:
    """Raises ValueError, one line, for a claim that does not state what its relation needs."""
    if claim.relation not in (*RELATIONS, "wins"):
        raise ValueError(f"{place(claim)}: unknown relation {claim.relation!r}. Known: {', '.join(RELATIONS)}, wins.")
    counts = (2,) if claim.relation == "wins" else RELATIONS[claim.relation][1]
    if (counts and len(claim.rows) not in counts) or len(claim.rows) < 1:
        wanted = " or ".join(map(str, counts))
        raise ValueError(f"{place(claim)}: {claim.relation} takes {wanted} rows, got {len(claim.rows)}.")
    if (claim.relation == "wins") != bool(claim.columns):
        raise ValueError(f"{place(claim)}: `columns` belongs to `wins`, every other relation has one `column`.")
    if claim.relation in ("best", "trend") and len(claim.rows) < 2:
        raise ValueError(f"{place(claim)}: {claim.relation} takes two rows or more, got {len(claim.rows)}.")
    for key in claim.columns or [claim.column]:
        if claim.relation in ("order", "best", "wins") and exhibit.column(key).better == "none":
            raise ValueError(f"{place(claim)} orders rows by {key!r}, which does not say what is better.")
    if claim.relation == "trend" and claim.direction is None:
        raise ValueError(f"{place(claim)}: a trend needs direction = 'increasing' or 'decreasing'.")
    if claim.relation in ("within", "gap", "change", "ratio") and claim.low is None and claim.high is None:
        raise ValueError(f"{place(claim)}: {claim.relation} needs low, high or both.")
    if claim.relation == "equivalent" and claim.margin <= 0:
        raise ValueError(f"{place(claim)}: equivalence needs a margin above 0, got {claim.margin:g}.")


def missing(claim: Claim, exhibit: Exhibit, column: Column, table: pd.DataFrame) -> str:
    """Why the claim cannot be tested, or ''."""
    if absent := [label for label in dict.fromkeys(claim.rows) if label not in table]:
        why = f" ({column.why})" if column.why else ""
        return f"nothing under {column.label!r} for {', '.join(map(repr, absent))}{why}"
    return "" if len(table.dropna()) else f"no seed is common to {', '.join(map(repr, dict.fromkeys(claim.rows)))}"


def awaited(claim: Claim, table: pd.DataFrame, waiting: dict[tuple[str, str], str]) -> str:
    """Of what the runs are that fill the claim's empty rows, where runs of each exist; or ''."""
    absent = [label for label in dict.fromkeys(claim.rows) if label not in table]
    if not absent or not all((label, claim.column) in waiting for label in absent):
        return ""
    of_what = " or ".join(dict.fromkeys(waiting[label, claim.column] for label in absent))
    return f"runs of {', '.join(map(repr, absent))} exist, of {of_what}"


def one_seed(claim: Claim, column: Column, values: Values) -> State:
    """What the single seed would say if it were certain: the relation on two copies of it."""
    twice = {label: np.repeat(value, 2) for label, value in values.items()}
    return RELATIONS[claim.relation][0](claim, column, Sample(twice)).state
