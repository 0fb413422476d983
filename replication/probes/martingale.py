"""How far one token moves a student's expected loss: SALT Section 3.2 and App. C, Tables 6 to 9, Figures 2, 4 to 7."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel

from replication.axes.targets.base import precise
from replication.cost.flops import Cost, Work
from replication.experiment.run import Run
from replication.machine.device import Machine
from replication.model.decoder import logits_of, precise_weights
from replication.model.reach import reach_of
from replication.probes.completions import Completions
from replication.seeds import generator, seed_for
from replication.training.run_data import Data
from replication.training.weights import teacher_for, trained

COMPLETIONS = 64  # of each prefix (n_com, App. C)
PREFIXES = ("1", "5", "10", "30", "100", "300", "640")  # t and T of the tables; a scale says what they stand for
LENGTHS = ("64", "128", "256", "512", "1280")
LOGITS = 2**30  # bytes of student logits at a time
BINS = 40


def ready(run: Run) -> None:
    """ValueError, one line, for a run without a teacher."""
    if run.recipe.teacher == "none":
        raise ValueError(
            f"Run {run.id} has no teacher (teacher = 'none'), and an oracle that completes prefixes is one: name one."
        )


def martingale(run: Run, data: Data, machine: Machine) -> tuple[dict[str, float], dict[str, Any]]:
    """The plug-in estimate of xi_t (Eq. 66, omega = 0) over held-out rows, for every t and T of the tables.

    The student is the one that the recipe trains; its teacher is the oracle that completes prefixes, in float32. For
    each cell, `_t5_T64` in the paper's words: `xi`, the mean of |xi_t|, and `v`, the mean of its square, which is all
    that one x_t per prefix says of V_t; `xi_floor` and `v_floor`, what they would be if no token mattered and only
    the completions varied; `xi_debiased` and `v_debiased`. Cells whose prefix or length the models cannot read are
    absent. Curves: `cells`, in tokens, with the standard error of the mean over rows and the largest |xi_t|; and at
    the longest length `xi_t5` and `v_t5`, histograms beside the counts that noise alone would give.
    Raises ValueError where teacher or student is not trained yet, or no length fits.
    """
    oracle, student = precise_weights(teacher_for(run, machine)), trained(run, machine)
    reach = min(run.length, reach_of(oracle.config) or run.length)
    lengths = {word: length for word in LENGTHS if (length := run.scale.length(word)) <= reach}
    if not lengths:
        raise ValueError(f"No length of {run.recipe.probe!r} fits in {reach} tokens, all that {run.id} reads.")
    longest = max(lengths.values())
    prefixes = {word: prefix for word in PREFIXES if (prefix := run.scale.length(word)) <= longest}
    known = tuple(sorted({s for prefix in prefixes.values() for s in (prefix - 1, prefix)}))

    rows = generator(run.seed, "completions", "rows")
    rows_S = torch.randperm(len(data.validation), generator=rows)[: run.scale.completed_sequences].tolist()
    completions = Completions(data.validation, known, longest, COMPLETIONS, run.seed)
    folder = completions.folder(oracle, machine, run.scale.name)
    begin = seed_for(run.seed, run.id) % len(rows_S)  # another student's process begins elsewhere, to share the work
    completions.write(rows_S[begin:] + rows_S[:begin], oracle, folder, machine)
    del oracle

    moments = Moments(known, tuple(lengths.values()))
    for row in tqdm(rows_S, desc=run.id, unit="row", mininterval=2.0):
        tokens_PNL = completions.read(folder, row).to(machine.device)
        parts = [losses(student, tokens_NL, moments.lengths, data.tokenizer.vocabulary) for tokens_NL in tokens_PNL]
        moments.add(torch.stack(parts))
    return summary(moments, prefixes, lengths)


@torch.inference_mode()
def losses(student: PreTrainedModel, tokens_NL: Tensor, lengths: Sequence[int], vocabulary: int) -> Tensor:
    """Mean loss per token (Eq. 1, nats) of tokens 1 to T behind token 0, for each length T; [N, T] float64."""
    at_once = max(1, LOGITS // (4 * tokens_NL[0].numel() * vocabulary))
    ends_T = torch.tensor(lengths)
    found = []
    for part_NL in tokens_NL.split(at_once):
        logits_NLV = precise(logits_of(student, part_NL[:, :-1], vocabulary))
        loss_NL = torch.nn.functional.cross_entropy(logits_NLV.transpose(1, 2), part_NL[:, 1:], reduction="none")
        found.append(loss_NL.double().cumsum(1).cpu()[:, ends_T - 1] / ends_T)
    return torch.cat(found)


class Moments:
    """Expected loss given each prefix, estimated from N completions; two halves of them tell noise from signal."""

    def __init__(self, prefixes: Sequence[int], lengths: Sequence[int]) -> None:
        self.prefixes, self.lengths = tuple(prefixes), tuple(lengths)
        self.means: list[Tensor] = []
        self.noise: list[Tensor] = []

    def add(self, loss_PNT: Tensor) -> None:
        """One row's losses. N is even: the halves hold equally many."""
        self.means.append(torch.stack([half.mean(1) for half in loss_PNT.chunk(2, 1)]))
        self.noise.append(loss_PNT.var(1) / loss_PNT.shape[1])

    def deviation(self, prefix: int, length: int) -> Deviation:
        """xi_t at t = prefix: the expected loss before the token is known, less that after."""
        before, after, place = *map(self.prefixes.index, (prefix - 1, prefix)), self.lengths.index(length)
        means_SHP, noise_SP = torch.stack(self.means)[..., place], torch.stack(self.noise)[..., place]
        return Deviation(means_SHP[..., before] - means_SHP[..., after], noise_SP[:, before] + noise_SP[:, after])


@dataclass(frozen=True)
class Deviation:
    """The plug-in estimates of one cell for S rows, and the variance of their sampling noise."""

    half_SH: Tensor
    noise_S: Tensor

    @property
    def plugin_S(self) -> Tensor:
        return self.half_SH.mean(1)

    @property
    def metrics(self) -> dict[str, float]:
        size, square = float(self.plugin_S.abs().mean()), float(self.plugin_S.square().mean())
        # Half the completions double the noise's variance. The squared mean size is linear in that variance where
        # the noise is small, or all there is, or where xi is itself normal: so the line is followed back to none.
        without_noise = 2 * size**2 - float(self.half_SH.abs().mean()) ** 2
        noise = float(self.noise_S.mean())
        return {
            "xi": size,
            "xi_floor": math.sqrt(2 / math.pi) * float(self.noise_S.sqrt().mean()),  # mean size of a normal number
            "xi_debiased": math.sqrt(max(0.0, without_noise)),
            "v": square,
            "v_floor": noise,
            "v_debiased": square - noise,  # unbiased, so it may fall below zero
        }

    @property
    def error(self) -> float:
        """Standard error of `xi` over rows."""
        return float(self.plugin_S.abs().std()) / math.sqrt(len(self.noise_S))

    def histogram(self) -> dict[str, list[float]]:
        """Rows in each bin of xi_t, and how many noise alone would put there."""
        reach = 1.05 * float(self.plugin_S.abs().max())
        edges_E = torch.linspace(-reach, reach, BINS + 1, dtype=torch.float64)
        below_SE = torch.special.ndtr(edges_E / self.noise_S.sqrt().clamp_min(1e-30)[:, None])
        return binned(self.plugin_S, edges_E, below_SE)

    def squares(self) -> dict[str, list[float]]:
        """The same of V_t's estimate, the square."""
        edges_E = torch.linspace(0, 1.05 * float(self.plugin_S.square().max()), BINS + 1, dtype=torch.float64)
        below_SE = torch.erf((edges_E / (2 * self.noise_S.clamp_min(1e-60)[:, None])).sqrt())
        return binned(self.plugin_S.square(), edges_E, below_SE)


def binned(values_S: Tensor, edges_E: Tensor, below_SE: Tensor) -> dict[str, list[float]]:
    """below_SE: the chance that a row's noise lies below each edge."""
    count = torch.histogram(values_S, edges_E).hist
    columns = {"low": edges_E[:-1], "high": edges_E[1:], "count": count, "noise": below_SE.sum(0).diff()}
    return {name: values.tolist() for name, values in columns.items()}


def summary(
    moments: Moments, prefixes: dict[str, int], lengths: dict[str, int]
) -> tuple[dict[str, float], dict[str, Any]]:
    """Metrics and curves of every cell; prefixes and lengths by the paper's words."""
    metrics: dict[str, float] = {}
    cells: dict[str, list[float]] = {"prefix": [], "length": [], "xi": [], "error": [], "largest": []}
    curves: dict[str, Any] = {"cells": cells}
    last = max(lengths, key=lengths.__getitem__)
    for long, length in lengths.items():
        for short, prefix in prefixes.items():
            if prefix > length or int(short) > int(long):
                continue
            deviation = moments.deviation(prefix, length)
            found = deviation.metrics
            metrics |= {f"{name}_t{short}_T{long}": value for name, value in found.items()}
            largest = float(deviation.plugin_S.abs().max())
            line = {"prefix": prefix, "length": length, "xi": found["xi"], "error": deviation.error, "largest": largest}
            for name, value in line.items():
                cells[name].append(value)
            if long == last:
                curves |= {f"xi_t{short}": deviation.histogram(), f"v_t{short}": deviation.squares()}
    return metrics, curves


def work(cost: Cost) -> Work:
    """The teacher writes behind each prefix, the student reads all of it."""
    scale, length = cost.run.scale, cost.run.length
    known = {s for word in PREFIXES for s in (scale.length(word) - 1, scale.length(word)) if s <= length}
    rows = scale.completed_sequences * COMPLETIONS
    written = sum(1 - prefix / length for prefix in known)
    return cost.read_by(cost.teacher, rows * written) + cost.read_by(cost.student, rows * len(known))
