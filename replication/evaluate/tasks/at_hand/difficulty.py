"""How hard the items of a task are for a model: in thirds by its score, then by its confidence (SALT App. M)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from replication.evaluate.tasks.at_hand.likelihoods import Likelihood


def thirds(right: Sequence[bool], confidence: Sequence[float]) -> tuple[list[bool], list[bool]]:
    """Whether each item is among the easiest and the hardest third: what it answers rightly is easier than the rest,
    and of either what it is surer of. Of items in exact ties the first ones are easier."""
    order = sorted(range(len(right)), key=lambda item: (not right[item], -confidence[item]))
    place = {item: 3 * rank // len(order) for rank, item in enumerate(order)}
    easy, hard = ([place[item] == third for item in range(len(order))] for third in (0, 2))
    return easy, hard


def sure_of_choice(nats: Sequence[float]) -> float:
    """Of a choice: the likeliest one's share of the probabilities (or of the ratios) of all of them."""
    return float(torch.tensor(nats, dtype=torch.float64).softmax(0).max())


def sure_of_word(given: Likelihood) -> float:
    """Of what greedy decoding writes, in mean nats a token, as far as it is the answer, and its first other token."""
    tokens = int(given.correct_T.int().cumprod(0).sum()) + 1
    return float(given.confidence_T[:tokens].double().log().mean())


def sure_of_text(written: Likelihood) -> float:
    """Of what was written, in mean nats a token."""
    return written.nats / len(written.confidence_T)
