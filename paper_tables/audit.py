"""The audit: every declared relation of the record, recomputed, and what it finds.

Nothing here knows a paper. A printed value stands for the interval that rounds to it; what follows from several is
the interval that their intervals allow; a finding is how the two intervals lie.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache

from paper_tables.finding import SEVERITIES, Finding, Severity
from paper_tables.functions import COMPARISONS, FUNCTIONS
from paper_tables.joint import conflict
from paper_tables.printed import Printed
from paper_tables.spec import PAPERS, Exhibit, Relation, Row, Term, names, said
from paper_tables.terms import SLACK, EmptyCell, Interval, Place, follows, load_once

MANY = 7  # terms of a relation that are written out; of more only the first and the last


def audit(papers: list[str] | None = None) -> list[Finding]:
    """All findings over the record, worst first. Raises ValueError, one line, for a relation that names what is not."""
    found = [finding for paper in papers or PAPERS for finding in of_paper(paper)]
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))


def of_paper(paper: str) -> Iterator[Finding]:
    for name in names():
        if name.startswith(f"{paper}/"):
            yield from of_exhibit(load_once(name))
    for relation in said(paper).relations:
        yield from judged(relation, Place(paper, None))
    yield from (finding for finding in equations() if finding.paper == paper)


@cache
def equations() -> list[Finding]:
    """What the papers' equations and listings come to when executed, beside what they say."""
    from paper_tables.equations import findings  # numpy: only where it is used

    return findings()


def of_exhibit(exhibit: Exhibit) -> Iterator[Finding]:
    for relation in [*of_columns(exhibit), *exhibit.relations]:
        yield from judged(relation, Place(exhibit.paper, exhibit))


def of_columns(exhibit: Exhibit) -> Iterator[Relation]:
    """The relations that columns declare themselves: averages, and percentages of a way."""
    for column in exhibit.columns:
        if column.average_of:
            function = "weighted_mean" if column.weights else "mean"
            yield Relation(function=function, of=list(column.average_of), result=column.key, weights=column.weights)
        if column.derive and column.derive["function"] == "gap_closed":
            of, *ends = (str(column.derive[role]) for role in ("of", "start", "end"))
            if any(of not in exhibit.row(end).published for end in ends):
                continue  # the paper prints an end in another column; the exhibit says where, in its relations
            yield Relation(function="gap_closed", of=[of, *([end, of] for end in ends)], result=column.key)


def judged(relation: Relation, place: Place) -> Iterator[Finding]:
    """The findings of one relation: one for each row that it runs over, or one."""
    if relation.function == "marked":
        yield from marks(relation, place)
        return
    if relation.function not in FUNCTIONS and relation.function not in COMPARISONS:
        known = ", ".join([*FUNCTIONS, *COMPARISONS])
        raise ValueError(f"{place.name}: unknown function {relation.function!r} in a relation. Known: {known}.")
    terms = [*relation.of, *([] if relation.result is None else [relation.result])]
    by_row = any(isinstance(term, str) and not term.startswith("@") for term in terms)
    rows: list[Row | None] = [None]
    if by_row:
        if place.exhibit is None:
            raise ValueError(f"{place.name}: a relation outside an exhibit names a column without its row.")
        unknown = set(relation.rows) - {row.label for row in place.exhibit.rows}
        if unknown:
            raise ValueError(f"{place.name}: a relation names row {min(unknown)!r}, which is not there.")
        rows = [row for row in place.exhibit.rows if not relation.rows or row.label in relation.rows]
    applied: list[tuple[Row | None, list[Interval]]] = []
    for row in rows:
        try:
            applied.append((row, [place.interval(term, row) for term in terms]))
        except EmptyCell:
            if relation.rows or not by_row:
                cell = f" in row {row.label!r}" if row else ""
                raise ValueError(f"{place.name}: relation {relation.function} reads an empty cell{cell}.") from None
    if not applied:
        raise ValueError(f"{place.name}: relation {relation.function} applies to no row.")
    for row, intervals in applied:
        yield found(relation, place, row, intervals)
    if relation.function == "gap_closed" and len(applied) > 1:
        yield together(relation, place, applied)


def together(relation: Relation, place: Place, applied: list[tuple[Row | None, list[Interval]]]) -> Finding:
    """Whether one start and one end give the percentages of all rows that hold on their own."""
    alone = [(row, cells) for row, cells in applied if found(relation, place, row, cells).severity in SEVERITIES[2:]]
    _, (_, start, end, _) = applied[0]
    rows = [((value.low, value.high), (share.low, share.high)) for _, (value, _, _, share) in alone]
    clash = conflict((start.low, start.high), (end.low, end.high), rows) if rows else None
    severity: Severity = "consistent" if clash is None else "inconsistent"
    labels = [row.label for row, _ in alone if row]
    odd = ", ".join(labels[place] for place in clash) if clash else ""
    follow = f"no {place.words(relation.of[1], None)} and {place.words(relation.of[2], None)} give {odd} together"
    words = f"gap_closed of all rows with one start and one end, {len(rows)} rows"
    shown = follow if clash else "one start and one end give all"
    where = place.words(relation.result or "", None)
    printed = ", ".join(cells[-1].text for _, cells in alone)
    return Finding(place.paper, place.name, where, words, printed, shown, math.nan, math.nan, severity, relation.note)


def found(relation: Relation, place: Place, row: Row | None, intervals: list[Interval]) -> Finding:
    terms = [place.words(term, row) for term in relation.of]
    if len(terms) > MANY:
        terms = [*terms[:3], f"... {len(terms)} terms ...", terms[-1]]
    words = f"{relation.function}({', '.join(terms)})"
    if relation.function in COMPARISONS:
        return compared(relation, place, row, intervals, words)
    if relation.result is None:
        raise ValueError(f"{place.name}: relation {relation.function} has no result.")
    *arguments, printed = intervals
    function = FUNCTIONS[relation.function]
    extra = {"weights": relation.weights} if relation.weights else {}

    def follows_from(*values: float) -> float:
        return function(*values, **extra)

    low, high = follows(follows_from, arguments)
    point = follows_from(*[argument.middle for argument in arguments])
    follow = Interval(low, high, f"{round(point, 12) + 0.0:.6g}", point)  # + 0.0: no minus before a zero
    severity: Severity
    if abs(point - printed.middle) <= (printed.high - printed.low) / 2 + relation.tolerance + SLACK * max(
        1, abs(point)
    ):
        severity = "consistent"
    elif printed.overlaps(follow, relation.tolerance):
        severity = "within rounding"
    else:
        opposite = printed.high < 0 < low or high < 0 < printed.low
        severity = "contradictory" if opposite else "inconsistent"
    where = place_of(relation.result, place, row, relation)
    return Finding(place.paper, place.name, where, words, printed.text, follow.text, low, high, severity, relation.note)


def place_of(term: Term | None, place: Place, row: Row | None, relation: Relation) -> str:
    if isinstance(term, str) and term.startswith("@"):
        quantity = place.quantity(term[1:])
        return f"{quantity.where}: {quantity.text}"
    label = " / ".join(term) if isinstance(term, list) else f"{row.label} / {term}" if row else str(term)
    return f"{label} ({relation.where})" if relation.where else label


def compared(relation: Relation, place: Place, row: Row | None, intervals: list[Interval], words: str) -> Finding:
    """equal, above, below: what is printed against what else is printed."""
    first, *others = intervals
    pairs = list(zip(others, relation.of[1:], strict=True))
    sign = {"above": 1.0, "below": -1.0, "equal": 0.0}[relation.function]
    if relation.function == "equal":
        apart = [other for other, _ in pairs if not first.overlaps(other, relation.tolerance)]
        odd = [other for other, _ in pairs if other.middle != first.middle]
    else:
        # at least as far on the wrong side as rounding cannot explain; a printed tie is within rounding
        apart = [other for other, _ in pairs if sign * (first.middle - other.middle) < 0]
        odd = [other for other, _ in pairs if first.middle == other.middle]
    severity: Severity = "contradictory" if apart else "within rounding" if odd else "consistent"
    shown = (apart or odd or others)[0]
    where = place_of(relation.of[0], place, row, relation)
    return Finding(
        place.paper, place.name, where, words, first.text, shown.text, shown.low, shown.high, severity, relation.note
    )


def marks(relation: Relation, place: Place) -> Iterator[Finding]:
    """Within the relation's rows and columns, the marked cells are the best ones (and the second best).

    A mark is right if no unmarked cell is better; every cell that ties with the best, or lies within `tolerance` of
    it where the paper says so, must be marked as well.
    """
    exhibit = place.exhibit
    if exhibit is None:
        raise ValueError(f"{place.name}: `marked` belongs into an exhibit.")
    rows = [row for row in exhibit.rows if not relation.rows or row.label in relation.rows]
    columns = [c for c in exhibit.columns if c.better != "none" and (not relation.columns or c.key in relation.columns)]
    for column in columns:
        sign = 1.0 if column.better == "higher" else -1.0
        values = {row.label: row.published[column.key] for row in rows if column.key in row.published}
        numbers = {label: sign * value for label, value in values.items() if isinstance(value, Printed)}
        bold = [row.label for row in rows if column.key in row.best]
        lined = [row.label for row in rows if column.key in row.second]
        if not numbers or not (bold or lined):
            continue
        top = max(numbers.values())
        best = [label for label, value in numbers.items() if value >= top - relation.tolerance - SLACK * abs(top)]
        rest = {label: value for label, value in numbers.items() if label not in best}
        wrong = [label for label in bold if label not in best]
        unmarked = [label for label in best if bold and label not in bold and label not in lined]
        if lined and rest:
            runner_up = max(rest.values())
            following = [label for label, value in rest.items() if value == runner_up]
            wrong += [label for label in lined if label not in following and label not in best]
            # with several best cells the second mark may have been given to one of them, or to none
            unmarked += [label for label in following if len(best) == 1 and label not in lined and label not in bold]
        severity: Severity = "contradictory" if wrong else "inconsistent" if unmarked else "consistent"
        printed = ", ".join([*bold, *(f"{label} (second)" for label in lined)])
        follow = ", ".join(
            best + [f"{label} (second)" for label, v in rest.items() if lined and v == max(rest.values())]
        )
        yield Finding(
            place.paper, place.name, column.key, "marked", printed, follow, math.nan, math.nan, severity, relation.note
        )
