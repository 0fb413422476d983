"""How much is measured: the sizes of every part, and how long each group of contenders is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from benchmarks import draws, losses, race, rows
from benchmarks.race import Contender


@dataclass(frozen=True)
class Effort:
    """`share` of the seconds that a whole run gives each group; sizes."""

    share: float
    positions: tuple[int, ...]
    loss: losses.Sizes
    heads: losses.Sizes
    grown: losses.Sizes
    drawn: draws.Sizes
    stored: rows.Sizes
    scale: str
    steps: int  # of training in a turn

    def race(
        self,
        contenders: Sequence[Contender],
        seconds: float,
        settle: Callable[[], object] = race.nothing,
        warm: bool = True,
    ) -> dict[str, list[float]]:
        """As `race.race`, with a share of the seconds, and waiting for a GPU."""
        finish = torch.cuda.synchronize if torch.cuda.is_available() else race.nothing
        return race.race(contenders, seconds * self.share, settle, finish, warm=warm)


WHOLE = Effort(
    share=1.0,
    positions=(512, 2048, 8192) if torch.cuda.is_available() else (512, 2048),
    loss=losses.Sizes(512),
    heads=losses.Sizes(512, classes=151_936),
    grown=losses.Sizes(1024, classes=32_768, width=256),
    drawn=draws.Sizes(),
    stored=rows.Sizes(),
    scale="laptop",
    steps=64,
)
# every path in about a minute; the numbers mean nothing
QUICK = Effort(
    share=0.0,
    positions=(64, 256),
    loss=losses.Sizes(64, classes=8192, width=64),
    heads=losses.Sizes(64, classes=8192, width=64),
    grown=losses.Sizes(64, classes=2048, width=32),
    drawn=draws.Sizes(64, classes=8192),
    stored=rows.Sizes(sequences=512, length=16, classes=8192),
    scale="smoke",
    steps=4,
)
