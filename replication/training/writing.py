"""Text that models write: many rows at once, with a cache of keys and values, each row by chances of its own.

`transformers`' own `generate` draws a batch from one stream; here a row's tokens do not depend on the others.
Axis letters: B rows, X = L + 1 tokens of a row, V classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, LogitsProcessorList, PreTrainedModel, TemperatureLogitsWarper, TopPLogitsWarper

from replication.axes.targets.base import precise
from replication.model.decoder import to_width

# what the keys and values of the rows that are written together may take; the GPU's is not yet measured on a GPU
ROOM = {"cpu": 2**28, "cuda": 24 * 2**30}  # bytes


@dataclass(frozen=True)
class Stop:
    """What ends a text: the end of text and, where its tables are given, a blank line; each is written still."""

    end_of_text: int
    breaks_V: Tensor | None = None  # bool: the token ends with a line break
    broken_V: Tensor | None = None  # it begins with one
    blank_V: Tensor | None = None  # it has a blank line in it

    def ended(self, last_B: Tensor, drawn_B: Tensor) -> Tensor:
        """Whether the token that was drawn behind the last one of its row ends it."""
        ended_B = drawn_B == self.end_of_text
        if self.breaks_V is None or self.broken_V is None or self.blank_V is None:
            return ended_B
        return ended_B | self.blank_V[drawn_B] | (self.breaks_V[last_B] & self.broken_V[drawn_B])


@dataclass(frozen=True)
class Writers:
    """Models and their shares: a token is drawn from the mixture of their predictions."""

    models: Sequence[PreTrainedModel]
    vocabulary: int
    stop: Stop
    shares: Sequence[float] = (1.0,)
    temperature: float = 1.0
    top_p: float = 1.0
    most: int = 0  # tokens of a text; 0: a row's

    @torch.no_grad()
    def write(self, rows_BX: Tensor, begin_B: Tensor, chance_BX: Tensor) -> tuple[Tensor, Tensor]:
        """The rows with what is written from token `begin` on, and which tokens those are, bool [B, X].

        chance_BX: uniform numbers in [0, 1), one for each token. Behind a text's end stand ends of text that nobody
        wrote. ValueError for a row without a token to begin from.
        """
        if int(begin_B.min()) < 1:
            raise ValueError("A text cannot be written behind nothing: each prompt needs one token at least.")
        device, width = rows_BX.device, rows_BX.shape[1]
        tokens_BX, wrote_BX = rows_BX.clone(), torch.zeros_like(rows_BX, dtype=torch.bool)
        limit_B = begin_B + self.most if self.most else torch.full_like(begin_B, width)
        done_B = begin_B >= width
        caches = [DynamicCache(config=model.config) for model in self.models]
        place, read_BX = int(begin_B.min()), tokens_BX[:, : int(begin_B.min())]
        with as_readers(self.models):
            while place < width and not bool(done_B.all()):
                drawn_B = self.drawn(read_BX, caches, chance_BX[:, place])
                done_B = done_B | (place >= limit_B)
                writes_B = (place >= begin_B) & ~done_B
                tokens_BX[:, place] = torch.where(
                    writes_B, drawn_B, torch.where(done_B, self.stop.end_of_text, tokens_BX[:, place])
                )
                wrote_BX[:, place] = writes_B
                done_B = done_B | (writes_B & self.stop.ended(tokens_BX[:, place - 1], drawn_B))
                read_BX = tokens_BX[:, place : place + 1]
                place += 1
        behind_BX = torch.arange(width, device=device) >= begin_B[:, None]
        return torch.where(behind_BX & ~wrote_BX, self.stop.end_of_text, tokens_BX), wrote_BX

    def drawn(self, read_BX: Tensor, caches: Sequence[DynamicCache], chance_B: Tensor) -> Tensor:
        """The next token of each row, after the tokens that are not in the caches yet."""
        mixed_BV: Tensor | None = None
        for model, cache, share in zip(self.models, caches, self.shares, strict=True):
            found = model(input_ids=read_BX, past_key_values=cache, use_cache=True, logits_to_keep=1)
            logits_BV = to_width(found.logits[:, -1], self.vocabulary, model.name_or_path or type(model).__name__)
            if len(self.models) == 1:
                return chosen(self.limited(precise(logits_BV)), chance_B)
            part_BV = share * self.limited(precise(logits_BV)).softmax(-1)
            mixed_BV = part_BV if mixed_BV is None else mixed_BV + part_BV
        assert mixed_BV is not None
        return chosen(mixed_BV.log(), chance_B)

    def limited(self, logits_BV: Tensor) -> Tensor:
        """The logits that are sampled from."""
        steps = LogitsProcessorList()
        if self.temperature != 1:
            steps.append(TemperatureLogitsWarper(self.temperature))
        if self.top_p < 1:
            steps.append(TopPLogitsWarper(self.top_p))
        return steps(None, logits_BV)

    def at_once(self, width: int, device: torch.device) -> int:
        """How many rows the caches have room for."""
        each = sum(bytes_per_row(model, width) for model in self.models)
        return max(1, ROOM[device.type] // each)


def chosen(logits_MV: Tensor, chance_M: Tensor) -> Tensor:
    """The class in whose stretch of the cumulative distribution the uniform number falls, [M]."""
    # float64: in float32 the sum over many classes would lose the rare ones
    cumulative_MV = precise(logits_MV).softmax(-1).double().cumsum(-1)
    wanted_M1 = chance_M[:, None] * cumulative_MV[:, -1:]
    return torch.searchsorted(cumulative_MV, wanted_M1, right=True)[:, 0].clamp_max(logits_MV.shape[1] - 1)


def bytes_per_row(model: PreTrainedModel, length: int) -> int:
    """Of the float32 keys and values of one row."""
    shape = model.config.get_text_config(decoder=True)
    heads = getattr(shape, "num_key_value_heads", None) or shape.num_attention_heads
    width = getattr(shape, "head_dim", None) or shape.hidden_size // shape.num_attention_heads
    return int(2 * 4 * shape.num_hidden_layers * heads * width * length)


@contextmanager
def as_readers(models: Sequence[PreTrainedModel]) -> Iterator[None]:
    """While it lasts, the models predict: no dropout, and no compiled layer, which would be made again for each
    length."""
    modes = [model.training for model in models]
    for model in models:
        model.eval()
    try:
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        for model, mode in zip(models, modes, strict=True):
            model.train(mode)
