"""python -m analysis table rskd/table06 | figure rskd/figure03a | verdicts, from records alone."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from analysis.load import Record, frame, records, unfinished
from analysis.sheet import OURS, sheet, verdicts
from paper_tables.spec import Exhibit, load, names

ROOT = Path(__file__).parent.parent


def main(arguments: list[str] | None = None) -> int:
    """0 whatever the verdicts are; 2 with one line on stderr for bad input."""
    given = parser().parse_args(arguments)
    given.local = given.local or given.results / "local"
    try:
        given.run(given)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m analysis", description=__doc__)
    commands = top.add_subparsers(required=True, metavar="table | figure | verdicts")
    for name, run, about in (
        ("table", table, "print an exhibit's table with verdicts; write .md, .csv and .tex"),
        ("figure", figure, "draw an exhibit; write .svg and .png"),
        ("verdicts", all_verdicts, "one line per claim of all exhibits"),
    ):
        command = commands.add_parser(name, help=about, description=about)
        if run is not all_verdicts:
            command.add_argument("exhibit", help="for example rskd/table06")
        command.add_argument("--scale", default="laptop")
        command.add_argument("--results", type=Path, default=ROOT / "results", help="logged records")
        command.add_argument("--local", type=Path, help="this machine's records (default: local/ under --results)")
        command.add_argument("--build", type=Path, default=Path("build"), help="where files are written")
        command.set_defaults(run=run)
    return top


def folders(given: argparse.Namespace) -> dict[str, Path]:
    return dict(zip(OURS, (given.results / given.scale, given.local / given.scale), strict=True))


def read(given: argparse.Namespace) -> dict[str, list[Record]]:
    return {voice: records(folder) for voice, folder in folders(given).items()}


def table(given: argparse.Namespace) -> None:
    from analysis import tables, terminal

    exhibit = load(given.exhibit)
    notes = [
        f"{voice}: {count} unfinished runs at this scale (no summary.json) are ignored."
        for voice, folder in folders(given).items()
        if (count := unfinished(folder))
    ]
    made = sheet(exhibit, given.scale, read(given), notes)
    console = Console()
    written = tables.write(made, given.build)
    terminal.show(made, console)
    tell(written, console)


def figure(given: argparse.Namespace) -> None:

    exhibit, found = load(given.exhibit), read(given)
    # matplotlib takes a second to import, and tables do without
    from analysis.figures import draw

    frames = {voice: frame(exhibit, found[voice], voice) for voice in OURS}
    tell(draw(exhibit, frames, found, given.build / exhibit.paper), Console())


def all_verdicts(given: argparse.Namespace) -> None:
    found = read(given)
    for exhibit in map(load, names()):
        print_verdicts(exhibit, found)


def print_verdicts(exhibit: Exhibit, found: dict[str, list[Record]]) -> None:
    frames = {voice: frame(exhibit, found[voice], voice) for voice in OURS}
    for voice, claim, verdict in verdicts(exhibit, frames):
        print(f"{exhibit.name:<16} {verdict.state:<12} {voice:<6} {claim.id}: {verdict.numbers}")


def tell(paths: list[Path], console: Console) -> None:
    console.print(f"Written: {', '.join(map(str, paths))}", style="dim", markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
