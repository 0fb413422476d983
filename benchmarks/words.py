"""Numbers and sizes as a reader takes them in."""

from __future__ import annotations

from benchmarks.race import Spread
from benchmarks.result import Group

UNITS = {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}
SIZES = {
    "positions": "N",
    "classes": "V",
    "width": "D",
    "kept": "K",
    "draws": "draws",
    "tokens": "tokens",
    "parameters": "teacher's parameters",
}
QUANTITIES = {
    "peak_bytes": "extra peak memory",
    "beyond_gradients_bytes": "of it beyond the gradients",
    "kept_positions": "of the exact selection",
    "bytes_per_token": "bytes per token",
    "relative_error": "relative error",
    "logits_added": "memory added, share of N x V",
}


def time(seconds: float) -> str:
    unit = next((unit for unit, size in UNITS.items() if seconds >= size), "ns")
    return f"{seconds / UNITS[unit]:.3g} {unit}"


def quantity(name: str, number: float) -> str:
    if name.endswith("_bytes"):
        return f"{number / 2**20:,.0f} MiB"
    return f"{number:.3g}"


def spread(found: Spread) -> str:
    """'0.98 (0.97 to 1.01)'; the number alone where there is no spread."""
    if found.low == found.high:
        return f"{found.median:.3g}"
    digits = 3 if found.median < 10 else 1
    return f"{found.median:.{digits}f} ({found.low:.{digits}f} to {found.high:.{digits}f})"


def case(group: Group) -> str:
    """'N = 512, V = 100,278, float32'."""
    return ", ".join(
        f"{SIZES.get(key, key)} = {value:,}" if isinstance(value, int) else str(value)
        for key, value in group.case.items()
    )
