"""The listings of RS-KD's App. K as printed and as meant: what their indentation and their `scatter_` do.

R rounds, D draws of a round in the order drawn, V classes. A class of a round stands at the slot of its first draw.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from replication.axes.targets.base import at_least_one
from replication.axes.targets.drawing import draw
from replication.experiment.recipe import one_of
from replication.seeds import generator
from toy.expectations import mean_deviation, seen
from toy.octaves import Curves, curves, grouped

Metrics = dict[str, float]


@dataclass(frozen=True)
class Setting:
    """The settings of the toy listing; the draws are the same for every listing."""

    listing: str = "toy as printed"  # or "training as printed", "as meant"
    vocabulary: int = 100_000
    draws: int = 22
    rounds: int = 1000

    def __post_init__(self) -> None:
        one_of("listing", self.listing, tuple(LISTINGS))
        for name in ("vocabulary", "draws", "rounds"):
            at_least_one(name, getattr(self, name))


@dataclass(frozen=True)
class Listed:
    """What the operations of a listing do to the draws of every round."""

    weights_RD: Tensor  # what a round adds to the sum of targets, by slot
    reported: float | None = None  # the "effective number of samples"


def toy_as_printed(slots_RD: Tensor) -> Listed:
    """Second listing: counting, dividing and adding stand inside the loop over draws."""
    draws = slots_RD.shape[1]
    current_RD = torch.zeros(slots_RD.shape, dtype=torch.float64)
    added_RD, effective = torch.zeros_like(current_RD), 0
    for i in range(draws):
        current_RD.scatter_add_(1, slots_RD[:, i : i + 1], torch.ones(len(slots_RD), 1, dtype=torch.float64))
        effective += int(current_RD.count_nonzero())
        current_RD /= draws
        added_RD += current_RD
    return Listed(added_RD, effective / len(slots_RD))


def training_as_printed(slots_RD: Tensor) -> Listed:
    """First listing, `create_prob`: `scatter_` sets 1 / N, so that a class drawn again counts once."""
    weights_RD = torch.zeros(slots_RD.shape, dtype=torch.float64)
    return Listed(weights_RD.scatter_(1, slots_RD, 1 / slots_RD.shape[1]))


def as_meant(slots_RD: Tensor) -> Listed:
    """Counts / draws of Section 4, once a round: both listings mended."""
    ones_RD = torch.ones(slots_RD.shape, dtype=torch.float64)
    current_RD = torch.zeros_like(ones_RD).scatter_add_(1, slots_RD, ones_RD)
    return Listed(current_RD / slots_RD.shape[1], int(current_RD.count_nonzero()) / len(slots_RD))


LISTINGS: dict[str, Callable[[Tensor], Listed]] = {
    "toy as printed": toy_as_printed,
    "training as printed": training_as_printed,
    "as meant": as_meant,
}


def run(setting: Setting, seed: int) -> tuple[Metrics, Curves]:
    """The mean target of a listing, what it says of itself, and what is so.

    Metrics: `l1_bias` and `l1_bias_grouped`, the L1 distance of the normalised mean target to the teacher, class by
    class and by octaves; `bias_over_noise`, the latter over what as many proper draws would leave by chance;
    `reported_classes`, the listing's own "effective number of samples" (the training listing reports none), beside
    `unique_classes`, different classes per round; `mass`, the sum of one round's target; `round_error`, its mean L1
    distance to counts / draws. Closed forms: `expected_l1_bias` (grouped, without noise), `expected_reported_classes`,
    `expected_unique_classes`, `expected_mass`. Curves as in zipf.py.
    """
    teacher_V = 1 / torch.arange(1, setting.vocabulary + 1, dtype=torch.float64)
    teacher_V /= teacher_V.sum()
    ids_RD = rounds(setting, teacher_V, seed)
    slots_RD = first_slots(ids_RD)
    listed, meant = LISTINGS[setting.listing](slots_RD), as_meant(slots_RD)
    mean_V = mean_target(ids_RD, listed, setting.vocabulary)
    noise = float(mean_deviation(grouped(teacher_V), ids_RD.numel()).sum())
    grouped_bias = float((grouped(mean_V) - grouped(teacher_V)).abs().sum())
    assert meant.reported is not None
    metrics = {
        "l1_bias": float((mean_V - teacher_V).abs().sum()),
        "l1_bias_grouped": grouped_bias,
        "unique_classes": meant.reported,
        "mass": float(listed.weights_RD.sum(1).mean()),
        "round_error": float((listed.weights_RD - meant.weights_RD).abs().sum(1).mean()),
    }
    if noise > 0:
        metrics["bias_over_noise"] = grouped_bias / noise
    if listed.reported is not None:
        metrics["reported_classes"] = listed.reported
    return metrics | expected(setting, teacher_V), curves(teacher_V, mean_V)


def rounds(setting: Setting, teacher_V: Tensor, seed: int) -> Tensor:
    """The draws of every round in the order drawn, [R, D]."""
    drawn = draw(teacher_V.log()[None], setting.rounds * setting.draws, generator(seed, "listing", "draws"))[0]
    # `draw` sorts, and the printed toy weighs draws by their order
    order = torch.randperm(len(drawn), generator=generator(seed, "listing", "order"))
    return drawn[order].view(setting.rounds, setting.draws)


def first_slots(ids_RD: Tensor) -> Tensor:
    """Where each draw's class was first drawn in its round, [R, D]."""
    return (ids_RD[:, :, None] == ids_RD[:, None, :]).int().argmax(-1)


def mean_target(ids_RD: Tensor, listed: Listed, vocabulary: int) -> Tensor:
    """The sum over rounds, divided by its own sum."""
    total_V = torch.bincount(ids_RD.flatten(), listed.weights_RD.flatten(), minlength=vocabulary)
    return total_V / total_V.sum()


def expected(setting: Setting, teacher_V: Tensor) -> Metrics:
    """Draw i of D counts (1 - D^(i - D - 1)) / (D - 1) in the printed toy: its last power is what is divided once."""
    draws = setting.draws
    unique = float(seen(teacher_V, draws).sum())
    found = {"expected_l1_bias": 0.0, "expected_unique_classes": unique}
    if setting.listing == "toy as printed":
        # every prefix of a round is counted, and every draw divided and added again at each later one
        found["expected_reported_classes"] = sum(float(seen(teacher_V, n).sum()) for n in range(1, draws + 1))
        found["expected_mass"] = sum(draws**-power for i in range(draws) for power in range(1, draws - i + 1))
    elif setting.listing == "training as printed":
        flat_V = seen(teacher_V, draws) / unique
        found["expected_l1_bias"] = float((grouped(flat_V) - grouped(teacher_V)).abs().sum())
        found["expected_mass"] = unique / draws
    else:
        found |= {"expected_reported_classes": unique, "expected_mass": 1.0}
    return found
