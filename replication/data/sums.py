"""Sums with worked steps, made here: a corpus `sums:<n>[:<largest>]` in which no problem stands twice.

So what its held-out documents ask is asked in no training document.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

LARGEST = 49  # of the numbers of a problem, where none is stated
MOST = 100_000
TOGETHER = 20  # problems in a document
# Q: 31 + 12 - 5 = ?   31 + 12 = 43   43 - 5 = 38   A: 38
PROBLEM = re.compile(r"Q: (\d+ [+-] \d+ [+-] \d+) = \?\n((?:\d+ [+-] \d+ = -?\d+\n){2})A: (-?\d+)\n")


def sums(count: int, largest: int = LARGEST) -> Iterator[str]:
    """Documents of `count` problems in all, of numbers up to `largest`. ValueError unless there are so many."""
    most = min(MOST, number_of(largest))
    if not 2 * TOGETHER <= count <= most:
        raise ValueError(
            f"Corpus 'sums:{count}' asks for {count:,} problems of numbers up to {largest:,}; "
            + (f"give a number from {2 * TOGETHER} to {most:,}." if most >= 2 * TOGETHER else "allow larger ones.")
        )
    problems = different(largest)
    written = [next(problems) for _ in range(count)]
    for start in range(0, count, TOGETHER):
        yield "\n".join(written[start : start + TOGETHER])


def number_of(largest: int) -> int:
    """How many problems of such numbers there are: two in order, a third, two signs."""
    return largest * (largest + 1) // 2 * largest * 4


def different(largest: int) -> Iterator[str]:
    seen: set[tuple[int, int, int, bool, bool]] = set()
    number = 0
    while True:
        digits = int.from_bytes(hashlib.sha256(f"sums {number}".encode()).digest()[:8], "big")
        number += 1
        signs, digits = divmod(digits, 4)[::-1]
        one, two, three = (1 + digits // largest**place % largest for place in range(3))
        plus, more = signs < 2, signs % 2 == 0
        one, two = max(one, two), min(one, two)
        if (one, two, three, plus, more) not in seen:
            seen.add((one, two, three, plus, more))
            yield problem(one, two, three, plus, more)


def problem(one: int, two: int, three: int, plus: bool, more: bool) -> str:
    first, second = ("+" if plus else "-"), ("+" if more else "-")
    between = one + two if plus else one - two
    result = between + three if more else between - three
    return (
        f"Q: {one} {first} {two} {second} {three} = ?\n"
        f"{one} {first} {two} = {between}\n{between} {second} {three} = {result}\nA: {result}\n"
    )
