"""The published record: complete, well-formed, typed twice, and refused in one line where it is not."""

from __future__ import annotations

import csv
import io
import itertools
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from analysis.claims import check
from analysis.load import frame, shown_at
from analysis.published import judge_published
from paper_tables import spec
from paper_tables.__main__ import main, name_of
from paper_tables.coverage import counts
from paper_tables.printed import Printed
from paper_tables.spec import load, names
from replication.experiment.identity import run_id
from replication.experiment.recipe import parse
from toy.study import stated_run

NAMES = names()
TABLES = {"rskd": 22, "tad": 9, "sekd": 16, "salt": 27}
RSKD_FIGURES = ("2a", "2b", "2c", "3a", "3b", "4", "5")
# Most cells were typed a second time from the papers' text, without looking at the files.
TYPED_AGAIN = sorted((Path(__file__).parent / "typed_again").glob("*.csv"))


def test_every_table_of_the_four_papers_is_on_file() -> None:
    wanted = {f"{paper}/table{number:02d}" for paper, count in TABLES.items() for number in range(1, count + 1)}
    assert {name for name in NAMES if "/table" in name} == wanted
    assert len(wanted) == 74
    assert {name_of("rskd", f"figure-{number}") for number in RSKD_FIGURES} <= set(NAMES)
    assert {f"rskd/poster{number:02d}" for number in (1, 2, 3, 4)} <= set(NAMES)
    assert len(NAMES) == len(set(NAMES))


@pytest.mark.parametrize("name", NAMES)
def test_an_exhibit_loads_and_is_filled_in(name: str) -> None:
    exhibit = load(name)
    assert exhibit.name == name
    assert exhibit.where and exhibit.title
    assert (exhibit.status == "published") == bool(exhibit.why)
    if exhibit.status != "published":
        assert all(row.recipe is not None or row.note for row in exhibit.rows)
    for row in exhibit.rows:
        assert set(row.published_sd) <= set(row.published)
        assert row.published or row.recipe is not None or exhibit.kind == "figure", f"{row.label} says nothing"
    if exhibit.kind != "figure":
        assert any(row.published for row in exhibit.rows)


REPRINTS = [name for name in NAMES if "/poster" in name]


@pytest.mark.parametrize("name", REPRINTS)
def test_a_reprint_names_the_exhibit_that_prints_each_of_its_cells(name: str) -> None:
    """As the audit compares them: every cell with one of the exhibit that it is said to reprint."""
    exhibit = load(name)
    pairs = [relation.of for relation in exhibit.relations if relation.function == "equal"]
    cells = {(row.label, key) for row in exhibit.rows for key in row.published}
    assert exhibit.reprints and {tuple(cell) for cell, _ in pairs} == cells
    assert {f"{exhibit.paper}/{there[0]}" for _, there in pairs if isinstance(there, list)} == {exhibit.reprints}


@pytest.mark.parametrize("name", NAMES)
def test_claims_state_what_their_relation_needs(name: str) -> None:
    exhibit = load(name)
    for claim in exhibit.claims:
        check(claim, exhibit)
        assert len(claim.rows[:2]) == len(set(claim.rows[:2])), f"{claim.id} compares a row with itself"
        assert (claim.direction is not None) == (claim.relation == "trend"), claim.id
        bounded = claim.relation in ("within", "gap", "change", "ratio", "wins")
        assert bounded or (claim.low is None and claim.high is None), claim.id


@pytest.mark.parametrize("name", NAMES)
def test_recipes_use_known_words_only(name: str) -> None:
    exhibit = load(name)
    for row, column in itertools.product(exhibit.rows, exhibit.columns):
        stated = exhibit.recipe_of_cell(row, column)
        if stated is None:
            continue
        if "toy" in stated:
            stated_run(stated, "laptop", 0)
        else:
            assert "target" in stated, f"{row.label} leaves its target to the default"
            parse(stated)


def test_rows_that_mean_different_things_are_different_runs() -> None:
    """No two rows of one exhibit, or named recipes, are filled by one run, unless they name its metrics or moments."""
    for name in NAMES:
        exhibit = load(name)
        rows = [row for row in exhibit.rows if row.recipe is not None]
        if "toy" not in exhibit.recipe:
            ids = [(run_id(parse(exhibit.stated(row.recipe)), "laptop", 0), str((row.metrics, row.at))) for row in rows]
            assert len(set(ids)) == len(ids), name
    named = [run_id(parse(recipe), "laptop", 0) for recipe in spec.named_recipes("rskd").values()]
    assert len(set(named)) == len(named)


def test_one_method_is_one_run_in_all_tables() -> None:
    cells = {
        "twelve classes": [("table06", "12.1"), ("table16", "Same, 4096"), ("figure03a", "Random Sampling 12")],
        "many classes": [("table06", "57.0"), ("table11", "Ours"), ("table12", "1.0"), ("figure03b", "57.0")],
        "top-50": [("table01", "50"), ("table02", "Plain top-K 50"), ("table11", "Raman et al. (2023)*")],
        "top-p": [("table01", "*50"), ("table11", "Peng et al. (2024)*")],
        "CE": [(f"table{number:02d}", "CE") for number in (1, 2, 6, 10, 11, 12, 15, 16)],
        "FullKD": [(f"table{number:02d}", "FullKD") for number in (1, 2, 6, 10, 11, 12)] + [("table15", "Forward KL")],
    }
    for what, places in cells.items():
        runs = set()
        for stem, label in places:
            exhibit = load(f"rskd/{stem}")
            runs.add(run_id(parse(exhibit.recipe_of(exhibit.row(label)) or {}), "laptop", 0))
        assert len(runs) == 1, what


@pytest.mark.parametrize("path", TYPED_AGAIN, ids=lambda path: path.stem)
def test_cells_are_as_a_second_typist_typed_them(path: Path) -> None:
    different, once = [], cache(load)
    for line in csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))):
        row, (key, _, sd) = once(line["exhibit"]).row(line["row"]), line["column"].partition(":")
        cell = (row.published_sd if sd == "sd" else row.published).get(key)
        text = cell.text if isinstance(cell, Printed) else cell
        if text != line["value"]:
            different.append((line, text))
    assert different == []


def test_most_cells_were_typed_twice() -> None:
    typed = {
        (line["exhibit"], line["row"], line["column"])
        for path in TYPED_AGAIN
        for line in csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")))
    }
    for name in NAMES:
        cells = {(name, row.label, key) for row in load(name).rows for key in row.published}
        if "/table" in name:
            assert len(cells & typed) >= min(5, len(cells)), f"{name} was not typed a second time"
    assert len(typed) > 3000


# Claims that the papers' own numbers contradict. A claim turned round by a slip of ours would appear here as well, so
# each of these was read again in the text.
SELF_CONTRADICTIONS = {
    ("tad/table01", "miniplm-ahead-easy-1-2b"),
    ("tad/table01", "miniplm-ahead-easy-0-5b"),
    ("tad/table02", "below-one-worse-0-5b"),
    ("tad/table04", "rkl-beats-vanilla-phi-2"),
    ("tad/table04", "miniplm-not-ahead-gemma"),
    ("salt/table05", "second-stage-helps-hard-most"),
    *((f"salt/table0{number}", "falls-with-length-t300") for number in (6, 7, 8, 9)),
    ("salt/table26", "second-stage-helps-hard-most"),
    ("salt/table26", "easy-data-hurts-the-rest"),
}


def test_claims_point_the_way_the_printed_numbers_do() -> None:
    against = {
        (name, id) for name in NAMES for id, verdict in judge_published(load(name)).items() if verdict.state == "fails"
    }
    assert against == SELF_CONTRADICTIONS


def test_table_12_repeats_the_wrong_row_of_table_6() -> None:
    at_one, six = load("rskd/table12").row("1.0").published, load("rskd/table06")
    same = {key for key in ("lm_loss", "ece", "zero_shot") if at_one[key] == six.row("12.1").published[key]}
    assert same == {"lm_loss", "ece", "zero_shot"}
    assert all(at_one[key] != six.row("57.0").published[key] for key in same)


GOOD = """
paper = "rskd"
number = "6"
title = "A title"
where = "Table 6"
status = "replicated"
columns = [
  { key = "lm_loss", label = "LM loss" },
  { key = "gap_closed", label = "%", derive = { function = "gap_closed", of = "lm_loss", start = "CE", end = "CE" } },
]

[[rows]]
label = "CE"
recipe = "CE"
published = { lm_loss = 2.81 }

[[rows]]
label = "Top-K 12"
recipe = { target = { name = "TopK", k = 12 } }
published = { lm_loss = 2.87 }

[[claims]]
id = "worse"
text = "Worse."
where = "Section 1"
relation = "order"
column = "lm_loss"
rows = ["CE", "Top-K 12"]
"""
# What is replaced in the good file, by what, and the words that the one-line error must hold.
FAULTS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "unknown recipe": ('recipe = "CE"', 'recipe = "CEE"', ("row 'CE'", "'CEE'", "recipes.toml", "FullKD")),
    "missing column": ("{ lm_loss = 2.87 }", "{ loss = 2.87 }", ("row 'Top-K 12'", "'loss'", "lm_loss")),
    "duplicate row": ('label = "Top-K 12"', 'label = "CE"', ("row 'CE'", "twice")),
    "text in a number": (
        "lm_loss = 2.87",
        'lm_loss = "2.87"',
        ("row 'Top-K 12'", "'lm_loss'", "'2.87' is text"),
    ),
    "word in a number": ("lm_loss = 2.87", 'lm_loss = "n/a"', ("row 'Top-K 12'", "'lm_loss'", "'n/a' is text")),
    "reprint that runs": (
        'title = "A title"',
        'title = "A title"\nreprints = "rskd/table06"',
        ("'rskd/table06'", "not run"),
    ),
    "reprint of nothing": (
        'status = "replicated"',
        'status = "published"\nreprints = "rskd/table99"',
        ("'rskd/table99'", "on file"),
    ),
    "bad TOML": ('title = "A title"', "title = A title", ("not TOML", "line 4")),
    "unknown key": ('label = "Top-K 12"', 'label = "Top-K 12"\ncomment = 1', ("rows 'Top-K 12'", "comment")),
    "missing key": ('label = "CE"\n', "", ("rows 1", "label", "required")),
    "unknown status": ('"replicated"', '"done"', ("status", "'published'", "'done'")),
    "bad number": ('number = "6"', 'number = "six"', ("number", "'six'")),
    "other name": ('number = "6"', 'number = "7"', ("'rskd/table07'",)),
    "claim on no row": ('rows = ["CE", "Top-K 12"]', 'rows = ["CE", "Top-K"]', ("claim 'worse'", "'Top-K'")),
    "claim on no column": ('column = "lm_loss"', 'column = "ece"', ("claim 'worse'", "'ece'")),
    "number in a text": (
        'label = "LM loss" }',
        'label = "LM loss", unit = "text" }',
        ("row 'CE'", "'lm_loss'", "2.81"),
    ),
    "not a number": ("lm_loss = 2.87", "lm_loss = nan", ("rows 'Top-K 12'", "lm_loss", "finite")),
    "true for a number": ("lm_loss = 2.87", "lm_loss = true", ("rows 'Top-K 12'", "lm_loss", "number")),
    "mark on no column": ('label = "CE"', 'label = "CE"\nbest = ["ece"]', ("row 'CE'", "'ece'", "lm_loss")),
    "average of no column": ('label = "LM loss" }', 'label = "L", average_of = ["x"] }', ("'lm_loss'", "'x'")),
    "two kinds of column": ('column = "lm_loss"', 'column = "lm_loss"\ncolumns = ["lm_loss"]', ("claim 'worse'",)),
    "derived from no row": ('end = "CE"', 'end = "FullKD"', ("column 'gap_closed'", "'FullKD'")),
}


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty place for exhibits of one paper, with its own recipes.toml."""
    (tmp_path / "rskd").mkdir()
    (tmp_path / "rskd/recipes.toml").write_text('"CE" = { target = "OneHot" }\n"FullKD" = { target = "Full" }\n')
    monkeypatch.setattr(spec, "ROOT", tmp_path)
    spec.named_recipes.cache_clear()
    yield tmp_path / "rskd"
    spec.named_recipes.cache_clear()


def test_the_good_file_is_good(shelf: Path) -> None:
    (shelf / "table06.toml").write_text(GOOD)
    exhibit = load("rskd/table06")
    assert exhibit.recipe_of(exhibit.row("CE")) == {"target": "OneHot"}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_malformed_exhibit_is_refused_in_one_line(fault: str, shelf: Path) -> None:
    old, new, words = FAULTS[fault]
    assert old in GOOD
    (shelf / "table06.toml").write_text(GOOD.replace(old, new, 1))
    with pytest.raises(ValueError) as caught:
        load("rskd/table06")
    message = str(caught.value)
    assert "\n" not in message
    assert "rskd/table06.toml" in message
    assert [word for word in words if word not in message] == []


def test_malformed_recipes_are_refused_in_one_line(shelf: Path) -> None:
    (shelf / "table06.toml").write_text(GOOD)
    (shelf / "recipes.toml").write_text("CE = {")
    with pytest.raises(ValueError, match=r"^rskd/recipes\.toml is not TOML: .*$"):
        load("rskd/table06")


def test_an_unknown_exhibit_is_refused_with_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "rskd", "99"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "'rskd/table99'" in said.err and "rskd/table06" in said.err


@pytest.mark.parametrize(
    ("number", "stem"),
    [("6", "table06"), ("table-12", "table12"), ("figure-2a", "figure02a"), ("figure-5", "figure05")],
)
def test_a_number_finds_its_file(number: str, stem: str) -> None:
    assert name_of("rskd", number) == f"rskd/{stem}"


def test_csv_holds_every_published_cell(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "sekd", "3", "--csv"]) == 0
    header, *rows = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    top = dict(zip(header, next(row for row in rows if row[0] == "Top 20% (SE-KD)"), strict=True))
    assert top == {
        "Method": "Top 20% (SE-KD)",
        **{"Acc.": "64.8", "Acc. sd": "0.14", "IFEval": "21.4", "IFEval sd": "0.81"},
        **{"PPL": "6.9", "PPL sd": "0.26", "ECE": "27.6", "ECE sd": "0.12"},
    }


def test_tables_are_shown_as_the_paper_lays_them_out(capsys: pytest.CaptureFixture[str]) -> None:
    """Table 15 has its methods as columns, Table 10 is a grid of one quantity."""
    assert main(["show", "rskd", "15", "--csv"]) == 0
    header, loss = csv.reader(io.StringIO(capsys.readouterr().out))
    assert dict(zip(header, loss, strict=True))["MSE"] == "5.38" and loss[0] == "LM loss"
    assert main(["show", "rskd", "10", "--csv"]) == 0
    header, *rows = csv.reader(io.StringIO(capsys.readouterr().out))
    assert header[1:] == ["0.3", "0.2", "0.1", "0.0"]
    assert [row for row in rows if row[0] == "1.5"] == [["1.5", "124", "121", "120", "111"]]


@pytest.mark.parametrize(
    ("text", "decimals", "half"), [("2.80", 2, 0.005), ("27", 0, 0.5), ("-0.7", 1, 0.05), ("1_000", 0, 0.5)]
)
def test_a_printed_number_remembers_its_digits(text: str, decimals: int, half: float) -> None:
    number = Printed(text)
    assert (number.decimals, number.half_unit) == (decimals, pytest.approx(half))
    assert number == float(text) and number.text == text.replace("_", "")


def test_digits_survive_the_file(shelf: Path) -> None:
    (shelf / "table06.toml").write_text(GOOD.replace("2.87", "2.80"))
    value = load("rskd/table06").row("Top-K 12").published["lm_loss"]
    assert isinstance(value, Printed) and value.text == "2.80"


def test_every_page_can_be_shown(capsys: pytest.CaptureFixture[str]) -> None:
    for name in NAMES:
        exhibit = load(name)
        assert main(["show", exhibit.paper, f"{exhibit.kind}-{exhibit.number}"]) == 0
        said = capsys.readouterr().out
        assert said.startswith(f"{name}: ")
    assert main(["list"]) == 0
    assert capsys.readouterr().out.count("\n") == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_csv_says_every_printed_cell_once(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    exhibit = load(name)
    assert main(["show", exhibit.paper, f"{exhibit.kind}-{exhibit.number}", "--csv"]) == 0
    _, *rows = csv.reader(io.StringIO(capsys.readouterr().out))
    shown = Counter(text for row in rows for text in row[1:] if text)
    cells = [cell for row in exhibit.rows for cell in row.published.values()]
    wanted = Counter(cell.text if isinstance(cell, Printed) else cell for cell in cells)
    wanted += Counter(sd.text for row in exhibit.rows for sd in row.published_sd.values())
    assert shown == wanted


def test_coverage_counts_what_is_on_file(capsys: pytest.CaptureFixture[str]) -> None:
    lines = {line["Paper"]: line for line in counts()}
    for paper, tables in TABLES.items():
        assert lines[paper]["Tables"] == tables
    exhibits = [load(name) for name in NAMES]
    assert lines["all"]["Tables"] == 74
    assert lines["all"]["Cells"] == sum(len(row.published) for exhibit in exhibits for row in exhibit.rows)
    replicated = {exhibit.name for exhibit in exhibits if exhibit.status == "replicated"}
    assert lines["all"]["Replicated"] == len(replicated)
    assert main(["coverage"]) == 0
    assert "Dolly: a judge costs money" in capsys.readouterr().out


def test_replicated_means_that_records_are_logged() -> None:
    logged = shown_at("laptop", Path(__file__).parent.parent / "results")
    for name in NAMES:
        exhibit = load(name)
        if exhibit.status == "replicated":
            assert len(frame(exhibit, logged, "logged")), f"{name} says it is replicated, and nothing is logged"
