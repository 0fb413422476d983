"""Selective output layers: heads and loss of student and teacher at a fifth of the positions (SE-KD Table 16)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict

import torch

from benchmarks import losses, memory
from benchmarks.effort import Effort
from benchmarks.memory import touch
from benchmarks.race import Contender
from benchmarks.result import Group
from replication.axes.positions import TopFraction
from replication.fused.head import Head
from replication.fused.loss import fused_signals_of
from replication.training.output_flows import OURS, Given, loss

# what is printed -> the flow (`replication/training/output_flows.py`); ours are the last three
FULL_LOGITS, OURS_SELECTIVE, OURS_BFLOAT16 = "full logits", "ours, 20 %", "ours, 20 %, bfloat16 entropy"
CONTENDERS = {
    FULL_LOGITS: "full_default",
    "full logits, 20 %": "default",
    "chunked entropy, selective heads, 20 %": "both",
    "ours": "full_ours",
    OURS_SELECTIVE: "ours",
    OURS_BFLOAT16: "ours_bfloat16",
}


def given_on(sizes: losses.Sizes) -> Given:
    made = losses.inputs(sizes)
    return Given(
        made.hidden_ND[None].detach().requires_grad_(), Head(made.weight_VD), made.labels_N[None], made.dense_teacher
    )


def step_on(name: str, given: Given) -> Callable[[], object]:
    def step() -> torch.Tensor:
        given.states_BLD.grad = given.head.weight_VD.grad = None
        value = loss(CONTENDERS[name], given)
        value.backward()
        return value.detach()

    return step


def step(name: str, sizes: losses.Sizes) -> Callable[[], object]:
    return step_on(name, given_on(sizes))


def groups(effort: Effort) -> Iterator[Group]:
    sizes = effort.heads
    given = given_on(sizes)
    contenders = [Contender(name, step_on(name, given)) for name in CONTENDERS]
    seconds = effort.race(contenders, 90, settle=touch(3 * 4 * sizes.positions * sizes.classes))
    yield Group("heads", "step", asdict(sizes), "ours", seconds=seconds)
    del given, contenders
    found = memory.peaks(step, {name: ((name, sizes.tiny), (name, sizes)) for name in CONTENDERS})
    # every contender leaves the gradients of states and head
    left = 4 * sizes.width * (sizes.positions + sizes.classes)
    if found:
        found["beyond_gradients_bytes"] = {name: max(0, peak - left) for name, peak in found["peak_bytes"].items()}
    yield Group("heads", "memory", asdict(sizes), FULL_LOGITS, values=found)
    yield Group("heads", "selection", asdict(sizes), values={"kept_positions": {OURS_BFLOAT16: kept(sizes)}})


@torch.no_grad()
def kept(sizes: losses.Sizes) -> float:
    """The share of the exactly chosen positions that an entropy by bfloat16 products chooses too.

    States of every size from a twentieth to four times the usual one, so that entropies go from next to nothing to that
    of all classes, as a language model's do.
    """
    given = given_on(sizes)
    sizes_N1 = torch.logspace(-1.3, 0.6, sizes.positions)[torch.randperm(sizes.positions)][:, None]
    states_BLD = given.states_BLD * sizes_N1.to(given.states_BLD.device) * 3

    def chosen(positions: TopFraction) -> torch.Tensor:
        signals = fused_signals_of(positions.signals, states_BLD, given.head, given.labels_BL, given.teacher)
        return positions(signals, 0.0, None) > 0

    exact, low = (OURS[CONTENDERS[name]] for name in (OURS_SELECTIVE, OURS_BFLOAT16))
    assert isinstance(exact, TopFraction) and isinstance(low, TopFraction)
    meant = chosen(exact)
    return float((chosen(low) & meant).sum() / meant.sum())
