"""What a record is said to have been able to see is what simulated records see."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from analysis.power import MOST_SEEDS, least_effect, power, seeds_needed
from analysis.relations import RELATIONS, Sample
from analysis.statistics import CERTAIN, Estimate, mean_interval
from paper_tables.spec import Claim, Column

COLUMN = Column(key="loss", label="Loss", unit="nats", better="lower")
INF = math.inf
RECORDS = 1500  # three standard errors of a share of 80 % are 3 %


@pytest.mark.parametrize("seeds", [2, 3, 5, 20])
def test_power_is_that_of_the_noncentral_t(seeds: int) -> None:
    freedom = seeds - 1
    for distance in (0.5, 2.0, 4.0, 12.0):
        theirs = stats.nct.sf(stats.t.ppf(0.975, freedom), freedom, distance)
        assert power(distance, INF, CERTAIN, freedom) == pytest.approx(theirs, abs=4e-3)


def claim(relation: str, rows: str, **fields: object) -> Claim:
    given = {"id": "x", "text": "t", "where": "w", "relation": relation, "column": "loss", "rows": list(rows), **fields}
    return Claim.model_validate(given)


# a claim, how far a truth is from its bound -> the rows' means, and the state that a record finds which sees it
TRUTHS: dict[str, tuple[Claim, Callable[[float], dict[str, float]], str]] = {
    "order": (claim("order", "ab"), lambda by: {"a": 0, "b": by}, "holds"),
    "order refuted": (claim("order", "ab", margin=0.5), lambda by: {"a": 0, "b": 0.5 - by}, "fails"),
    "within": (claim("within", "a", low=2), lambda by: {"a": 2 + by}, "holds"),
    "change": (claim("change", "ab", high=1), lambda by: {"a": 1 + by, "b": 0}, "fails"),
    "ratio": (claim("ratio", "ab", low=1), lambda by: {"a": 1000 * (1 + by), "b": 1000}, "holds"),
    "trend": (claim("trend", "abc", direction="increasing"), lambda by: {"a": 0, "b": by, "c": 2 * by}, "holds"),
}


def record(means: dict[str, float], seeds: int, random: np.random.Generator, scale: float = 1.0) -> Sample:
    """Rows of unit spread, and a much larger one that they share at a seed."""
    shared = random.normal(0, 9, seeds) if len(means) > 1 and scale == 1 else 0
    return Sample({row: mean + scale * (shared + random.normal(0, 1, seeds)) for row, mean in means.items()})


@pytest.mark.parametrize(("name", "seeds"), [*((name, 3) for name in TRUTHS), ("order", 2), ("order", 5)])
def test_the_least_effect_is_seen_in_four_records_of_five(name: str, seeds: int) -> None:
    """One record says what another one of its kind would see; of many such pairs 80 % do see it."""
    given, truth, state = TRUTHS[name]
    decide, random = RELATIONS[given.relation][0], np.random.default_rng(seeds)
    seen = 0
    for _ in range(RECORDS):
        [test] = decide(given, COLUMN, record(truth(0), seeds, random)).tests
        least = least_effect(test.found, test.confidence)
        seen += decide(given, COLUMN, record(truth(least), seeds, random)).state == state
    assert seen / RECORDS == pytest.approx(0.8, abs=0.035)


@pytest.mark.parametrize("seeds", [3, 5])
def test_equal_rows_are_found_equal_within_the_least_margin_in_four_records_of_five(seeds: int) -> None:
    random, equal = np.random.default_rng(seeds), {"a": 0.0, "b": 0.0}
    seen = 0
    for _ in range(RECORDS):
        [test] = RELATIONS["equivalent"][0](
            claim("equivalent", "ab", margin=1), COLUMN, record(equal, seeds, random)
        ).tests
        margin = least_effect(test.found, test.confidence, both=True)
        again = record(equal, seeds, random)
        seen += RELATIONS["equivalent"][0](claim("equivalent", "ab", margin=margin), COLUMN, again).state == "holds"
    assert seen / RECORDS == pytest.approx(0.8, abs=0.035)


@pytest.mark.parametrize("effect", [0.5, 1.0, 3.0])
def test_the_stated_number_of_seeds_suffices_and_one_less_does_not(effect: float) -> None:
    """Where the spread is known."""
    known = Estimate(0.0, -1.0, 1.0, 4, error=0.5, freedom=CERTAIN)  # of seeds of unit spread
    needs = seeds_needed(known, effect, INF)
    assert needs is not None and needs > 2
    random = np.random.default_rng(0)

    def seen(seeds: int) -> float:
        x_RS = random.normal(effect, 1, (20_000, seeds))
        half = stats.t.ppf(0.975, seeds - 1) * x_RS.std(1, ddof=1) / math.sqrt(seeds)
        return float(np.mean(x_RS.mean(1) > half))

    assert seen(needs) > 0.79
    assert seen(needs - 1) < 0.81


def test_the_number_of_seeds_that_a_record_states_suffices_on_average() -> None:
    """Five seeds know the spread roughly: some records state too few, others too many."""
    random, seen = np.random.default_rng(1), 0
    for _ in range(400):
        needs = seeds_needed(mean_interval(random.normal(0, 1, 5)), 0.9, INF)
        assert needs is not None
        seen += mean_interval(random.normal(0.9, 1, needs)).low > 0
    assert 0.75 < seen / 400 < 0.95


def test_more_is_seen_by_more_seeds_and_less_spread() -> None:
    three, nine = (mean_interval([-1.0, 0.0, 1.0] * times) for times in (1, 3))
    assert least_effect(nine) < least_effect(three) / 3
    small, large = (seeds_needed(nine, by, INF) for by in (1.0, 0.5))
    assert small is not None and large is not None and small < large
    between = seeds_needed(nine, 0.5, 0.5)  # two bounds to keep clear of
    assert between is not None and between > large


def test_rows_that_differ_by_the_margin_at_every_seed_need_no_spread() -> None:
    found = mean_interval([0.5, 0.5])
    assert least_effect(found) == 0 and seeds_needed(found, 0.5, 0.5) == 2 and seeds_needed(found, 0.0, INF) is None


def test_no_number_of_seeds_where_the_truth_is_at_the_bound_or_items_hide_it() -> None:
    found = mean_interval([-1.0, 0.0, 1.0])
    assert seeds_needed(found, 0.0, INF) is None
    assert seeds_needed(found, 1e-3, INF) is None  # more than MOST_SEEDS
    of_items = Estimate(0.0, -1.0, 1.0, 3, error=1.0, freedom=100.0, of_items=0.9, items=100)
    assert seeds_needed(of_items, 2.5, INF) is None
    assert (seeds_needed(of_items, 2.9, INF) or MOST_SEEDS) < 10
