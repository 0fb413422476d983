"""The next-token distributions in toy/data, and the tool that takes them from a teacher."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from replication.axes.targets.kept import TopK
from replication.axes.targets.sampled import RandomSampling
from replication.experiment.recipe import Recipe
from replication.experiment.run import Run
from replication.experiment.scale import load_scale
from replication.machine.device import this_machine
from tools import next_token_sample as tool
from toy import next_token, zipf
from toy.zipf import Setting

LENGTH, CLASSES = 8, 30


def run() -> Run:
    return Run(Recipe(teacher="3B"), load_scale("laptop"), seed=0)


def stand_in(monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    """A teacher whose logits are known: [5, LENGTH, CLASSES + 2], two of them of no token. Returns the logits."""
    logits_BLV = 3 * torch.randn(5, LENGTH, CLASSES + 2, generator=torch.Generator().manual_seed(0))

    def teacher(input_ids: torch.Tensor, use_cache: bool) -> SimpleNamespace:
        assert input_ids.shape == (len(input_ids), LENGTH)
        return SimpleNamespace(logits=logits_BLV[input_ids[:, 0]])

    teacher.name_or_path = "stand-in"  # type: ignore[attr-defined]
    rows = np.arange(5)[:, None] * np.ones(LENGTH + 1, dtype=np.int64)

    class Rows:
        def __len__(self) -> int:
            return len(rows)

        def rows(self, indices: np.ndarray) -> np.ndarray:
            return rows[indices]

    data = SimpleNamespace(validation=Rows(), tokenizer=SimpleNamespace(vocabulary=CLASSES))
    monkeypatch.setattr(tool, "teacher_for", lambda run, machine: teacher)
    monkeypatch.setattr(tool, "data_for", lambda run, artifacts: data)
    return logits_BLV[..., :CLASSES]


def test_sorted_distributions_of_the_second_half(monkeypatch: pytest.MonkeyPatch) -> None:
    logits_BLV = stand_in(monkeypatch)
    found = tool.sample(run(), 4)
    assert found.shape == (4, CLASSES) and found.dtype == np.float16
    assert np.all(np.diff(found.astype(float), axis=1) <= 0)
    assert np.allclose(np.exp(found.astype(float)).sum(1), 1, atol=2e-3)
    wanted_BLV = logits_BLV.double().log_softmax(-1).sort(-1, descending=True).values
    for row in range(4):
        distances = (wanted_BLV[row] - torch.from_numpy(found[row].astype(float))).abs().amax(-1)
        assert int(distances.argmin()) >= LENGTH // 2 and float(distances.min()) < 0.01
    assert np.array_equal(found, tool.sample(run(), 4))
    with pytest.raises(ValueError, match="positions is 6, but the held-out text has 5 rows"):
        tool.sample(run(), 6)


def test_the_file_holds_the_sample(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in(monkeypatch)
    path = tmp_path / "own.npz"
    assert tool.main(["--positions", "4", "--to", str(path)]) == 0
    with np.load(path, allow_pickle=False) as archive:
        assert np.array_equal(archive["log_probs"], tool.sample(run(), 4))
    assert "(4, 30)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scale", "nope"], "Unknown scale 'nope'"),
        (["--teacher", "3C/none"], "3C/none"),
        (["--positions", "0"], "positions is 0"),
        (["--positions", "2"], "is not trained yet"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(tool, "this_machine", lambda: this_machine(tmp_path, tmp_path))
    assert tool.main([*arguments, "--to", str(tmp_path / "x.npz")]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("error: ") and message in said
    assert not (tmp_path / "x.npz").exists()


def test_the_sample_of_a_trained_teacher() -> None:
    log_probs_PV = next_token.log_probs("laptop-3b")
    assert log_probs_PV.shape == (64, 2048) and bool((log_probs_PV.diff(dim=1) <= 0).all())
    assert np.allclose(log_probs_PV.exp().sum(1), 1, atol=1e-3)
    setting = Setting(RandomSampling(22), teacher="laptop-3b", vocabulary=2048, rounds=60)
    metrics, curves = zipf.run(setting, 0)
    assert np.allclose(setting.log_teacher_PV.exp().sum(1), 1, rtol=1e-12)
    p = setting.log_teacher_PV.exp().numpy()
    assert metrics["expected_unique_classes"] == pytest.approx((1 - (1 - p) ** 22).sum(1).mean(), rel=1e-9)
    assert metrics["expected_variance"] == pytest.approx((p * (1 - p)).sum(1).mean() / 22, rel=1e-9)
    for name in ("unique_classes", "variance", "l1_error"):
        assert metrics[name] == pytest.approx(metrics[f"expected_{name}"], rel=0.02), name
    assert np.allclose(curves["targets"]["teacher"], p.mean(0)[:50], rtol=1e-9)
    own = Setting(TopK(20), teacher="laptop-3b", vocabulary=2048)
    assert zipf.run(replace(own, exponent=0.5), 0)[0]["kept_mass"] < zipf.run(own, 0)[0]["kept_mass"]


def test_a_sample_that_is_not_the_committed_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Cannot read .*laptop-3b.npz"):
        next_token.log_probs("laptop-3b", tmp_path)
    path = tmp_path / "laptop-3b.npz"
    for content in (b"", b"PK\x03\x04 no archive", (next_token.FOLDER / path.name).read_bytes()[:5000]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"Cannot read .*laptop-3b\.npz: [^\n]*Check it out again\.$"):
            next_token.log_probs("laptop-3b", tmp_path)
    np.savez_compressed(path, log_probs=np.zeros((64, 2048), dtype=np.float16))
    with pytest.raises(ValueError, match="holds other numbers than were committed"):
        next_token.log_probs("laptop-3b", tmp_path)
    np.savez_compressed(path, log_probs=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="Cannot read"):
        next_token.log_probs("laptop-3b", tmp_path)
