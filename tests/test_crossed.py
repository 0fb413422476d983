"""Differences over seeds and items: the interval by its definition, and its coverage beside what else one might do."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from analysis.answers import Paired
from analysis.crossed import crossed, item_variance, spread_in_blocks
from analysis.power import least_effect
from analysis.statistics import Estimate, mean_interval

Answers = NDArray[np.bool_]  # [R rows, S seeds, I items], right or not; the first two rows are compared
ROWS, ITEMS, RECORDS = 7, 400, 400


def answers(random: np.random.Generator, seeds: int, ahead: float, of_seed: list[float], of_item: float) -> Answers:
    """A threshold on a sum of normal parts, of which 1 is the item's and 1 is peculiar to one answer.

    ahead: of the first row before the second; the others are anywhere. of_seed: what each row makes of a seed; of_item:
    what a row makes of an item beyond what all rows make of it.
    """
    shift_R = np.array([ahead, 0.0, *random.normal(0, 0.3, len(of_seed) - 2)])
    own_seed_RS = random.normal(0, 1, (len(of_seed), seeds)) * np.array(of_seed)[:, None]
    own_item_RI = random.normal(0, of_item, (len(of_seed), ITEMS))
    answer_RSI = random.normal(0, 1, (len(of_seed), seeds, ITEMS)) + random.normal(0, 1, ITEMS)
    return answer_RSI + own_seed_RS[:, :, None] + own_item_RI[:, None] + shift_R[:, None, None] > 0.7


def difference(right_RSI: Answers) -> NDArray[np.float64]:
    return right_RSI[0].astype(float) - right_RSI[1]


def as_in_the_ledger(right_RSI: Answers, random: np.random.Generator) -> Estimate:
    return Paired({"a": [right_RSI[0]], "b": [right_RSI[1]]}, 1.0, right_RSI.mean(2)).contrast({"a": 1.0, "b": -1.0})


def over_seeds(right_RSI: Answers, random: np.random.Generator) -> Estimate:
    return mean_interval(difference(right_RSI).mean(1))


def resampled_items(right_RSI: Answers, random: np.random.Generator) -> Estimate:
    means_I = difference(right_RSI).mean(0)
    means_B = means_I[random.integers(ITEMS, size=(200, ITEMS))].mean(1)
    low, high = np.quantile(means_B, [0.025, 0.975])
    return Estimate(float(means_I.mean()), float(low), float(high), 0)


Way = Callable[[Answers, np.random.Generator], Estimate]
WORLDS = {
    "no luck of seeds": [0.0] * ROWS,
    "seeds as large as items": [0.075] * ROWS,
    "seeds twice as large as items": [0.15] * ROWS,
    "the compared rows' seeds are twice the others'": [0.2] * 2 + [0.1] * (ROWS - 2),
}


@cache
def apart(way: Way, world: str, seeds: int, ahead: float = 0.0) -> float:
    """How often the interval leaves out 0: where no row is ahead, 1 less its coverage; else its power."""
    random, found = np.random.default_rng(7), 0
    for _ in range(RECORDS):
        estimate = way(answers(random, seeds, ahead, WORLDS[world], 0.2), random)
        found += estimate.low > 0 or estimate.high < 0
    return found / RECORDS


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("world", WORLDS)
def test_what_is_not_there_is_seen_in_one_record_of_twenty(world: str, seeds: int) -> None:
    """Of 400 records 5 % are 20, give or take 13; one that does not know the rows' own spread sees more."""
    assert apart(as_in_the_ledger, world, seeds) < (0.12 if "compared" in world else 0.083)


def test_to_resample_items_takes_the_luck_of_a_seed_for_the_method() -> None:
    assert apart(resampled_items, "no luck of seeds", 3) < 0.1
    assert apart(resampled_items, "seeds as large as items", 3) > 0.15
    assert apart(resampled_items, "seeds twice as large as items", 3) > 0.3


def test_three_seeds_see_more_than_by_their_means_alone() -> None:
    for world in ("no luck of seeds", "seeds as large as items"):
        assert apart(as_in_the_ledger, world, 3, ahead=0.25) > apart(over_seeds, world, 3, ahead=0.25) + 0.15


@pytest.mark.parametrize("of_item", [0.0, 0.5])
def test_the_least_effect_is_seen_in_four_records_of_five(of_item: float) -> None:
    """One record says what another one would see; both are of 3 seeds and 7 rows, whose answers are normal here."""
    random, seen = np.random.default_rng(2), 0

    def record(ahead: float) -> Estimate:
        x_RSI = random.normal(0, 1, (ROWS, 3, 50)) + random.normal(0, of_item, (ROWS, 1, 50))
        x_RSI += random.normal(0, 0.2, (ROWS, 3, 1))
        return crossed([x_RSI[0] - x_RSI[1] + ahead], 2 * spread_in_blocks(x_RSI.mean(2)), ROWS - 1)

    for _ in range(200):
        seen += record(least_effect(record(0.0))).low > 0
    assert 0.7 < seen / 200 < 0.9


def test_the_variance_is_that_of_the_two_way_table() -> None:
    """Against the definition, by the sums of squares of a two-way table without replication (Clark 1973)."""
    random = np.random.default_rng(3)
    d_SI = random.normal(0, 1, (4, 7)) + random.normal(0, 2, (1, 7)) + random.normal(0, 1, (4, 1))
    seeds, items = d_SI.shape
    total = [[d_SI[s, i] for i in range(items)] for s in range(seeds)]
    mean = sum(map(sum, total)) / (seeds * items)
    of_seed = [sum(total[s]) / items for s in range(seeds)]
    of_item = [sum(total[s][i] for s in range(seeds)) / seeds for i in range(items)]
    ms_seed = items * sum((m - mean) ** 2 for m in of_seed) / (seeds - 1)
    ms_item = seeds * sum((m - mean) ** 2 for m in of_item) / (items - 1)
    ms_rest = sum((total[s][i] - of_seed[s] - of_item[i] + mean) ** 2 for s in range(seeds) for i in range(items)) / (
        (seeds - 1) * (items - 1)
    )
    found = crossed([d_SI])
    assert found.value == pytest.approx(mean)
    assert found.error**2 == pytest.approx((ms_seed + ms_item - ms_rest) / (seeds * items))
    assert found.of_items == pytest.approx((ms_item - ms_rest) / (seeds * items))
    assert found.freedom == pytest.approx((ms_seed + ms_item - ms_rest) ** 2 / (ms_seed**2 / (seeds - 1)))


def test_tasks_are_averaged_not_their_items() -> None:
    small, large = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 1.0]]), np.zeros((3, 98))
    found = crossed([small, large])
    assert found.value == pytest.approx(4 / 6 / 2) and (found.items, found.n) == (100, 3)
    assert found.of_items == pytest.approx(item_variance(small) / 4) and found.of_items > 0


def test_six_tasks_of_two_thousand_items_take_no_time() -> None:
    random = np.random.default_rng(0)
    tasks = [random.integers(-1, 2, (5, 2000)).astype(float) for _ in range(6)]
    start = time.perf_counter()
    crossed(tasks)
    assert time.perf_counter() - start < 0.5  # two hundredths of a second, alone on a core
