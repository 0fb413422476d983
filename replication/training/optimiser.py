"""The learning rate of each step."""

from __future__ import annotations

import math

from replication.experiment.scale import Optimiser


def learning_rate(step: int, steps: int, optimiser: Optimiser) -> float:
    """Linear warm-up, then cosine from peak to final (RS-KD Tables 17 to 19)."""
    warmup = round(optimiser.warmup * steps)
    if step < warmup:
        return optimiser.peak_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return optimiser.final_rate + (optimiser.peak_rate - optimiser.final_rate) * (1 + math.cos(math.pi * done)) / 2
