"""Answers in thirds: to what one row's run, the judge, finds easy, hard, or neither (SALT App. M)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from analysis.answers import Answers
from analysis.records import Record
from paper_tables.spec import Exhibit

THIRDS = ("easy", "medium", "hard")
Cells = dict[tuple[str, str], list[Record]]
Own = TypeVar("Own", bound=Answers)


def in_thirds(exhibit: Exhibit, cells: Cells) -> Cells:
    """The cells of an exhibit that names a judge, their records with the metrics `tasks_<name>_easy` and so on; cells
    as they are of any other, or where no judge has answered in a way that says what was easy."""
    judges = [record for (row, _), records in cells.items() if row == exhibit.judge for record in records]
    judge = next((record.answers for record in sorted(judges, key=lambda each: each.seed) if record.answers), None)
    if judge is None:
        return cells
    graded: dict[int, Record] = {}
    for records in cells.values():
        for record in records:
            if id(record) not in graded:
                graded[id(record)] = of_record(record, judge)
    return {place: [graded[id(record)] for record in records] for place, records in cells.items()}


def of_record(record: Record, judge: Answers) -> Record:
    own = None if record.answers is None else with_parts(record.answers, judge)
    found = {f"tasks_{name}": part.accuracy for name, part in own.parts.items()} if own else {}
    summary = record.summary.model_copy(update={"metrics": {**record.summary.metrics, **found}})
    on_the_way: Mapping[int, Answers] = {step: with_parts(each, judge) for step, each in record.on_the_way.items()}
    return record.model_copy(update={"summary": summary, "answers": own, "on_the_way": on_the_way})


def with_parts(own: Own, judge: Answers) -> Own:
    """Of every task of which both were asked the same items."""
    parts = {}
    for name, task in own.tasks.items():
        known = judge.tasks.get(name)
        if known is None or known.data != task.data or not known.easy:
            continue
        easy, hard = known.bits(known.easy), known.bits(known.hard)
        for third, chosen in zip(THIRDS, (easy, ~(easy | hard), hard), strict=True):
            if chosen.any():
                parts[f"{name}_{third}"] = task.only(chosen, f"{task.data}, {third} for {judge.student}")
    return own.model_copy(update={"parts": parts})
