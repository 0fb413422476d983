"""What an inconclusive verdict could have seen, and how many seeds its claim needs, in words."""

from __future__ import annotations

import math
from dataclasses import replace

from analysis.power import MOST_SEEDS, POWER, least_effect, seeds_needed
from analysis.relations import OF_THE_WAY, Outlook, Tested
from analysis.statistics import CONFIDENCE

ONE_SEED = "one seed has no spread: what it could have seen is unknown"
NO_EFFECT = "no size of an effect decides this, and no number of seeds like these"


def outlook(tests: tuple[Tested, ...], papers: dict[tuple[str, ...], float], seeds: int) -> Outlook:
    """Of tests that must all come out, by the one that needs most seeds. papers: its rows -> the paper's value."""
    if seeds == 1:
        return Outlook(ONE_SEED, seeds)
    if not tests:
        return Outlook(NO_EFFECT, seeds)
    found = [(test, of_test(test, papers.get(test.rows), seeds)) for test in tests]
    test, last = max(found, key=lambda each: math.inf if each[1].needs is None else each[1].needs)
    return replace(last, words=f"against {test.rows[-1]}: {last.words}") if len(tests) > 1 else last


def of_test(test: Tested, paper: float | None, seeds: int) -> Outlook:
    """By the paper's effect; by the effect seen here where that one is not known, or would have been seen."""
    least = least_effect(test.found, test.confidence, both=test.equal)
    power = f"{100 * POWER:.0f} % power for {in_words(test, least)}"
    own = 0.0 if test.equal else paper
    before = ""
    if own is not None and test.low < own < test.high:
        called = "equality within the margin" if test.equal else f"the paper's {told(own, test.unit)}"
        needs = needed(test, own)
        if needs is None or needs > seeds:
            return Outlook(f"{power}; {called} needs {count(test, needs)}", seeds, needs)
        before = f"{called} would have been seen; "
    needs = needed(test, test.found.value)
    return Outlook(
        f"{power}; {before}{told(test.found.value, test.unit)}, as here, needs {count(test, needs)}", seeds, needs
    )


def in_words(test: Tested, least: float) -> str:
    if test.equal:
        return f"equality within {told(least, test.unit)}"
    bound = "" if (test.low, test.high) == (0.0, math.inf) else " from the bound"
    return f"{told(least, test.unit)}{bound}"


def told(value: float, unit: str) -> str:
    if unit == OF_THE_WAY:
        return f"{value:.0%} {unit}"
    return f"{value:,.0f}{unit}" if abs(value) >= 1000 else f"{value:.3g}{unit}"


def count(test: Tested, needs: int | None) -> str:
    if needs is not None:
        return f"about {needs} seeds"
    return f"more than {MOST_SEEDS:,} seeds" + (", or more items" if test.found.items else "")


def needed(test: Tested, truth: float) -> int | None:
    """Seeds in all by which the claim is borne out, or refuted, where the truth is so."""
    if test.low < truth < test.high:
        return seeds_needed(test.found, truth - test.low, test.high - truth, test.confidence)
    beyond = max(test.low - truth, truth - test.high)
    return seeds_needed(test.found, beyond, math.inf, CONFIDENCE)
