"""A sheet on the terminal, in blocks of columns where it is wider than the window."""

from __future__ import annotations

from textwrap import wrap

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from analysis.sheet import VOICES, Sheet
from paper_tables.spec import Column

TITLE_WIDTH = 12
STYLES = {"fails": "bold red", "inconclusive": "yellow", "waiting": "blue", "untested": "dim", "holds": "green"}


def show(sheet: Sheet, console: Console) -> None:
    console.print(sheet.exhibit.heading, style="bold", markup=False, highlight=False)
    for line in sheet.header:
        console.print(line, markup=False, highlight=False)
    for block in blocks(sheet, console):
        console.print(grid(sheet, block))
    console.print("Ours: mean ± half-width of the 95 % interval (seeds).", style="dim", highlight=False)
    for voice, claim, verdict in sheet.verdicts:
        state = f"[{STYLES[verdict.state]}]{verdict.state.upper():<12}[/]"
        said = f"{voice}: {claim.text} ({claim.where}) {verdict.numbers}."
        console.print(f"{state} {escape(said)}", highlight=False)
    for note in sheet.notes:
        console.print(f"- {note}", style="dim", markup=False, highlight=False)


def blocks(sheet: Sheet, console: Console) -> list[list[Column]]:
    """The columns in as few groups as fit the console's width; a group has at least one column."""
    found: list[list[Column]] = []
    for column in sheet.exhibit.columns:
        wider = [*found[-1], column] if found else [column]
        options = console.options.update(max_width=10_000)
        if found and Measurement.get(console, options, grid(sheet, wider)).maximum <= console.width:
            found[-1] = wider
        else:
            found.append([column])
    return found


def grid(sheet: Sheet, columns: list[Column]) -> Table:
    table = Table(header_style="", box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1))
    titles = [wrap(sheet.title(column), TITLE_WIDTH) for column in columns]
    height = max(map(len, titles))
    table.add_column("\n" * height + escape(sheet.exhibit.row_header))
    for title in titles:
        for voice in VOICES:
            above = [""] * (height - len(title)) + title if voice == VOICES[0] else [""] * height
            table.add_column("\n".join([f"[bold]{escape(line)}[/]" for line in above] + [voice]), justify="right")
    for row in sheet.exhibit.rows:
        cells = [sheet.text(row, column, voice) for column in columns for voice in VOICES]
        table.add_row(escape(row.label), *map(escape, cells))
    return table
