"""A share of a cache's shards: what one of several jobs writes."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """Every `of`-th shard, from shard `number` - 1 on. Jobs of all numbers together write each shard once."""

    number: int
    of: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of:
            raise ValueError(f"There is no part {self.number}/{self.of}; give 1/{self.of} to {self.of}/{self.of}.")

    def owns(self, shard: int) -> bool:
        return shard % self.of == self.number - 1


def part(words: str) -> Part:
    """Part 2/4: the second of four."""
    found = re.fullmatch(r"(\d+)/(\d+)", words)
    if found is None:
        raise ValueError(f"{words!r} is no part of the work; give its number and how many there are, such as 2/4.")
    return Part(int(found[1]), int(found[2]))


WHOLE = Part(1, 1)
