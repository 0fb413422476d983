"""Each check of a loss finds the fault that it is for, and none in the suite's own losses."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from replication.__main__ import main
from replication.axes.conformance import GHOST, MISSING, SCALED, WITHIN, findings
from replication.axes.divergences import Comparison, ForwardKL, GhostToken
from tools.conformance_table import ours

Mean = Callable[..., Tensor]


def cross_entropy(
    logits_BLV: Tensor, ids_BLK: Tensor, weights_BLK: Tensor, labels_BL: Tensor, changed: str = ""
) -> Tensor:
    """Of the target, as one would write it, with one fault."""
    vocabulary = logits_BLV.shape[-1]
    if changed == "clamps":
        ids_BLK = ids_BLK.clamp_max(vocabulary - 1)
    weights_BLK = weights_BLK.float()
    if changed == "scales":
        weights_BLK = weights_BLK / weights_BLK.sum(-1, keepdim=True)
    if changed == "shifts":
        ids_BLK, weights_BLK = ids_BLK.roll(1, 1), weights_BLK.roll(1, 1)
    log_student_BLV = (logits_BLV if changed == "coarse" else logits_BLV.float()).log_softmax(-1)
    if changed == "within":
        own_BLK = logits_BLV.float().gather(-1, ids_BLK).log_softmax(-1)
        shares_BLK = weights_BLK / weights_BLK.sum(-1, keepdim=True)
        each_BL = -(shares_BLK * own_BLK).sum(-1)
    elif changed == "overwrites":
        dense_BLV = torch.zeros_like(logits_BLV, dtype=torch.float32).scatter(-1, ids_BLK, weights_BLK)
        each_BL = -(dense_BLV * log_student_BLV).sum(-1)
    else:
        each_BL = -(weights_BLK * log_student_BLV.gather(-1, ids_BLK)).sum(-1)
    trained_BL = labels_BL != -100 if changed != "all positions" else torch.ones_like(labels_BL, dtype=torch.bool)
    total = (each_BL * trained_BL).sum()
    if changed == "by sequence":
        return total / len(labels_BL)
    if changed == "over K":
        return total / trained_BL.sum() / ids_BLK.shape[-1]
    if changed == "over all positions":
        return total / labels_BL.numel()
    if changed == "shown":
        mean = total / trained_BL.sum()
        return 4 * mean.detach() + mean - mean.detach()
    return total / trained_BL.sum()


def wrong(loss: Mean) -> dict[str, str]:
    return {each.check: each.says for each in findings(loss) if each.right is False}


@pytest.mark.parametrize(("divergence", "words"), [(ForwardKL(), MISSING), (GhostToken(), GHOST)])
def test_our_own_are_right(divergence: Comparison, words: str) -> None:
    found = {each.check: each for each in findings(ours(divergence))}
    assert not wrong(ours(divergence))
    assert words in found["missing"].says
    assert found["split"].right is True


@pytest.mark.parametrize(
    ("changed", "checks"),
    [
        ("", set()),
        ("scales", set()),
        ("within", {"unbiased", "missing", "unused", "repeated"}),
        ("shifts", {"unbiased", "missing", "aligned"}),
        ("overwrites", {"unused", "repeated"}),
        ("all positions", {"ignored"}),
        ("over all positions", {"ignored"}),
        ("by sequence", {"unbiased", "missing", "ignored", "averages"}),
        ("over K", {"unbiased", "missing", "unused", "repeated"}),
        ("shown", {"follows"}),
        ("coarse", {"coarse"}),
        ("clamps", {"outside"}),
    ],
)
def test_a_fault_is_found(changed: str, checks: set[str]) -> None:
    def loss(*given: Tensor) -> Tensor:
        return cross_entropy(*given, changed=changed)

    assert set(wrong(loss)) == checks


def test_what_becomes_of_missing_mass_is_named() -> None:
    says = {
        changed: next(
            each.says
            for each in findings(lambda *given, changed=changed: cross_entropy(*given, changed=changed))
            if each.check == "missing"
        )
        for changed in ("", "scales", "within")
    }
    assert MISSING in says[""] and SCALED in says["scales"] and WITHIN in says["within"]


def test_the_factor_is_said() -> None:
    def sums(*given: Tensor) -> Tensor:
        return cross_entropy(*given, changed="by sequence")

    assert "6 times what it should be" in wrong(sums)["unbiased"]
    assert "rows twice as long have 2 times the weight" in wrong(sums)["averages"]


def test_a_loss_that_raises_is_a_finding_not_an_end() -> None:
    def fails(logits_BLV: Tensor, ids_BLK: Tensor, weights_BLK: Tensor, labels_BL: Tensor) -> Tensor:
        return F.kl_div(logits_BLV.log_softmax(-1), weights_BLK, reduction="batchmean")  # sizes do not fit

    found = list(findings(fails))
    assert len(found) == 11 and "RuntimeError" in found[0].says


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    source = (
        "def mine(logits, ids, weights, labels):\n"
        "    return -(weights * logits.log_softmax(-1).gather(-1, ids)).sum(-1).mean()\n"
    )
    (tmp_path / "losses_of_mine.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert main(["conform", "losses_of_mine:mine"]) == 2
    printed = capsys.readouterr()
    assert "WRONG  ignored" in printed.out and "right  aligned" in printed.out
    assert "of its checks found something wrong" in printed.err
    assert main(["conform", "losses_of_mine:none"]) == 2
    assert "Give MODULE:FUNCTION" in capsys.readouterr().err
