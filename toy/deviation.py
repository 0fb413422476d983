"""xi_t and V_t of SALT Eq. 8 and 9 along given sequences, exactly: by dynamic programming and beliefs about topics."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from toy.source import Source


@dataclass(frozen=True)
class Future:
    """Sums of losses behind position t given its topic and token, t = 0 (before the first) ... T, [T + 1, H, V]."""

    mean: Tensor
    square: Tensor  # second moments


@dataclass(frozen=True)
class Deviation:
    """xi_t, V_t and completions' variances of N sequences, over T or T^2 as the paper's loss is."""

    xi_NT: Tensor
    v_NT: Tensor  # E[xi_t ** 2 | the tokens before t]
    drift_NT: Tensor  # E[xi_t | the tokens before t]: zero, but for rounding
    spread_NT: Tensor  # variance of the loss of a completed sequence given its first t tokens, t = 0 ... T
    expected: float  # E[loss], from the source's stationary law and not from the dynamic programme
    loss_N: Tensor
    before_NTH: Tensor  # chances of token t's topic given the tokens before it
    past_NT: Tensor  # losses of the first t tokens, summed, t = 0 ... T


def future(source: Source, loss_CV: Tensor, length: int) -> Future:
    """Backward in time, O(T H V^2) float64. `loss_CV`: of class v behind context c."""
    words_HV, steps_HH, after_VV = source.words_HV, source.steps_HH, loss_CV[1:]
    own_HV, own_square_HV = words_HV @ after_VV.T, words_HV @ (after_VV**2).T
    mean = torch.zeros(length + 1, *words_HV.shape, dtype=torch.float64)
    square = torch.zeros_like(mean)
    for t in range(length - 1, 0, -1):
        later_HV = words_HV * mean[t + 1]
        mean[t] = steps_HH @ (own_HV + later_HV.sum(1, keepdim=True))
        rest_H1 = (words_HV * square[t + 1]).sum(1, keepdim=True)
        square[t] = steps_HH @ (own_square_HV + 2 * later_HV @ after_VV.T + rest_H1)
    first_V = loss_CV[0]
    mean[0] = (words_HV * (first_V + mean[1])).sum() / source.topics
    square[0] = (words_HV * (first_V**2 + 2 * first_V * mean[1] + square[1])).sum() / source.topics
    return Future(mean, square)


def deviation(source: Source, loss_CV: Tensor, tokens_NT: Tensor) -> Deviation:
    """Forward in time; the loss of a sequence is the mean over its tokens."""
    n, length = tokens_NT.shape
    coming = future(source, loss_CV, length)
    before_NH = torch.full((n, source.topics), 1 / source.topics, dtype=torch.float64)
    row_N, past_N = torch.zeros(n, dtype=torch.long), torch.zeros(n, dtype=torch.float64)
    known_N = coming.mean[0, 0, 0].expand(n)  # E[sum of losses | the tokens before t]
    kept: dict[str, list[Tensor]] = {name: [] for name in ("xi", "v", "drift", "spread", "before", "past")}
    kept["spread"].append((coming.square[0, 0, 0] - coming.mean[0, 0, 0] ** 2).expand(n))
    kept["past"].append(past_N)
    for t, token_N in enumerate(tokens_NT.T, start=1):
        chance_NV = before_NH @ source.words_HV
        # a class that cannot follow has chance 0 and the weight 0 in every sum below
        behind_NV = before_NH @ (source.words_HV * coming.mean[t]) / torch.where(chance_NV > 0, chance_NV, 1.0)
        step_NV = known_N[:, None] - (past_N[:, None] + loss_CV[row_N] + behind_NV)
        kept["v"].append((chance_NV * step_NV**2).sum(1))
        kept["drift"].append((chance_NV * step_NV).sum(1))
        kept["before"].append(before_NH)
        after_NH = source.after(before_NH, token_N)
        past_N = past_N + loss_CV[row_N, token_N]
        mean_N = (after_NH * coming.mean[t].T[token_N]).sum(1)
        kept["xi"].append(known_N - past_N - mean_N)
        kept["spread"].append((after_NH * coming.square[t].T[token_N]).sum(1) - mean_N**2)
        kept["past"].append(past_N)
        known_N, before_NH, row_N = past_N + mean_N, source.before(after_NH), 1 + token_N
    stacked = {name: torch.stack(values, 1) for name, values in kept.items()}
    return Deviation(
        xi_NT=stacked["xi"] / length,
        v_NT=stacked["v"] / length**2,
        drift_NT=stacked["drift"] / length,
        spread_NT=stacked["spread"].clamp_min(0) / length**2,
        expected=expected(source, loss_CV, length),
        loss_N=past_N / length,
        before_NTH=stacked["before"],
        past_NT=stacked["past"],
    )


def expected(source: Source, loss_CV: Tensor, length: int) -> float:
    """R of SALT Eq. 5 and 6: topics are stationary, so every position but the first has the same law."""
    first_V, after_VV = source.first_V, source.table_CV[1:]
    later = (first_V[:, None] * after_VV * loss_CV[1:]).sum()
    return float((first_V @ loss_CV[0] + (length - 1) * later) / length)
