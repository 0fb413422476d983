"""python -m analysis table rskd/table06 | figure rskd/figure03a | verdicts, from records alone."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from analysis.further import still_open
from analysis.load import Record, frame, shown_at, unfinished
from analysis.sheet import OURS, pointer, sheet, verdicts
from paper_tables.spec import PAPERS, load, names

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
    commands = top.add_subparsers(required=True, metavar="table | figure | verdicts | claims | differences | report")
    for name, run, about in (
        ("table", table, "print an exhibit's table with verdicts; write .md, .csv and .tex"),
        ("figure", figure, "draw an exhibit; write .svg and .png"),
        ("verdicts", all_verdicts, "one line per claim of all exhibits"),
        ("claims", claims, "the ledger: every claim with its verdict on the papers' numbers and on ours"),
        ("differences", differences, "every difference between an exhibit's rows that survives Holm's correction"),
        ("report", report, "everything as a static site: write <build>/report/index.html"),
    ):
        command = commands.add_parser(name, help=about, description=about)
        if run is claims:
            command.add_argument("paper", nargs="?", help=f"one of {', '.join(PAPERS)}; none: all")
        elif run not in (all_verdicts, report):
            command.add_argument("exhibit", help="for example rskd/table06")
        if run is all_verdicts:
            command.add_argument(
                "--open", action="store_true", help="inconclusive ones only, by how many more seeds would decide them"
            )
        if run is differences:
            command.add_argument("--against", default="", help="only with this row")
        command.add_argument("--scale", default="laptop")
        command.add_argument("--results", type=Path, default=ROOT / "results", help="logged records")
        command.add_argument("--local", type=Path, help="this machine's records (default: local/ under --results)")
        command.add_argument("--build", type=Path, default=Path("build"), help="where files are written")
        command.set_defaults(run=run)
    return top


def folders(given: argparse.Namespace) -> dict[str, Path]:
    return dict(zip(OURS, (given.results / given.scale, given.local / given.scale), strict=True))


def read(given: argparse.Namespace) -> dict[str, list[Record]]:
    return dict(zip(OURS, (shown_at(given.scale, given.results), shown_at(given.scale, given.local)), strict=True))


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
    found, unsettled = read(given), []
    for exhibit in map(load, names()):
        frames = {voice: frame(exhibit, found[voice], voice) for voice in OURS}
        judged = verdicts(exhibit, frames)
        if given.open:
            unsettled += still_open(exhibit, frames, judged)
            continue
        for line in pointer(exhibit, found):
            print(f"{exhibit.name:<16} {'reprint':<12} {line}")
        for voice, claim, verdict in judged:
            print(f"{exhibit.name:<16} {verdict.state:<12} {voice:<6} {claim.id}: {verdict.numbers}")
    for each in sorted(unsettled, key=lambda each: each.more):  # stable: papers stay in their order
        print(*each.told(given.scale), sep="\n")


def claims(given: argparse.Namespace) -> None:
    """Every claim with both verdicts, and the counts per paper."""
    from analysis.ledger import ledger, logged, tally

    if given.paper and given.paper not in PAPERS:
        raise ValueError(f"No paper {given.paper!r}. Known: {', '.join(PAPERS)}.")
    entries = ledger(read(given), [given.paper] if given.paper else None)
    for entry in entries:
        print(f"{entry.exhibit:<16} {entry.claim.id}: {entry.claim.text} ({entry.claim.where})")
        print(f"  published  {entry.published.state:<12} {entry.published.numbers}")
        if entry.reprints:
            print(f"  ours       {'reprint':<12} judged in {entry.reprints}")
            continue
        ours = logged(entry)
        print(f"  ours       {ours.state:<12} {ours.numbers}")
    counts = tally(entries)
    for paper in [given.paper] if given.paper else PAPERS:
        for side, states in counts[paper].items():
            told = ", ".join(f"{count} {state}" for state, count in states.items())
            print(f"{PAPERS[paper]:<6} on {side:<10} {told}")


def differences(given: argparse.Namespace) -> None:
    """On the paper's numbers and on each voice's."""
    from analysis.differences import measured, printed, told

    exhibit, found = load(given.exhibit), read(given)
    lines = told("published", printed(exhibit, given.against))
    for voice in OURS:
        if len(table := frame(exhibit, found[voice], voice)):
            lines += told(voice, measured(exhibit, table, given.against))
    print("\n".join(lines))


def report(given: argparse.Namespace) -> None:
    # with the audit, the ledger and Jinja behind it, which tables do without
    from analysis.report import site

    tell([site.write(site.gathered(given.scale, read(given)), given.build / "report")], Console())


def tell(paths: list[Path], console: Console) -> None:
    console.print(f"Written: {', '.join(map(str, paths))}", style="dim", markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
