"""A training that can be cut off: everything that its next step depends on, in one file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Generator, nn


@dataclass
class Checkpoint:
    """A network, its optimiser and the streams of random numbers it is trained with."""

    path: Path
    model: nn.Module
    optimiser: torch.optim.Optimizer
    streams: list[Generator]

    def load(self) -> int:
        """The step to go on with; 0 where there is no file."""
        if not self.path.exists():
            return 0
        found = torch.load(self.path, map_location="cpu", weights_only=True)
        self.model.load_state_dict(found["model"])
        self.optimiser.load_state_dict(found["optimiser"])
        for random, state in zip(self.streams, found["streams"], strict=True):
            random.set_state(state)
        return int(found["step"])

    def save(self, step: int) -> None:
        """All of the new file or all of the old, whatever happens in between."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        state = {"model": self.model.state_dict(), "optimiser": self.optimiser.state_dict(), "step": step}
        torch.save({**state, "streams": [random.get_state() for random in self.streams]}, draft)
        draft.replace(self.path)
