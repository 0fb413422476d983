"""Which prediction problem a row of text is: a transform between packing and student.

`objective(rows_BX, generator, sentinels_S)` turns packed rows, int64 [B, L + 1], into inputs, labels and a mask of what
is trained. One that `draws` gets a random stream for each visit to a row, whatever the batch; one that `rewrites` puts
other tokens than the row's to the student, and gets the ids of tokens that no text has. Held-out text is always
next-token.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from replication.axes.targets.drawing import Randomness, uniform

SMALLEST = 5  # tokens: one that is given, one that is not, and three sentinels


@dataclass(frozen=True)
class Posed:
    """Rows as they are put to a student: int64 [B, L] each, and whether a position is trained, None where all are."""

    tokens_BL: Tensor
    labels_BL: Tensor
    mask_BL: Tensor | None = None


@dataclass(frozen=True)
class NextToken:
    """Each token from those before it (UL2's causal LM)."""

    draws: ClassVar[bool] = False
    rewrites: ClassVar[bool] = False

    def __call__(self, rows_BX: Tensor, generator: Randomness | None, sentinels_S: Tensor | None = None) -> Posed:
        return Posed(rows_BX[:, :-1], rows_BX[:, 1:])


@dataclass(frozen=True)
class PrefixLM:
    """As NextToken, but the first tokens of a row are only read: one of the four tasks of SALT's mixture (UL2).

    The prefix is `mean` of the row long on average, a quarter in SALT (its paragraph "Pre-training data"). How it is
    distributed is not stated; uniform from nothing to twice the mean is our reading. UL2's students see the whole
    prefix from each of its tokens; ours, which are causal everywhere, do not.
    """

    mean: float = 0.25
    draws: ClassVar[bool] = True
    rewrites: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 < self.mean <= 0.5:
            raise ValueError(f"PrefixLM.mean is {self.mean}; give the mean share of a row that is prefix, in (0, 0.5].")

    def __call__(self, rows_BX: Tensor, generator: Randomness | None, sentinels_S: Tensor | None = None) -> Posed:
        assert generator is not None, "PrefixLM draws: give it a generator"
        points_B1 = uniform(generator, len(rows_BX), 1, rows_BX.device)
        return Posed(rows_BX[:, :-1], rows_BX[:, 1:], behind_prefix(points_B1, rows_BX.shape[1] - 1, self.mean))


@dataclass(frozen=True)
class UL2:
    """Each row one of four tasks, drawn as 6 : 2 : 1 : 1: causal, prefix, two span corruptions (SALT App. E).

    The prefix is `PrefixLM`'s; spans are corrupted as T5 does (`corrupted`), 15 % of the tokens in spans of 3 on
    average or 50 % in spans of 32. UL2's own mixture has seven denoisers, each with a token that names its mode (Tay et
    al. 2023); the paper names four and no such token, and ours have none. What is to be written stands behind what is
    given, in one row of a model that is causal everywhere; only what is to be written is trained.
    """

    shares: ClassVar[tuple[float, ...]] = (0.6, 0.2, 0.1, 0.1)
    prefix: ClassVar[float] = 0.25
    spans: ClassVar[tuple[tuple[float, int], ...]] = ((0.15, 3), (0.5, 32))  # share of the tokens, mean length
    draws: ClassVar[bool] = True
    rewrites: ClassVar[bool] = True

    def __call__(self, rows_BX: Tensor, generator: Randomness | None, sentinels_S: Tensor | None = None) -> Posed:
        assert generator is not None and sentinels_S is not None, "UL2 draws and rewrites: give generator, sentinels"
        length, device = rows_BX.shape[1] - 1, rows_BX.device
        points_BU = uniform(generator, len(rows_BX), 2 + length, device)
        borders_T = torch.tensor(self.shares[:-1], dtype=torch.float64, device=device).cumsum(0)
        task_B = torch.bucketize(points_BU[:, 0].contiguous(), borders_T, right=True)
        prefixes_BL = behind_prefix(points_BU[:, 1:2], length, self.prefix)
        posed_BX, mask_BL = rows_BX.clone(), prefixes_BL | (task_B != 1)[:, None]
        for row, task in enumerate(task_B.tolist()):
            if task > 1:
                share, mean = self.spans[task - 2]
                written = corrupted(rows_BX[row], share, mean, points_BU[row, 2:], sentinels_S)
                posed_BX[row], mask_BL[row] = written
        return Posed(posed_BX[:, :-1], posed_BX[:, 1:], mask_BL)


def behind_prefix(points_B1: Tensor, length: int, mean: float) -> Tensor:
    """Whether each of the positions of a row of `length` predicts a token behind the prefix, [B, L]."""
    most = round(2 * mean * length)
    token_L = torch.arange(1, length + 1, device=points_B1.device)  # which one each position predicts
    return token_L >= (points_B1 * (most + 1)).floor()


def corrupted(row_X: Tensor, share: float, mean: int, points_L: Tensor, sentinels_S: Tensor) -> tuple[Tensor, Tensor]:
    """A row with spans of its tokens replaced by sentinels, then each sentinel with its span; and what is trained.

    T5's rule (Raffel et al. 2020, `random_spans_noise_mask`): of n tokens round(share n) are noise, in round(noise /
    mean) spans; noise and the rest are each split into that many parts, every split equally likely; a row begins with
    text. The last sentinel ends what is written. The row keeps its length: its first n tokens are read, as many as
    leave room for the sentinels (of 129 tokens 116, or 124), and what is left is neither trained nor followed by
    anything. With fewer sentinels than spans their numbers begin again: their order tells them apart.

    -> int64 [X], and whether the token that each position predicts is trained, [X - 1].
    """
    size = len(row_X)
    if size < SMALLEST:
        raise ValueError(f"UL2 corrupts spans of rows of {SMALLEST - 1} tokens or more; these have {size - 1}.")
    every = map(partial(divided, share=share, mean=mean), range(size, 1, -1))
    tokens, noise, spans = next(found for found in every if room(*found) <= size)
    noise_K = parts(noise, spans, points_L[: noise - 1])
    text_K = parts(tokens - noise, spans, points_L[noise - 1 : tokens - 2])
    lengths = torch.stack([text_K, noise_K], 1).flatten().tolist()
    pieces = row_X[:tokens].split(lengths)
    name = [sentinels_S[number % len(sentinels_S)][None] for number in range(spans + 1)]
    given = [piece for number in range(spans) for piece in (pieces[2 * number], name[number])]
    written = [piece for number in range(spans) for piece in (name[number], pieces[2 * number + 1])]
    rest = name[spans].expand(size - room(tokens, noise, spans))
    first = tokens - noise + spans  # of what is written
    predicted_L = torch.arange(1, size, device=row_X.device)
    trained_L = (predicted_L >= first) & (predicted_L < size - len(rest))
    return torch.cat([*given, *written, name[spans], rest]), trained_L


def divided(tokens: int, share: float, mean: int) -> tuple[int, int, int]:
    """(tokens, how many are noise, in how many spans)."""
    noise = min(max(round(share * tokens), 1), tokens - 1)
    return tokens, noise, min(max(round(noise / mean), 1), noise, tokens - noise)


def room(tokens: int, noise: int, spans: int) -> int:
    """What a corrupted row of so many tokens takes: each span has its sentinel twice, and one more is the end."""
    return tokens + 2 * spans + 1


def parts(whole: int, count: int, points_P: Tensor) -> Tensor:
    """`whole` as a sum of `count` positive numbers, each such sum equally likely; `points_P`: whole - 1 of [0, 1)."""
    cuts_C = points_P.argsort()[: count - 1].sort().values + 1
    edges = torch.cat([cuts_C.new_zeros(1), cuts_C, cuts_C.new_full((1,), whole)])
    return edges.diff()


Objective = NextToken | PrefixLM | UL2
OBJECTIVES = {cls.__name__: cls for cls in (NextToken, PrefixLM, UL2)}
