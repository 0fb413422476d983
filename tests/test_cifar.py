"""The CIFAR-100 study of Figure 2c: its network and views by hand, where students settle, restarts, its records."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchmetrics.functional.classification import multiclass_calibration_error

from analysis.load import choose, frame, records
from analysis.matching import by_cell
from paper_tables import spec
from replication.axes.divergences import ForwardKL, GhostToken
from replication.axes.targets.base import SparseTarget, Target
from replication.axes.targets.kept import Full, NaiveFix, OneHot, SmoothedTopK, TopK
from replication.axes.targets.sampled import RandomSampling
from toy import __main__ as command
from toy import cifar, study
from toy import images as sets
from toy.cifar import Setting
from toy.resnet import resnet
from toy.views import BORDER, Views

EXHIBIT = "rskd/figure02c"
TINY: dict[str, Any] = {"teacher_width": 3, "student_width": 2, "blocks": 1, "stem": 4, "batch": 20}
TINY |= {"train_images": 60, "test_images": 50, "teacher_epochs": 2, "epochs": 2}
CPU = torch.device("cpu")


def tiny(target: Target, **sizes: Any) -> Setting:
    return Setting(target, **{**TINY, **sizes})


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small set of noise, and artifacts of the test's own."""
    monkeypatch.setenv("ARTIFACTS", str(tmp_path / "artifacts"))
    monkeypatch.setenv("IMAGES", str(noise(tmp_path / "noise.npz", 0)))


def noise(path: Path, seed: int) -> Path:
    random = np.random.default_rng(seed)
    parts: dict[str, np.ndarray] = {}
    for split, n in (("train", 80), ("test", 60)):
        parts[f"x_{split}"] = random.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
        parts[f"y_{split}"] = random.integers(0, 100, n)
    np.savez(path, **parts)
    return path


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_network_is_resnet_18_at_its_size() -> None:
    """He et al.'s Table 1 with a 3 x 3 stem: 64 -> 512 channels, weights counted by hand."""
    network = resnet(64, 2, 1, 100, drawn())
    convolutions = 3 * 9 * 64 + 4 * 9 * 64**2
    for width in (128, 256, 512):
        convolutions += 9 * width * (width // 2 + 3 * width) + width * width // 2
    normalised = 64 * 5 + sum(width * 5 for width in (128, 256, 512))
    assert sum(p.numel() for p in network.parameters()) == convolutions + 2 * normalised + 512 * 100 + 100 == 11_220_132
    assert sum(isinstance(each, nn.Conv2d | nn.Linear) for each in network.modules()) == 18 + 3  # and three shortcuts
    sides = []
    for name, child in network.named_children():
        child.register_forward_hook(lambda _m, _i, out, name=name: sides.append((name, tuple(out.shape[1:]))))
    small = resnet(4, 2, 1, 100, drawn())
    assert small(torch.randn(2, 3, 32, 32)).shape == (2, 100)
    network(torch.randn(1, 3, 32, 32))
    assert [shape for name, shape in sides if name.endswith("block2")] == [
        (64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)
    ]  # fmt: skip


def test_weights_are_of_the_generator_alone() -> None:
    def weights(seed: int) -> Tensor:
        torch.manual_seed(int(torch.randint(0, 1000, ())) + 1)
        return torch.cat([p.flatten() for p in resnet(3, 1, 2, 100, drawn(seed)).parameters()])

    assert weights(1).equal(weights(1)) and not weights(1).equal(weights(2))


def test_a_shortcut_carries_what_the_path_does_not() -> None:
    network = resnet(4, 1, 1, 10, drawn())
    block = network.get_submodule("stage1block1").eval()
    for parameter in block.get_submodule("path").parameters():
        nn.init.zeros_(parameter)
    seen = torch.randn(2, 4, 8, 8)
    assert block(seen).equal(seen.relu())


def views() -> tuple[np.ndarray, np.ndarray, Views]:
    pixels = np.random.default_rng(5).integers(0, 256, (50, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(50) % 7
    return pixels, labels, Views.of(pixels, labels, CPU)


def test_every_view_is_a_crop_of_its_image_or_of_its_mirror() -> None:
    pixels, labels, found = views()
    black = np.pad(pixels, ((0, 0), (BORDER, BORDER), (BORDER, BORDER), (0, 0))).astype(np.float64)
    scaled = (black - pixels.mean((0, 1, 2))) / pixels.std((0, 1, 2))
    places, seen = [], []
    for epoch in range(6):
        for images_BCHW, labels_B in found.epoch(16, drawn(epoch)):
            assert images_BCHW.dtype == torch.float32 and labels_B.shape == (16,)
            for image, label in zip(images_BCHW.permute(0, 2, 3, 1).numpy(), labels_B.tolist(), strict=True):
                fits = [
                    (i, top, left, mirrored)
                    for i in np.flatnonzero(labels == label)
                    for mirrored in (False, True)
                    for top, left in np.ndindex(9, 9)
                    if abs(crop(scaled[i], top, left, mirrored)[8, 8, 0] - image[8, 8, 0]) < 1e-4
                    and np.allclose(crop(scaled[i], top, left, mirrored), image, atol=1e-4)
                ]
                assert len(fits) == 1
                places.append(fits[0][1:])
                seen.append((epoch, fits[0][0]))
    assert len(seen) == len(set(seen)) == 6 * 48  # no image twice an epoch; two of fifty are left over
    tops, lefts, mirrored = (np.array(each) for each in zip(*places, strict=True))
    assert set(tops) == set(lefts) == set(range(9))
    # a fair coin: 288 throws, four deviations
    assert abs(mirrored.mean() - 0.5) < 4 * 0.5 / np.sqrt(288)


def crop(image: np.ndarray, top: int, left: int, mirrored: bool) -> np.ndarray:
    part = image[top : top + 32, left : left + 32]
    return part[:, ::-1] if mirrored else part


def test_views_go_with_the_generator_and_channels_are_scaled() -> None:
    pixels, _, found = views()
    one, again, other = (next(found.epoch(10, drawn(seed)))[0] for seed in (0, 0, 1))
    assert one.equal(again) and not one.equal(other)
    whole = found.scaled(found.images_NHWC).double()
    assert whole.mean((0, 2, 3)).abs().max() < 1e-5 and (whole.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-5
    flat = Views.of(np.full((2, 32, 32, 3), 9, np.uint8), np.zeros(2, np.int64), CPU)
    assert not flat.scaled(flat.images_NHWC).any()


@pytest.mark.parametrize("n", (1, 37, 1000))
def test_ece_is_torchmetrics_ece(n: int) -> None:
    logits_NV = 3 * torch.randn(n, 100, generator=drawn(n), dtype=torch.float64)
    labels_N = torch.where(torch.rand(n, generator=drawn(1)) < 0.5, logits_NV.argmax(1), 0)
    confidence_N, predicted_N = logits_NV.softmax(1).max(1)
    correct_N = predicted_N == labels_N
    found, curve = cifar.reliability(confidence_N, correct_N)
    wanted = multiclass_calibration_error(logits_NV.softmax(1), labels_N, 100, n_bins=15, norm="l1")
    assert found == pytest.approx(float(wanted), abs=1e-6)
    assert sum(curve["count"]) == n
    share = np.array(curve["count"]) / n
    assert (share * curve["accuracy"]).sum() == pytest.approx(float(correct_N.double().mean()))
    assert (share * curve["confidence"]).sum() == pytest.approx(float(confidence_N.mean()))


class Certain(nn.Module):
    """A teacher who says the same of every image: 0.4, 0.2, 0.1, 0.05 and the rest spread over the other 96 classes."""

    probs = torch.tensor([0.4, 0.2, 0.1, 0.05] + [0.25 / 96] * 96)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        return self.probs.log().expand(len(images_BCHW), -1)


class Single(nn.Module):
    """The least student: one distribution for all images."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(100))

    def forward(self, images_BCHW: Tensor) -> Tensor:
        return self.logits.expand(len(images_BCHW), -1)


SETTLES = {
    # RS-KD Section 2.2.1, Eq. 2: the student ends at the kept probabilities over their sum
    "TopK": (TopK(2), ForwardKL(), [0.4 / 0.6, 0.2 / 0.6] + [0.0] * 98),
    "Full": (Full(), ForwardKL(), Certain.probs.tolist()),
    "RandomSampling": (RandomSampling(50), ForwardKL(), Certain.probs.tolist()),
    # Section 3.2: the kept classes are right, and so is the mass of the rest, however it lies
    "GhostToken": (TopK(2), GhostToken(), [0.4, 0.2]),
    # Section 3.1: the residual, 0.4, over all 100
    "SmoothedTopK": (SmoothedTopK(2), ForwardKL(), [0.404, 0.204] + [0.004] * 98),
}


@pytest.mark.parametrize("name", SETTLES)
def test_a_student_settles_where_the_paper_says(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target, divergence, wanted = SETTLES[name]
    monkeypatch.setattr(cifar, "fresh", lambda *_: Single())
    setting = tiny(target, divergence=divergence, epochs=40, batch=10, peak_rate=0.1)
    student, kept = cifar.student_of(setting, 0, Certain())
    found = cifar.predictions(student, setting)[1].exp().mean(0)[: len(wanted)]
    assert np.abs(found.numpy() - wanted).max() < 0.02, found[:5]
    if name == "TopK":
        assert kept["unique_classes"] == 2 and kept["kept_mass"] == pytest.approx(0.6, rel=1e-5)
    if name == "RandomSampling":
        seen = (1 - (1 - Certain.probs.double()) ** 50).sum()
        assert kept["unique_classes"] == pytest.approx(float(seen), rel=0.02)
        assert kept["kept_mass"] == pytest.approx(1, rel=1e-5)


def test_a_target_is_drawn_from_its_own_stream_and_labels() -> None:
    teacher_BV, labels_B = torch.randn(6, 100, generator=drawn(3)), torch.arange(6)
    found = cifar.on_cpu(RandomSampling(9), teacher_BV, labels_B, drawn(4))
    wanted = RandomSampling(9)(teacher_BV, labels_B, drawn(4))
    assert isinstance(found, SparseTarget) and isinstance(wanted, SparseTarget)
    assert found.ids_NK.equal(wanted.ids_NK) and found.weights_NK.equal(wanted.weights_NK)
    spread = cifar.on_cpu(SmoothedTopK(3), teacher_BV, labels_B, drawn())
    assert isinstance(spread, SparseTarget) and spread.spread_N is not None


def test_a_seed_says_it_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setting = tiny(RandomSampling(5))
    first = cifar.run(setting, 1)
    assert first == cifar.run(setting, 1) and first != cifar.run(setting, 2)
    monkeypatch.setenv("ARTIFACTS", str(tmp_path / "elsewhere"))  # another machine, which has to train its own teacher
    assert cifar.run(setting, 1) == first


def test_a_run_that_was_cut_off_goes_on_as_if_nothing_had_happened(monkeypatch: pytest.MonkeyPatch) -> None:
    setting = tiny(RandomSampling(5), epochs=3)
    cifar.prepare(setting, 0)
    whole, written, epochs = cifar.run(setting, 0), cifar.written, []

    def cut(path: Path, state: dict[str, Any]) -> None:
        written(path, state)
        epochs.append(state["epochs"])
        if len(epochs) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(cifar, "written", cut)
    with pytest.raises(KeyboardInterrupt):
        cifar.run(setting, 0)
    assert cifar.run(setting, 0) == whole
    assert epochs == [1, 2, 3]
    assert not [path for path in artifacts() if path.suffix == ".epoch"]


def artifacts() -> list[Path]:
    return sorted(Path(os.environ["ARTIFACTS"]).rglob("*.*"))


def test_all_students_share_one_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    trained = []
    fit = cifar.fit

    def counted(network: nn.Module, teacher: nn.Module | None, setting: Setting, *rest: Any) -> Any:
        trained.append(setting.network)
        return fit(network, teacher, setting, *rest)

    monkeypatch.setattr(cifar, "fit", counted)
    cifar.prepare(tiny(TopK(7)), 0)
    kept = artifacts()
    settings = [tiny(Full()), tiny(TopK(7), divergence=GhostToken()), tiny(NaiveFix(7), student_width=3)]
    rows = [cifar.run(setting, seed)[0] for seed, setting in enumerate(settings)]
    teacher = [cifar.run(tiny(OneHot(), network="teacher"), seed)[0] for seed in (0, 1)]
    assert trained == ["teacher", "student", "student", "student"] and artifacts() == kept and len(kept) == 1
    assert teacher[0] == teacher[1] and not {"agreement", "unique_classes"} & set(teacher[0])
    assert all({"ece", "accuracy", "overconfidence", "loss", "agreement", "unique_classes"} <= set(row) for row in rows)
    cifar.prepare(tiny(TopK(7), teacher_epochs=1), 0)
    assert trained[-1] == "teacher" and len(artifacts()) == 2


def test_students_of_one_seed_start_alike_and_see_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    epoch = Views.epoch

    def noted(self: Views, batch: int, generator: torch.Generator) -> Any:
        for images_BCHW, labels_B in epoch(self, batch, generator):
            seen.append(images_BCHW)
            yield images_BCHW, labels_B

    def views_of(target: Target, seed: int, network: str = "student") -> Tensor:
        seen.clear()
        cifar.fit(Single(), Certain(), tiny(target, network=network), 1, seed, Path(os.devnull, "none"))
        return torch.stack(seen)

    monkeypatch.setattr(Views, "epoch", noted)
    monkeypatch.setattr(cifar, "written", lambda path, state: None)
    full = views_of(Full(), 0)
    assert full.equal(views_of(RandomSampling(4), 0))
    assert not full.equal(views_of(Full(), 1)) and not full.equal(views_of(OneHot(), 0, "teacher"))
    weights = [cifar.fresh(tiny(Full()), 2, seed, "student").state_dict()["head.weight"] for seed in (0, 0, 1)]
    assert weights[0].equal(weights[1]) and not weights[0].equal(weights[2])


def test_a_subset_is_the_same_for_all_and_keeps_its_labels() -> None:
    pixels, labels = np.arange(40).reshape(20, 2), np.arange(20)
    some, of_some = cifar.chosen(pixels, labels, 8, "train")
    assert np.array_equal(some, pixels[of_some]) and len(set(of_some)) == 8
    assert np.array_equal(of_some, cifar.chosen(pixels, labels, 8, "train")[1])
    assert cifar.chosen(pixels, labels, 50, "train")[1] is labels


def test_the_rate_falls_by_a_cosine(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = []
    step = torch.optim.AdamW.step

    def noted(self: torch.optim.AdamW, *given: Any) -> Any:
        rates.append((self.param_groups[0]["lr"], self.param_groups[0]["weight_decay"]))
        return step(self, *given)

    monkeypatch.setattr(torch.optim.AdamW, "step", noted)
    cifar.student_of(tiny(OneHot(), epochs=2), 0, Certain())
    assert rates == [(pytest.approx(2e-3 * np.cos(np.pi * s / 12) ** 2), 0.0) for s in range(6)]


WRONG = {
    "network is unknown": ({"network": "pupil"}, "Unknown network 'pupil'"),
    "a teacher of no labels": ({"network": "teacher"}, "its target is OneHot, not TopK"),
    "width": ({"student_width": 0}, "student_width is 0"),
    "epochs": ({"epochs": 0}, "epochs is 0"),
    "rate": ({"peak_rate": 0.0}, "peak_rate is 0.0"),
    "batch": ({"batch": 61}, "batch is 61, more than the 60"),
    "classes": ({"target": TopK(101)}, "the teacher has 100 classes"),
    "ghost of everything": ({"target": Full(), "divergence": GhostToken()}, "GhostToken stands for the classes"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_setting_that_makes_no_sense_is_refused_before_anything_runs(name: str) -> None:
    changed, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        Setting(**{**TINY, "target": TopK(7), **changed})


def test_a_batch_larger_than_the_set_is_refused() -> None:
    with pytest.raises(ValueError, match="batch is 100, and the image set has 80 training images"):
        cifar.run(tiny(Full(), batch=100, train_images=1000), 0)


@pytest.fixture
def smoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Smaller still than the smoke scale."""
    path = tmp_path / "sizes.toml"
    path.write_text("[smoke.cifar]\n" + "".join(f"{key} = {value}\n" for key, value in TINY.items()))
    monkeypatch.setattr(study, "SIZES", path)
    return tmp_path / "results"


def test_records_fill_the_exhibit(smoke: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = [EXHIBIT, "--scale", "smoke", "--seeds", "0,1", "--results", str(smoke)]
    assert command.main(arguments) == 0
    exhibit, found = spec.load(EXHIBIT), records(smoke / "smoke")
    cells = by_cell(exhibit, found)
    measured = [column for column in exhibit.columns if column.unit != "text"]
    of_students = {"agreement", "unique_classes", "kept_mass"}
    for row in exhibit.rows:
        for column in measured:
            filled = cells[row.label, column.key]
            assert [record.seed for record in filled] == [0, 1], (row.label, column.key)
            wanted = row.label != "Teacher" or column.key not in of_students
            assert (column.key in filled[0].summary.metrics) == wanted, (row.label, column.key)
    assert len(found) == 2 * len(exhibit.rows) and len(choose(exhibit, found).kept) == len(found)
    assert all(set(each.summary.curves["reliability"]) == {"confidence", "accuracy", "count"} for each in found)
    table = frame(exhibit, found, "yours")
    assert table.attrs["notes"] == []
    for claim in exhibit.claims:
        values = table[(table.column == claim.column) & table.row.isin(claim.rows)]
        assert len(values) == 2 * len(set(claim.rows)) and values.value.notna().all(), claim.id

    config = json.loads(next(smoke.rglob("cifar-topk-k7-ghosttoken-s0-*/config.json")).read_text())
    assert config["corpus"] == {"name": "npz noise, 80 + 60 images", "fingerprint": sets.images().fingerprint}
    assert config["settings"] == TINY and config["recipe"]["student_width"] == 24

    # the same run on other images never shares a cell with these
    monkeypatch.setenv("IMAGES", str(noise(smoke.parent / "other.npz", 1)))
    other = next(run for label, run in command.runs(EXHIBIT, "smoke", [0]) if label == "CE")
    command.execute(other, smoke.parent / "more")
    choice = choose(exhibit, found + records(smoke.parent / "more" / "smoke"))
    assert len(choice.kept) == len(found)
    assert "1 records left out" in choice.notes[0] and "corpus" in choice.notes[0]


def test_images_that_are_not_there_are_one_line(
    smoke: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("IMAGES", "nowhere.npz")
    assert command.main([EXHIBIT, "--scale", "smoke", "--results", str(smoke)]) == 2
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ") and "IMAGES is 'nowhere.npz', and nothing is there" in last
    assert not smoke.exists()


def test_the_exhibit_as_stated_is_the_default_setting() -> None:
    changed = [set(run.changed) - {"toy", "target", "divergence"} for _, run in command.runs(EXHIBIT, "paper", [0])]
    assert changed == [{"network"}] + [set()] * 8
