"""Objectives: what of a row is trained, that policies and both loss paths heed it, and that a run does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import oracle
import pytest
import torch
from test_fused import gradients, labels_BL, student
from test_gradients import LENGTH, SEQUENCES, inputs
from torch import Tensor

from replication.axes.divergences import ForwardKL
from replication.axes.loss import distillation_loss
from replication.axes.objectives import NextToken, Posed, PrefixLM
from replication.axes.positions import AllPositions, GlobalThreshold, HardTokens, Positions, TopFraction, weights
from replication.axes.signals import Signals
from replication.axes.targets.base import one_hot
from replication.axes.targets.drawing import Streams
from replication.experiment.recipe import parse
from replication.experiment.run import Run
from replication.experiment.scale import load_scale
from replication.fused.loss import fused_loss
from replication.machine.device import this_machine
from replication.model.decoder import logits_of
from replication.seeds import generator
from replication.training.posing import posed as visit
from replication.training.run_data import data_for
from replication.training.training import Training
from tests.small import write_scale

ROWS = torch.arange(6 * 21).view(6, 21)


def posed(objective: NextToken | PrefixLM, rows: Tensor = ROWS, seed: int = 0) -> Posed:
    return objective(rows, Streams(tuple(generator(seed, "objective", int(row[0]), 0) for row in rows)))


def test_both_read_and_predict_the_whole_row_and_one_trains_all_of_it() -> None:
    for found in (posed(NextToken()), posed(PrefixLM())):
        assert torch.equal(found.tokens_BL, ROWS[:, :-1]) and torch.equal(found.labels_BL, ROWS[:, 1:])
    assert NextToken()(ROWS, None).mask_BL is None


def test_a_prefix_is_a_quarter_of_the_row_on_average_and_any_length_up_to_a_half() -> None:
    mask = PrefixLM()(torch.zeros(4000, 41, dtype=torch.long), generator(0, "a test")).mask_BL
    assert mask is not None and not (mask[:, :-1] & ~mask[:, 1:]).any()  # once behind the prefix, always
    untrained = 40 - mask.sum(1)  # a prefix of p tokens leaves out p - 1, for nothing predicts a row's first token
    assert set(untrained.tolist()) == set(range(20))
    assert float(untrained.double().mean()) == pytest.approx(sum(max(p - 1, 0) for p in range(21)) / 21, abs=0.4)
    longest = PrefixLM(0.5)(torch.zeros(4000, 5, dtype=torch.long), generator(0, "a test")).mask_BL
    assert longest is not None and longest[:, -1].all()  # something is always trained


def test_a_row_s_prefix_depends_on_no_other_row() -> None:
    whole, part = posed(PrefixLM()).mask_BL, posed(PrefixLM(), ROWS[2:4]).mask_BL
    assert whole is not None and part is not None and torch.equal(whole[2:4], part)


@pytest.mark.parametrize("mean", [0.0, 0.6])
def test_a_prefix_longer_than_the_row_is_refused(mean: float) -> None:
    with pytest.raises(ValueError, match=rf"PrefixLM\.mean is {mean}; give the mean share"):
        PrefixLM(mean)


def mask_BL() -> Tensor:
    """Of test_fused's batch: other prefixes in each row."""
    return torch.arange(1, LENGTH + 1) >= torch.arange(SEQUENCES)[:, None] + 2


def test_a_policy_chooses_among_what_is_trained_and_every_row_weighs_the_same() -> None:
    values = torch.rand(SEQUENCES, LENGTH, generator=torch.Generator().manual_seed(0))
    signals = Signals(labels_BL(), {"student_entropy": values})
    found = weights(TopFraction(0.5), signals, 0.0, None, mask_BL())
    for weight_L, value_L, mask_L in zip(found, values, mask_BL(), strict=True):
        chosen = oracle.top_fraction(value_L[mask_L].tolist(), "0.5")
        meant = np.zeros(LENGTH)
        meant[mask_L.numpy()] = np.array(chosen) * LENGTH / sum(chosen)
        np.testing.assert_allclose(weight_L, meant, rtol=1e-6)


@pytest.mark.parametrize("positions", [HardTokens(3.0), GlobalThreshold(0.5)], ids=str)
def test_a_policy_of_the_whole_batch_sees_only_what_is_trained(positions: Positions) -> None:
    random = torch.Generator().manual_seed(0)
    values = {name: torch.rand(SEQUENCES, LENGTH, generator=random) for name in positions.signals}
    found = weights(positions, Signals(labels_BL(), values), 0.0, None, mask_BL())
    assert not found[~mask_BL()].any() and float(found.mean()) == pytest.approx(1, rel=1e-6)
    other = {name: torch.where(mask_BL(), part, 9.0) for name, part in values.items()}
    assert torch.equal(found, weights(positions, Signals(labels_BL(), other), 0.0, None, mask_BL()))


@pytest.mark.parametrize("positions", [AllPositions(), TopFraction(0.5), HardTokens(3.0)], ids=str)
def test_both_paths_leave_out_what_is_not_trained(positions: Positions) -> None:
    hidden, head = student()
    target = one_hot(labels_BL().flatten())
    rest = (labels_BL(), target, ForwardKL(), positions, 0.7, 0.4, 0.0, None, None, mask_BL())
    fused = gradients(fused_loss(hidden, head, *rest), hidden, head)
    meant = gradients(distillation_loss(head(hidden), *rest), hidden, head)
    for one, other in zip(fused, meant, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)
    assert not fused[1][~mask_BL().numpy()].any()


def test_the_loss_is_the_mean_over_what_is_behind_the_prefix() -> None:
    _, logits_NV, labels = inputs()
    logits_BLV = logits_NV.detach().view(SEQUENCES, LENGTH, -1)
    found = distillation_loss(
        logits_BLV, labels_BL(), one_hot(labels), ForwardKL(), AllPositions(), 0.0, 1.0, mask_BL=mask_BL()
    )
    classes = logits_BLV.shape[-1]
    rows = [
        oracle.prefix_loss(
            [
                oracle.cross_entropy(oracle.one_hot(int(y), classes), x.double().numpy())
                for x, y in zip(row_LV, labels_L, strict=True)
            ],
            prefix + 2,
        )
        for prefix, (row_LV, labels_L) in enumerate(zip(logits_BLV, labels_BL(), strict=True))
    ]
    assert float(found) == pytest.approx(float(np.mean(rows)), rel=1e-6)


def test_a_run_trains_behind_prefixes_that_each_visit_draws_anew(tmp_path: Path) -> None:
    write_scale(tmp_path)
    machine = replace(this_machine(tmp_path / "results", tmp_path / "artifacts"), autocast=False)
    recipe = parse({"objective": "PrefixLM", "teacher": "none", "target": "OneHot"})
    run = Run(recipe, load_scale(str(tmp_path / "small.toml")), 0)
    data = data_for(run, machine.artifacts)
    training = Training(run, data, None, machine)
    ((rows_B, epochs_B),) = training.micro_batches(0)
    read, text = torch.from_numpy(data.train.rows(rows_B)), (data.train, data.tokenizer)
    first, again, second = (
        visit(run, *text, rows_B, epoch_B, machine.device).mask_BL for epoch_B in (epochs_B, epochs_B, epochs_B + 1)
    )
    assert first is not None and again is not None and second is not None
    assert torch.equal(first, again) and not torch.equal(first, second)
    with torch.no_grad():
        logits_BLV = logits_of(training.model, read[:, :-1], data.tokenizer.vocabulary)
    loss_BL = torch.nn.functional.cross_entropy(logits_BLV.mT, read[:, 1:], reduction="none")
    meant = np.mean([float(loss_L[mask_L].mean()) for loss_L, mask_L in zip(loss_BL, first, strict=True)])
    assert training.advance()[0] == pytest.approx(meant, rel=1e-5)
