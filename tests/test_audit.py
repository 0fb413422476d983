"""The audit: planted errors of each kind are found, clean tables give no alarm, and it stays quick."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from paper_tables import spec, terms
from paper_tables.__main__ import main
from paper_tables.audit import audit, of_exhibit
from paper_tables.errata import PAGE, errata
from paper_tables.finding import Finding
from paper_tables.functions import COMPARISONS, FUNCTIONS
from paper_tables.joint import conflict
from paper_tables.printed import Printed
from paper_tables.spec import Exhibit, Relation, load, names

HEAD = """
paper = "rskd"
number = "1"
title = "Planted"
where = "nowhere"
status = "published"
why = "planted"
"""
COLUMNS = """
columns = [
  { key = "lm_loss", label = "Loss", better = "lower" },
  { key = "share", label = "%", unit = "%", better = "higher", decimals = 0 },
  { key = "a", label = "A", better = "higher", decimals = 1 },
  { key = "b", label = "B", better = "higher", decimals = 1 },
  { key = "mean", label = "Mean", better = "higher", average_of = ["a", "b"] },
]
"""
ROWS = """
[[rows]]
label = "CE"
published = { lm_loss = 2.81, share = 0, a = 40.0, b = 50.0, mean = 45.00 }

[[rows]]
label = "Half"
published = { lm_loss = 2.78, share = 50, a = 41.0, b = 52.0, mean = 46.50 }
best = ["a"]

[[rows]]
label = "Full"
published = { lm_loss = 2.75, share = 100, a = 40.5, b = 52.5, mean = 46.50 }
second = ["a"]
"""
SAID = """
[[quantities]]
id = "gain"
text = "gain of Full over CE in B"
where = "Section 1"
value = 2.5

[[quantities]]
id = "gain-about"
text = "the same, roughly"
where = "Abstract"
value = 3
about = true
"""
GAP = '{ function = "gap_closed", of = ["lm_loss", ["CE", "lm_loss"], ["Full", "lm_loss"]], result = "share" }'


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty record with one paper, into which a test writes."""
    for paper in spec.PAPERS:
        (tmp_path / paper).mkdir()
    (tmp_path / "rskd/said.toml").write_text(SAID)
    monkeypatch.setattr(spec, "ROOT", tmp_path)
    for cached in (spec.named_recipes, spec.said, terms.load_once):
        cached.cache_clear()
    yield tmp_path / "rskd"
    for cached in (spec.named_recipes, spec.said, terms.load_once):
        cached.cache_clear()


def found(shelf: Path, relation: str = "", rows: str = ROWS, columns: str = COLUMNS) -> list[Finding]:
    """The findings of the planted table with one relation line."""
    (shelf / "table01.toml").write_text(HEAD + columns + f"relations = [{relation}]\n" + rows)
    terms.load_once.cache_clear()
    return of_exhibit_named("rskd/table01")


def of_exhibit_named(name: str) -> list[Finding]:
    return list(of_exhibit(load(name)))


def severities(findings: list[Finding], word: str) -> dict[str, str]:
    return {finding.place: finding.severity for finding in findings if finding.relation.startswith(word)}


def test_a_clean_table_gives_no_alarm(shelf: Path) -> None:
    findings = found(shelf, f'{GAP}, {{ function = "marked" }}')
    assert {finding.severity for finding in findings} == {"consistent"}
    assert len(findings) == 3 + 3 + 1 + 1  # averages, shares, shares together, marks of A


# A relation, what is altered in the rows, and the severity that the altered place must get.
PLANTED = {
    "average": ("", ("mean = 46.50 }\nbest", "mean = 46.60 }\nbest"), "Half / mean", "inconsistent"),
    "average, one task altered": ("", ("a = 41.0", "a = 43.0"), "Half / mean", "inconsistent"),
    "average, rounded": ("", ("mean = 45.00", "mean = 45.04"), "CE / mean", "within rounding"),
    "share of the gap": (GAP, ("share = 50", "share = 90"), "Half / share", "inconsistent"),
    "share, rounded": (GAP, ("share = 50", "share = 60"), "Half / share", "within rounding"),
    "share, sign": (GAP, ("share = 50", "share = -50"), "Half / share", "contradictory"),
    "mark": ('{ function = "marked" }', ("a = 40.5", "a = 42.5"), "a", "contradictory"),
    "mark forgotten": ('{ function = "marked" }', ("a = 40.5", "a = 41.0"), "a", "consistent"),
    "difference with the prose": (
        '{ function = "difference", of = [["Full", "b"], ["CE", "b"]], result = "@gain" }',
        ("b = 52.5", "b = 53.5"),
        "Section 1: gain of Full over CE in B",
        "inconsistent",
    ),
    "about": (
        '{ function = "difference", of = [["Full", "b"], ["CE", "b"]], result = "@gain-about" }',
        ("b = 52.5", "b = 53.9"),
        "Abstract: the same, roughly",
        "consistent",
    ),
    "ratio": (
        '{ function = "ratio", of = [["Full", "a"], 2], result = ["CE", "a"] }',
        ("", ""),
        "CE / a",
        "inconsistent",
    ),
    "equal": ('{ function = "equal", of = [["Full", "b"], ["Half", "b"]] }', ("", ""), "Full / b", "contradictory"),
    "equal, tolerated": (
        '{ function = "equal", of = [["Full", "b"], ["Half", "b"]], tolerance = 0.5 }',
        ("", ""),
        "Full / b",
        "within rounding",
    ),
    "above": ('{ function = "above", of = [["Half", "b"], ["Full", "b"]] }', ("", ""), "Half / b", "contradictory"),
    "above, a tie": (
        '{ function = "above", of = [["Half", "b"], ["Full", "b"]] }',
        ("b = 52.5", "b = 52.0"),
        "Half / b",
        "within rounding",
    ),
    "below": ('{ function = "below", of = [["Half", "b"], ["Full", "b"]] }', ("", ""), "Half / b", "consistent"),
}  # fmt: skip


@pytest.mark.parametrize("kind", PLANTED)
def test_a_planted_error_of_each_kind_is_found(kind: str, shelf: Path) -> None:
    relation, (old, new), where, severity = PLANTED[kind]
    assert old in ROWS
    places = {finding.place: finding for finding in found(shelf, relation, ROWS.replace(old, new, 1))}
    assert places[where].severity == severity, places[where]


def test_rows_that_no_single_gap_explains_are_found_together(shelf: Path) -> None:
    """Each share is within its own rounding, and yet no CE and Full give both."""
    rows = """
[[rows]]
label = "CE"
published = { lm_loss = 2.81, share = 0 }

[[rows]]
label = "Low"
published = { lm_loss = 2.80, share = 32 }

[[rows]]
label = "High"
published = { lm_loss = 2.80, share = 5 }

[[rows]]
label = "Full"
published = { lm_loss = 2.75, share = 100 }
"""
    findings = found(shelf, GAP, rows, COLUMNS.replace(', average_of = ["a", "b"]', ""))
    alone = severities(findings, "gap_closed(")
    assert set(alone.values()) <= {"consistent", "within rounding"}
    (together,) = [finding for finding in findings if finding.relation.startswith("gap_closed of all")]
    assert together.severity == "inconsistent"
    assert "Low" in together.follows and "High" in together.follows


def test_the_joint_question_agrees_with_a_search_over_a_grid() -> None:
    """Random ends and shares: a common solution on a fine grid means no conflict, and a reported conflict has none."""
    chance = random.Random(0)
    conflicts = 0
    for _ in range(60):
        start, end = (2.805, 2.815), (2.745, 2.755)
        rows = []
        for _ in range(3):
            share, value = chance.uniform(-100, 110), 0.0
            value = round(2.81 - share / 100 * chance.uniform(0.05, 0.07), 2)
            rows.append(((value - 0.005, value + 0.005), (share - 0.5, share + 0.5)))
        steps = [place / 40 for place in range(41)]
        solved = any(
            all(meets(s, e, row) for row in rows)
            for s, e in itertools.product((2.805 + 0.01 * x for x in steps), (2.745 + 0.01 * x for x in steps))
        )
        clash = conflict(start, end, rows)
        conflicts += clash is not None
        assert not (solved and clash is not None)
    assert 5 < conflicts < 55


def meets(start: float, end: float, row: tuple[tuple[float, float], tuple[float, float]]) -> bool:
    (low, high), (least, most) = row
    values = sorted(start + share / 100 * (end - start) for share in (least, most))
    return values[0] <= high and low <= values[1]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_monotone_so_that_corners_bound_them(name: str) -> None:
    """Within a box around plausible arguments each coordinate moves the value one way, whatever the others are."""
    function, chance = FUNCTIONS[name], random.Random(name)
    wanted = function.__code__.co_argcount or 4
    extra = {"weights": [1.0, 2.0, 3.0, 4.0]} if name == "weighted_mean" else {}
    for _ in range(20):
        middle = [chance.uniform(10, 20) + 15 * place for place in range(wanted)]
        for place in range(wanted):
            directions = set()
            for others in range(4):
                near = [x * (1 + 0.001 * chance.uniform(-1, 1)) for x in middle] if others else list(middle)
                low, high = (
                    function(*near[:place], middle[place] * scale, *near[place + 1 :], **extra)
                    for scale in (0.999, 1.001)
                )
                directions.add((high > low) - (high < low))
            assert len(directions - {0}) <= 1, (name, place)


def test_many_arguments_are_bounded_as_their_corners_would_be() -> None:
    boxes = [terms.Interval(low, low + 1, "", low + 0.5) for low in range(12)]
    assert terms.follows(lambda *x: sum(x) - 2 * x[3], boxes) == (
        sum(range(12)) - 2 * 3 - 1,
        sum(range(1, 13)) - 2 * 4 + 1,
    )


BAD = {
    "unknown function": ('{ function = "meen", of = ["a"], result = "b" }', "unknown function 'meen'"),
    "unknown row": ('{ function = "equal", of = [["Top", "a"], ["CE", "a"]] }', "'Top'"),
    "unknown column": ('{ function = "equal", of = [["CE", "ab"], ["CE", "a"]] }', "'ab'"),
    "unknown quantity": ('{ function = "equal", of = [["CE", "a"], "@loss"] }', "'@loss'"),
    "no result": ('{ function = "mean", of = ["a", "b"] }', "no result"),
    "applies nowhere": ('{ function = "mean", of = ["a", "b"], result = "b", rows = ["Top"] }', "'Top'"),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_relation_that_names_what_is_not_is_refused_in_one_line(fault: str, shelf: Path) -> None:
    relation, words = BAD[fault]
    with pytest.raises(ValueError) as caught:
        found(shelf, relation)
    assert words in str(caught.value) and "rskd/table01" in str(caught.value) and "\n" not in str(caught.value)


def test_an_empty_cell_is_refused_where_the_relation_names_it(shelf: Path) -> None:
    with pytest.raises(ValueError, match="reads an empty cell"):
        found(shelf, '{ function = "equal", of = [["CE", "a"], ["CE", "b"]] }', ROWS.replace(", b = 50.0", "", 1))


# the record itself


def test_every_relation_of_the_record_can_be_evaluated() -> None:
    findings = audit()
    assert len(findings) > 500
    assert {finding.paper for finding in findings} >= set(spec.PAPERS) - {"ours"}
    assert json.loads(json.dumps([finding.severity for finding in findings]))


def test_functions_are_used() -> None:
    used = {relation.function for relation in declared()} | {"mean", "weighted_mean", "gap_closed"}
    assert set(FUNCTIONS) | set(COMPARISONS) == used, "a function that no relation uses is deleted, or used"


def declared() -> list[Relation]:
    exhibits = [relation for name in names() for relation in load(name).relations]
    return exhibits + [relation for paper in spec.PAPERS for relation in spec.said(paper).relations]


def test_errata_is_the_audit_s() -> None:
    assert PAGE.read_text(encoding="utf-8") == errata(audit()), "run `make errata`"


def cells_under_relations() -> list[tuple[str, str, str]]:
    """(exhibit, row, column) of every printed number that an average of its own exhibit covers."""
    covered = []
    for name in names():
        exhibit = load(name)
        for column in exhibit.columns:
            for row in exhibit.rows if column.average_of else ():
                if all(key in row.published for key in (column.key, *column.average_of)):
                    covered += [(name, row.label, key) for key in (column.key, *column.average_of)]
    return sorted(set(covered))


def test_an_altered_cell_is_noticed_by_the_averages() -> None:
    """A tenth of the covered cells, each altered by nine: the average that covers it no longer follows."""
    chance = random.Random(1)
    covered = cells_under_relations()
    assert len(covered) > 1000
    unseen = []
    for name, label, key in chance.sample(covered, len(covered) // 10):
        exhibit = load(name)
        if broken(exhibit, label):
            continue  # an average that is printed wrongly cannot tell
        if not broken(alter(exhibit, label, key, by=9.0), label):
            unseen.append((name, label, key))
    assert unseen == []


def broken(exhibit: Exhibit, label: str) -> bool:
    """Whether an average of this row does not follow from its tasks."""
    return any(
        finding.severity in ("inconsistent", "contradictory")
        for finding in of_exhibit(exhibit)
        if finding.place.startswith(f"{label} / ") and "mean(" in finding.relation
    )


def alter(exhibit: Exhibit, label: str, key: str, by: float) -> Exhibit:
    rows = []
    for row in exhibit.rows:
        if row.label == label:
            value = row.published[key]
            assert isinstance(value, Printed)
            changed = Printed(f"{value + by:.{value.decimals}f}")
            row = row.model_copy(update={"published": {**row.published, key: changed}})
        rows.append(row)
    return exhibit.model_copy(update={"rows": rows})


def test_the_audit_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "rskd"]) == 0
    assert "relations: " in capsys.readouterr().out
    assert main(["audit", "tad", "--json"]) == 0
    assert {finding["paper"] for finding in json.loads(capsys.readouterr().out)} == {"tad"}
    assert main(["audit", "rskdd"]) == 2
    assert capsys.readouterr().err == "No paper 'rskdd'. Known: rskd, tad, sekd, salt, ours.\n"
