"""The published record on the command line: what is on file, each exhibit as the paper printed it, and the audit."""

from __future__ import annotations

import argparse
import csv
import json
import signal
import sys
from collections import Counter
from dataclasses import asdict

from paper_tables.audit import audit
from paper_tables.coverage import coverage, listing
from paper_tables.errata import PAGE, allowed, errata
from paper_tables.finding import SEVERITIES, Finding
from paper_tables.show import grid, page, paragraph
from paper_tables.spec import PAPERS, file_stem, load


def main(arguments: list[str] | None = None) -> int:
    """0 whatever the audit finds; 2 with one line on stderr for bad input."""
    chosen = parser().parse_args(arguments)
    try:
        chosen.run(chosen)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m paper_tables", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="every exhibit on file, one a line").set_defaults(run=lambda _: print(listing()))
    show = commands.add_parser("show", help="one exhibit as published, with its notes and claims")
    show.add_argument("paper", help=", ".join(PAPERS))
    show.add_argument("number", help="6 or table-6, figure-2a, poster-1")
    show.add_argument("--csv", action="store_true", help="the published cells only, comma-separated")
    show.set_defaults(run=show_exhibit)
    covered = commands.add_parser("coverage", help="what is on file, what runs where, and what is still empty, and why")
    covered.set_defaults(run=lambda _: print(coverage()))
    checked = commands.add_parser("audit", help="recompute everything printed that follows from other printed things")
    checked.add_argument("papers", nargs="*", help=f"of {', '.join(PAPERS)}; none: all")
    checked.add_argument("--json", action="store_true", help="every finding as JSON, the consistent ones included")
    checked.add_argument("--all", action="store_true", help="also list what is consistent or explained by rounding")
    checked.set_defaults(run=show_audit)
    written = commands.add_parser("errata", help=f"write {PAGE.name} from the audit")
    written.set_defaults(run=lambda _: PAGE.write_text(errata(audit()), encoding="utf-8"))
    return top


def show_exhibit(chosen: argparse.Namespace) -> None:
    exhibit = load(name_of(chosen.paper, chosen.number))
    if chosen.csv:
        csv.writer(sys.stdout, lineterminator="\n").writerows(grid(exhibit))
    else:
        print(page(exhibit))


def name_of(paper: str, number: str) -> str:
    """('rskd', 'figure-2a') -> 'rskd/figure02a'; a bare number is a table. Raises ValueError for anything else."""
    kind, _, digits = number.rpartition("-")
    try:
        return f"{paper}/{file_stem(kind or 'table', digits)}"
    except ValueError:
        raise ValueError(f"{number!r} is no exhibit: write 6, table-6, figure-2a or poster-1.") from None


def show_audit(chosen: argparse.Namespace) -> None:
    if unknown := [paper for paper in chosen.papers if paper not in PAPERS]:
        raise ValueError(f"No paper {unknown[0]!r}. Known: {', '.join(PAPERS)}.")
    findings = audit(chosen.papers)
    if chosen.json:
        print(json.dumps([plain(finding) for finding in findings], indent=1, ensure_ascii=False))
        return
    for finding in findings:
        if chosen.all or finding.severity in SEVERITIES[:2]:
            print("\n".join(told(finding)))
    found = Counter(finding.severity for finding in findings)
    print(f"{len(findings)} relations: " + ", ".join(f"{found[severity]} {severity}" for severity in SEVERITIES))


def plain(finding: Finding) -> dict[str, object]:
    """JSON knows no NaN: an interval that a comparison does not have is null."""
    return {key: None if value != value else value for key, value in asdict(finding).items()}


def told(finding: Finding) -> list[str]:
    said = (
        f"{finding.exhibit}, {finding.place}: printed {finding.printed}, follows {allowed(finding)}; {finding.relation}"
    )
    return paragraph(f"{finding.severity:<15} ", said + (f". {finding.note}" if finding.note else ""))


if __name__ == "__main__":
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `show ... | head` ends quietly
    sys.exit(main())
