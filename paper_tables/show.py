"""An exhibit as the paper printed it: a grid of its cells, and a page for the terminal."""

from __future__ import annotations

import textwrap

from paper_tables.printed import Printed
from paper_tables.spec import Column, Exhibit, Row

WIDTH = 100
Grid = list[list[str]]


def grid(exhibit: Exhibit) -> Grid:
    """Header and rows of the published cells as text, laid out as in the paper; a first column of labels.

    Rows and columns of ours, which the paper does not print, are left out. A deviation stands behind its mean.
    """
    rows = [row for row in exhibit.rows if row.published] or exhibit.rows
    printed = {key for row in rows for key in row.published}
    columns = [column for column in exhibit.columns if column.key in printed] or exhibit.columns
    if exhibit.layout == "grid":
        return crossed(exhibit, rows, columns[0])
    table = listed(exhibit, rows, columns)
    return [list(line) for line in zip(*table, strict=True)] if exhibit.layout == "transposed" else table


def listed(exhibit: Exhibit, rows: list[Row], columns: list[Column]) -> Grid:
    with_sd = {key for row in rows for key in row.published_sd}
    header, lines = [exhibit.row_header], [[row.label] for row in rows]
    for column in columns:
        header.append(column.label)
        for line, row in zip(lines, rows, strict=True):
            line.append(cell(row, column.key))
        if column.key in with_sd:
            header.append(f"{column.label} sd")
            for line, row in zip(lines, rows, strict=True):
                line.append(row.published_sd[column.key].text if column.key in row.published_sd else "")
    return [header, *lines]


def crossed(exhibit: Exhibit, rows: list[Row], column: Column) -> Grid:
    """Rows labelled 'down / across' as the paper's grid of one quantity; other rows have one line each below it."""
    separator = exhibit.plot.get("separator", " / ")
    inside = {tuple(row.label.split(separator, 1)): row for row in rows if separator in row.label}
    down, across = (list(dict.fromkeys(pair[i] for pair in inside)) for i in (0, 1))
    lines = [[exhibit.row_header, *across]]
    for label in down:
        found = [inside.get((label, other)) for other in across]
        lines.append([label, *(cell(row, column.key) if row else "" for row in found)])
    outside = [row for row in rows if separator not in row.label]
    return lines + [[row.label, cell(row, column.key), *[""] * (len(across) - 1)] for row in outside]


def cell(row: Row, key: str) -> str:
    """The cell's digits or words as printed; '' for a dash."""
    value = row.published.get(key, "")
    return value.text if isinstance(value, Printed) else value


def page(exhibit: Exhibit) -> str:
    """Heading, the published table, why cells stay empty, doubts, notes and claims."""
    lines = [f"{exhibit.name}: {exhibit.title}", f"{exhibit.where}; {exhibit.status}"]
    lines += paragraph("", exhibit.why) if exhibit.why else []
    lines += ["", *aligned(grid(exhibit)), ""]
    for column in exhibit.columns:
        lines += paragraph("", f"{column.label}: {column.why}.") if column.why else []
    for row in exhibit.rows:
        lines += paragraph("", f"{row.label}: {row.note}.") if row.note else []
        lines += paragraph("", f"{row.label}, doubt: {row.doubt}") if row.doubt else []
    lines += paragraph("", f"Doubt: {exhibit.doubt}") if exhibit.doubt else []
    for note in exhibit.notes:
        lines += paragraph("- ", note)
    lines += ["", "Claims"] if exhibit.claims else []
    for claim in exhibit.claims:
        lines += paragraph("- ", f"{claim.text} ({claim.where}) [{claim.id}]")
    return "\n".join(lines)


def aligned(table: Grid, width: int = 160) -> list[str]:
    """Columns of equal width, labels to the left and numbers to the right; in blocks where they exceed `width`."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    blocks, used = [[0]], widths[0]
    for place, wide in enumerate(widths[1:], start=1):
        if used + 2 + wide > width and len(blocks[-1]) > 1:
            blocks.append([0])
            used = widths[0]
        blocks[-1].append(place)
        used += 2 + wide
    lines: list[str] = []
    for block in blocks:
        lines += [""] if lines else []
        for cells in table:
            label, *others = ((cells[place], widths[place]) for place in block)
            padded = [label[0].ljust(label[1]), *(text.rjust(wide) for text, wide in others)]
            lines.append("  ".join(padded).rstrip())
    return lines


def paragraph(mark: str, text: str) -> list[str]:
    indent = " " * len(mark)
    return textwrap.wrap(text, width=WIDTH, initial_indent=mark, subsequent_indent=indent, break_on_hyphens=False)
