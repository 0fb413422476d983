"""Relations: how a claim is decided from its rows' values at common seeds; each returns (state, what decided it)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from analysis.statistics import Estimate, equivalence, mean_interval, paired_difference, t_greater, trend
from paper_tables.spec import Claim, Column

State = Literal["fails", "inconclusive", "waiting", "untested", "holds"]
STATES: tuple[State, ...] = ("fails", "inconclusive", "waiting", "untested", "holds")  # as printed: bad news first
LEVEL = 0.05
Values = dict[str, NDArray[np.float64]]  # row -> one value per seed


@dataclass(frozen=True)
class Verdict:
    state: State
    numbers: str  # what decided it


Decision = tuple[State, str]


def order(claim: Claim, column: Column, values: Values) -> Decision:
    """rows[0] is better than rows[1] by more than the margin."""
    first, second = claim.rows
    sign = -1.0 if column.better == "lower" else 1.0
    a, b = values[first], values[second]
    ahead = paired_difference(sign * a, sign * b)
    if decided := by_divergence(first, a, second, b):
        return decided
    state = beyond(ahead, claim.margin)
    p = t_greater(sign * (a - b), claim.margin) if ahead.n > 1 else math.nan
    margin = f", margin {claim.margin:g}" if claim.margin else ""
    return state, f"{first} ahead of {second} by {show(ahead, column, signed=True)}{margin}{p_text(p)}"


def beyond(estimate: Estimate, bound: float) -> State:
    if estimate.low > bound:
        return "holds"
    return "fails" if estimate.high <= bound else "inconclusive"


def by_divergence(first: str, a: NDArray[np.float64], second: str, b: NDArray[np.float64]) -> Decision | None:
    """A diverged run is worse than any finite one. Decided only where every seed says the same."""
    lost_a, lost_b = np.isinf(a), np.isinf(b)
    if not (lost_a.any() or lost_b.any()):
        return None
    numbers = f"diverged: {first} in {lost_a.sum()}, {second} in {lost_b.sum()} of {len(a)} seeds"
    if lost_b.all() and not lost_a.any():
        return "holds", f"{numbers}; a diverged run is worse than any finite one"
    if lost_a.all() and not lost_b.any():
        return "fails", f"{numbers}; a diverged run is worse than any finite one"
    return "inconclusive", numbers


def within(claim: Claim, column: Column, values: Values) -> Decision:
    """rows[0] lies in [low, high]."""
    x = values[claim.rows[0]]
    if np.isinf(x).any():
        lost = np.isinf(x).sum()
        return "fails" if lost == len(x) else "inconclusive", f"{claim.rows[0]} diverged in {lost} of {len(x)} seeds"
    mean = mean_interval(x)
    return inside(mean, claim), f"{claim.rows[0]} is {show(mean, column)}, claimed {bounds(claim)}"


def inside(estimate: Estimate, claim: Claim) -> State:
    low = -math.inf if claim.low is None else claim.low
    high = math.inf if claim.high is None else claim.high
    if low <= estimate.low and estimate.high <= high:
        return "holds"
    return "fails" if estimate.high < low or estimate.low > high else "inconclusive"


def bounds(claim: Claim, form: str = "g") -> str:
    if claim.high is None:
        return f"at least {claim.low:{form}}"
    if claim.low is None:
        return f"at most {claim.high:{form}}"
    return f"{claim.low:{form}} to {claim.high:{form}}"


def gap(claim: Claim, column: Column, values: Values) -> Decision:
    """rows[0] covers at least low and at most high (shares) of the way from rows[1] to rows[2], seed by seed."""
    row, start, end = claim.rows
    x, x_start, x_end = (values[label] for label in claim.rows)
    if np.isinf(x_start).any() or np.isinf(x_end).any():
        return "inconclusive", f"there is no gap to cover: {start} or {end} diverged"
    way = x_start - x_end
    toward_better = {"lower": way > 0, "higher": way < 0, "none": np.sign(way) == np.sign(way[0])}[column.better]
    if not np.all(toward_better & (way != 0)):
        return "inconclusive", f"there is no gap to cover: {start} minus {end} is {show(mean_interval(way), column)}"
    if np.isinf(x).any():
        lost = np.isinf(x).sum()
        state: State = "fails" if lost == len(x) and claim.low is not None else "inconclusive"
        return state, f"{row} diverged in {lost} of {len(x)} seeds"
    share = mean_interval((x_start - x) / way)
    interval = f" [{share.low:.0%}, {share.high:.0%}]" if share.n > 1 else ""
    covered = f"{row} covers {share.value:.0%}{interval} of the way from {start} to {end}"
    return inside(share, claim), f"{covered}, claimed {bounds(claim, '.0%')}"


def equivalent(claim: Claim, column: Column, values: Values) -> Decision:
    """rows[0] and rows[1] differ by less than the margin: two one-sided tests at 5 %."""
    first, second, *ends = claim.rows
    a, b = values[first], values[second]
    if np.isinf(a).any() or np.isinf(b).any():
        state = "inconclusive" if (decided := by_divergence(first, a, second, b)) is None else decided[0]
        numbers = f"diverged: {first} in {np.isinf(a).sum()}, {second} in {np.isinf(b).sum()} of {len(a)} seeds"
        return "fails" if state == "holds" else state, numbers
    margin, said = np.full(len(a), claim.margin), f"{claim.margin:g}"
    if ends:
        way = values[ends[0]] - values[ends[1]]
        if not np.isfinite(way).all() or not (np.all(way > 0) or np.all(way < 0)):
            return "inconclusive", f"the gap between {ends[0]} and {ends[1]}, which is the measure, is not there"
        margin = claim.margin * np.abs(way)
        said = f"{margin.mean():.{places(column)}f} ({claim.margin:.0%} of the gap between {ends[0]} and {ends[1]})"
    difference = paired_difference(a, b)
    numbers = f"{first} minus {second} is {show(difference, column)}, margin {said}"
    if difference.n == 1:
        return "inconclusive", numbers
    p = equivalence(a, b, margin)
    apart = mean_interval(a - b - margin).low > 0 or mean_interval(a - b + margin).high < 0
    state = "holds" if p < LEVEL else "fails" if apart else "inconclusive"
    return state, f"{numbers}{p_text(p)}"


def along(claim: Claim, column: Column, values: Values) -> Decision:
    """The column goes in the claimed direction along the rows; by ranks where a run diverged."""
    sign = 1.0 if claim.direction == "increasing" else -1.0
    table = np.stack([values[label] for label in claim.rows], axis=1)
    found = trend(table)
    by_rank = bool(np.isnan(found.slopes).any())
    towards = sign * (found.spearman if by_rank else found.slopes)
    p = t_greater(towards) if len(towards) > 1 else math.nan
    slope = mean_interval(found.slopes) if not by_rank else None
    steep = f"slope per row {show(slope, column, signed=True)}" if slope else "a run diverged and takes the worst rank"
    rank = f"rank correlation {found.spearman.mean():+.2f}"
    return beyond(mean_interval(towards), 0.0), f"claimed {claim.direction}: {steep}, {rank}{p_text(p)}"


def diverges(claim: Claim, column: Column, values: Values) -> Decision:
    """rows[0] does not train: its runs diverge."""
    lost = int(np.isinf(values[claim.rows[0]]).sum())
    n = len(values[claim.rows[0]])
    state: State = "holds" if lost == n else "fails" if lost == 0 else "inconclusive"
    return state, f"{claim.rows[0]} diverged in {lost} of {n}"


def best(claim: Claim, column: Column, values: Values) -> Decision:
    """rows[0] is better than each of the others: it holds where every single order does, so no correction is due."""
    first, *others = claim.rows
    found = {
        other: order(claim.model_copy(update={"rows": [first, other]}), column, values)
        for other in dict.fromkeys(others)
    }
    state = worst(state for state, _ in found.values())
    deciding = [numbers for each, numbers in found.values() if each == state]
    more = f" (and {len(deciding) - 1} more)" if len(deciding) > 1 else ""
    return state, deciding[0] + (more if state != "holds" else f" (and ahead of {len(found) - 1} more)")


def worst(states: Iterable[State]) -> State:
    found = set(states)
    return next(state for state in STATES if state in found)


def change(claim: Claim, column: Column, values: Values) -> Decision:
    """rows[0] minus rows[1] lies in [low, high]."""
    first, second = claim.rows
    return bounded(claim, column, "minus", paired_difference(values[first], values[second]))


def ratio(claim: Claim, column: Column, values: Values) -> Decision:
    """rows[0] over rows[1] lies in [low, high], seed by seed."""
    above, below = (values[label] for label in claim.rows)
    if np.isinf(above).any() or np.isinf(below).any() or (below == 0).any():
        return "inconclusive", f"{claim.rows[0]} over {claim.rows[1]} is not defined at every seed"
    plain = column.model_copy(update={"unit": "", "decimals": 2})  # a ratio has no unit
    return bounded(claim, plain, "over", mean_interval(above / below))


def bounded(claim: Claim, column: Column, word: str, found: Estimate) -> Decision:
    first, second = claim.rows
    if not math.isfinite(found.value):
        return "inconclusive", f"{first} or {second} diverged"
    return inside(found, claim), f"{first} {word} {second} is {show(found, column)}, claimed {bounds(claim)}"


def places(column: Column) -> int:
    return column.decimals + 1


def show(estimate: Estimate, column: Column, signed: bool = False) -> str:
    unit = {"": "", "%": " points"}.get(column.unit, f" {column.unit}")
    sign = "+" if signed else ""
    text = f"{estimate.value:{sign}.{places(column)}f}"
    if estimate.n == 1:
        return text + unit
    return f"{text}{unit} [{estimate.low:{sign}.{places(column)}f}, {estimate.high:{sign}.{places(column)}f}]"


def p_text(p: float) -> str:
    if math.isnan(p):
        return ""
    return ", p < 0.0001" if p < 0.0001 else f", p = {p:.2g}"


# relation -> how it is decided, and the numbers of rows it takes (none: any)
RELATIONS: dict[str, tuple[Callable[[Claim, Column, Values], Decision], tuple[int, ...]]] = {
    "order": (order, (2,)),
    "within": (within, (1,)),
    "trend": (along, ()),
    "gap": (gap, (3,)),
    "equivalent": (equivalent, (2, 4)),
    "diverges": (diverges, (1,)),
    "best": (best, ()),
    "change": (change, (2,)),
    "ratio": (ratio, (2,)),
}
