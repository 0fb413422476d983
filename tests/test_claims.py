"""Verdicts on planted numbers: every relation in every state."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest
from planted import exhibit

from analysis.claims import judge
from analysis.load import FRAME_COLUMNS
from analysis.relations import RELATIONS
from paper_tables.printed import Printed
from paper_tables.spec import Claim, Column, Exhibit, Row, load, names

ROWS = ["a", "b", "c", "d"]
INF = math.inf


def world(better: str = "lower", **fields: Any):
    column = Column(key="loss", label="Loss", unit="nats", better=better)
    return exhibit(columns=[column], rows=[Row(label=label, recipe={}) for label in ROWS], **fields)


def frame(values: dict[str, list[float | None]]) -> pd.DataFrame:
    lines = [
        (row, "loss", seed, value, "logged", "id", "c")
        for row, seeds in values.items()
        for seed, value in enumerate(seeds)
        if value is not None
    ]
    return pd.DataFrame(lines, columns=FRAME_COLUMNS)


def claim(relation: str, rows: str, **fields: Any) -> Claim:
    return Claim(id="x", text="t", where="w", relation=relation, column="loss", rows=list(rows), **fields)


LOW, MID, HIGH = [1.0, 1.1, 0.9], [2.0, 2.12, 1.9], [3.0, 3.1, 2.92]
CASES = [
    ("order holds", claim("order", "ab"), {"a": LOW, "b": HIGH}, "holds"),
    ("order fails", claim("order", "ab"), {"a": HIGH, "b": LOW}, "fails"),
    ("order unclear", claim("order", "ab"), {"a": [1, 2, 3], "b": [3, 2, 1.5]}, "inconclusive"),
    ("margin reached", claim("order", "ab", margin=0.5), {"a": LOW, "b": MID}, "holds"),
    ("margin missed", claim("order", "ab", margin=1.5), {"a": LOW, "b": MID}, "fails"),
    ("equal is not better", claim("order", "ab"), {"a": LOW, "b": LOW}, "fails"),
    ("diverged is worse", claim("order", "ab"), {"a": LOW, "b": [INF] * 3}, "holds"),
    ("diverged is not better", claim("order", "ab"), {"a": [INF] * 3, "b": LOW}, "fails"),
    ("some diverged", claim("order", "ab"), {"a": LOW, "b": [INF, 3, 3]}, "inconclusive"),
    ("both diverged", claim("order", "ab"), {"a": [INF] * 3, "b": [INF] * 3}, "inconclusive"),
    ("one seed", claim("order", "ab"), {"a": [1], "b": [3]}, "inconclusive"),
    ("one diverged seed", claim("order", "ab"), {"a": [1], "b": [INF]}, "inconclusive"),
    ("row missing", claim("order", "ab"), {"a": LOW}, "untested"),
    ("no common seed", claim("order", "ab"), {"a": [1, None], "b": [None, 2]}, "untested"),
    ("inside", claim("within", "a", low=0, high=2), {"a": LOW}, "holds"),
    ("inside one bound", claim("within", "a", high=2), {"a": LOW}, "holds"),
    ("outside", claim("within", "a", low=2, high=3), {"a": LOW}, "fails"),
    ("across the bound", claim("within", "a", low=1, high=3), {"a": LOW}, "inconclusive"),
    ("diverged is not within", claim("within", "a", high=9), {"a": [INF] * 3}, "fails"),
    ("rises", claim("trend", "abc", direction="increasing"), {"a": LOW, "b": MID, "c": HIGH}, "holds"),
    ("rises, said to fall", claim("trend", "abc", direction="decreasing"), {"a": LOW, "b": MID, "c": HIGH}, "fails"),
    ("no trend", claim("trend", "ab", direction="increasing"), {"a": [1, 2, 3], "b": [3, 2, 1.5]}, "inconclusive"),
    ("rises to infinity", claim("trend", "abc", direction="increasing"), {"a": LOW, "b": MID, "c": [INF] * 3}, "holds"),
    ("gap covered", claim("gap", "bac", low=0.3), {"b": MID, "a": HIGH, "c": LOW}, "holds"),
    ("gap covered too far", claim("gap", "bac", high=0.3), {"b": MID, "a": HIGH, "c": LOW}, "fails"),
    ("gap unclear", claim("gap", "bac", low=0.5), {"b": MID, "a": HIGH, "c": LOW}, "inconclusive"),
    ("no gap", claim("gap", "bac", low=0.1), {"b": MID, "a": LOW, "c": HIGH}, "inconclusive"),
    ("gap and divergence", claim("gap", "bac", low=0.1), {"b": [INF] * 3, "a": HIGH, "c": LOW}, "fails"),
    ("equivalent", claim("equivalent", "ab", margin=0.5), {"a": LOW, "b": [1.02, 1.1, 0.93]}, "holds"),
    ("not equivalent", claim("equivalent", "ab", margin=0.5), {"a": LOW, "b": MID}, "fails"),
    ("equivalence unclear", claim("equivalent", "ab", margin=0.5), {"a": LOW, "b": [1.5, 1.1, 0.8]}, "inconclusive"),
    (
        "equivalent by the gap",
        claim("equivalent", "abcd", margin=0.15),
        {"a": LOW, "b": [1.02, 1.1, 0.93], "c": HIGH, "d": LOW},
        "holds",
    ),
    (
        "not equivalent by a small gap",
        claim("equivalent", "abcd", margin=0.15),
        {"a": LOW, "b": MID, "c": [1.6, 1.72, 1.5], "d": LOW},
        "fails",
    ),
    ("divergence apart", claim("equivalent", "ab", margin=0.5), {"a": LOW, "b": [INF] * 3}, "fails"),
    ("diverges", claim("diverges", "a"), {"a": [INF] * 3}, "holds"),
    ("converges", claim("diverges", "a"), {"a": LOW}, "fails"),
    ("diverges at times", claim("diverges", "a"), {"a": [INF, 1, 1]}, "inconclusive"),
    ("best", claim("best", "abc"), {"a": LOW, "b": MID, "c": HIGH}, "holds"),
    ("not the best", claim("best", "bac"), {"a": LOW, "b": MID, "c": HIGH}, "fails"),
    ("best of some", claim("best", "abc"), {"a": LOW, "b": [1.3, 1.0, 1.0], "c": HIGH}, "inconclusive"),
    ("change within", claim("change", "ba", low=0.5, high=1.5), {"a": LOW, "b": MID}, "holds"),
    ("change outside", claim("change", "ba", high=0.5), {"a": LOW, "b": MID}, "fails"),
    ("change unclear", claim("change", "ba", low=1.0), {"a": LOW, "b": MID}, "inconclusive"),
    ("ratio within", claim("ratio", "ba", low=1.5, high=2.5), {"a": LOW, "b": MID}, "holds"),
    ("ratio outside", claim("ratio", "ab", low=1.5), {"a": LOW, "b": MID}, "fails"),
    ("ratio of diverged", claim("ratio", "ab", low=1.5), {"a": LOW, "b": [INF] * 3}, "inconclusive"),
    ("change of diverged", claim("change", "ab", low=1.5), {"a": LOW, "b": [INF] * 3}, "inconclusive"),
]


@pytest.mark.parametrize(("given", "values", "state"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_verdict(given: Claim, values: dict[str, list[float | None]], state: str) -> None:
    assert judge(given, world(), frame(values)).state == state


TASKS = [Column(key=key, label=key.upper(), better="higher") for key in ("x", "y", "z")]


@pytest.mark.parametrize(
    ("low", "behind", "state"),
    [(None, "", "holds"), (None, "z", "fails"), (2, "z", "holds"), (2, "yz", "fails"), (3, "tie", "inconclusive")],
)
def test_wins_are_counted_over_columns(low: float | None, behind: str, state: str) -> None:
    """`behind`: the columns where a is worse than b; 'tie' leaves z open."""
    given = Claim(id="x", text="t", where="w", relation="wins", columns=["x", "y", "z"], rows=["a", "b"], low=low)
    lines = []
    for key in ("x", "y", "z"):
        open_ended = behind == "tie" and key == "z"
        a, b = (LOW, HIGH) if key in behind and not open_ended else (HIGH, LOW)
        a, b = ([1.0, 2.0, 3.0], [3.0, 2.0, 1.5]) if open_ended else (a, b)
        for label, values in (("a", a), ("b", b)):
            lines += [(label, key, seed, value, "logged", "id", "c") for seed, value in enumerate(values)]
    rows = [Row(label=label, recipe={}) for label in "ab"]
    verdict = judge(given, exhibit(columns=TASKS, rows=rows), pd.DataFrame(lines, columns=FRAME_COLUMNS))
    assert verdict.state == state, verdict


def test_every_relation_has_all_its_states_planted() -> None:
    for relation in RELATIONS:
        assert {case[3] for case in CASES if case[1].relation == relation} >= {"holds", "fails", "inconclusive"}


def test_better_decides_the_side() -> None:
    values = frame({"a": LOW, "b": HIGH})
    assert judge(claim("order", "ba"), world("higher"), values).state == "holds"
    assert judge(claim("order", "ab"), world("higher"), values).state == "fails"
    way = frame({"b": MID, "a": LOW, "c": HIGH})
    assert judge(claim("gap", "bac", low=0.3), world("higher"), way).state == "holds"


def test_diverged_is_worse_where_higher_is_better() -> None:
    assert judge(claim("order", "ab"), world("higher"), frame({"a": LOW, "b": [-INF] * 3})).state == "holds"


def test_numbers_say_what_decided() -> None:
    verdict = judge(claim("order", "ab"), world(), frame({"a": LOW, "b": HIGH}))
    # differences 2.00, 2.00, 2.02: mean 2.0067, sd 0.01155, t(2, 0.975) = 4.3027
    assert (
        "+2.007 nats [+1.978, +2.035]" in verdict.numbers
        and "3 seeds" in verdict.numbers
        and "p < 0.0001" in verdict.numbers
    )


@pytest.mark.parametrize(("a", "b", "word"), [(1.0, 3.0, "direction agrees"), (3.0, 1.0, "direction disagrees")])
def test_one_seed_states_its_direction(a: float, b: float, word: str) -> None:
    assert word in judge(claim("order", "ab"), world(), frame({"a": [a], "b": [b]})).numbers


def test_only_common_seeds_count() -> None:
    values = frame({"a": [1.0, 1.1, 99.0], "b": [3.0, 3.1, None]})
    verdict = judge(claim("order", "ab"), world(), values)
    assert verdict.state == "holds" and "2 seeds" in verdict.numbers


@pytest.mark.parametrize(
    ("rows", "waiting", "state", "numbers"),
    [
        ("ab", {"b": "another numerics"}, "waiting", "runs of 'b' exist, of another numerics"),
        ("cb", {"b": "another teacher", "c": "another numerics"}, "waiting", "of another numerics or another teacher"),
        ("cb", {"b": "another teacher"}, "untested", "nothing under 'Loss' for 'c', 'b'"),
        ("ad", {"b": "another numerics"}, "holds", "3 seeds"),
    ],
)
def test_a_claim_waits_where_runs_of_all_its_empty_rows_exist(
    rows: str, waiting: dict[str, str], state: str, numbers: str
) -> None:
    table = frame({"a": LOW, "d": HIGH})
    table.attrs["waiting"] = {(row, "loss"): of_what for row, of_what in waiting.items()}
    found = judge(claim("order", rows), world(), table)
    assert found.state == state and numbers in found.numbers


def test_wins_waits_only_where_no_column_is_untested() -> None:
    columns = [Column(key=key, label=key, better="lower") for key in ("loss", "other")]
    given = exhibit(columns=columns, rows=[Row(label=label, recipe={}) for label in ROWS])
    wins = claim("wins", "ab").model_copy(update={"columns": ["loss", "other"], "column": ""})
    table = frame({"a": LOW})
    table.attrs["waiting"] = {("b", "loss"): "another numerics"}
    assert judge(wins, given, table).state == "untested"
    table.attrs["waiting"] |= dict.fromkeys([("a", "other"), ("b", "other")], "another numerics")
    assert judge(wins, given, table).state == "waiting"


def test_what_is_missing_is_named() -> None:
    assert "'b'" in judge(claim("order", "ab"), world(), frame({"a": LOW})).numbers
    unrun = world(status="published", why="needs CIFAR-100")
    assert "needs CIFAR-100" in judge(claim("order", "ab"), unrun, frame({})).numbers


@pytest.mark.parametrize(
    ("given", "better", "said"),
    [
        (claim("smaller", "ab"), "lower", "order, within, trend, gap, equivalent, diverges, best, change, ratio, wins"),
        (claim("order", "abc"), "lower", "takes 2 rows, got 3"),
        (claim("order", "ab"), "none", "what is better"),
        (claim("trend", "ab"), "lower", "direction"),
        (claim("within", "a"), "lower", "low, high"),
        (claim("equivalent", "ab"), "lower", "margin above 0"),
        (claim("best", "a"), "lower", "two rows or more"),
        (claim("ratio", "ab"), "lower", "low, high"),
        (claim("order", "ab", columns=["loss"]), "lower", "`columns` belongs to `wins`"),
    ],
)
def test_an_incomplete_claim_is_refused(given: Claim, better: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        judge(given, world(better), frame({"a": LOW, "b": LOW, "c": LOW}))


@pytest.mark.parametrize("name", names())
def test_every_claim_on_file_is_untested_without_records(name: str) -> None:
    exhibit_on_file = load(name)
    for entry in exhibit_on_file.claims:
        assert judge(entry, exhibit_on_file, frame({})).state == "untested"


# what an inconclusive verdict could have seen


@pytest.mark.parametrize(("given", "values", "state"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_every_inconclusive_verdict_says_what_it_could_have_seen(
    given: Claim, values: dict[str, list[float | None]], state: str
) -> None:
    found = judge(given, world(), frame(values))
    assert (found.outlook is not None) == (state == "inconclusive")
    if found.outlook:
        assert found.numbers.endswith(f"; {found.outlook.words}")
        known = "80 % power for" in found.outlook.words
        assert known or "no number of seeds" in found.outlook.words or "one seed has no spread" in found.outlook.words
        assert not known or (found.outlook.needs or math.inf) > found.outlook.seeds


def printed(values: dict[str, str], **fields: Any) -> Exhibit:
    column = Column(key="loss", label="Loss", unit="nats", better="lower")
    rows = [
        Row(label=label, recipe={}, published={"loss": Printed(values[label])} if label in values else {})
        for label in ROWS
    ]
    return exhibit(columns=[column], rows=rows, **fields)


OPEN = {"a": [2.0, 2.1, 1.9, 2.0, 2.05], "b": [2.02, 2.14, 1.88, 2.03, 2.05]}


@pytest.mark.parametrize(
    ("given", "papers", "said"),
    [
        (claim("order", "ab"), {"a": "2.80", "b": "2.83"}, "the paper's 0.03 nats needs about"),
        (claim("order", "ab"), {"a": "2.80", "b": "3.83"}, "the paper's 1.03 nats would have been seen; 0.014"),
        (claim("order", "ab"), {"a": "2.83", "b": "2.80"}, "nats; 0.014 nats, as here, needs about"),
        (claim("order", "ab"), {"a": "2.80"}, "nats; 0.014 nats, as here, needs about"),
        (claim("order", "ab", margin=0.01), {"a": "2.80", "b": "2.83"}, "nats from the bound; the paper's 0.03 nats"),
        (claim("within", "a", high=2.02), {"a": "2.01"}, "nats from the bound; the paper's 2.01 nats needs about"),
        (claim("equivalent", "ab", margin=0.02), {}, "power for equality within 0.0"),
        (claim("equivalent", "ab", margin=0.02), {}, "nats; equality within the margin needs about"),
        (claim("ratio", "ab", low=1.0), {"a": "1.01", "b": "1.00"}, "from the bound; the paper's 1.01 needs about"),
        (claim("trend", "ab", direction="increasing"), {"a": "1.0", "b": "1.1"}, "the paper's 0.1 nats a row would"),
        (claim("gap", "bac", low=-0.01), {"a": "2.2", "b": "2.1", "c": "2.0"}, "way from the bound; the paper's 50%"),
        (claim("best", "abc"), {"a": "2.80", "b": "2.83", "c": "2.82"}, "(and 1 more), 5 seeds; against c: 80 % power"),
    ],
)  # fmt: skip
def test_the_outlook_is_of_the_papers_effect(given: Claim, papers: dict[str, str], said: str) -> None:
    values: dict[str, list[float | None]] = {**OPEN, "c": [1.0, 1.1, 0.9, 1.0, 1.0]}
    if given.relation == "best":
        values["c"] = [2.1, 2.4, 1.7, 2.2, 2.0]
    found = judge(given, printed(papers), frame(values))
    assert found.state == "inconclusive" and said in found.numbers, found.numbers


def test_wins_look_to_the_column_whose_turn_would_decide() -> None:
    """x is won; of y and z, one more is needed, and y takes fewer seeds."""
    given = Claim(id="x", text="t", where="w", relation="wins", columns=["x", "y", "z"], rows=["a", "b"], low=2)
    spread = {"x": 0.01, "y": 1.0, "z": 9.0}
    lines = [
        (label, key, seed, lead + by * wobble, "logged", "id", "c")
        for key, by in spread.items()
        for label, lead in (("a", 1.0), ("b", 0.0))
        for seed, wobble in enumerate([1.0, -1.0, 0.5] if label == "a" else [0.0, 0.0, 0.0])
    ]
    rows = [Row(label=label, recipe={}) for label in "ab"]
    verdict = judge(given, exhibit(columns=TASKS, rows=rows), pd.DataFrame(lines, columns=FRAME_COLUMNS))
    assert verdict.state == "inconclusive" and verdict.outlook is not None
    assert "of the open columns, Y: 80 % power for" in verdict.numbers and (verdict.outlook.needs or 0) > 3
