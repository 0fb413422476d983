"""The published record: complete, well-formed, typed twice, and refused in one line where it is not."""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from paper_tables import spec
from paper_tables.__main__ import main, name_of
from paper_tables.spec import Claim, Exhibit, Row, load, names
from replication.recipe import method, parse, run_id

NAMES = names()
RSKD_TABLES = (1, 2, 3, 5, 6, 10, 11, 12, 15, 16)
RSKD_FIGURES = ("2a", "3a", "3b", "5")
TOY_KEYS = {"toy", "vocabulary", "exponent", "rounds", "target"}
PLOTS = {"dots", "heatmap", "curve", "reliability", "power_law", "zipf"}
# How many rows each relation takes; 0: two or more.
RELATIONS = {"order": {2}, "within": {1}, "trend": {0}, "gap": {3}, "equivalent": {2, 4}, "diverges": {1}}

# Typed a second time from the papers' text, without looking at the files: exhibit, row, column, printed value.
CELLS: list[tuple[str, str, str, float | str]] = [
    ("rskd/table01", "CE", "lm_loss", 2.81),
    ("rskd/table01", "3", "gap_closed", -395),
    ("rskd/table01", "5", "ece", 7.7),
    ("rskd/table01", "12", "lm_loss", 2.87),
    ("rskd/table01", "25", "gap_closed", -21),
    ("rskd/table01", "*50", "gap_closed", 47),
    ("rskd/table01", "57", "lm_loss", 2.79),
    ("rskd/table01", "100", "ece", 1.1),
    ("rskd/table01", "300", "gap_closed", 77),
    ("rskd/table01", "FullKD", "ece", 0.7),
    ("rskd/table02", "Smoothing", "lm_loss", 2.85),
    ("rskd/table02", "Smoothing", "zero_shot", 41.2),
    ("rskd/table02", "Ghost Token", "gap_closed", 59),
    ("rskd/table02", "Naive Fix 1", "top_k_loss", 3.37),
    ("rskd/table02", "Naive Fix 10", "ece", 3.3),
    ("rskd/table02", "Naive Fix 20", "top_k_loss", 2.83),
    ("rskd/table02", "Naive Fix 100", "gap_closed", 97),
    ("rskd/table02", "FullKD", "top_k_loss", 2.74),
    ("rskd/table03", "Top-K 12", "angle", 58),
    ("rskd/table03", "Top-K 50", "norm_ratio", 1.8),
    ("rskd/table03", "Random Sampling 12", "cosine", 0.998),
    ("rskd/table05", "FullKD", "terabytes_per_100B_tokens", 10_000.0),
    ("rskd/table05", "Ours", "terabytes_per_100B_tokens", 3.6),
    ("rskd/table06", "CE", "ece", 0.4),
    ("rskd/table06", "2.4", "acceptance", 61.47),
    ("rskd/table06", "5.0", "ece", 1.1),
    ("rskd/table06", "12.1", "acceptance", 61.85),
    ("rskd/table06", "24.5", "zero_shot", 43.1),
    ("rskd/table06", "57.0", "lm_loss", 2.74),
    ("rskd/table06", "FullKD", "acceptance", 62.02),
    ("rskd/table10", "1.0 / 0.2", "gap_closed", 111),
    ("rskd/table10", "1.0 / 0.1", "gap_closed", 95),
    ("rskd/table10", "1.5 / 0.3", "gap_closed", 124),
    ("rskd/table10", "1.5 / 0.0", "gap_closed", 111),
    ("rskd/table10", "2.0 / 0.3", "gap_closed", 116),
    ("rskd/table10", "2.0 / 0.1", "gap_closed", 125),
    ("rskd/table11", "Peng et al. (2024)*", "gap_closed", -47),
    ("rskd/table11", "Peng et al. (2024)", "ece", 1.4),
    ("rskd/table11", "Raman et al. (2023)", "acceptance", 61.0),
    ("rskd/table11", "Raman et al. (2023)*", "gap_closed", 5),
    ("rskd/table12", "0.0", "lm_loss", "inf"),
    ("rskd/table12", "1.0", "unique_classes", 54),
    ("rskd/table12", "1.2", "zero_shot", 42.2),
    ("rskd/table15", "MSE", "lm_loss", 5.38),
    ("rskd/table15", "Forward + Reverse KL", "lm_loss", 2.78),
    ("rskd/table16", "Different, 4096", "lm_loss", 2.753),
    ("rskd/table16", "Same, 4096", "gap_closed", 96),
    ("rskd/figure05", "50", "unique_classes", 12),
    ("tad/table05", "Qwen2.5-3B, TAD (K = 10)", "loss_100B", 2.92),
    ("tad/table05", "Gemma-2-9B, vanilla KD (RKL)", "loss_10B", 3.23),
    ("sekd/table03", "Pos RS-KD 20%", "lambada_perplexity", 9.9),
    ("sekd/table03", "Curriculum 20%", "accuracy", 64.6),
    ("salt/table01", "SALT-DS, 36K", "lm_loss", 2.188),
    ("salt/table01", "BASELINE, 208K", "accuracy", 58.99),
]

# A whole column each, in the paper's order, as a guard against a shifted row.
COLUMNS = [
    ("rskd/table01", "lm_loss", [2.81, 3.04, 2.96, 2.87, 2.82, 2.80, 2.78, 2.79, 2.77, 2.76, 2.75]),
    ("rskd/table02", "gap_closed", [0, -73, 59, -5, 44, 61, 73, 83, 97, 100]),
    ("rskd/table06", "zero_shot", [40.4, 42.1, 42.6, 43.0, 43.1, 42.9, 42.1]),
    ("rskd/table10", "gap_closed", [101, 111, 95, 98, 124, 121, 120, 111, 116, 124, 125, 112]),
    ("rskd/table11", "lm_loss", [2.81, 2.78, 2.85, 2.80, 2.77, 2.74, 2.75]),
    ("rskd/table15", "lm_loss", [2.81, "inf", 5.38, 3.37, 2.78, 2.75]),
    ("sekd/table03", "accuracy", [61.9, 73.8, 64.4, 64.2, 63.8, 64.8, 64.5, 64.6, 63.6, 63.0]),
    ("salt/table01", "lm_loss", [1.951, 2.011, 2.160, 2.160, 2.188, 1.868, 2.071, 1.863, 1.857]),
]


def test_the_exhibits_of_the_issue_are_on_file() -> None:
    wanted = {f"rskd/table{number:02d}" for number in RSKD_TABLES}
    wanted |= {name_of("rskd", f"figure-{number}") for number in RSKD_FIGURES}
    assert wanted <= set(NAMES)
    assert {name.split("/")[0] for name in NAMES} == set(spec.PAPERS)
    assert len(NAMES) == len(set(NAMES))


@pytest.mark.parametrize("name", NAMES)
def test_an_exhibit_loads_and_is_filled_in(name: str) -> None:
    exhibit = load(name)
    assert exhibit.name == name
    assert exhibit.where and exhibit.notes and exhibit.claims
    assert exhibit.plot["kind"] in PLOTS
    assert (exhibit.status == "published") == bool(exhibit.why)
    if exhibit.status == "replicated":
        assert all(row.recipe is not None for row in exhibit.rows)
    for row in exhibit.rows:
        assert set(row.published_sd) <= set(row.published)
        assert row.published or row.recipe is not None, f"{row.label} says nothing"


@pytest.mark.parametrize("name", NAMES)
def test_claims_state_what_their_relation_needs(name: str) -> None:
    exhibit = load(name)
    for claim in exhibit.claims:
        counts = RELATIONS[claim.relation]
        assert len(claim.rows) in counts or (counts == {0} and len(claim.rows) > 1), claim.id
        assert len(claim.rows[:2]) == len(set(claim.rows[:2])), f"{claim.id} compares a row with itself"
        assert (claim.direction is not None) == (claim.relation == "trend"), claim.id
        assert (claim.low is not None or claim.high is not None) == (claim.relation in ("within", "gap")), claim.id
        assert claim.margin > 0 or claim.relation != "equivalent", claim.id
        assert exhibit.column(claim.column).better != "none" or claim.relation not in ("order", "gap"), claim.id


@pytest.mark.parametrize("name", NAMES)
def test_recipes_use_known_words_only(name: str) -> None:
    exhibit = load(name)
    for row, column in itertools.product(exhibit.rows, exhibit.columns):
        stated = exhibit.recipe_of_cell(row, column)
        if stated is None:
            continue
        assert "target" in stated, f"{row.label} leaves its target to the default"
        if "toy" in stated:
            assert set(stated) == TOY_KEYS
            method("target", stated["target"])
        else:
            parse(stated)


def test_rows_that_mean_different_things_are_different_runs() -> None:
    """Two rows of one exhibit, or two named recipes, never resolve to the same run."""
    for name in NAMES:
        exhibit = load(name)
        stated = [exhibit.stated(row.recipe) for row in exhibit.rows if row.recipe is not None]
        if "toy" not in exhibit.recipe:
            ids = [run_id(parse(recipe), "laptop", 0) for recipe in stated]
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


@pytest.mark.parametrize(("name", "label", "key", "value"), CELLS)
def test_a_cell_is_as_printed(name: str, label: str, key: str, value: float | str) -> None:
    assert load(name).row(label).published[key] == value


@pytest.mark.parametrize(("name", "key", "values"), COLUMNS)
def test_a_column_is_as_printed(name: str, key: str, values: list[float | str]) -> None:
    assert [row.published[key] for row in load(name).rows if key in row.published] == values


# Where the printed numbers contradict the text that the claim restates; the exhibit's notes say so.
SELF_CONTRADICTIONS = {("rskd/table01", "calibration-worsens-as-k-shrinks")}


def agrees_with_print(claim: Claim, exhibit: Exhibit) -> bool | None:
    """Whether the paper's own numbers bear the claim out; None where they do not suffice to say."""
    cells = [exhibit.row(label).published.get(claim.column) for label in claim.rows]
    if None in cells:
        return None
    values, tiny = [float(cell) for cell in cells if cell is not None], 1e-9
    low = -math.inf if claim.low is None else claim.low - tiny
    high = math.inf if claim.high is None else claim.high + tiny
    first, second = values[0], values[min(1, len(values) - 1)]
    match claim.relation:
        case "order":
            return first < second if exhibit.column(claim.column).better == "lower" else first > second
        case "trend":
            return values == sorted(values, reverse=claim.direction == "decreasing")
        case "within":
            return low <= first <= high
        case "gap":
            return low <= (second - first) / (second - values[2]) <= high
        case "equivalent":
            return abs(first - second) < claim.margin * (abs(values[2] - values[3]) if len(values) == 4 else 1)
        case "diverges":
            return math.isinf(first)
    raise AssertionError(claim.relation)


@pytest.mark.parametrize("name", NAMES)
def test_claims_point_the_way_the_printed_numbers_do(name: str) -> None:
    """A claim turned round by a slip of ours would contradict the numbers that the paper prints for it."""
    exhibit = load(name)
    against = {(name, claim.id) for claim in exhibit.claims if agrees_with_print(claim, exhibit) is False}
    assert against == {pair for pair in SELF_CONTRADICTIONS if pair[0] == name}


def loss_of(row: Row) -> float | None:
    value = row.published.get("lm_loss", row.published.get("top_k_loss"))
    return value if isinstance(value, float) else None


def share_interval(value: float, start: float, end: float, step: float) -> tuple[float, float]:
    """The percentages of the way that losses rounded to `step` allow; monotone in each loss, so corners suffice."""
    half = step / 2
    corners = itertools.product(*((x - half, x + half) for x in (value, start, end)))
    shares = [100 * (a - x) / (a - b) for x, a, b in corners]
    return min(shares), max(shares)


def contradicted(exhibit: Exhibit) -> list[str]:
    column = exhibit.column("gap_closed")
    assert column.derive is not None
    start, end = (loss_of(exhibit.row(column.derive[role])) for role in ("start", "end"))
    assert start is not None and end is not None
    ends = (column.derive["start"], column.derive["end"])
    wrong = []
    for row in exhibit.rows:
        value, printed = loss_of(row), row.published.get("gap_closed")
        if value is None or not isinstance(printed, float) or row.label in ends:
            continue
        low, high = share_interval(value, start, end, 0.01)
        if not low - 0.5 <= printed <= high + 0.5:
            wrong.append(row.label)
    return wrong


@pytest.mark.parametrize(
    ("name", "known"), [("rskd/table01", []), ("rskd/table02", []), ("rskd/table11", ["Peng et al. (2024)*"])]
)
def test_percentages_follow_from_the_rounded_losses_or_a_note_says_not(name: str, known: list[str]) -> None:
    exhibit = load(name)
    assert contradicted(exhibit) == known
    for label in known:
        assert exhibit.row(label).note and any(label in note for note in exhibit.notes)


def test_table_16_percentages_share_one_online_loss() -> None:
    """CE 2.81 is not printed with Table 16; the three rows must allow one loss of the online run, as its note says."""
    rows = [row for row in load("rskd/table16").rows if row.published]
    ranges = []
    for row in rows:
        value, share = row.published["lm_loss"], row.published["gap_closed"]
        assert isinstance(value, float) and isinstance(share, float)
        corners = itertools.product((2.805, 2.815), (value - 5e-4, value + 5e-4), (share - 0.5, share + 0.5))
        ranges.append([ce - 100 * (ce - x) / percent for ce, x, percent in corners])
    low, high = max(map(min, ranges)), min(map(max, ranges))
    assert low <= 2.747 <= high


def test_table_12_repeats_the_wrong_row_of_table_6() -> None:
    at_one, six = load("rskd/table12").row("1.0").published, load("rskd/table06")
    same = {key for key in ("lm_loss", "ece", "zero_shot") if at_one[key] == six.row("12.1").published[key]}
    assert same == {"lm_loss", "ece", "zero_shot"}
    assert all(at_one[key] != six.row("57.0").published[key] for key in same)


def test_table_5_is_arithmetic() -> None:
    for row in load("rskd/table05").rows:
        keys = ("unique_classes", "bytes_per_class", "terabytes_per_100B_tokens")
        classes, size, total = (row.published[key] for key in keys)
        assert isinstance(classes, float) and isinstance(size, float)
        assert classes * size * 100e9 / 1e12 == pytest.approx(total)


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
    "text in a number": ("lm_loss = 2.87", 'lm_loss = "2.87"', ("rows 'Top-K 12'", "published, lm_loss", "'2.87'")),
    "word in a number": ("lm_loss = 2.87", 'lm_loss = "n/a"', ("rows 'Top-K 12'", "published, lm_loss", "'n/a'")),
    "bad TOML": ('title = "A title"', "title = A title", ("not TOML", "line 4")),
    "unknown key": ('label = "Top-K 12"', 'label = "Top-K 12"\ncomment = 1', ("rows 'Top-K 12'", "comment")),
    "missing key": ('label = "CE"\n', "", ("rows 1", "label", "required")),
    "unknown status": ('"replicated"', '"done"', ("status", "'published'", "'done'")),
    "bad number": ('number = "6"', 'number = "six"', ("number", "'six'")),
    "other name": ('number = "6"', 'number = "7"', ("'rskd/table07'",)),
    "claim on no row": ('rows = ["CE", "Top-K 12"]', 'rows = ["CE", "Top-K"]', ("claim 'worse'", "'Top-K'")),
    "claim on no column": ('column = "lm_loss"', 'column = "ece"', ("claim 'worse'", "'ece'")),
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
        **{"PPL": "6.9", "PPL sd": "0.26", "ECE": "27.6", "ECE sd": "0.12", "LM loss": ""},
    }


def test_every_page_can_be_shown(capsys: pytest.CaptureFixture[str]) -> None:
    for name in NAMES:
        exhibit = load(name)
        assert main(["show", exhibit.paper, f"{exhibit.kind}-{exhibit.number}"]) == 0
        said = capsys.readouterr().out
        assert said.startswith(f"{name}: ")
        assert max(map(len, said.splitlines())) <= 160
    assert main(["list"]) == 0
    assert capsys.readouterr().out.count("\n") == len(NAMES)
    assert main(["coverage"]) == 0
    assert "0-shot score: comes with the evaluation issue" in capsys.readouterr().out
