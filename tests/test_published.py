"""Verdicts on printed numbers, and the ledger that sets them beside ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted import LOSSES, plant_all
from planted import exhibit as planted_exhibit
from scipy import stats

from analysis.ledger import ledger, logged, tally
from analysis.load import records
from analysis.published import RELATIONS, judge_published
from analysis.relations import RELATIONS as OUR_RELATIONS
from analysis.statistics import holm, welch_greater
from paper_tables.printed import Printed
from paper_tables.spec import PAPERS, Claim, Column, Exhibit, Row, load, names, said

NUMBERS = {"a": "1.00", "b": "2.00", "c": "3.00", "d": "2.00", "far": "inf"}
DEVIATIONS = {"a": "0.10", "b": "0.10", "c": "0.12", "d": "0.90"}


def world(better: str = "lower", sd: bool = False, claims: list[Claim] | None = None) -> Exhibit:
    column = Column(key="loss", label="Loss", unit="nats", better=better)
    rows = [
        Row(
            label=label,
            published={"loss": text if text == "inf" else Printed(text)},
            published_sd={"loss": Printed(DEVIATIONS[label])} if sd and label in DEVIATIONS else {},
        )
        for label, text in NUMBERS.items()
    ]
    rows.append(Row(label="unprinted", recipe={}))
    return planted_exhibit(columns=[column], rows=rows, claims=claims or [], seeds=3 if sd else None)


def claim(relation: str, rows: str | list[str], id: str = "x", **fields: Any) -> Claim:
    return Claim(id=id, text="t", where="w", relation=relation, column="loss", rows=list(rows), **fields)


CASES = [
    (claim("order", "ab"), "holds"),
    (claim("order", "ba"), "fails"),
    (claim("order", "bd"), "inconclusive"),
    (claim("order", "ab", margin=0.5), "holds"),
    (claim("order", "ab", margin=1.5), "fails"),
    (claim("order", ["a", "far"]), "holds"),
    (claim("order", ["far", "a"]), "fails"),
    (claim("order", ["a", "unprinted"]), "untested"),
    (claim("within", "a", low=0.5, high=1), "holds"),
    (claim("within", "a", low=1.5), "fails"),
    (claim("trend", "abc", direction="increasing"), "holds"),
    (claim("trend", "abc", direction="decreasing"), "fails"),
    (claim("trend", "abdc", direction="increasing"), "holds"),
    (claim("trend", "bacc", direction="increasing"), "inconclusive"),
    (claim("gap", "bca", low=0.5), "holds"),
    (claim("gap", "bca", low=0.6), "fails"),
    (claim("gap", "bdd", low=0.6), "inconclusive"),
    (claim("equivalent", "bd", margin=0.1), "holds"),
    (claim("equivalent", "ab", margin=0.1), "fails"),
    (claim("equivalent", "abca", margin=0.5), "holds"),
    (claim("diverges", ["far"]), "holds"),
    (claim("diverges", "a"), "fails"),
    (claim("best", "abc"), "holds"),
    (claim("best", "bac"), "fails"),
    (claim("best", "bdc"), "inconclusive"),
    (claim("change", "ba", low=1, high=1), "holds"),
    (claim("change", "ba", high=0.9), "fails"),
    (claim("ratio", "ba", low=2), "holds"),
    (claim("ratio", "ba", high=1.9), "fails"),
]


@pytest.mark.parametrize(("given", "state"), CASES, ids=[f"{c.relation} {''.join(c.rows)} {s}" for c, s in CASES])
def test_a_claim_on_single_printed_numbers(given: Claim, state: str) -> None:
    verdict = judge_published(world(claims=[given]))["x"]
    assert verdict.state == state, verdict
    assert "p =" not in verdict.numbers


@pytest.mark.parametrize(
    "given",
    [
        claim("order", ["a", "unprinted"]),
        Claim(id="x", text="t", where="w", relation="wins", columns=["loss"], rows=["a", "unprinted"]),
    ],
    ids=["order", "wins"],
)
def test_what_is_not_printed_is_named_in_quotes(given: Claim) -> None:
    """A label is no part of the sentence: 'prints no The distance over ...' once stood on a page."""
    assert "the paper prints nothing under 'Loss' for " in judge_published(world(claims=[given]))["x"].numbers


def test_every_relation_of_ours_has_a_verdict_on_print() -> None:
    assert set(RELATIONS) == set(OUR_RELATIONS)
    assert {given.relation for given, _ in CASES} == set(RELATIONS)


DEVIATING = [
    (claim("order", "ab"), "holds"),
    (claim("order", "ba"), "fails"),
    (claim("order", "ad"), "inconclusive"),
    (claim("best", "abc"), "holds"),
    (claim("best", "abd"), "inconclusive"),
    (claim("equivalent", "ab", margin=2.0), "holds"),
    (claim("equivalent", "ab", margin=0.1), "fails"),
    (claim("equivalent", "bd", margin=0.1), "inconclusive"),
]


@pytest.mark.parametrize(("given", "state"), DEVIATING, ids=[f"{c.relation} {''.join(c.rows)}" for c, _ in DEVIATING])
def test_with_deviations_tests_decide(given: Claim, state: str) -> None:
    verdict = judge_published(world(sd=True, claims=[given]))["x"]
    assert verdict.state == state, verdict
    assert "Welch p =" in verdict.numbers


def test_higher_is_better_turns_the_test_round() -> None:
    assert judge_published(world("higher", sd=True, claims=[claim("order", "ba")]))["x"].state == "holds"


def test_many_comparisons_of_one_table_are_corrected() -> None:
    """b is 0.3 below its neighbour: enough for one test, not for the worst of many."""
    rows = [
        Row(label="b", published={"loss": Printed("2.00")}, published_sd={"loss": Printed("0.10")}),
        *(
            Row(label=f"n{place}", published={"loss": Printed("2.25")}, published_sd={"loss": Printed("0.10")})
            for place in range(8)
        ),
    ]
    column = Column(key="loss", label="Loss", better="lower")

    def states(count: int) -> set[str]:
        claims = [claim("order", ["b", f"n{place}"], id=str(place)) for place in range(count)]
        made = planted_exhibit(columns=[column], rows=rows, claims=claims, seeds=3)
        return {verdict.state for verdict in judge_published(made).values()}

    assert states(1) == {"holds"}
    assert states(8) == {"inconclusive"}


def test_welch_is_scipy_s() -> None:
    chance = np.random.default_rng(0)
    for _ in range(20):
        a, b = chance.normal(0, 1, 3), chance.normal(0.5, 3, 5)
        ours = welch_greater(a.mean(), a.std(ddof=1), 3, b.mean(), b.std(ddof=1), 5)
        assert ours == pytest.approx(stats.ttest_ind(a, b, equal_var=False, alternative="greater").pvalue, rel=1e-9)
    assert welch_greater(1, 0, 3, 0, 0, 3) == 0.5


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def tasks(ours: tuple[float, ...], theirs: tuple[float, ...]) -> Exhibit:
    keys = ["t1", "t2", "t3"]
    columns = [Column(key=key, label=key.upper(), better="higher") for key in keys]
    columns.append(Column(key="mean", label="Mean", better="higher", average_of=keys))
    rows = [
        Row(label=label, published={**dict(zip(keys, values, strict=True)), "mean": sum(values) / 3})
        for label, values in (("ours", ours), ("theirs", theirs))
    ]
    given = Claim(id="x", text="t", where="w", relation="order", column="mean", rows=["ours", "theirs"])
    return planted_exhibit(columns=columns, rows=rows, claims=[given])


def test_an_average_is_judged_leaving_one_task_out() -> None:
    steady = judge_published(tasks((51.0, 52.0, 53.0), (50.0, 51.0, 52.0)))["x"]
    assert steady.state == "holds" and "leaving out any one of 3 tasks" in steady.numbers
    by_one = judge_published(tasks((49.0, 50.0, 80.0), (50.0, 51.0, 52.0)))["x"]
    assert by_one.state == "holds" and "turns round without T3" in by_one.numbers


def test_wins_are_counted_as_printed() -> None:
    made = tasks((51.0, 51.0, 60.0), (50.0, 51.0, 61.0))
    for low, state in ((1, "holds"), (2, "fails"), (None, "fails")):
        given = Claim(
            id="x", text="t", where="w", relation="wins", columns=["t1", "t2", "t3"], rows=["ours", "theirs"], low=low
        )
        verdict = judge_published(made.model_copy(update={"claims": [given]}))["x"]
        assert verdict.state == state and "1 of 3" in verdict.numbers and "1 ties" in verdict.numbers


def test_a_row_of_ours_is_judged_by_the_exhibit_that_prints_it() -> None:
    rows = [
        Row(label="a", published={"loss": Printed("2.00")}),
        Row(label="CE", recipe={}, printed_in={"loss": ["rskd/table06", "CE", "lm_loss"]}),
    ]
    column = Column(key="loss", label="Loss", better="lower")
    made = planted_exhibit(columns=[column], rows=rows, claims=[claim("order", ["a", "CE"])])
    assert "+0.81" in judge_published(made)["x"].numbers


# the record itself


@pytest.fixture(scope="module")
def real() -> dict[str, list[Any]]:
    return {"logged": records(Path(__file__).parent.parent / "results/laptop"), "yours": []}


def test_the_ledger_has_every_claim_of_the_record(real: dict[str, list[Any]]) -> None:
    entries = ledger(real)
    wanted = sum(len(load(name).claims) for name in names()) + sum(len(said(paper).claims) for paper in PAPERS)
    assert len(entries) == wanted
    ids = [(entry.exhibit, entry.claim.id) for entry in entries]
    assert len(set(ids)) == len(ids)
    for entry in entries:
        assert entry.claim.where and entry.claim.text.strip().endswith("."), entry.claim.id
        assert entry.published.numbers and (entry.reprints or logged(entry).numbers)
    counts = tally(entries)
    for paper in PAPERS:
        claimed = [entry for entry in entries if entry.paper == paper]
        assert counts[paper]["published"].total() == len(claimed)
        assert counts[paper]["ours"].total() == sum(not entry.reprints for entry in claimed)


def test_the_ledger_reads_ours_from_the_records(tmp_path: Path) -> None:
    """Planted losses with top-K 12 far above CE: Table 1's claim that small K is worse than CE holds, and is ours."""
    plant_all(tmp_path / "laptop", {"CE": LOSSES["CE"], "Top-K 12": LOSSES["Top-K 12"]})
    entries = ledger({"logged": [], "yours": records(tmp_path / "laptop")}, ["rskd"])
    assert {entry.paper for entry in entries} == {"rskd"}
    by_id = {entry.claim.id: entry for entry in entries if entry.exhibit == "rskd/table01"}
    assert by_id["small-k-worse-than-ce"].ours["yours"].state == "holds"
    assert by_id["300-near-full"].ours["yours"].state == "untested"
    assert by_id["300-near-full"].published.state == "holds"
