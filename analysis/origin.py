"""Where records come from, in words: which source, numerics, precision and teachers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from analysis.records import Record


def sources(records: Iterable[Record]) -> str:
    """Digests of the code that made them, a hint: 'cb0781ff41c22665'."""
    return each(record.config.source.code for record in records)


def commits(records: Iterable[Record]) -> str:
    return each(record.config.source.commit for record in records)


def numerics(records: Iterable[Record]) -> str:
    """The parts that do not all have the first integer: 'delivery 0, loss 1 / 2'; '' where all have it."""
    found: dict[str, set[int]] = defaultdict(set)
    for record in records:
        for part, number in record.config.numerics.items():
            found[part].add(number)
    return ", ".join(
        f"{part} {' / '.join(map(str, sorted(numbers)))}" for part, numbers in sorted(found.items()) if numbers != {1}
    )


def products(records: Iterable[Record]) -> str:
    """'float32', 'bfloat16', 'unrecorded'; '' of what computes no model."""
    return each(record.config.precision.products for record in records if record.config.precision)


def teachers(records: Iterable[Record]) -> str:
    """Fingerprints of the weights that were read."""
    return each(record.config.inputs.get("teacher", "") for record in records)


def each(values: Iterable[str]) -> str:
    """The different values, in their first order."""
    return " / ".join(dict.fromkeys(value for value in values if value))


def told(records: list[Record]) -> list[str]:
    """'source cb0781ff41c22665', 'products in float32', 'teacher 1f0e...': what is known, each a phrase."""
    found = {
        "source": sources(records) or "not recorded",
        "numerics of": numerics(records),
        "precision of products": products(records),
        "teacher": teachers(records),
    }
    return [f"{word} {value}" for word, value in found.items() if value]
