"""Pace: how long a machine takes for what `cost.py` counts.

Three times add up: of matrix products, at a rate; of what goes through memory beside them, at a bandwidth; and a fixed
one for each layer of each pass, whose operators are dispatched one by one. Small models on a CPU spend most of their
time on the last two. For a GPU at the papers' sizes all three are inside the share of its peak that is reached.
"""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from replication.cost import Cost, Work
from replication.history import Past
from replication.run import Run

SHEETS = Path(__file__).with_name("gpus.toml")


@dataclass(frozen=True)
class Pace:
    name: str
    about: str  # where its numbers come from
    rate: float  # FLOP/s
    bandwidth: float = math.inf  # bytes/s
    dispatch: float = 0.0  # seconds per layer of a pass
    memory: float = math.inf  # bytes

    def seconds(self, work: Work) -> float:
        return work.flops / self.rate + work.moved / self.bandwidth + work.layers * self.dispatch

    def slower(self, times: float, about: str) -> Pace:
        """A machine of the same kind that takes `times` as long for everything."""
        rate, bandwidth = self.rate / times, self.bandwidth / times
        return replace(self, rate=rate, bandwidth=bandwidth, dispatch=self.dispatch * times, about=about)


def gpu(name: str) -> Pace:
    """A GPU of gpus.toml. ValueError, one line, for one that is not there."""
    known = tomllib.loads(SHEETS.read_text())
    share = known.pop("utilisation")
    if name.lower() not in known:
        raise ValueError(f"Unknown GPU {name!r}. Known: {', '.join(known)}. Its data sheet belongs into {SHEETS.name}.")
    sheet = known[name.lower()]
    about = f"{sheet['name']} at {share:.0%} (assumed) of {sheet['teraflops']:g} TFLOP/s, dense bfloat16"
    return Pace(name.upper(), about, share * sheet["teraflops"] * 1e12, memory=sheet["gigabytes"] * 1e9)


# One core of an AMD EPYC with bfloat16 products, from the steps of two dozen shapes (CPU time): 9 % off on average.
# A machine's own records say how many times slower it is.
CPU = Pace("CPU", "one core as measured once", rate=600e9, bandwidth=1.8e9, dispatch=0.67e-3)


def calibrated(pace: Pace, past: list[Past]) -> Pace | None:
    """The pace as the median of these runs had it, each on a machine of its kind; None where no run says."""
    kind = "" if pace.memory == math.inf else pace.name
    runs = [
        each for each in past if each.machine.get("tokens_per_second") and (kind in each.gpu if kind else not each.gpu)
    ]
    if not runs:
        return None
    times = median(slowness(pace, each.run, each.machine["tokens_per_second"]) for each in runs)
    return pace.slower(times, f"{pace.name} as {len(runs)} finished runs of this scale had it")


def slowness(pace: Pace, run: Run, tokens_per_second: float) -> float:
    """How many times as long the run's steps took as the pace says."""
    cost = Cost(run)
    return cost.tokens / tokens_per_second / pace.seconds(cost.training)
