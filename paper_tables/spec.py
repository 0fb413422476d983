"""Exhibit, Row, Column, Claim: the published record as data.

One TOML file per published table or data figure. Nothing in it is computed; nothing here imports the rest of the suite.
"""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

ROOT = Path(__file__).parent
PAPERS = {"rskd": "RS-KD", "tad": "TAD", "sekd": "SE-KD", "salt": "SALT"}

Number = Annotated[float, Field(strict=True)]  # strict: "2.81" in quotes is a slip of the pen, not a number
Printed = Number | Literal["inf"]  # as the paper prints it, in the column's unit; a dash is an absent key


class Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Column(Entry):
    """One measured quantity. A column in percent is recorded as a fraction and multiplied by 100 when printed."""

    key: str
    label: str
    unit: str = ""
    better: Literal["lower", "higher", "none"] = "none"
    decimals: int = 2
    metric: str = ""  # the record's metric; "" means the same as `key`
    derive: dict[str, str] | None = None  # {function = "gap_closed", of = "lm_loss", start = "CE", end = "FullKD"}
    why: str = ""  # why the suite leaves this column empty, when it does


class Row(Entry):
    label: str
    recipe: dict[str, Any] | str | None = None  # the difference from the exhibit's recipe; a string names recipes.toml
    companions: dict[str, dict[str, Any]] = Field(default_factory=dict)  # column -> another run that fills this cell
    published: dict[str, Printed] = Field(default_factory=dict)
    published_sd: dict[str, Number] = Field(default_factory=dict)
    note: str = ""


class Claim(Entry):
    """One statement of the paper, in our words, and the relation over rows and columns that decides it."""

    id: str
    text: str
    where: str  # section, table or caption of the paper
    relation: Literal["order", "within", "trend", "gap", "equivalent"] | str
    column: str
    rows: list[str]
    # order: rows[0] is better than rows[1] (by the column's `better`), by more than `margin`
    # within: rows[0] lies in [low, high]
    # trend: the column goes `direction` along rows, in the order given
    # gap: rows[0] covers at least `low` (at most `high`) of the way from rows[1] to rows[2]
    # equivalent: rows[0] and rows[1] differ by less than `margin`; with four rows by that share of the last two's gap
    # diverges: training rows[0] diverges
    # low, high and margin: as printed (percent in a percent column); shares of the way for `gap`
    direction: Literal["increasing", "decreasing"] | None = None
    low: float | None = None
    high: float | None = None
    margin: float = 0.0


class Exhibit(Entry):
    paper: str
    number: str = Field(pattern=r"^[0-9]+[a-h]?$")  # "6", "2a"
    kind: Literal["table", "figure"] = "table"
    title: str
    where: str
    status: Literal["replicated", "published"]  # published: transcribed, the suite cannot run it yet
    why: str = ""
    notes: list[str] = Field(default_factory=list)  # where the paper is silent or wrong, and what we chose
    recipe: dict[str, Any] = Field(default_factory=dict)
    row_header: str = "Method"
    columns: list[Column]
    rows: list[Row]
    claims: list[Claim] = Field(default_factory=list)
    plot: dict[str, Any] = Field(default_factory=dict)  # a figure's kind and axes

    @property
    def heading(self) -> str:
        return f"{PAPERS[self.paper]} {self.kind.capitalize()} {self.number}: {self.title}"

    @property
    def name(self) -> str:
        return f"{self.paper}/{file_stem(self.kind, self.number)}"

    def row(self, label: str) -> Row:
        return next(row for row in self.rows if row.label == label)

    def column(self, key: str) -> Column:
        return next(column for column in self.columns if column.key == key)

    def recipe_of(self, row: Row) -> dict[str, Any] | None:
        """The row's recipe as stated: the exhibit's, overridden by the row's or by the one that it names."""
        return None if row.recipe is None else self.stated(row.recipe)

    def recipe_of_cell(self, row: Row, column: Column) -> dict[str, Any] | None:
        """The recipe whose record fills this cell: the row's, unless the row names a companion for the column."""
        if column.key in row.companions:
            return self.stated(row.companions[column.key])
        return self.recipe_of(row)

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


def read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{path.parent.name}/{path.name} is not TOML: {error}.") from None


def load(name: str) -> Exhibit:
    """Read one exhibit, e.g. 'rskd/table06'.

    Raises ValueError, one line naming file, place and problem, for an unknown exhibit or a malformed file.
    """
    path = ROOT / f"{name}.toml"
    if not path.exists():
        raise ValueError(f"No exhibit {name!r}. Known: {', '.join(names())}.")
    raw = read(path)
    try:
        exhibit = Exhibit.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        came = "" if first["type"] == "missing" else f" (got {first['input']!r})"
        raise ValueError(f"{name}.toml, {place(first['loc'], raw)}: {first['msg']}{came}.") from None
    if problem := first_problem(exhibit, name):
        raise ValueError(f"{name}.toml, {problem}")
    return exhibit


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
    for row in exhibit.rows:
        unknown = set(row.published) | set(row.published_sd) | set(row.companions)
        if unknown - set(keys):
            return f"row {row.label!r} has no column {min(unknown - set(keys))!r}. Columns: {', '.join(keys)}."
        if isinstance(row.recipe, str) and row.recipe not in named_recipes(exhibit.paper):
            known = ", ".join(named_recipes(exhibit.paper)) or "none"
            return f"row {row.label!r} names recipe {row.recipe!r}. Known in recipes.toml: {known}."
    for column in exhibit.columns:
        derived = column.derive or {}
        for role in ("start", "end"):
            if role in derived and derived[role] not in labels:
                return f"column {column.key!r} derives from row {derived[role]!r}. Rows: {', '.join(labels)}."
    for claim in exhibit.claims:
        if missing := [label for label in claim.rows if label not in labels]:
            return f"claim {claim.id!r} names row {missing[0]!r}. Rows: {', '.join(labels)}."
        if claim.column not in keys:
            return f"claim {claim.id!r} names column {claim.column!r}. Columns: {', '.join(keys)}."
    return None


def names() -> list[str]:
    """Every exhibit on file, 'paper/stem', in the papers' order."""
    return [f"{paper}/{path.stem}" for paper in PAPERS for path in sorted((ROOT / paper).glob("[tf]*.toml"))]
