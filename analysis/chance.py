"""What stands beside an accuracy: its interval over the task's rows, and what guessing would reach."""

from __future__ import annotations

from analysis.matching import by_cell
from analysis.records import Record
from paper_tables.spec import Exhibit

LEGEND = (
    "In brackets: the 95 % interval of one student over the task's rows (mean of the seeds), and what guessing reaches."
)


def beside(exhibit: Exhibit, records: list[Record]) -> dict[tuple[str, str], str]:
    """(row label, column key) -> '[24.2 to 28.1, chance 25.0]', for the cells whose records know it."""
    found: dict[tuple[str, str], str] = {}
    for (label, key), filling in by_cell(exhibit, records).items():
        column = exhibit.column(key)
        metric = exhibit.row(label).metrics.get(key) or column.metric or key
        low, high, chance = (mean(filling, f"{metric}_{word}", column.unit) for word in ("low", "high", "chance"))
        if not column.deviation and low is not None and high is not None and chance is not None:
            found[label, key] = f"[{low:.1f} to {high:.1f}, chance {chance:.1f}]"
    return found


def mean(records: list[Record], metric: str, unit: str) -> float | None:
    values = [value for record in records if (value := record.summary.metrics.get(metric)) is not None]
    return (100 if unit == "%" else 1) * sum(values) / len(values) if values else None
