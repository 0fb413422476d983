"""When to let go of a teacher, decided while the student trains: the state of `schedules.LetGo`, and of all others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

Mean = Callable[[Tensor], Tensor]  # over all processes


class Weights(Protocol):
    """What gives a training its two weights at a step."""

    def __call__(self, progress: float) -> tuple[float, float]: ...


class Pace:
    """A schedule under way. One that everything is known of from the beginning looks at nothing and has no state."""

    def __init__(self, schedule: Weights) -> None:
        self.schedule = schedule

    def __call__(self, progress: float) -> tuple[float, float]:
        return self.schedule(progress)

    @property
    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps of it; loading one overwrites it in place."""
        return {}

    @property
    def over(self) -> bool:
        """Whether what was decided on the way leaves the teacher nothing more to say."""
        return False

    def looks_at(self, step: int) -> bool:
        """Whether this step's batch is to be looked at (`see`)."""
        return False

    def see(self, behind: Tensor) -> None:
        """How far the student's loss on the labels of a batch is above its teacher's, nats."""

    def settle(self, step: int, mean: Mean) -> None:
        """After the step: decide by what was seen, in all processes alike."""

    def metrics(self, steps: int) -> dict[str, float]:
        """For the record."""
        return {}


class Watching(Pace):
    """Distils until the mean of the last looks is at most `margin`, then never again."""

    def __init__(self, schedule: Weights, every: int, looks: int, margin: float) -> None:
        super().__init__(schedule)
        self.every, self.margin = every, margin
        self.recent_Q = torch.zeros(looks, dtype=torch.float64)  # a ring: the oldest are overwritten
        self.count = torch.zeros((), dtype=torch.int64)  # of all looks so far
        self.last = torch.full((), -1, dtype=torch.int64)  # steps that were distilled, once it has let go
        self.seen: list[Tensor] = []

    @property
    def state(self) -> dict[str, Tensor]:
        return {"recent_behind_Q": self.recent_Q, "looks": self.count, "distilled": self.last}

    @property
    def over(self) -> bool:
        return int(self.last) >= 0

    def __call__(self, progress: float) -> tuple[float, float]:
        return (0.0, 1.0) if self.over else self.schedule(progress)

    def looks_at(self, step: int) -> bool:
        return not self.over and step % self.every == 0

    def see(self, behind: Tensor) -> None:
        self.seen.append(behind.detach().double())

    def settle(self, step: int, mean: Mean) -> None:
        if not self.seen:
            return
        self.recent_Q[int(self.count) % len(self.recent_Q)] = mean(torch.stack(self.seen).mean()).cpu()
        self.count += 1
        self.seen.clear()
        if int(self.count) >= len(self.recent_Q) and float(self.recent_Q.mean()) <= self.margin:
            self.last.fill_(step + 1)

    def metrics(self, steps: int) -> dict[str, float]:
        """`let_go`: the share of the training that was distilled."""
        return {"let_go": (int(self.last) if self.over else steps) / steps}
