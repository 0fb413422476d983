"""Relation, Quantity: what the audit recomputes, and the numbers of the papers' prose, as data."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from paper_tables.printed import Number


class Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


Term = Number | str | list[str]  # see Relation


class Relation(Entry):
    """One line of the audit: something printed that follows from other printed things.

    A term is a number (exact), a column's key (of each row in turn), [row, column] of this exhibit,
    [exhibit, row, column] of another one ("table06", or "tad/table05"), or "@id": a quantity of the paper's said.toml.
    """

    function: str  # a name in paper_tables/functions.py
    of: list[Term] = Field(default_factory=list)
    result: Term | None = None  # the printed value that follows; comparisons (equal, above, below, marked) have none
    rows: list[str] = Field(default_factory=list)  # the rows taken in turn; none: every row that prints all the cells
    columns: list[str] = Field(default_factory=list)  # `marked` alone: the columns whose marks are checked
    weights: list[float] = Field(default_factory=list)  # `weighted_mean` alone
    tolerance: float = 0.0  # of the result, in its unit, beyond its rounding: for values printed as "about"
    where: str = ""  # the sentence or caption that states it, where no column does
    note: str = ""


class Quantity(Entry):
    """A number that stands in the paper's prose: a value, or a range from low to high."""

    id: str
    text: str  # what it is the value of, in our words
    where: str
    unit: str = ""
    value: Number | None = None
    low: Number | None = None
    high: Number | None = None
    about: bool = False  # printed as "about", "~": one unit in the last place either way instead of half a unit


class Undecided(Entry):
    """A claim of the paper that none of its tables or data figures can decide, and what would."""

    id: str
    text: str
    where: str
    needs: str


class Said(Entry):
    """`<paper>/said.toml`: what the prose says in numbers, the relations that join exhibits, claims of no exhibit."""

    quantities: list[Quantity] = Field(default_factory=list)
    relations: list[Relation] = Field(default_factory=list)
    claims: list[Undecided] = Field(default_factory=list)
