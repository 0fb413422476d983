"""Relations: how a claim is decided from its rows' values at common seeds, and what decided it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from analysis.answers import Paired
from analysis.statistics import CONFIDENCE, Estimate, equivalence, mean_interval, trend
from paper_tables.spec import Claim, Column

State = Literal["fails", "inconclusive", "waiting", "untested", "holds"]
STATES: tuple[State, ...] = ("fails", "inconclusive", "waiting", "untested", "holds")  # as printed: bad news first
LEVEL = 0.05
Values = dict[str, NDArray[np.float64]]  # row -> one value per seed
OF_THE_WAY = "of the way"  # the unit of a share


@dataclass(frozen=True)
class Outlook:
    """What an inconclusive verdict could have seen."""

    words: str
    seeds: int  # at hand
    needs: int | None = None  # in all, to decide the claim; None: unknown, or more than anyone runs


@dataclass(frozen=True)
class Verdict:
    state: State
    numbers: str  # what decided it; of an inconclusive one also its outlook
    outlook: Outlook | None = None


@dataclass(frozen=True)
class Sample:
    """The rows' values at their common seeds, and which items they answered where the column is of tasks."""

    values: Values
    paired: Paired | None = None

    def contrast(self, *weights: tuple[str, float]) -> Estimate:
        """The sum over rows of weight times value: over seeds and items where items are known, else over seeds."""
        total: dict[str, float] = {}
        for label, weight in weights:
            total[label] = total.get(label, 0.0) + weight
        if self.paired:
            return self.paired.contrast(total)
        return mean_interval(np.sum([weight * self.values[label] for label, weight in total.items()], axis=0))


@dataclass(frozen=True)
class Tested:
    """An interval and the region that it must lie in for a claim to hold, outside of which it fails."""

    rows: tuple[str, ...]
    found: Estimate
    low: float
    high: float
    unit: str
    equal: bool = False  # by two one-sided tests: supposed is that there is no difference

    @property
    def confidence(self) -> float:
        """Of the interval; two one-sided tests at 5 % are an interval of 90 %."""
        return 1 - 2 * LEVEL if self.equal else CONFIDENCE


class Decision(NamedTuple):
    state: State
    numbers: str
    tests: tuple[Tested, ...] = ()  # that must come out for the claim to be decided; none where no effect size decides


def order(claim: Claim, column: Column, sample: Sample) -> Decision:
    """rows[0] is better than rows[1] by more than the margin."""
    first, second = claim.rows
    if decided := by_divergence(first, sample.values[first], second, sample.values[second]):
        return decided
    sign = -1.0 if column.better == "lower" else 1.0
    ahead = sample.contrast((first, sign), (second, -sign))
    margin = f", margin {claim.margin:g}" if claim.margin else ""
    numbers = f"{first} ahead of {second} by {show(ahead, column, signed=True)}{margin}"
    test = Tested((first, second), ahead, claim.margin, math.inf, unit_of(column))
    return Decision(beyond(ahead, claim.margin), numbers + p_text(ahead.p_greater(claim.margin)), (test,))


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
        return Decision("holds", f"{numbers}; a diverged run is worse than any finite one")
    if lost_a.all() and not lost_b.any():
        return Decision("fails", f"{numbers}; a diverged run is worse than any finite one")
    return Decision("inconclusive", numbers)


def within(claim: Claim, column: Column, sample: Sample) -> Decision:
    """rows[0] lies in [low, high]."""
    row = claim.rows[0]
    x = sample.values[row]
    if np.isinf(x).any():
        lost = np.isinf(x).sum()
        return Decision("fails" if lost == len(x) else "inconclusive", f"{row} diverged in {lost} of {len(x)} seeds")
    mean = sample.contrast((row, 1.0))
    numbers = f"{row} is {show(mean, column)}, claimed {bounds(claim)}"
    return Decision(inside(mean, claim), numbers, (in_bounds(claim, mean, unit_of(column)),))


def inside(estimate: Estimate, claim: Claim) -> State:
    low, high = limits(claim)
    if low <= estimate.low and estimate.high <= high:
        return "holds"
    return "fails" if estimate.high < low or estimate.low > high else "inconclusive"


def in_bounds(claim: Claim, found: Estimate, unit: str) -> Tested:
    return Tested(tuple(claim.rows), found, *limits(claim), unit)


def limits(claim: Claim) -> tuple[float, float]:
    return -math.inf if claim.low is None else claim.low, math.inf if claim.high is None else claim.high


def bounds(claim: Claim, form: str = "g") -> str:
    if claim.high is None:
        return f"at least {claim.low:{form}}"
    if claim.low is None:
        return f"at most {claim.high:{form}}"
    return f"{claim.low:{form}} to {claim.high:{form}}"


def gap(claim: Claim, column: Column, sample: Sample) -> Decision:
    """rows[0] covers at least low and at most high (shares) of the way from rows[1] to rows[2], seed by seed."""
    row, start, end = claim.rows
    x, x_start, x_end = (sample.values[label] for label in claim.rows)
    if np.isinf(x_start).any() or np.isinf(x_end).any():
        return Decision("inconclusive", f"there is no gap to cover: {start} or {end} diverged")
    way = x_start - x_end
    toward_better = {"lower": way > 0, "higher": way < 0, "none": np.sign(way) == np.sign(way[0])}[column.better]
    if not np.all(toward_better & (way != 0)):
        found = show(mean_interval(way), column)
        return Decision("inconclusive", f"there is no gap to cover: {start} minus {end} is {found}")
    if np.isinf(x).any():
        lost = np.isinf(x).sum()
        state: State = "fails" if lost == len(x) and claim.low is not None else "inconclusive"
        return Decision(state, f"{row} diverged in {lost} of {len(x)} seeds")
    share = mean_interval((x_start - x) / way)
    interval = f" [{share.low:.0%}, {share.high:.0%}]" if share.n > 1 else ""
    covered = f"{row} covers {share.value:.0%}{interval} of the way from {start} to {end}"
    numbers = f"{covered}, claimed {bounds(claim, '.0%')}"
    return Decision(inside(share, claim), numbers, (in_bounds(claim, share, OF_THE_WAY),))


def equivalent(claim: Claim, column: Column, sample: Sample) -> Decision:
    """rows[0] and rows[1] differ by less than the margin: two one-sided tests at 5 %."""
    first, second, *ends = claim.rows
    a, b = sample.values[first], sample.values[second]
    if decided := by_divergence(first, a, second, b):
        apart_by_it: State = "inconclusive" if decided.state == "inconclusive" else "fails"
        return Decision(apart_by_it, decided.numbers.partition(";")[0])
    margin, said, bound = claim.margin, f"{claim.margin:g}", -claim.margin
    way: list[tuple[str, float]] = []
    if ends:
        gaps = sample.values[ends[0]] - sample.values[ends[1]]
        if not np.isfinite(gaps).all() or not (np.all(gaps > 0) or np.all(gaps < 0)):
            why = f"the gap between {ends[0]} and {ends[1]}, which is the measure, is not there"
            return Decision("inconclusive", why)
        share = math.copysign(claim.margin, gaps[0])
        margin, bound, way = claim.margin * abs(float(gaps.mean())), 0.0, [(ends[0], share), (ends[1], -share)]
        said = f"{margin:.{places(column)}f} ({claim.margin:.0%} of the gap between {ends[0]} and {ends[1]})"
    difference = sample.contrast((first, 1.0), (second, -1.0))
    above, below = (sample.contrast((first, sign), (second, -sign), *way) for sign in (1.0, -1.0))
    numbers = f"{first} minus {second} is {show(difference, column)}, margin {said}"
    p = equivalence(below, above, bound)
    state: State = "holds" if p < LEVEL else "fails" if min(below.high, above.high) < bound else "inconclusive"
    wider = max(below, above, key=lambda estimate: estimate.error)
    found = replace(wider, value=difference.value, low=difference.low, high=difference.high)
    test = Tested((first, second), found, -margin, margin, unit_of(column), equal=True)
    return Decision(state, numbers + p_text(p), (test,))


def along(claim: Claim, column: Column, sample: Sample) -> Decision:
    """The column goes in the claimed direction along the rows; by ranks where a run diverged."""
    sign = 1.0 if claim.direction == "increasing" else -1.0
    found = trend(np.stack([sample.values[label] for label in claim.rows], axis=1))
    rank = f"rank correlation {found.spearman.mean():+.2f}"
    if np.isnan(found.slopes).any():
        steep, unit = "a run diverged and takes the worst rank", " of rank correlation"
        towards = mean_interval(sign * found.spearman)
    else:
        place = np.arange(len(claim.rows)) - (len(claim.rows) - 1) / 2
        slopes = [(label, float(at / (place @ place))) for label, at in zip(claim.rows, place, strict=True)]
        steep, unit = f"slope per row {show(sample.contrast(*slopes), column, signed=True)}", f"{unit_of(column)} a row"
        towards = sample.contrast(*[(label, sign * weight) for label, weight in slopes])
    test = Tested(tuple(claim.rows), towards, 0.0, math.inf, unit)
    numbers = f"claimed {claim.direction}: {steep}, {rank}{p_text(towards.p_greater())}"
    return Decision(beyond(towards, 0.0), numbers, (test,))


def diverges(claim: Claim, column: Column, sample: Sample) -> Decision:
    """rows[0] does not train: its runs diverge."""
    x = sample.values[claim.rows[0]]
    lost, n = int(np.isinf(x).sum()), len(x)
    state: State = "holds" if lost == n else "fails" if lost == 0 else "inconclusive"
    return Decision(state, f"{claim.rows[0]} diverged in {lost} of {n}")


def best(claim: Claim, column: Column, sample: Sample) -> Decision:
    """rows[0] is better than each of the others: it holds where every single order does, so no correction is due."""
    first, *others = claim.rows
    found = {
        other: order(claim.model_copy(update={"rows": [first, other]}), column, sample)
        for other in dict.fromkeys(others)
    }
    state = worst(each.state for each in found.values())
    deciding = [each for each in found.values() if each.state == state]
    more = f" (and {len(deciding) - 1} more)" if len(deciding) > 1 else ""
    numbers = deciding[0].numbers + (more if state != "holds" else f" (and ahead of {len(found) - 1} more)")
    # where one of them has no test, nothing that is tested decides the claim
    tests = tuple(test for each in deciding for test in each.tests)
    return Decision(state, numbers, tests if all(each.tests for each in deciding) else ())


def worst(states: Iterable[State]) -> State:
    found = set(states)
    return next(state for state in STATES if state in found)


def change(claim: Claim, column: Column, sample: Sample) -> Decision:
    """rows[0] minus rows[1] lies in [low, high]."""
    first, second = claim.rows
    if any(np.isinf(sample.values[label]).any() for label in claim.rows):
        return Decision("inconclusive", f"{first} or {second} diverged")
    return bounded(claim, column, "minus", sample.contrast((first, 1.0), (second, -1.0)))


def ratio(claim: Claim, column: Column, sample: Sample) -> Decision:
    """rows[0] over rows[1] lies in [low, high], seed by seed."""
    above, below = (sample.values[label] for label in claim.rows)
    if np.isinf(above).any() or np.isinf(below).any() or (below == 0).any():
        return Decision("inconclusive", f"{claim.rows[0]} over {claim.rows[1]} is not defined at every seed")
    plain = column.model_copy(update={"unit": "", "decimals": 2})  # a ratio has no unit
    return bounded(claim, plain, "over", mean_interval(above / below))


def bounded(claim: Claim, column: Column, word: str, found: Estimate) -> Decision:
    first, second = claim.rows
    numbers = f"{first} {word} {second} is {show(found, column)}, claimed {bounds(claim)}"
    return Decision(inside(found, claim), numbers, (in_bounds(claim, found, unit_of(column)),))


def places(column: Column) -> int:
    return column.decimals + 1


def unit_of(column: Column) -> str:
    """The unit of a difference, with the space before it."""
    return {"": "", "%": " points"}.get(column.unit, f" {column.unit}")


def show(estimate: Estimate, column: Column, signed: bool = False) -> str:
    sign = "+" if signed else ""
    text = f"{estimate.value:{sign}.{places(column)}f}{unit_of(column)}"
    if estimate.n == 1:
        return text
    return f"{text} [{estimate.low:{sign}.{places(column)}f}, {estimate.high:{sign}.{places(column)}f}]"


def p_text(p: float) -> str:
    if math.isnan(p):
        return ""
    return ", p < 0.0001" if p < 0.0001 else f", p = {p:.2g}"


Relation = Callable[[Claim, Column, Sample], Decision]
# relation -> how it is decided, and the numbers of rows it takes (none: any)
RELATIONS: dict[str, tuple[Relation, tuple[int, ...]]] = {
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
