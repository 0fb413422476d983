"""What the audit, or an equation that is executed, finds about one printed value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["contradictory", "inconsistent", "within rounding", "consistent"]
SEVERITIES: tuple[Severity, ...] = ("contradictory", "inconsistent", "within rounding", "consistent")  # worst first


@dataclass(frozen=True)
class Finding:
    paper: str
    exhibit: str  # 'rskd/table06', or 'rskd/said' for what only the prose prints
    place: str  # row and column, or the sentence
    relation: str  # the relation in words: function and arguments
    printed: str
    follows: str  # what follows from the other printed values, as one number
    low: float  # the interval that rounding allows
    high: float
    severity: Severity
    note: str
