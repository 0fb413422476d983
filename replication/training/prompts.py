"""Prompts: where in a row the writing begins, and what ends it; a row's own random stream decides.

Axis letters: B rows, X = L + 1 tokens of a row, V classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from replication.axes.writing import Writing
from replication.data.tokenizer import Tokenizer
from replication.seeds import generator
from replication.training.writing import Stop


@dataclass(frozen=True)
class Prompts:
    """`asks_V`, `breaks_V`: whether a token ends with a question mark, with a line break; `bare_V`: it is one."""

    kind: str
    stop: Stop
    asks_V: Tensor
    breaks_V: Tensor
    bare_V: Tensor

    def cut(self, rows_BX: Tensor, chance_B: Tensor) -> tuple[Tensor, Tensor]:
        """(rows, the first token of each that is to be written, int64 [B], at least 1). chance_B: numbers in [0, 1).

        A row that is cut behind a question begins a third of its length before: so all are as long, and one step
        writes a token of each.
        """
        width = rows_BX.shape[1]
        first, last = max(1, width // 4), max(1, 3 * width // 4)
        middle_B = first + (chance_B * (last - first + 1)).long()
        if self.kind == "middle":
            return rows_BX, middle_B
        # behind a question mark and the line break after it, which may be one token or two
        asked_BX = self.asks_V[rows_BX]
        ends_BX = asked_BX & self.breaks_V[rows_BX]
        bare_BX = asked_BX & ~self.breaks_V[rows_BX]
        ends_BX[:, 1:] |= bare_BX[:, :-1] & self.bare_V[rows_BX[:, 1:]]
        shown = max(1, width // 3)
        ends_BX[:, : shown - 1] = ends_BX[:, -1] = False  # the former show too little, behind the latter is no room
        count_B = ends_BX.sum(1)
        wanted_B = (chance_B * count_B).long() + 1
        place_B = (ends_BX.cumsum(1) >= wanted_B[:, None]).long().argmax(1) + 1
        asked_B = count_B > 0
        shift_B = torch.where(asked_B, place_B - shown, 0)
        source_BX = (torch.arange(width, device=rows_BX.device) + shift_B[:, None]).clamp_max(width - 1)
        return rows_BX.gather(1, source_BX), torch.where(asked_B, shown, middle_B)


def prompts_of(writing: Writing, tokenizer: Tokenizer, device: torch.device) -> Prompts:
    pieces = [tokenizer.decode([token]) for token in range(tokenizer.vocabulary)]

    def table(holds: list[bool]) -> Tensor:
        return torch.tensor(holds, device=device)

    breaks_V = table([piece.endswith("\n") for piece in pieces])
    stop = Stop(tokenizer.end_of_text)
    if writing.prompts == "questions":
        broken_V = table([piece.startswith("\n") for piece in pieces])
        stop = Stop(tokenizer.end_of_text, breaks_V, broken_V, table(["\n\n" in piece for piece in pieces]))
    return Prompts(
        writing.prompts,
        stop,
        asks_V=table([piece.rstrip("\n").endswith("?") for piece in pieces]),
        breaks_V=breaks_V,
        bare_V=table([piece.startswith("\n") and not piece.strip("\n") for piece in pieces]),
    )


def chances(seed: int, rows_B: np.ndarray, visits_B: np.ndarray, width: int, device: torch.device) -> Tensor:
    """Uniform numbers of each visit to a row, float64 [B, 1 + width]: where its prompt ends, then one a token."""
    streams = [generator(seed, "writing", int(row), int(visit)) for row, visit in zip(rows_B, visits_B, strict=True)]
    return torch.stack([torch.rand(1 + width, generator=each, dtype=torch.float64) for each in streams]).to(device)
