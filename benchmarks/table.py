"""A result on the terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks import words
from benchmarks.bars import Verdict
from benchmarks.result import Group, Result

STYLES = {"met": "green", "not met": "bold red", "not measured here": "dim"}


def show(result: Result, verdicts: list[Verdict], console: Console) -> None:
    if result.quick:
        console.print("A quick run: small sizes, the numbers mean nothing.", style="yellow")
    for group in result.groups:
        if not group.varied:
            show_group(group, console)
    console.print(bars(verdicts))
    console.print(about(result), style="dim", highlight=False)


def show_group(group: Group, console: Console) -> None:
    table = Table(title=f"{group.part}: {group.name} ({words.case(group)})", title_justify="left", box=box.SIMPLE_HEAD)
    quantities = list(group.values)
    timed = ["time", f"beside {group.against}"] if group.seconds else []
    for heading in ["", *timed, *(words.QUANTITIES[name] for name in quantities)]:
        table.add_column(escape(heading), justify="right" if heading else "left")
    for name, cells in lines(group).items():
        table.add_row(escape(name), *map(escape, cells))
    console.print(table)
    for name, why in group.missing.items():
        console.print(f"  {name}: {why}", style="dim", markup=False, highlight=False)


def lines(group: Group) -> dict[str, list[str]]:
    """The cells of each contender: time, ratio, and every quantity."""
    names = dict.fromkeys([*group.seconds, *(name for values in group.values.values() for name in values)])
    ratios, times = group.ratios, group.times
    found = {}
    for name in names:
        timed = [words.time(times[name].median), words.spread(ratios[name])] if ratios else []
        values = [
            words.quantity(quantity, known[name]) if name in known else "" for quantity, known in group.values.items()
        ]
        found[name] = [*timed, *values]
    return found


def bars(verdicts: list[Verdict]) -> Table:
    table = Table(title="The bars", title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("", "wanted", "measured", ""):
        table.add_column(heading)
    for each in verdicts:
        measured = words.spread(each.measured) if each.measured else each.why
        state = f"[{STYLES[each.state]}]{each.state}[/]"
        table.add_row(escape(each.bar.text), each.bar.wanted, escape(measured), state)
    return table


def about(result: Result) -> str:
    machine = result.machine
    return (
        f"{machine.name}, {machine.threads} threads, {result.date}, {result.seconds / 60:.1f} minutes, commit "
        f"{machine.commit or 'unknown'}. Load before {machine.load[0]}, after {machine.load[1]}. Ratios: median of the "
        "rounds' own ratios (10th to 90th percentile)."
    )
