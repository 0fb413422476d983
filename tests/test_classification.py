"""The MLP toy of Figure 2b: its truth against Bayes's rule by hand, its calibration against other implementations."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch import nn

from analysis.load import choose, frame, records
from analysis.matching import by_cell
from paper_tables import spec
from replication.axes.divergences import ForwardKL, GhostToken, ReverseKL
from replication.axes.targets.base import Target
from replication.axes.targets.kept import Full, NaiveFix, OneHot, SmoothedTopK, TopK
from replication.axes.targets.sampled import RandomSampling
from replication.evaluate.calibration import Calibration
from replication.seeds import seed_for
from toy import __main__ as command
from toy import checkpoint, classification
from toy.classification import Reliability, Setting
from toy.gaussians import Problem, drawn
from toy.study import stated_run

EXHIBIT = "rskd/figure02b"
ERRORS = 4  # standard errors allowed
TINY: dict[str, Any] = {"classes": 12, "dimensions": 4, "teacher": 8, "student": 6, "batch": 64, "evaluation": 4}
MEASURED = {"accuracy", "ece", "ece_truth", "overconfidence", "truth_error", "kl_truth", "bayes_accuracy"}
MEASURED |= {"agreement", "unique_classes", "kept_mass"}


@pytest.fixture(autouse=True)
def artifacts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ARTIFACTS", str(tmp_path / "artifacts"))
    return tmp_path / "artifacts"


def tiny(target: Target, **sizes: Any) -> Setting:
    return Setting(target, **{**TINY, "steps": 20, **sizes})


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def by_hand(world: Problem, points_ND: torch.Tensor) -> np.ndarray:
    """Bayes's rule with densities of SciPy, class by class, [N, V]."""
    densities = [
        multivariate_normal(centre.numpy(), float(width) ** 2).logpdf(points_ND.numpy())
        for centre, width in zip(world.centres_VD, world.sigma_V, strict=True)
    ]
    log_NV = np.stack(densities, axis=1)
    weights_NV = np.exp(log_NV - log_NV.max(1, keepdims=True))
    return weights_NV / weights_NV.sum(1, keepdims=True)


@pytest.mark.parametrize("sigma", (1.5, 1e-4))
def test_the_posterior_is_bayes_rule(sigma: float) -> None:
    world = drawn(9, 16, sigma, seeded(0))
    points_ND, _ = world.batch(40, torch.float64, seeded(1))
    found_NV = world.log_posterior(points_ND).exp().numpy()
    assert np.allclose(found_NV, by_hand(world, points_ND), rtol=1e-7, atol=1e-12)
    assert np.allclose(found_NV.sum(1), 1, rtol=1e-12)


def test_two_equal_widths_are_a_logistic_regression() -> None:
    """Of two classes of one width the log-odds are linear: x . (a - b) / s^2 less the midpoint's."""
    a, b, width = torch.tensor([0.1, 0.9]).double(), torch.tensor([0.7, 0.2]).double(), 0.3
    world = Problem(torch.stack([a, b]), torch.full((2,), width, dtype=torch.float64))
    points_ND, _ = world.batch(30, torch.float64, seeded(2))
    log_NV = world.log_posterior(points_ND)
    odds_N = (points_ND - (a + b) / 2) @ (a - b) / width**2
    assert torch.allclose(log_NV[:, 0] - log_NV[:, 1], odds_N, rtol=1e-10, atol=1e-10)


def test_points_are_drawn_from_the_classes() -> None:
    world = drawn(3, 5, 1.5, seeded(3))
    n = 60_000
    points_ND, labels_N = world.batch(n, torch.float64, seeded(4))
    for label in range(3):
        own_ND = points_ND[labels_N == label]
        width = float(world.sigma_V[label])
        share = len(own_ND) / n
        assert abs(share - 1 / 3) < ERRORS * math.sqrt(2 / 9 / n)
        assert float((own_ND.mean(0) - world.centres_VD[label]).abs().max()) < ERRORS * width / math.sqrt(len(own_ND))
        assert float(own_ND.var(0).mean()) == pytest.approx(width**2, rel=ERRORS * math.sqrt(2 / 5 / len(own_ND)))
    # the truth is calibrated: each class's mean posterior is its share, and it is right as often as it says
    posterior_NV = world.log_posterior(points_ND).exp()
    assert torch.allclose(posterior_NV.mean(0), torch.full((3,), 1 / 3).double(), atol=ERRORS * 0.5 / math.sqrt(n))
    right = float((posterior_NV.argmax(1) == labels_N).double().mean())
    assert abs(right - float(posterior_NV.amax(1).mean())) < ERRORS * 0.5 / math.sqrt(n)


def test_classes_are_as_wide_as_the_listing_draws_them() -> None:
    world = drawn(4000, 2, 1.5, seeded(5))
    assert 0 < float(world.sigma_V.min()) and float(world.sigma_V.max()) <= 1.5
    assert float(world.sigma_V.mean()) == pytest.approx(0.75, abs=ERRORS * 1.5 / math.sqrt(12 * 4000))
    assert 0 <= float(world.centres_VD.min()) and float(world.centres_VD.max()) < 1


def test_bins_are_those_of_the_language_models() -> None:
    confidence_N = torch.rand(5000, dtype=torch.float64, generator=seeded(6))
    correct_N = torch.rand(5000, dtype=torch.float64, generator=seeded(7)) < confidence_N**2
    ours, theirs = Reliability(), Calibration()
    for part in torch.arange(5000).chunk(3):
        ours.add(confidence=confidence_N[part], accuracy=correct_N[part], truth=confidence_N[part] ** 2)
    theirs.add(confidence_N, correct_N)
    assert ours.error("accuracy") == pytest.approx(theirs.error(), rel=1e-12)
    for name, values in theirs.curve().items():
        assert ours.curve()[name] == pytest.approx(values, rel=1e-12)
    # of c - c^2 with c uniform the mean is 1/6, and within a bin its sign does not change
    assert ours.error("truth") == pytest.approx(1 / 6, abs=0.01)


class Bayes(nn.Module):
    """A network that knows the truth, sharpened by `exponent`."""

    def __init__(self, world: Problem, exponent: float = 1.0) -> None:
        super().__init__()
        self.world, self.exponent = world, exponent

    def forward(self, points_ND: torch.Tensor) -> torch.Tensor:
        return self.exponent * self.world.log_posterior(points_ND)


def test_the_truth_is_without_error_against_itself() -> None:
    setting = tiny(Full(), batch=500, evaluation=20)
    truth = Bayes(classification.problem(setting, 0))
    found, curves = classification.measured(setting, 0, truth, truth)
    assert max(abs(found[name]) for name in ("ece_truth", "overconfidence", "truth_error", "kl_truth")) < 1e-12
    assert found["agreement"] == 1 and found["kept_mass"] == pytest.approx(1) and found["unique_classes"] <= 12
    assert abs(found["accuracy"] - found["bayes_accuracy"]) < ERRORS * 0.5 / math.sqrt(10_000)
    assert 0 < found["ece"] < 0.03  # the labels' noise
    assert curves["reliability"]["truth"] == pytest.approx(curves["reliability"]["confidence"])
    assert sum(curves["reliability"]["count"]) == 10_000


def test_a_sharpened_truth_is_overconfident_and_still_as_accurate() -> None:
    setting = tiny(Full(), batch=500, evaluation=20)
    world = classification.problem(setting, 0)
    found, _ = classification.measured(setting, 0, Bayes(world, 3.0), Bayes(world))
    points_ND, _ = world.batch(10_000, torch.float64, seeded(8))
    p_NV = by_hand(world, points_ND)
    sharp_NV = p_NV**3 / (p_NV**3).sum(1, keepdims=True)
    error_N = sharp_NV.max(1) - p_NV.max(1)
    assert error_N.mean() > 0.05
    # other points than the study's: equal up to sampling
    assert found["overconfidence"] == pytest.approx(error_N.mean(), abs=ERRORS * 1.5 * error_N.std() / 100)
    assert found["truth_error"] == pytest.approx(np.abs(error_N).mean(), abs=ERRORS * 1.5 * error_N.std() / 100)
    kl_N = (p_NV * np.log(np.maximum(p_NV, 1e-300) / np.maximum(sharp_NV, 1e-300))).sum(1)
    assert found["kl_truth"] == pytest.approx(kl_N.mean(), abs=ERRORS * 1.5 * kl_N.std() / 100)
    assert found["agreement"] == 1


def test_the_target_is_measured_too() -> None:
    setting = tiny(TopK(2), batch=300)
    world = classification.problem(setting, 0)
    found, _ = classification.measured(setting, 0, Bayes(world), Bayes(world))
    assert found["unique_classes"] == 2
    points_ND, _ = world.batch(20_000, torch.float64, seeded(9))
    kept = np.sort(by_hand(world, points_ND), axis=1)[:, -2:].sum(1)
    assert found["kept_mass"] == pytest.approx(kept.mean(), abs=0.03)


def test_the_network_is_three_layers_of_gelu() -> None:
    setting = tiny(OneHot(), student=5)
    model = classification.network(setting, seeded(10))
    points_ND = torch.rand(7, 4, dtype=torch.float64, generator=seeded(11))
    hidden = points_ND.numpy()
    weights = [parameter.detach().numpy() for parameter in model.parameters()]
    assert [weight.shape for weight in weights] == [(5, 4), (5,), (5, 5), (5,), (12, 5), (12,)]
    for depth, (weight, bias) in enumerate(zip(weights[::2], weights[1::2], strict=True)):
        assert max(np.abs(weight).max(), np.abs(bias).max()) <= weight.shape[1] ** -0.5
        hidden = hidden @ weight.T + bias
        if depth < 2:
            hidden = hidden * np.vectorize(lambda x: (1 + math.erf(x / math.sqrt(2))) / 2)(hidden)
    assert np.allclose(model(points_ND).detach().numpy(), hidden, rtol=1e-10)


def test_training_finds_the_truth_of_a_simple_problem() -> None:
    """Two classes: cross-entropy and distillation both end near Bayes; top-1 of two classes cannot."""
    sizes = {"classes": 2, "dimensions": 2, "teacher": 16, "student": 12, "steps": 200, "batch": 256, "evaluation": 20}
    found = {
        type(target).__name__: classification.run(Setting(target, learning_rate=1e-2, **sizes), 0)[0]  # type: ignore[arg-type]
        for target in (OneHot(), Full(), TopK(1))
    }
    for name in ("OneHot", "Full"):
        assert found[name]["kl_truth"] < 0.02 and found[name]["ece_truth"] < 0.05, name
        assert found[name]["bayes_accuracy"] - found[name]["accuracy"] < 0.05, name
    # top-1 without renormalising is fitted by all mass on one class
    confidence = found["TopK"]["overconfidence"] + found["TopK"]["accuracy"]
    assert confidence > 0.95 and found["TopK"]["overconfidence"] > 3 * found["Full"]["ece_truth"]


@pytest.mark.parametrize(
    ("target", "divergence"),
    [
        (OneHot(), ForwardKL()),
        (Full(), ForwardKL()),
        (RandomSampling(5), ForwardKL()),
        (TopK(3), GhostToken()),
        (NaiveFix(3), ForwardKL()),
        (SmoothedTopK(3), ForwardKL()),
    ],
)
def test_a_seed_says_it_all(target: Target, divergence: Any, artifacts: Path) -> None:
    setting = tiny(target, divergence=divergence)
    first = classification.run(setting, 1)
    assert set(first[0]) == MEASURED and all(math.isfinite(value) for value in first[0].values())
    assert classification.run(setting, 1) == first  # from the files
    shutil.rmtree(artifacts)
    torch.rand(3)  # torch's own stream is of no consequence
    assert classification.run(setting, 1) == first
    assert classification.run(setting, 2) != first


def test_float32_is_float32() -> None:
    exact, _ = classification.run(tiny(Full()), 0)
    rounded, _ = classification.run(tiny(Full(), precision="float32"), 0)
    assert all(weight.dtype == torch.float32 for weight in student(tiny(Full(), precision="float32")).parameters())
    assert rounded != exact


def student(setting: Setting) -> nn.Module:
    return classification.trained(setting, 0, classification.trained(setting.of_teacher, 0))


def test_students_share_start_and_points_and_not_the_teachers() -> None:
    """With a target that is the labels and a teacher that is sure of them, distillation is cross-entropy training."""
    setting = tiny(OneHot())
    own = classification.trained(setting, 0)
    world = classification.problem(setting, 0)

    class Sure(nn.Module):
        def forward(self, points_ND: torch.Tensor) -> torch.Tensor:
            return torch.full((len(points_ND), 12), -1e4).scatter(1, labels.pop(0)[:, None], 0.0)

    replay = classification.stream(0, "student", "batches")
    labels = [world.batch(64, torch.float64, replay)[1] for _ in range(20)]
    distilled = classification.trained(tiny(Full()), 0, Sure())
    for a, b in zip(own.parameters(), distilled.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-6, atol=1e-8)
    teacher = classification.trained(tiny(OneHot(), student=8), 0)
    assert not torch.allclose(next(teacher.parameters())[:6], next(own.parameters()))


def test_a_teacher_is_trained_once_and_is_a_row_too(monkeypatch: pytest.MonkeyPatch, artifacts: Path) -> None:
    setting = tiny(Full())
    classification.prepare(setting, 0)
    assert [path.name.split("-s0-")[0] for path in artifacts.rglob("*.pt")] == ["teacher-onehot-forwardkl"]
    assert setting.of_teacher.role == "teacher" == setting.of_teacher.of_teacher.role and setting.role == "student"
    assert tiny(TopK(3)).of_teacher == tiny(TopK(3), divergence=GhostToken()).of_teacher == setting.of_teacher
    monkeypatch.setattr(torch.optim.AdamW, "step", None)
    found, _ = classification.run(setting.of_teacher, 0)  # trains nothing
    assert set(found) == MEASURED - {"agreement"}


class CutOffError(Exception):
    pass


def test_a_training_that_was_cut_off_ends_the_same(monkeypatch: pytest.MonkeyPatch, artifacts: Path) -> None:
    setting = tiny(RandomSampling(5))
    whole, _ = classification.run(setting, 0)
    shutil.rmtree(artifacts)

    monkeypatch.setattr(classification, "CHECKPOINT_SECONDS", -1.0)
    save = checkpoint.Checkpoint.save

    def saved(self: checkpoint.Checkpoint, step: int) -> None:
        save(self, step)
        if step == 13:
            raise CutOffError

    monkeypatch.setattr(checkpoint.Checkpoint, "save", saved)
    with pytest.raises(CutOffError):  # the teacher's training
        classification.run(setting, 0)
    with pytest.raises(CutOffError):  # the student's
        classification.run(setting, 0)
    assert len(list(artifacts.rglob("*.pt"))) == 2 and not list(artifacts.rglob(".*"))
    assert classification.run(setting, 0)[0] == whole


def test_files_are_named_by_what_decides_them(monkeypatch: pytest.MonkeyPatch) -> None:
    base = tiny(TopK(3))
    settings = [base, replace(base, divergence=GhostToken()), replace(base, steps=21), replace(base, sigma=1.0)]
    settings += [replace(base, target=TopK(4)), replace(base, precision="float32"), base.of_teacher]
    paths = [classification.file_of(setting, 0) for setting in settings] + [classification.file_of(base, 1)]
    assert len(set(paths)) == len(paths)
    assert classification.file_of(replace(base, evaluation=9), 0) == paths[0]
    monkeypatch.setattr(classification, "code", lambda: "other")
    assert classification.file_of(base, 0) != paths[0]


def test_streams_are_named_by_purpose() -> None:
    assert classification.stream(3, "student", "init").initial_seed() == seed_for(
        3, "classification", "student", "init"
    )


BAD: list[tuple[dict[str, Any], str]] = [
    ({"classes": 0}, "classes is 0"),
    ({"steps": True}, "steps is True"),
    ({"sigma": 0.0}, "sigma is 0.0"),
    ({"learning_rate": -1.0}, "learning_rate is -1.0"),
    ({"precision": "float16"}, "Unknown precision 'float16'"),
    ({"target": TopK(13)}, "TopK.k is 13, but the teacher has 12 classes"),
    ({"divergence": ReverseKL()}, "ReverseKL compares all classes"),
]


@pytest.mark.parametrize(("wrong", "message"), BAD)
def test_bad_settings_are_refused_before_anything_trains(wrong: dict[str, Any], message: str, artifacts: Path) -> None:
    with pytest.raises(ValueError, match=message) as error:
        tiny(**{"target": TopK(3), **wrong})
    assert "\n" not in str(error.value) and not artifacts.exists()


def small(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exhibit with other stated sizes than the paper's, so that writing records takes no time."""
    shutil.copytree(spec.ROOT, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    monkeypatch.setattr(spec, "ROOT", folder)


def test_records_fill_the_exhibit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = tmp_path / "results"
    arguments = [EXHIBIT, "--scale", "smoke", "--seeds", "0,1", "--results", str(ours)]
    assert command.main(arguments) == 0
    exhibit, found = spec.load(EXHIBIT), records(ours / "smoke")
    assert f"{2 * len(exhibit.rows)} runs" in capsys.readouterr().out
    assert len(found) == 2 * len(exhibit.rows) == len(choose(exhibit, found).kept)

    cells = by_cell(exhibit, found)
    claimed = {(row, claim.column) for claim in exhibit.claims for row in claim.rows}
    table = frame(exhibit, found, "yours")
    filled = set(zip(table["row"], table["column"], strict=True))
    assert claimed <= filled
    for row in exhibit.rows:
        assert [record.seed for record in cells[row.label, "ece"]] == [0, 1], row.label
    assert all(set(record.summary.curves["reliability"]) >= {"confidence", "accuracy", "count"} for record in found)

    written = {path: path.read_bytes() for path in ours.rglob("*.json")}
    assert command.main(arguments) == 0
    assert f"{len(found)} of them done before" in capsys.readouterr().out
    assert written == {path: path.read_bytes() for path in ours.rglob("*.json")}


def test_the_exhibit_states_the_listing() -> None:
    runs = dict(command.runs(EXHIBIT, "paper", [0]))
    teacher = runs.pop("Teacher").sized
    assert teacher.role == "teacher"
    for label, run in runs.items():
        assert run.sized == Setting(run.setting.target, run.setting.divergence) and run.sized.of_teacher == teacher, (
            label
        )
    assert {run.setting.divergence for run in runs.values()} == {ForwardKL(), GhostToken()}
    for scale in ("smoke", "laptop"):
        sized = {label: run.sized for label, run in command.runs(EXHIBIT, scale, [0])}
        assert {setting.of_teacher for setting in sized.values()} == {sized["Teacher"]}, scale


def test_a_bad_row_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    small(tmp_path / "tables", monkeypatch)
    path = tmp_path / "tables" / f"{EXHIBIT}.toml"
    path.write_text(path.read_text().replace('divergence = "GhostToken"', 'divergence = "ReverseKL"', 1))
    assert command.main([EXHIBIT, "--scale", "smoke", "--results", str(tmp_path / "results")]) == 2
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ") and "row 'Ghost Token 7'" in last and "ReverseKL compares all classes" in last


def test_a_record_says_what_was_run(tmp_path: Path) -> None:
    run = stated_run(
        {"toy": "classification", "target": {"name": "TopK", "k": 3}, "divergence": "GhostToken"}, "smoke", 0
    )
    command.execute(run, tmp_path)
    config = json.loads((tmp_path / "smoke" / run.id / "config.json").read_text())
    assert config["changed"] == {
        "toy": "classification",
        "target": {"name": "TopK", "k": 3},
        "divergence": {"name": "GhostToken"},
    }
    assert config["recipe"]["classes"] == 1024 and config["settings"]["classes"] < 1024
