"""Verdicts on the papers' own numbers: does what is printed bear out what is claimed?

Where an exhibit prints standard deviations, orders and equivalences are decided by Welch's tests at 5 %, corrected by
Holm over the comparisons of that exhibit. Elsewhere a printed number stands for one run of unknown spread: a claim
holds "as printed" where the digits say so, and what a tie of the rounded digits leaves open is inconclusive.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.claims import Verdict, as_order, check, count_wins
from analysis.relations import LEVEL, State, bounds, worst
from analysis.statistics import holm, welch_greater
from analysis.values import Value, value_of
from paper_tables.spec import Claim, Column, Exhibit

TINY = 1e-9


@dataclass(frozen=True)
class Comparison:
    """A comparison with deviations: the p-value of the claim, and of its opposite."""

    p: float
    p_against: float
    numbers: str


Values = list[Value]
Decision = tuple[State, str]
Said = Decision | Comparison


def judge_published(exhibit: Exhibit) -> dict[str, Verdict]:
    """Claim id -> verdict on the exhibit's printed numbers. Raises ValueError for a claim its relation cannot take."""
    found = {claim.id: decide(claim, exhibit) for claim in exhibit.claims}
    tests = {id: said for id, said in found.items() if isinstance(said, Comparison)}
    adjusted = dict(zip(tests, holm([test.p for test in tests.values()]), strict=True))
    against = dict(zip(tests, holm([test.p_against for test in tests.values()]), strict=True))
    verdicts = {}
    for claim in exhibit.claims:
        said = found[claim.id]
        if isinstance(said, Comparison):
            p, p_against = adjusted[claim.id], against[claim.id]
            state: State = "holds" if p < LEVEL else "fails" if p_against < LEVEL else "inconclusive"
            over = f", by Holm over {len(tests)} {p:.2g}" if len(tests) > 1 else ""
            said = state, f"{said.numbers}, Welch p = {said.p:.2g}{over}"
        state, numbers = said
        left_out = leaving_one_out(claim, exhibit) if state in ("holds", "fails") else ""
        verdicts[claim.id] = Verdict(state, numbers + left_out)
    return verdicts


def decide(claim: Claim, exhibit: Exhibit) -> Said:
    check(claim, exhibit)
    if claim.relation == "wins":
        return wins(claim, exhibit)
    column = exhibit.column(claim.printed_column or claim.column)
    values: Values = []
    for label in claim.rows:
        value = value_of(exhibit, label, column.key)
        if value is None:
            return "untested", f"the paper prints nothing under {column.label!r} for {label!r}"
        values.append(value)
    return RELATIONS[claim.relation](claim, column, values)


def order(claim: Claim, column: Column, values: Values) -> Said:
    return ahead(claim.rows[0], claim.rows[1], column, values[0], values[1], claim.margin)


def ahead(first: str, second: str, column: Column, a: Value, b: Value, margin: float = 0.0) -> Said:
    sign = -1.0 if column.better == "lower" else 1.0
    if math.isinf(a.mean) or math.isinf(b.mean):
        state: State = "inconclusive" if a.mean == b.mean else "holds" if math.isinf(b.mean) else "fails"
        return state, f"{first} {a.mean:g}, {second} {b.mean:g} as printed"
    by = sign * (a.mean - b.mean)
    numbers = f"{first} ahead of {second} by {by:+.{digits(a, b)}f}"
    if a.tested and b.tested:
        claimed, opposite = (welch(s * a.mean, s * b.mean, a, b, m) for s, m in ((sign, margin), (-sign, -margin)))
        return Comparison(claimed, opposite, numbers)
    state = "holds" if by > margin + TINY else "fails" if by < margin - TINY or margin else "inconclusive"
    return state, f"{numbers} as printed" + (", a tie" if abs(by) < TINY else "")


def welch(a_mean: float, b_mean: float, a: Value, b: Value, margin: float) -> float:
    assert a.sd is not None and b.sd is not None
    return welch_greater(a_mean - margin, a.sd, a.n, b_mean, b.sd, b.n)


def digits(*values: Value) -> int:
    return max(0, *(round(-math.log10(2 * value.half)) if value.half else 0 for value in values))


def best(claim: Claim, column: Column, values: Values) -> Said:
    """Ahead of each of the others; with deviations the weakest single comparison decides (an intersection of tests)."""
    first = claim.rows[0]
    said = [
        ahead(first, label, column, values[0], value)
        for label, value in zip(claim.rows[1:], values[1:], strict=True)
        if label != first
    ]
    tests = [each for each in said if isinstance(each, Comparison)]
    decisions = [each for each in said if not isinstance(each, Comparison)]
    more = f" (and of {len(said) - 1} more)" if len(said) > 1 else ""
    if decisions and worst(state for state, _ in decisions) != "holds":
        state = worst(state for state, _ in decisions)
        return state, next(numbers for each, numbers in decisions if each == state)
    if tests:
        weakest = max(tests, key=lambda test: test.p)
        return Comparison(weakest.p, min(test.p_against for test in tests), weakest.numbers + more)
    closest = min(decisions, key=lambda each: float(each[1].split(" by ")[1].split()[0]) if " by " in each[1] else 0)
    return "holds", closest[1] + more


def within(claim: Claim, column: Column, values: Values) -> Said:
    return inside(claim, values[0].mean, f"{claim.rows[0]} is {values[0].mean:g} as printed")


def inside(claim: Claim, value: float, numbers: str, form: str = "g") -> Said:
    low = -math.inf if claim.low is None else claim.low - TINY
    high = math.inf if claim.high is None else claim.high + TINY
    return "holds" if low <= value <= high else "fails", f"{numbers}, claimed {bounds(claim, form)}"


def change(claim: Claim, column: Column, values: Values) -> Said:
    a, b = values
    by = a.mean - b.mean
    return inside(claim, by, f"{claim.rows[0]} minus {claim.rows[1]} is {by:+.{digits(a, b)}f} as printed")


def ratio(claim: Claim, column: Column, values: Values) -> Said:
    a, b = values
    if b.mean == 0:
        return "inconclusive", f"{claim.rows[1]} is printed as 0"
    return inside(claim, a.mean / b.mean, f"{claim.rows[0]} over {claim.rows[1]} is {a.mean / b.mean:.3g} as printed")


def gap(claim: Claim, column: Column, values: Values) -> Said:
    """rows[0] covers the claimed share of the way from rows[1] to rows[2]."""
    x, start, end = values
    if start.mean == end.mean or not all(math.isfinite(value.mean) for value in values):
        return "inconclusive", f"there is no gap between {claim.rows[1]} and {claim.rows[2]} as printed"
    share = (start.mean - x.mean) / (start.mean - end.mean)
    return inside(claim, share, f"{claim.rows[0]} covers {share:.0%} of the way as printed", ".0%")


def equivalent(claim: Claim, column: Column, values: Values) -> Said:
    a, b, *ends = values
    margin = claim.margin * (abs(ends[0].mean - ends[1].mean) if ends else 1.0)
    by = a.mean - b.mean
    numbers = f"{claim.rows[0]} minus {claim.rows[1]} is {by:+.{digits(a, b)}f}, margin {margin:.2g}"
    if a.tested and b.tested and margin > 0:
        both = max(welch(a.mean, b.mean, a, b, -margin), welch(-a.mean, -b.mean, a, b, -margin))
        apart = min(welch(a.mean, b.mean, a, b, margin), welch(-a.mean, -b.mean, a, b, margin))
        return Comparison(both, apart, numbers)
    return "holds" if abs(by) <= margin + TINY else "fails", f"{numbers} as printed"


def trend(claim: Claim, column: Column, values: Values) -> Said:
    """Every step goes the claimed way or is a tie: holds; some step goes back: by the slope of all."""
    sign = 1.0 if claim.direction == "increasing" else -1.0
    means = [value.mean for value in values]
    steps = [sign * (b - a) for a, b in itertools.pairwise(means)]
    shown = ", ".join(f"{mean:g}" for mean in means)
    numbers = f"claimed {claim.direction}: {shown} as printed"
    if all(step >= 0 or abs(step) < TINY for step in steps):
        return "holds" if any(step > TINY for step in steps) else "inconclusive", numbers
    back = sum(step < -TINY for step in steps)
    finite = np.array([mean if math.isfinite(mean) else math.nan for mean in means])
    slope = sign * float(np.polyfit(np.arange(len(means)), finite, 1)[0]) if np.isfinite(finite).all() else math.nan
    state: State = "fails" if slope <= 0 or len(steps) < 3 else "inconclusive"
    return state, f"{numbers}; {back} of {len(steps)} steps go back"


def diverges(claim: Claim, column: Column, values: Values) -> Said:
    lost = math.isinf(values[0].mean)
    return "holds" if lost else "fails", f"{claim.rows[0]} is {values[0].mean:g} as printed"


def wins(claim: Claim, exhibit: Exhibit) -> Said:
    """Counted as printed, column by column; a tie is no win and no loss."""
    states: dict[str, State] = {}
    for key in claim.columns:
        one, column = as_order(claim, key), exhibit.column(key)
        values = [value_of(exhibit, label, key) for label in claim.rows]
        a, b = values[0], values[1]
        if a is None or b is None:
            return (
                "untested",
                f"the paper prints nothing under {column.label!r} for one of {', '.join(map(repr, claim.rows))}",
            )
        said = ahead(one.rows[0], one.rows[1], column, Value(a.mean, a.half, None, 1), Value(b.mean, b.half, None, 1))
        assert not isinstance(said, Comparison)
        states[column.label] = said[0]
    state, numbers = count_wins(claim, states)
    ties = sum(each == "inconclusive" for each in states.values())
    # ties cannot turn into wins: the digits are all there is
    state = "holds" if state == "holds" else "fails"
    return state, numbers + (f", {ties} ties" if ties else "") + " as printed"


def leaving_one_out(claim: Claim, exhibit: Exhibit) -> str:
    """For an order in a printed average: whether it stands without any one task."""
    if claim.relation not in ("order", "best") or not exhibit.column(claim.column).average_of:
        return ""
    column = exhibit.column(claim.column)
    tasks, weights = column.average_of, column.weights or [1.0] * len(column.average_of)
    table = [[value_of(exhibit, label, key) for key in tasks] for label in claim.rows]
    if any(value is None for line in table for value in line) or len(tasks) < 2:
        return "; tasks not all printed, so none can be left out"
    sign = -1.0 if column.better == "lower" else 1.0
    means = np.array([[value.mean for value in line if value] for line in table])

    def orders(chosen: Sequence[int]) -> list[bool]:
        averages = sign * np.average(means[:, chosen], axis=1, weights=np.array(weights)[chosen])
        return [bool(averages[0] > other + TINY) for other in averages[1:]]

    whole = orders(range(len(tasks)))
    without = {key: orders([place for place in range(len(tasks)) if place != left]) for left, key in enumerate(tasks)}
    turned = [exhibit.column(key).label for key, found in without.items() if all(found) != all(whole)]
    if not turned:
        return f"; the same leaving out any one of {len(tasks)} tasks"
    return f"; turns round without {', '.join(turned)}"


RELATIONS: dict[str, Callable[[Claim, Column, Values], Said]] = {
    "order": order,
    "within": within,
    "trend": trend,
    "gap": gap,
    "equivalent": equivalent,
    "diverges": diverges,
    "best": best,
    "change": change,
    "ratio": ratio,
}
