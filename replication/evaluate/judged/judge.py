"""A judge's ratings of two responses, 1 to 10 each: what is asked, what counts as an answer, what follows from many.

RS-KD App. E.3, after Gu et al. 2023. Each pair is rated in both orders, since judges prefer one of the two places.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean, stdev

PROMPT = """Here are an instruction and two responses to it.

[Instruction]
{instruction}

[Response 1]
{first}

[Response 2]
{second}

[End]
Rate each response for how well it does what the instruction asks: helpful, to the point, correct, detailed enough. \
Give each a whole number from 1, the worst, to 10, the best. The order of the responses must not matter. \
Reply with one line and nothing else: the two numbers, that of Response 1 first, with a space between them."""
NUMBER = r"(\d+(?:\.\d+)?)"
RATING = re.compile(rf"{NUMBER}(?:\s+|\s*,\s*){NUMBER}\.?")
ORDERS = ("truth first", "answer first")


@dataclass(frozen=True)
class Pair:
    """A true and a student's response to one instruction."""

    task: str  # the set
    seed: int
    number: int  # of the question
    instruction: str
    truth: str
    answer: str

    def prompt(self, order: str) -> str:
        first, second = (self.truth, self.answer) if order == ORDERS[0] else (self.answer, self.truth)
        return PROMPT.format(instruction=self.instruction, first=first, second=second)

    def key(self, order: str, model: str) -> str:
        """What a rating is of: the same words to the same judge, at this seed."""
        words = repr((model, self.task, self.seed, self.number, order, self.prompt(order)))
        return hashlib.sha256(words.encode()).hexdigest()[:24]


def rating(reply: str) -> tuple[float, float] | None:
    """The two numbers of a reply whose first line is nothing else; None where it is malformed or beyond 1 to 10."""
    lines = reply.strip().splitlines()
    found = RATING.fullmatch(lines[0].strip()) if lines else None
    if found is None:
        return None
    first, second = float(found[1]), float(found[2])
    return (first, second) if 1 <= min(first, second) and max(first, second) <= 10 else None


@dataclass(frozen=True)
class Verdict:
    """A pair rated in both orders."""

    truth: tuple[float, float]  # when it stood first, when it stood second
    answer: tuple[float, float]  # when it stood second, when it stood first

    @property
    def bias(self) -> float:
        """Points that standing first was worth."""
        return (self.truth[0] - self.answer[0] + self.answer[1] - self.truth[1]) / 2

    @property
    def flipped(self) -> bool:
        """The two orders disagree on which response is better."""
        return (self.truth[0] - self.answer[0]) * (self.truth[1] - self.answer[1]) < 0


def verdict(scores: Mapping[str, tuple[float, float]]) -> Verdict:
    """From (first, second) of each order."""
    (truth_first, answer_second), (answer_first, truth_second) = scores[ORDERS[0]], scores[ORDERS[1]]
    return Verdict((truth_first, truth_second), (answer_second, answer_first))


def totals(rated: Iterable[tuple[Pair, Verdict]]) -> dict[str, float]:
    """`<set>`: 100 times the total of the answers' ratings over that of the true ones, the mean over seeds; `_sd`, its
    deviation over seeds; `position_bias` in points and `flipped`, a share, over all.
    """
    by_seed: dict[str, dict[int, list[Verdict]]] = defaultdict(lambda: defaultdict(list))
    everything = []
    for pair, found in rated:
        by_seed[pair.task][pair.seed].append(found)
        everything.append(found)
    metrics: dict[str, float] = {}
    for task, seeds in by_seed.items():
        ratios = [
            100 * sum(sum(each.answer) for each in found) / sum(sum(each.truth) for each in found)
            for found in seeds.values()
        ]
        metrics[task] = fmean(ratios)
        if len(ratios) > 1:
            metrics[f"{task}_sd"] = stdev(ratios)
    if everything:
        metrics["position_bias"] = fmean(each.bias for each in everything)
        metrics["flipped"] = fmean(each.flipped for each in everything)
    return metrics
