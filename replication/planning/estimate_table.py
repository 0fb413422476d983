"""An estimate as a table on the terminal, with totals and what they rest on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from replication.cost.flops import Work
from replication.experiment.scale import Scale
from replication.planning.estimate import Line
from replication.planning.hardware import fits, least
from replication.planning.machine_speed import Pace

if TYPE_CHECKING:
    from rich.console import Console

SIZES = ((1e24, "Y"), (1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""))
COUNTS = ((1e12, " T"), (1e9, " B"), (1e6, " M"), (1, ""))  # as the papers write tokens


def show(lines: Sequence[Line], title: str, scale: Scale, pace: Pace | None, console: Console) -> None:
    """`pace`: of the machine that the hours are of; None where nothing says how fast it is."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left", title_style="bold")
    table.add_column("")
    table.add_column("")
    for name in ("Tokens", "FLOPs", *([f"{pace.name} time"] if pace else []), "Disk", "Memory of a step"):
        table.add_column(name, justify="right")
    table.add_column("")
    for line in lines:
        state = "done" if line.done else "to do"
        table.add_row(
            f"{line.kind} {state}", line.name, *cells(line, pace), line.note, style="dim" if line.done else ""
        )
    table.add_section()
    todo = [line for line in lines if not line.done]
    for name, some, style in (("all", lines, ""), ("to do", todo, "bold")):
        table.add_row(name, numbers(some), *cells(total(some), pace, some), "", style=style)
    console.print(table)
    for told in remarks(lines, scale, pace):
        console.print(f"- {told}", style="dim", markup=False, highlight=False)


def numbers(lines: Sequence[Line]) -> str:
    """'1 teacher, 1 pass, 5 caches, 7 runs'."""
    counts = Counter(line.kind for line in lines)
    plural = {"pass": "passes"}
    return (
        ", ".join(f"{n} {kind if n == 1 else plural.get(kind, kind + 's')}" for kind, n in counts.items()) or "nothing"
    )


def cells(line: Line, pace: Pace | None, summed: Sequence[Line] = ()) -> list[str]:
    """`summed`: the lines of which this one is the total. What does not fit takes no time, since it cannot run."""
    some = [each.work for each in summed or [line] if pace and fits(each, pace.memory)]
    time = [duration(pace.seconds(sum(some, Work())))] if pace else []
    return [count(line.tokens), si(line.work.flops, "FLOP"), *time, si(line.disk, "B"), memory(line, pace)]


def memory(line: Line, pace: Pace | None) -> str:
    if not line.held:
        return ""
    taken = si(line.held, "B") + (f" + {si(line.each, 'B')} a sequence" if line.each else "")
    if pace is None or pace.memory == float("inf"):
        return taken
    if not fits(line, pace.memory):
        return f"{taken}: does not fit; {least(line)} would do"
    return f"{taken}: {int((pace.memory - line.held) // line.each)} at once" if line.each else taken


def total(lines: Sequence[Line]) -> Line:
    """Tokens are those trained on: what teachers read is said below."""
    tokens = sum(line.tokens for line in lines if line.kind != "pass")
    return Line("", "", False, tokens, sum((line.work for line in lines), Work()), sum(line.disk for line in lines))


def remarks(lines: Sequence[Line], scale: Scale, pace: Pace | None) -> list[str]:
    """What the numbers rest on, and what they leave out."""
    passes = [line for line in lines if line.kind == "pass"]
    beside = sum(line.beside for line in lines)
    told = [
        f"Teachers read {count(sum(line.tokens for line in passes)) or 'no'} tokens in passes that fill caches "
        f"({len(passes)}), and {count(beside) or 'no'} beside their students."
    ]
    if kept := max((line.disk for line in lines if line.held), default=0.0):
        # weights and two moments beside the weights that stay
        told.append(f"A run keeps its weights; while it trains, its checkpoint takes up to {si(3 * kept, 'B')} more.")
    if scale.corpus_tokens is not None:
        width = 2 if scale.classes <= 1 << 16 else 4
        told.append(f"The text: {count(scale.corpus_tokens)} tokens, {si(width * scale.corpus_tokens, 'B')} tokenised.")
    told.append(
        "FLOPs of matrix products: 6 per weight and token trained, 2 per weight and token of a teacher, attention and "
        "the head included. Memory: weights, gradients, moments, what forward leaves for backward, a chunk of the "
        "loss. Not counted: tokenising, start-up, downstream evaluation."
    )
    if pace and (large := [line for line in lines if not fits(line, pace.memory)]):
        told.append(
            f"No time is given for what does not fit into {si(pace.memory, 'B')} ({numbers(large)}), nor do the totals "
            "hold any."
        )
    told.append(
        f"Time: {pace.about}."
        if pace
        else "No finished run of this scale says how fast this machine is; GPU=h100 asks for GPU hours."
    )
    return told


def si(value: float, unit: str) -> str:
    """Three digits and a decimal prefix: 2.56 TB is 2.56 * 10 ** 12 bytes. Nothing for 0."""
    size, prefix = scaled(value, SIZES)
    return f"{three(size)} {prefix}{unit}" if value else ""


def count(value: float) -> str:
    return "".join(three(scaled(value, COUNTS)[0]) + scaled(value, COUNTS)[1]) if value else ""


def scaled(value: float, sizes: Sequence[tuple[float, str]]) -> tuple[float, str]:
    return next(((value / size, word) for size, word in sizes if value >= 0.9995 * size), (value, ""))


def three(value: float) -> str:
    """Three digits, or all that stand before the point."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{three(seconds)} s" if seconds else ""
    return f"{three(seconds / 60)} min" if seconds < 3600 else f"{three(seconds / 3600)} h"
