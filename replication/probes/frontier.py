"""How far a target is off on a teacher's own positions, and what it costs: measured, beside the closed forms."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from replication.axes.targets.base import Target, precise
from replication.axes.targets.closed_form import PRICED, SHARES, corrected_error, least_error, prices, set_entropy
from replication.axes.targets.water_filling import WaterFilling
from replication.cache.writer import BATCH
from replication.cost.error_for_bytes import mean, size_of
from replication.cost.flops import Cost, Work
from replication.data.packing import frequencies
from replication.experiment.run import Run
from replication.machine.device import Machine
from replication.model.decoder import logits_of
from replication.training.run_data import Data, order_of
from replication.training.supervision import drawn
from replication.training.weights import teacher_for


@torch.no_grad()
def frontier(run: Run, data: Data, machine: Machine) -> tuple[dict[str, float], dict[str, Any]]:
    """Means over the positions of the first `probe_sequences` rows of training, which a cache would hold.

    `unique_classes` and `squared_error` (distance of one draw to the teacher, summed over classes) are measured, and
    `mass`, the sum of the weights; `gradient_error`, what the gradient in the logits is off by at a student that equals
    the teacher, squared, and `bias`: the squared length of the mean of that over all positions, which is what a batch
    of them cannot average away. `packed_bytes` and `coded_bytes` a position, of the codecs (`error_for_bytes.Size`),
    and `id_entropy`, the bytes that no code of single classes goes below, weights not counted. Where there are closed
    forms `expected_classes`, `expected_error`, `expected_gradient_error` and `error_ratio`, measured error over
    expected. Of WaterFilling `with_prior` too: that error with the best share of the text's unigram law as a control
    variate, over the one without. `least_error` is what an unbiased target that keeps as many classes on average could
    have at the least (`closed_form.least_error`), and `over_least` the measured error over it.
    """
    teacher, target = teacher_for(run, machine), run.recipe.target
    rows_R = order_of(run, data)[: run.scale.probe_sequences]
    frequencies_V, sums = frequencies(data.train), dict[str, float]()
    prior_V = torch.from_numpy(frequencies_V / frequencies_V.sum()).to(machine.device)
    error_S = torch.zeros(len(SHARES), dtype=torch.float64, device=machine.device)
    off_V = torch.zeros(data.tokenizer.vocabulary, dtype=torch.float64, device=machine.device)
    kept_V, price_L = torch.zeros_like(off_V), torch.zeros(PRICED, dtype=torch.float64, device=machine.device)
    for indices_B in tqdm(np.split(rows_R, range(BATCH, len(rows_R), BATCH)), desc=run.id, unit="batch", mininterval=2):
        rows = torch.from_numpy(data.train.rows(indices_B)).to(machine.device)
        with machine.precision():
            logits_BLV = logits_of(teacher, rows[:, :-1], data.tokenizer.vocabulary)
        kept = drawn(target, logits_BLV, rows[:, 1:], indices_B, run.seed)
        probs_NV = precise(logits_BLV.flatten(0, 1)).softmax(-1)
        weights_NV = kept.dense(probs_NV.shape[1])
        off_NV = weights_NV - weights_NV.sum(1, keepdim=True) * probs_NV
        off_V += off_NV.sum(0, dtype=torch.float64)
        kept_V += (weights_NV > 0).sum(0)
        if isinstance(target, WaterFilling):
            error_S += corrected_error(target, probs_NV.double(), prior_V).sum(0)
        price_L += prices(probs_NV)
        size = size_of(target, kept, data.train.length, frequencies_V)
        sizes = {"packed_bytes": size.packed, "coded_bytes": size.coded}
        for name, value in (measured(weights_NV, probs_NV, off_NV) | expected(target, probs_NV) | sizes).items():
            sums[name] = sums.get(name, 0.0) + value * len(probs_NV)
    positions = len(rows_R) * data.train.length
    metrics = {name: total / positions for name, total in sums.items()}
    metrics["bias"] = float((off_V / positions).square().sum())
    metrics["id_entropy"] = float(set_entropy(kept_V / positions)) / 8
    if metrics.get("expected_error", 0.0) > 0:
        metrics["error_ratio"] = metrics["squared_error"] / metrics["expected_error"]
    metrics["least_error"] = least_error(price_L / positions, metrics["unique_classes"])
    if metrics["least_error"] > 1e-12:  # else rounding, of as many classes as there are
        metrics["over_least"] = metrics["squared_error"] / metrics["least_error"]
    if isinstance(target, WaterFilling):
        metrics["with_prior"] = float(error_S.min() / error_S[0])
    return metrics, {}


def measured(weights_NV: Tensor, probs_NV: Tensor, off_NV: Tensor) -> dict[str, float]:
    """Means over the positions; `off_NV` is of the gradient."""
    return {
        "unique_classes": float((weights_NV > 0).sum(1).double().mean()),
        "mass": float(weights_NV.sum(1, dtype=torch.float64).mean()),
        "squared_error": float((weights_NV - probs_NV).square().sum(1, dtype=torch.float64).mean()),
        "gradient_error": float(off_NV.square().sum(1, dtype=torch.float64).mean()),
    }


def expected(target: Target, probs_NV: Tensor) -> dict[str, float]:
    """The closed forms that there are."""
    forms = {
        "expected_classes": target.kept,
        "expected_error": target.squared_error,
        "expected_gradient_error": target.gradient_error,
    }
    found = {name: mean(form, probs_NV) for name, form in forms.items()}
    return {name: value for name, value in found.items() if value is not None}


def work(cost: Cost) -> Work:
    return cost.read_by(cost.teacher, cost.run.scale.probe_sequences)
