"""Exhibit, Row, Column, Claim: the published record as data.

One TOML file per published table or data figure. Nothing in it is computed; nothing here imports the rest of the suite.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError

from paper_tables.printed import Cell, Number, read
from paper_tables.relation import Entry, Quantity, Relation, Said, Term, Undecided

__all__ = [
    "TEXT",
    "Claim",
    "Column",
    "Exhibit",
    "Quantity",
    "Relation",
    "Row",
    "Said",
    "Term",
    "Undecided",
    "file_stem",
    "load",
    "named_recipes",
    "names",
    "said",
]

ROOT = Path(__file__).parent
PAPERS = {"rskd": "RS-KD", "tad": "TAD", "sekd": "SE-KD", "salt": "SALT", "ours": "This suite"}
Scale = Literal["smoke", "laptop", "h100", "paper"]
SCALES: tuple[Scale, ...] = ("smoke", "laptop", "h100", "paper")
Model = TypeVar("Model", bound=BaseModel)
TEXT = "text"  # the unit of a column of words


class Column(Entry):
    """One measured quantity. A column in percent is recorded as a fraction and multiplied by 100 when printed."""

    key: str
    label: str
    unit: str = ""  # "text": a column of words
    better: Literal["lower", "higher", "none"] = "none"
    decimals: int = 2
    exact: bool = False  # counts and settings: nothing is rounded
    metric: str = ""  # the record's metric; "" means the same as `key`
    probe: str = ""  # the probe whose run fills this column, by the row's recipe; "" means the row's own run
    recipe: dict[str, Any] = Field(default_factory=dict)  # in which that run's recipe differs from the row's
    # {function = "gap_closed", of = "lm_loss", start = "CE", end = "FullKD"}: from rows, or columns of its own row
    derive: dict[str, str] | None = None
    deviation: bool = False  # not what the runs measure but its deviation over seeds (divisor n - 1)
    why: str = ""  # why the suite leaves this column empty, when it does
    average_of: list[str] = Field(default_factory=list)  # the columns (tasks) whose mean this one is printed to be
    weights: list[float] = Field(default_factory=list)  # their weights, where the mean is weighted

    @property
    def times(self) -> float:
        """What a record's value is multiplied by when it is printed."""
        return 100.0 if self.unit == "%" else 1.0


class Row(Entry):
    label: str
    recipe: dict[str, Any] | str | None = None  # the difference from the exhibit's recipe; a string names recipes.toml
    companions: dict[str, dict[str, Any] | str] = Field(default_factory=dict)  # column -> another run that fills it
    metrics: dict[str, str] = Field(default_factory=dict)  # column -> its metric in this row, where rows share a run
    published: dict[str, Cell] = Field(default_factory=dict)  # as printed; a dash is an absent key
    published_sd: dict[str, Number] = Field(default_factory=dict)
    best: list[str] = Field(default_factory=list)  # columns in which the paper marks this row as the best (bold)
    second: list[str] = Field(default_factory=list)  # and as the second best (underlined)
    printed_in: dict[str, list[str]] = Field(default_factory=dict)  # column -> [exhibit, row, column] that prints it
    doubt: str = ""  # what the extracted text leaves open about these cells
    note: str = ""


class Claim(Entry):
    """One statement of the paper, in our words, and the relation over rows and columns that decides it."""

    id: str
    text: str
    where: str  # section, table or caption of the paper
    relation: Literal["order", "within", "trend", "gap", "equivalent"] | str
    column: str = ""
    columns: list[str] = Field(default_factory=list)  # instead of `column`, for `wins`
    printed_column: str = ""  # where the paper prints what decides it, if not in `column`: its percentages, our losses
    rows: list[str]
    # order: rows[0] is better than rows[1] (by the column's `better`), by more than `margin`
    # within: rows[0] lies in [low, high]
    # trend: the column goes `direction` along rows, in the order given
    # gap: rows[0] covers at least `low` (at most `high`) of the way from rows[1] to rows[2]
    # equivalent: rows[0] and rows[1] differ by less than `margin`; with four rows by that share of the last two's gap
    # diverges: training rows[0] diverges
    # best: rows[0] is better than each of the other rows named
    # change: rows[0] minus rows[1] lies in [low, high], in the column's unit
    # ratio: rows[0] over rows[1] lies in [low, high]
    # wins: rows[0] is better than rows[1] in at least `low` of `columns` (in all of them without `low`)
    # low, high and margin: as printed (percent in a percent column); shares of the way for `gap`
    direction: Literal["increasing", "decreasing"] | None = None
    low: float | None = None
    high: float | None = None
    margin: float = 0.0


class Exhibit(Entry):
    paper: str
    number: str = Field(pattern=r"^[0-9]+[a-h]?$")  # "6", "2a"
    kind: Literal["table", "figure", "poster"] = "table"
    title: str
    where: str
    # published: transcribed, the suite cannot run it yet; runnable: it can; replicated: there are logged records
    status: Literal["replicated", "runnable", "published"]
    why: str = ""
    reprints: str = ""  # 'rskd/table06': the exhibit whose numbers this one prints again, and which is run in its place
    scales: list[Scale] = Field(default_factory=lambda: list(SCALES))  # runnable at
    layout: Literal["rows", "transposed", "grid"] = "rows"  # as the paper prints it; grid: "down / across"
    doubt: str = ""  # what the extracted text leaves open
    seeds: int | None = None  # how many runs stand behind published_sd
    notes: list[str] = Field(default_factory=list)  # where the paper is silent or wrong, and what we chose
    recipe: dict[str, Any] = Field(default_factory=dict)
    row_header: str = "Method"
    columns: list[Column]
    rows: list[Row]
    claims: list[Claim] = Field(default_factory=list)
    relations: list[Relation] = Field(default_factory=list)
    plot: dict[str, Any] = Field(default_factory=dict)  # a figure's kind and axes

    @property
    def heading(self) -> str:
        return f"{PAPERS[self.paper]} {self.kind.capitalize()} {self.number}: {self.title}"

    @property
    def name(self) -> str:
        return f"{self.paper}/{file_stem(self.kind, self.number)}"

    def at(self, scale: str) -> str:
        """The scale at which the exhibit is run and shown when asked for at `scale`: its only one, where it has one."""
        return self.scales[0] if len(self.scales) == 1 else scale

    def row(self, label: str) -> Row:
        return next(row for row in self.rows if row.label == label)

    def column(self, key: str) -> Column:
        return next(column for column in self.columns if column.key == key)

    def recipe_of(self, row: Row) -> dict[str, Any] | None:
        """The row's recipe as stated: the exhibit's, overridden by the row's or by the one that it names."""
        return None if row.recipe is None else self.stated(row.recipe)

    def recipe_of_cell(self, row: Row, column: Column) -> dict[str, Any] | None:
        """The recipe whose record fills this cell: the row's, with what the column says; or its companion there."""
        if column.key in row.companions:
            return self.stated(row.companions[column.key])
        own = self.recipe_of(row)
        if own is None:
            return None
        return {**own, **column.recipe, **({"probe": column.probe} if column.probe else {})}

    def stated(self, recipe: dict[str, Any] | str) -> dict[str, Any]:
        own = named_recipes(self.paper)[recipe] if isinstance(recipe, str) else recipe
        return {**self.recipe, **own}


def file_stem(kind: str, number: str) -> str:
    """'table', '6' -> 'table06'; 'figure', '2a' -> 'figure02a'."""
    digits = number.rstrip("abcdefgh")
    return f"{kind}{int(digits):02d}{number[len(digits) :]}"


@cache
def named_recipes(paper: str) -> dict[str, dict[str, Any]]:
    """The recipes that several exhibits of the paper share. Raises ValueError, one line, if the file is not TOML."""
    path = ROOT / paper / "recipes.toml"
    return read(path) if path.exists() else {}


@cache
def said(paper: str) -> Said:
    """What the paper's prose says in numbers. Raises ValueError, one line, for a malformed file."""
    path = ROOT / paper / "said.toml"
    raw = read(path) if path.exists() else {}
    found = validated(Said, raw, f"{paper}/said")
    for kind, ids in (("quantity", [q.id for q in found.quantities]), ("claim", [c.id for c in found.claims])):
        if twice := {one for one in ids if ids.count(one) > 1}:
            raise ValueError(f"{paper}/said.toml, {kind} {min(twice)!r} stands twice.")
    for quantity in found.quantities:
        if (quantity.value is None) == (quantity.low is None) or (quantity.low is None) != (quantity.high is None):
            raise ValueError(f"{paper}/said.toml, quantity {quantity.id!r}: give value, or low and high.")
    return found


def load(name: str) -> Exhibit:
    """Read one exhibit, e.g. 'rskd/table06'.

    Raises ValueError, one line naming file, place and problem, for an unknown exhibit or a malformed file.
    """
    path = ROOT / f"{name}.toml"
    if not path.exists():
        raise ValueError(f"No exhibit {name!r}. Known: {', '.join(names())}.")
    exhibit = validated(Exhibit, read(path), name)
    if problem := first_problem(exhibit, name):
        raise ValueError(f"{name}.toml, {problem}")
    return exhibit


def validated(model: type[Model], raw: dict[str, Any], name: str) -> Model:
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        came = "" if first["type"] == "missing" else f" (got {first['input']!r})"
        raise ValueError(f"{name}.toml, {place(first['loc'], raw)}: {first['msg']}{came}.") from None


def place(location: tuple[int | str, ...], raw: Any) -> str:
    """Where in the file: ('rows', 2, 'published', 'ece', 'float') -> "rows 'Top-K 12', published, ece"."""
    words: list[str] = []
    for part in location:
        if isinstance(part, int):
            raw = raw[part]
            words[-1] += f" {called(raw) or part + 1}"
        elif isinstance(raw, dict):
            raw = raw.get(part)
            words.append(part)
        # anything else is one of the alternatives that pydantic tried, which the file does not know
    return ", ".join(words)


def called(entry: Any) -> str | None:
    """What a row, a column or a claim is called, if it is one and has a name."""
    if not isinstance(entry, dict):
        return None
    return next((repr(entry[key]) for key in ("key", "label", "id") if key in entry), None)


def first_problem(exhibit: Exhibit, name: str) -> str | None:
    """What the types cannot say: names refer to things that exist, labels are unique."""
    labels = [row.label for row in exhibit.rows]
    keys = [column.key for column in exhibit.columns]
    if exhibit.name != name:
        return f"says it is {exhibit.name!r}."
    for kind, values in (("row", labels), ("column", keys), ("claim", [claim.id for claim in exhibit.claims])):
        twice = {value for value in values if values.count(value) > 1}
        if twice:
            return f"{kind} {min(twice)!r} stands twice."
    if exhibit.reprints and (exhibit.status != "published" or not (ROOT / f"{exhibit.reprints}.toml").exists()):
        return (
            f"reprints {exhibit.reprints!r}: what is reprinted is an exhibit on file, and a reprint is not run itself."
        )
    for row in exhibit.rows:
        unknown = set(row.published) | set(row.published_sd) | set(row.companions)
        unknown |= set(row.best) | set(row.second) | set(row.printed_in) | set(row.metrics)
        if unknown - set(keys):
            return f"row {row.label!r} has no column {min(unknown - set(keys))!r}. Columns: {', '.join(keys)}."
        for key, value in row.published.items():
            words = exhibit.column(key).unit == TEXT
            if isinstance(value, str) and not words and value != "inf":
                return f"row {row.label!r}, column {key!r}: {value!r} is text in a column of numbers."
            if words and not isinstance(value, str):
                return f"row {row.label!r}, column {key!r}: {value} is a number in a column of text."
        for recipe in (row.recipe, *row.companions.values()):
            if isinstance(recipe, str) and recipe not in named_recipes(exhibit.paper):
                known = ", ".join(named_recipes(exhibit.paper)) or "none"
                return f"row {row.label!r} names recipe {recipe!r}. Known in recipes.toml: {known}."
    for column in exhibit.columns:
        derived = column.derive or {}
        for role in set(derived) - {"function", "of"}:
            if derived[role] not in (*labels, *keys):
                return f"column {column.key!r} derives from row {derived[role]!r}. Rows: {', '.join(labels)}."
        if missing := [key for key in column.average_of if key not in keys]:
            return f"column {column.key!r} averages column {missing[0]!r}. Columns: {', '.join(keys)}."
        if column.weights and len(column.weights) != len(column.average_of):
            return f"column {column.key!r} has {len(column.weights)} weights for {len(column.average_of)} columns."
    for claim in exhibit.claims:
        if missing := [label for label in claim.rows if label not in labels]:
            return f"claim {claim.id!r} names row {missing[0]!r}. Rows: {', '.join(labels)}."
        if bool(claim.column) == bool(claim.columns):
            return f"claim {claim.id!r} needs a column, or columns."
        if absent := [key for key in (*claim.columns, claim.column, claim.printed_column) if key and key not in keys]:
            return f"claim {claim.id!r} names column {absent[0]!r}. Columns: {', '.join(keys)}."
    return None


def names() -> list[str]:
    """Every exhibit on file, 'paper/stem', in the papers' order."""
    kinds = ("table", "figure", "poster")
    return [
        f"{paper}/{path.stem}"
        for paper in PAPERS
        for kind in kinds
        for path in sorted((ROOT / paper).glob(f"{kind}*.toml"))
    ]
