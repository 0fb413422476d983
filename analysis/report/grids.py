"""Tables of an exhibit as the pages show them: as the paper prints it, and beside our numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from analysis.sheet import OURS, Sheet
from paper_tables.printed import Printed
from paper_tables.spec import TEXT, Column, Row

MANY_COLUMNS = 8  # a table of ours with more than these is shown as printed too


@dataclass(frozen=True)
class Head:
    text: str
    across: int = 1  # columns that it stands over
    down: int = 1
    voice: str = ""
    words: bool = False  # over a column of text


@dataclass(frozen=True)
class Cell:
    text: str
    voice: str = "published"
    mark: str = ""  # 'best' or 'second': how the paper marks it
    words: bool = False  # text rather than a number
    begins: bool = False  # the first of its column's voices
    links: tuple[int, ...] = ()  # the groups of runs behind the row


@dataclass(frozen=True)
class Line:
    label: str
    cells: list[Cell]


@dataclass(frozen=True)
class Grid:
    id: str
    caption: str
    heads: list[list[Head]]
    lines: list[Line]


def grids(sheet: Sheet, groups: Mapping[str, tuple[int, ...]]) -> list[Grid]:
    """As printed where the paper's layout or size calls for it or we have nothing, then beside our numbers."""
    exhibit = sheet.exhibit
    ours = any(sheet.cells[voice] for voice in OURS)
    has_printed = any(row.published for row in exhibit.rows)
    as_it_is = not ours or exhibit.layout != "rows" or len(exhibit.columns) > MANY_COLUMNS
    return [*(printed(sheet) if as_it_is and has_printed else []), *([beside(sheet, groups)] if ours else [])]


def printed(sheet: Sheet) -> list[Grid]:
    """The published numbers in the paper's own layout; rows and columns of ours alone are left out."""
    exhibit = sheet.exhibit
    rows = [row for row in exhibit.rows if row.published]
    columns = [column for column in exhibit.columns if any(column.key in row.published for row in rows)]
    separator = exhibit.plot.get("separator", " / ")
    if exhibit.layout == "grid" and all(row.label.count(separator) == 1 for row in rows):
        return [crossed(sheet, rows, column, separator) for column in columns]
    caption = f"{exhibit.heading}, as published"
    if exhibit.layout == "transposed":
        heads = [Head("Quantity"), *(Head(row.label) for row in rows)]
        lines = [Line(titled(sheet, column), [of_paper(row, column) for row in rows]) for column in columns]
    else:
        heads = [Head(exhibit.row_header), *(Head(titled(sheet, c), words=c.unit == TEXT) for c in columns)]
        lines = [Line(row.label, [of_paper(row, column) for column in columns]) for row in rows]
    return [Grid("printed", caption, [heads], lines)]


def crossed(sheet: Sheet, rows: list[Row], column: Column, separator: str) -> Grid:
    """Rows labelled 'down / across' as the two-way table that the paper prints."""
    pairs = {row.label: row.label.split(separator) for row in rows}
    down, across = (list(dict.fromkeys(pair[side] for pair in pairs.values())) for side in (0, 1))
    by_pair = {tuple(pairs[row.label]): row for row in rows}
    empty = Row(label="")
    lines = [Line(y, [of_paper(by_pair.get((y, x), empty), column) for x in across]) for y in down]
    caption = f"{sheet.exhibit.heading}, as published: {titled(sheet, column)}"
    corner = sheet.exhibit.row_header
    return Grid(f"printed-{column.key}", caption, [[Head(corner), *map(Head, across)]], lines)


def beside(sheet: Sheet, groups: Mapping[str, tuple[int, ...]]) -> Grid:
    """Every row; under each column the voices that have a number there."""
    exhibit = sheet.exhibit
    voices = {column.key: spoken(sheet, column) for column in exhibit.columns}
    columns = [column for column in exhibit.columns if voices[column.key]]
    top = [Head(exhibit.row_header, down=2)]
    top += [Head(titled(sheet, column), across=len(voices[column.key])) for column in columns]
    top += [Head("Runs", down=2)]
    below = [Head(voice, voice=voice) for column in columns for voice in voices[column.key]]
    lines = []
    for row in exhibit.rows:
        cells = []
        for column in columns:
            for voice in voices[column.key]:
                begins = voice == voices[column.key][0]
                cells.append(own(sheet, row, column, voice, begins) if voice in OURS else of_paper(row, column, begins))
        lines.append(Line(row.label, [*cells, Cell("", voice="runs", begins=True, links=groups.get(row.label, ()))]))
    caption = f"{exhibit.heading}, published beside ours"
    return Grid("beside", caption, [top, below], lines)


def titled(sheet: Sheet, column: Column) -> str:
    return sheet.title(column).replace(f" ({TEXT})", "")


def spoken(sheet: Sheet, column: Column) -> list[str]:
    theirs = any(column.key in row.published for row in sheet.exhibit.rows)
    ours = [voice for voice in OURS if any(key == column.key for _, key in sheet.cells[voice])]
    return [*(["published"] if theirs else []), *ours]


def own(sheet: Sheet, row: Row, column: Column, voice: str, begins: bool) -> Cell:
    return Cell(sheet.text(row, column, voice), voice=voice, begins=begins)


def of_paper(row: Row, column: Column, begins: bool = False) -> Cell:
    mark = "best" if column.key in row.best else "second" if column.key in row.second else ""
    return Cell(as_printed(row, column), mark=mark, words=column.unit == TEXT, begins=begins)


def as_printed(row: Row, column: Column) -> str:
    """With the paper's own digits: 2.80 stays 2.80."""
    value, spread = row.published.get(column.key, ""), row.published_sd.get(column.key)
    text = value.text if isinstance(value, Printed) else "∞" if value == "inf" else str(value)
    return text if spread is None else f"{text} (sd {spread.text})"
