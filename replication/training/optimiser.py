"""The optimiser, and the learning rate of each of its steps."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from replication.experiment.scale import Optimiser


def optimiser_of(weights: Iterable[nn.Parameter], settings: Optimiser) -> torch.optim.Optimizer:
    """Without decay of the weights: RS-KD Table 17 says Adam and states none, SALT says Adafactor and states none.

    Adafactor is Shazeer and Stern's: factored second moments, decay 1 - t^-0.8, an update clipped at a root mean square
    of one, and the rate relative to the root mean square of the weights that it moves, 0.001 at least. No first moment:
    SALT has it "as per" PaLM and GLaM, which state different ones, and GLaM's is zero.
    """
    match settings.name:
        case "AdamW":
            betas = settings.beta1, settings.beta2
            return torch.optim.AdamW(weights, lr=settings.peak_rate, betas=betas, weight_decay=0.0, fused=True)
        case "Adafactor":
            return torch.optim.Adafactor(weights, lr=settings.peak_rate, weight_decay=0.0)


def refuse_shards(settings: Optimiser) -> None:
    """ValueError of an optimiser that looks at a whole weight at once."""
    if settings.name == "Adafactor":
        raise ValueError(
            "Adafactor takes means over the rows and columns of whole weights, and SHARD leaves a process a part of "
            "each: train without SHARD, or with optimiser name 'AdamW'."
        )


def learning_rate(step: int, steps: int, optimiser: Optimiser) -> float:
    """Linear warm-up, then cosine from peak to final (RS-KD Tables 17 to 19)."""
    warmup = round(optimiser.warmup * steps)
    if step < warmup:
        return optimiser.peak_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return optimiser.final_rate + (optimiser.peak_rate - optimiser.final_rate) * (1 + math.cos(math.pi * done)) / 2
