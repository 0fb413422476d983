"""Machine speed: how long a machine takes for what `cost/flops.py` counts.

Four times add up: of matrix products, at a rate; of what goes through memory beside them, at a bandwidth; of the scores
of attention; and a fixed one for each layer of each pass, whose operators are dispatched one by one. Small models on a
CPU spend most of their time on the last three. For a GPU at the papers' sizes all four are inside the share of its peak
that is reached.
"""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from replication.cost.flops import Cost, Work
from replication.experiment.run import Run
from replication.planning.past_runs import Past

SHEETS = Path(__file__).with_name("gpus.toml")


@dataclass(frozen=True)
class Pace:
    name: str
    about: str  # where its numbers come from
    rate: float  # FLOP/s
    bandwidth: float = math.inf  # bytes/s
    score: float = 0.0  # seconds
    dispatch: float = 0.0  # seconds per layer of a pass
    memory: float = math.inf  # bytes

    def seconds(self, work: Work) -> float:
        fixed = work.scores * self.score + work.layers * self.dispatch
        return work.flops / self.rate + work.moved / self.bandwidth + fixed

    def slower(self, times: float, about: str) -> Pace:
        """A machine of the same kind that takes `times` as long for everything."""
        rate, bandwidth = self.rate / times, self.bandwidth / times
        score, dispatch = self.score * times, self.dispatch * times
        return replace(self, rate=rate, bandwidth=bandwidth, score=score, dispatch=dispatch, about=about)


def gpu(name: str) -> Pace:
    """A GPU of gpus.toml. ValueError, one line, for one that is not there."""
    known = {pace.name.lower(): pace for pace in gpus()}
    if name.lower() not in known:
        raise ValueError(f"Unknown GPU {name!r}. Known: {', '.join(known)}. Its data sheet belongs into {SHEETS.name}.")
    return known[name.lower()]


def gpus() -> list[Pace]:
    sheets = tomllib.loads(SHEETS.read_text())
    share = sheets.pop("utilisation")
    return [
        Pace(
            name.upper(),
            f"{sheet['name']} at {share:.0%} (assumed) of {sheet['teraflops']:g} TFLOP/s, dense bfloat16",
            share * sheet["teraflops"] * 1e12,
            memory=sheet["gigabytes"] * 1e9,
        )
        for name, sheet in sheets.items()
    ]


# One core of an AMD EPYC with bfloat16 products, fitted to the CPU time of steps of two dozen shapes (layers 1 to 6,
# width 64 to 384, 512 to 32,768 classes, with and without a teacher): 7 % off on average, 20 % at most. A machine's own
# records say how many times slower it is.
CPU = Pace("CPU", "one core as measured once", rate=400e9, bandwidth=2.8e9, score=2.9e-9, dispatch=1.4e-3)


def calibrated(pace: Pace, past: list[Past]) -> Pace | None:
    """The pace, slowed down as these runs were on a machine of this kind (the median); None without such a run."""
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
