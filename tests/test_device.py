"""On the device that runs would use: what losses, draws and steps are, held against float64 on the CPU.

Without a GPU that device is the CPU, and this only tries the tests themselves out. `make gpu-first` begins with them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from replication.axes.divergences import DIVERGENCES
from replication.axes.loss import distillation_loss
from replication.axes.positions import AllPositions
from replication.axes.targets.base import SparseTarget
from replication.axes.targets.kept import Full, TopK
from replication.axes.targets.sampled import RandomSampling
from replication.experiment.recipe import parse
from replication.experiment.run import Run
from replication.experiment.scale import load_scale
from replication.fused.head import Head
from replication.fused.loss import fused_loss
from replication.machine.device import CPU, this_machine
from replication.probes.stand_in import random_text
from replication.probes.throughput import supervision_of
from replication.training.supervision import drawn
from replication.training.training import Training
from tests.small import write_scale

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CLASSES, WIDTH = 3000, 32


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_the_fused_loss_and_its_gradients_are_the_definition_s(divergence: str) -> None:
    random = torch.Generator().manual_seed(0)
    states_BLD = torch.randn(2, 40, WIDTH, generator=random, dtype=torch.float64)
    weight_VD = torch.randn(CLASSES, WIDTH, generator=random, dtype=torch.float64) / 4
    labels_BL = torch.randint(CLASSES, (2, 40), generator=random)
    logits_NV = torch.randn(80, CLASSES, generator=random, dtype=torch.float64) * 2
    kept = TopK(12) if divergence in ("ForwardKL", "GhostToken", "L1", "MSE") else Full()
    target = replace(kept(logits_NV, labels_BL.flatten(), torch.Generator()), sequences=2)
    method = DIVERGENCES[divergence]()
    meant = [states_BLD.clone().requires_grad_(), weight_VD.clone().requires_grad_()]
    loss = distillation_loss(meant[0] @ meant[1].T, labels_BL, target, method, AllPositions(), 0.8, 0.3)
    loss.backward()
    mine = [part.float().to(DEVICE).requires_grad_() for part in (states_BLD, weight_VD)]
    tensors = {name: value.to(DEVICE) for name, value in vars(target).items() if isinstance(value, torch.Tensor)}
    there = replace(target, **tensors)
    found = fused_loss(mine[0], Head(mine[1]), labels_BL.to(DEVICE), there, method, AllPositions(), 0.8, 0.3)
    found.backward()
    torch.testing.assert_close(found.detach().double().cpu(), loss.detach(), rtol=1e-5, atol=1e-6)
    for its, own in zip(mine, meant, strict=True):
        assert its.grad is not None and own.grad is not None
        torch.testing.assert_close(its.grad.double().cpu(), own.grad, rtol=2e-4, atol=1e-7)


def test_draws_have_the_teacher_s_probabilities_and_are_the_same_whatever_the_batch() -> None:
    logits_V = torch.randn(200, generator=torch.Generator().manual_seed(0)) * 2
    logits_BLV = logits_V.to(DEVICE).expand(4, 500, 200)
    labels_BL = torch.zeros(4, 500, dtype=torch.long, device=DEVICE)
    rows_B = torch.arange(4).numpy()
    found = drawn(RandomSampling(50), logits_BLV, labels_BL, rows_B, 0)
    assert isinstance(found, SparseTarget)
    mean_V = found.dense(200).mean(0).cpu()
    assert (mean_V - logits_V.softmax(-1)).abs().max() < 0.006  # four standard errors of 100,000 draws, at most
    alone = drawn(RandomSampling(50), logits_BLV[2:3], labels_BL[2:3], rows_B[2:3], 0)
    assert torch.equal(alone.dense(200), found.dense(200)[1000:1500])


@pytest.mark.parametrize("target", ["OneHot", {"name": "RandomSampling", "draws": 50}], ids=str)
def test_steps_are_those_of_the_cpu(target: Any, tmp_path: Path) -> None:
    """From the text, and from one cache."""
    run = Run(parse({"target": target}), load_scale(str(write_scale(tmp_path))), 0)
    here = replace(this_machine(tmp_path, tmp_path), compiled=False).at("float32")
    data = random_text(run, 16)
    supervision = supervision_of(run, data, tmp_path / "cache", replace(here, device=CPU))
    losses = []
    for device in (CPU, DEVICE):
        training = Training(run, data, None, replace(here, device=device), supervision)
        losses.append([training.advance()[0] for _ in range(4)])
    torch.testing.assert_close(torch.tensor(losses[1]), torch.tensor(losses[0]), rtol=1e-4, atol=0)
