"""The published record on the command line: what is on file, and each exhibit as the paper printed it."""

from __future__ import annotations

import argparse
import csv
import signal
import sys
import textwrap

from paper_tables.spec import PAPERS, Column, Exhibit, Row, file_stem, load, names


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m paper_tables", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="every exhibit on file, one a line")
    show = commands.add_parser("show", help="one exhibit as published, with its notes and claims")
    show.add_argument("paper", help=", ".join(PAPERS))
    show.add_argument("number", help="6 or table-6, figure-2a")
    show.add_argument("--csv", action="store_true", help="the published cells only, comma-separated")
    commands.add_parser("coverage", help="what is on file, and what the suite cannot fill yet")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.command == "list":
            print(listing())
        elif chosen.command == "coverage":
            print(coverage())
        elif chosen.csv:
            csv.writer(sys.stdout, lineterminator="\n").writerows(grid(load(name_of(chosen.paper, chosen.number))))
        else:
            print(page(load(name_of(chosen.paper, chosen.number))))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def name_of(paper: str, number: str) -> str:
    """('rskd', 'figure-2a') -> 'rskd/figure02a'; a bare number is a table. Raises ValueError for anything else."""
    kind, _, digits = number.rpartition("-")
    try:
        return f"{paper}/{file_stem(kind or 'table', digits)}"
    except ValueError:
        raise ValueError(f"{number!r} is no exhibit: write 6, table-6 or figure-2a.") from None


def listing() -> str:
    exhibits = [load(name) for name in names()]
    width = max(len(exhibit.name) for exhibit in exhibits)
    return "\n".join(f"{exhibit.name:{width}}  {exhibit.status:10}  {exhibit.title}" for exhibit in exhibits)


def grid(exhibit: Exhibit) -> list[list[str]]:
    """Header and rows of the published cells as text; a deviation stands in a column of its own behind its mean."""
    with_sd = {key for row in exhibit.rows for key in row.published_sd}
    header, lines = [exhibit.row_header], [[row.label] for row in exhibit.rows]
    for column in exhibit.columns:
        header.append(column.label)
        for line, row in zip(lines, exhibit.rows, strict=True):
            line.append(cell(row, column))
        if column.key in with_sd:
            header.append(f"{column.label} sd")
            for line, row in zip(lines, exhibit.rows, strict=True):
                line.append(f"{row.published_sd[column.key]:.2f}" if column.key in row.published_sd else "")
    return [header, *lines]


def cell(row: Row, column: Column) -> str:
    value = row.published.get(column.key)
    if value is None:
        return ""
    return value if isinstance(value, str) else f"{value:.{column.decimals}f}"


def page(exhibit: Exhibit) -> str:
    """Heading, the published table, why cells stay empty, notes and claims, for a terminal of 100 columns."""
    lines = [f"{exhibit.name}: {exhibit.title}", f"{exhibit.where}; {exhibit.status}"]
    lines += paragraph("", exhibit.why) if exhibit.why else []
    lines += ["", *aligned(grid(exhibit)), ""]
    for column in exhibit.columns:
        lines += paragraph("", f"{column.label}: {column.why}.") if column.why else []
    for row in exhibit.rows:
        lines += paragraph("", f"{row.label}: {row.note}.") if row.note else []
    for note in exhibit.notes:
        lines += paragraph("- ", note)
    lines += ["", "Claims"] if exhibit.claims else []
    for claim in exhibit.claims:
        lines += paragraph("- ", f"{claim.text} ({claim.where}) [{claim.id}]")
    return "\n".join(lines)


def aligned(table: list[list[str]]) -> list[str]:
    """Columns of equal width: labels to the left, numbers to the right."""
    first, *others = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for label, *cells in table:
        padded = [label.ljust(first), *(text.rjust(width) for text, width in zip(cells, others, strict=True))]
        lines.append("  ".join(padded).rstrip())
    return lines


def paragraph(mark: str, text: str) -> list[str]:
    indent = " " * len(mark)
    return textwrap.wrap(text, width=100, initial_indent=mark, subsequent_indent=indent, break_on_hyphens=False)


def coverage() -> str:
    """Per paper: exhibits on file, how many the suite runs, published cells, claims; then every gap with its reason."""
    table = [["Paper", "Exhibits", "Replicated", "Published cells", "Rows with a recipe", "Claims"]]
    gaps: list[str] = []
    for paper in PAPERS:
        exhibits = [load(name) for name in names() if name.startswith(f"{paper}/")]
        runs = [exhibit for exhibit in exhibits if exhibit.status == "replicated"]
        rows = [row for exhibit in exhibits for row in exhibit.rows]
        cells = sum(len(row.published) for row in rows)
        recipes = f"{sum(row.recipe is not None for row in rows)} of {len(rows)}"
        claims = sum(len(exhibit.claims) for exhibit in exhibits)
        table.append([paper, str(len(exhibits)), str(len(runs)), str(cells), recipes, str(claims)])
        for exhibit in exhibits:
            gaps += [f"{exhibit.name}: {exhibit.why}"] if exhibit.why else []
            gaps += [f"{exhibit.name}, {column.label}: {column.why}" for column in exhibit.columns if column.why]
    return "\n".join([*aligned(table), "", "Not filled yet", *[line for gap in gaps for line in paragraph("- ", gap)]])


if __name__ == "__main__":
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `show ... | head` ends quietly
    sys.exit(main())
