"""Columns computed from others, by name: from the row's value and those of the rows it refers to, at one seed."""

from __future__ import annotations

import math
from collections.abc import Callable


def gap_closed(value: float, *, start: float, end: float) -> float | None:
    """How much of the way from start to end the value has gone, in percent; -inf for a diverged run.

    None where there is no way to go: start equals end, or one of them diverged. Past the end it exceeds 100.
    """
    if start == end or not math.isfinite(start) or not math.isfinite(end):
        return None
    if not math.isfinite(value):
        return -math.inf
    return 100 * (start - value) / (start - end)


def times(value: float, *, base: float) -> float | None:
    """How many times the base; None where that is zero."""
    return value / base if base else None


def percent_saved(value: float, *, base: float) -> float | None:
    """How much less than the base, in percent of it; None where that is zero."""
    return 100 * (1 - value / base) if base else None


def minus(value: float, *, base: float) -> float | None:
    """How much more than the base; None where both diverged."""
    return None if math.isinf(value) and math.isinf(base) else value - base


def percent_log10(value: float, *, base: float) -> float | None:
    """100 times the difference of two decimal logarithms; -inf for a diverged run, None against one.

    Of means over tasks: the mean of 100 log10(accuracy / accuracy of the base), which is what TAD prints as Rel.
    """
    if not math.isfinite(base):
        return None
    return 100 * (value - base) if math.isfinite(value) else -math.inf


FUNCTIONS: dict[str, Callable[..., float | None]] = {
    "gap_closed": gap_closed,
    "times": times,
    "percent_saved": percent_saved,
    "minus": minus,
    "percent_log10": percent_log10,
}
