"""How a cache holds a target: the codec's name and its parameters. A target says it, `cache/choose.py` makes the codec.

No torch is loaded here: the cache's own processes do without.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

NUMERATOR_BITS = 7  # of a weight, in most codecs
LARGEST_NUMERATOR = 2**NUMERATOR_BITS - 1


@dataclass(frozen=True)
class Storage:
    """A codec by its name, and its fields beside the vocabulary."""

    codec: str
    parameters: dict[str, Any]


def counts(draws: int) -> Storage:
    """Whole counts that sum to `draws`, exactly. Raises ValueError for more draws than a numerator holds."""
    if draws > LARGEST_NUMERATOR:
        raise ValueError(
            f"Counts of {draws} draws cannot be cached: a cache holds up to {LARGEST_NUMERATOR}. Draw fewer, or run it "
            "online (delivery = 'online')."
        )
    return Storage("counts", {"draws": draws})


def ratios(cap: int, length: int | None = None, normalised: bool = False) -> Storage:
    """Any probabilities, falling along a row of at most `cap`, each rounded to a ratio to the one before it.

    `length`: that of every row, where all are equally long. `normalised`: whether they sum to one.
    """
    return Storage("ratio", {"length": length, "cap": cap, "normalised": normalised})


def filling(parts: int, cap: int) -> Storage:
    """Multiples of 1 / `parts`, and a tail that shares the rest of one equally; exactly, of at most `cap` classes."""
    return Storage("filling", {"parts": parts, "cap": cap})


def headed(head: int, draws: int) -> Storage:
    """The `head` largest probabilities to seven digits, and counts of `draws` draws that share the rest of one.

    Raises ValueError for more draws than a count holds.
    """
    if draws > LARGEST_NUMERATOR:
        raise ValueError(
            f"{draws} draws beside a head cannot be cached: a cache holds up to {LARGEST_NUMERATOR}. Draw fewer, or "
            "run it online (delivery = 'online')."
        )
    return Storage("headed", {"head": head, "draws": draws})
