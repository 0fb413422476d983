"""Figure 2c of RS-KD: calibration of a small ResNet on CIFAR-100 under different targets (Sections 2.2.1, 5.1; App. B).

App. B: "the exact same methodology as the synthetic classification while using CIFAR-100 task and a weaker/smaller
version of ResNet-18". So App. K's optimiser (AdamW, 2e-3, no decay), teacher in the loop, top 7 and 50 draws; sizes,
epochs, the rate's cosine and augmentation are our choice, none of them being printed.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from replication.axes.divergences import Divergence, ForwardKL
from replication.axes.targets.base import AnyTarget, SparseTarget, Target, at_least_one, positive
from replication.axes.targets.kept import OneHot
from replication.experiment.recipe import one_of
from replication.machine.files import ROOT
from replication.seeds import generator
from toy.images import CLASSES, Images, images
from toy.resnet import resnet
from toy.study import code
from toy.views import Views, layout

NETWORKS = ("student", "teacher")
TEACHER_SEED = 0  # whatever the student's, as for the language models
BINS = 15  # equal-width bins of top-1 confidence, as for the language models
EVALUATION_BATCH = 500

Metrics = dict[str, float]
Curves = dict[str, dict[str, list[Any]]]


@dataclass(frozen=True)
class Setting:
    """Student and teacher are one network (toy/resnet.py) of two widths; `network` says which of them is measured."""

    target: Target
    divergence: Divergence = ForwardKL()
    network: str = "student"
    teacher_width: int = 32  # to the student's as 128 to 96, App. K's
    student_width: int = 24
    blocks: int = 2
    stem: int = 1
    train_images: int = 50_000  # at most: fewer where the set has fewer
    test_images: int = 10_000
    teacher_epochs: int = 10  # few: a teacher that knows its images by heart has no tail left to hide
    epochs: int = 10
    batch: int = 128
    peak_rate: float = 2e-3

    def __post_init__(self) -> None:
        one_of("network", self.network, NETWORKS)
        if self.network == "teacher" and not isinstance(self.target, OneHot):
            raise ValueError(f"The teacher learns from labels: its target is OneHot, not {type(self.target).__name__}.")
        for name in ("teacher_width", "student_width", "blocks", "stem", "train_images", "test_images"):
            at_least_one(name, getattr(self, name))
        for name in ("teacher_epochs", "epochs", "batch"):
            at_least_one(name, getattr(self, name))
        positive("peak_rate", self.peak_rate)
        if self.batch > self.train_images:
            raise ValueError(f"batch is {self.batch}, more than the {self.train_images} training images.")
        # a target of too many classes, or one that the divergence cannot take, is refused before a teacher trains
        flat_NV = torch.zeros(1, CLASSES)
        self.divergence(flat_NV, self.target(flat_NV, torch.zeros(1, dtype=torch.long), torch.Generator()))

    @property
    def of_teacher(self) -> Setting:
        """What a teacher depends on; the rest at one value, so that students of all methods share it."""
        learnt = replace(self, target=OneHot(), divergence=ForwardKL(), network="teacher")
        return replace(learnt, student_width=1, epochs=1, test_images=1)


def run(setting: Setting, seed: int) -> tuple[Metrics, Curves]:
    """Train a student on the setting's target, or take the teacher, and measure it on the test images.

    Metrics: `accuracy`; `ece`, a fraction, 15 equal-width bins; `overconfidence`, mean confidence less accuracy;
    `loss`, nats per image; `parameters`; and of a student its `agreement` with the teacher's prediction, and
    `unique_classes` and `kept_mass`: how many classes its targets kept per image, and the sum of their weights.
    Curve `reliability`: `confidence`, `accuracy`, `count` per bin. The teacher has one seed, so its numbers are the
    same for all. Raises ValueError for a target that does not fit 100 classes and for a broken image set.
    """
    teacher = network = teacher_of(setting)
    found: Metrics = {}
    if setting.network == "student":
        network, found = student_of(setting, seed, teacher)
    labels_N, log_probs_NV = predictions(network, setting)
    confidence_N, predicted_N = log_probs_NV.exp().max(1)
    if setting.network == "student":
        found["agreement"] = mean(predicted_N == predictions(teacher, setting)[1].argmax(1))
    correct_N = predicted_N == labels_N
    found |= {"loss": -mean(log_probs_NV.gather(1, labels_N[:, None])), "accuracy": mean(correct_N)}
    found["overconfidence"] = mean(confidence_N) - found["accuracy"]
    found["parameters"] = float(sum(weight.numel() for weight in network.parameters()))
    found["ece"], curve = reliability(confidence_N, correct_N)
    return found, {"reliability": curve}


def mean(values: Tensor) -> float:
    return float(values.double().mean())


def reliability(confidence_N: Tensor, correct_N: Tensor) -> tuple[float, dict[str, list[Any]]]:
    """Expected calibration error (Guo et al. 2017), a fraction, and what each bin with images holds on average."""
    # bins are (0, 1/15], (1/15, 2/15], ...
    bin_N = (confidence_N.double() * BINS).ceil().long().clamp(1, BINS) - 1
    count = torch.bincount(bin_N, minlength=BINS)
    confidence, accuracy = (torch.bincount(bin_N, part.double(), BINS) for part in (confidence_N, correct_N))
    filled = count > 0
    curve = {
        "confidence": (confidence / count)[filled].tolist(),
        "accuracy": (accuracy / count)[filled].tolist(),
        "count": count[filled].tolist(),
    }
    return float((accuracy - confidence).abs().sum() / count.sum()), curve


def prepare(setting: Setting, seed: int) -> None:
    """Train the teacher unless it is there."""
    teacher_of(setting)


def corpus(setting: Setting) -> dict[str, str]:
    """The image set's name and fingerprint."""
    return images().corpus


def teacher_of(setting: Setting) -> nn.Module:
    """The trained teacher, from the artifacts if it is there."""
    path = place(setting.of_teacher, TEACHER_SEED)
    network = fresh(setting, setting.teacher_width, TEACHER_SEED, "teacher")
    if path.exists():
        network.load_state_dict(torch.load(path, weights_only=True, map_location=device()))
    else:
        fit(network, None, setting.of_teacher, setting.teacher_epochs, TEACHER_SEED, path.with_suffix(".epoch"))
        written(path, network.state_dict())
        path.with_suffix(".epoch").unlink(missing_ok=True)
    return network.eval().requires_grad_(False)


def student_of(setting: Setting, seed: int, teacher: nn.Module) -> tuple[nn.Module, Metrics]:
    """A trained student, and what its targets kept."""
    network = fresh(setting, setting.student_width, seed, "student")
    path = place(setting, seed).with_suffix(".epoch")
    kept = fit(network, None if isinstance(setting.target, OneHot) else teacher, setting, setting.epochs, seed, path)
    path.unlink(missing_ok=True)
    return network, kept


def fresh(setting: Setting, width: int, seed: int, role: str) -> nn.Module:
    weights = generator(seed, "cifar", role, "init")
    network = resnet(width, setting.blocks, setting.stem, CLASSES, weights)
    return network.to(device(), memory_format=layout(device()))  # type: ignore[call-overload]


def fit(
    network: nn.Module, teacher: nn.Module | None, setting: Setting, epochs: int, seed: int, checkpoint: Path
) -> Metrics:
    """Train in place and return what the targets kept; goes on after the last whole epoch of a run that was cut off.

    Under one seed all students start from the same weights and see the same images in the same order.
    """
    role, views = setting.network, training_views(setting)
    optimiser = torch.optim.AdamW(network.parameters(), lr=setting.peak_rate, weight_decay=0.0)
    per_epoch = len(views.labels_N) // setting.batch
    total = epochs * per_epoch
    first, kept, mass = restored(checkpoint, network, optimiser)
    name = f"{role} {type(setting.target).__name__}"
    with tqdm(total=total, initial=first * per_epoch, desc=name, unit="step", leave=False, disable=None) as progress:
        for epoch in range(first, epochs):
            network.train()
            draws = generator(seed, "cifar", role, "draws", epoch)
            seen = views.epoch(setting.batch, generator(seed, "cifar", role, "views", epoch))
            for step, (images_BCHW, labels_B) in enumerate(seen, start=epoch * per_epoch):
                for group in optimiser.param_groups:
                    group["lr"] = setting.peak_rate * (1 + math.cos(math.pi * step / total)) / 2
                with precision():
                    logits_BV = network(images_BCHW)
                    with torch.no_grad():
                        teacher_BV = logits_BV if teacher is None else teacher(images_BCHW)
                target = on_cpu(setting.target, teacher_BV, labels_B, draws)
                loss = setting.divergence(logits_BV, target).mean()
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                weights = target.weights_NK if isinstance(target, SparseTarget) else target.probs_NV
                kept += float((weights > 0).sum()) / len(labels_B)
                mass += float(weights.sum()) / len(labels_B)
                progress.update()
            state = {"network": network.state_dict(), "optimiser": optimiser.state_dict()}
            written(checkpoint, {"epochs": epoch + 1, "kept": kept, "mass": mass, **state})
    return {"unique_classes": kept / total, "kept_mass": mass / total}


def on_cpu(target: Target, teacher_BV: Tensor, labels_B: Tensor, draws: torch.Generator) -> AnyTarget:
    """The target on the teacher's device; drawn on the CPU, whose generator gives all machines the same numbers."""
    drawn = target(teacher_BV.detach().float().cpu(), labels_B.cpu(), draws)
    tensors = {name: value for name, value in vars(drawn).items() if isinstance(value, Tensor)}
    moved: dict[str, Any] = {name: value.to(teacher_BV.device) for name, value in tensors.items()}
    return replace(drawn, **moved)


def training_views(setting: Setting) -> Views:
    views = views_of(images(), setting.train_images)
    if len(views.labels_N) < setting.batch:
        raise ValueError(f"batch is {setting.batch}, and the image set has {len(views.labels_N)} training images.")
    return views


@lru_cache(maxsize=1)
def views_of(found: Images, wanted: int) -> Views:
    return Views.of(*chosen(found.train, found.train_labels, wanted, "train"), device())


def chosen(pixels: Any, labels: Any, wanted: int, split: str) -> tuple[Any, Any]:
    """The same random `wanted` images for every run; all of them, as they stand, where there are no more."""
    if wanted >= len(labels):
        return pixels, labels
    order = torch.randperm(len(labels), generator=generator(0, "cifar", split, "subset"))[:wanted].numpy()
    return pixels[order], labels[order]


@torch.no_grad()
def predictions(network: nn.Module, setting: Setting) -> tuple[Tensor, Tensor]:
    """Labels [N] of the test images and the network's log-probabilities [N, 100], float32, both on the CPU."""
    network.eval()
    views = training_views(setting)  # for the scale of its channels
    pixels, labels = chosen(images().test, images().test_labels, setting.test_images, "test")
    parts = [
        network(views.scaled(part.to(device()))).float().log_softmax(1).cpu()
        for part in torch.from_numpy(pixels).split(EVALUATION_BATCH)
    ]
    return torch.from_numpy(labels).long(), torch.cat(parts)


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def precision() -> Any:
    """bfloat16 products on a GPU, not yet measured there; weights, losses and targets stay in float32."""
    return torch.autocast("cuda", dtype=torch.bfloat16, enabled=torch.cuda.is_available())


def place(setting: Setting, seed: int) -> Path:
    """Where a network lies: named by all that decides it."""
    parts = {name: [type(value).__name__, str(value)] for name, value in vars(setting).items()}
    key = json.dumps([parts, seed, images().fingerprint, code()], sort_keys=True)
    folder = Path(os.environ.get("ARTIFACTS", ROOT / "artifacts")).expanduser() / "toy" / "cifar"
    return folder / f"{setting.network}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.pt"


def restored(path: Path, network: nn.Module, optimiser: torch.optim.Optimizer) -> tuple[int, float, float]:
    """Epochs done, and the sums so far of kept classes and mass; zeros without a checkpoint."""
    if not path.exists():
        return 0, 0.0, 0.0
    state = torch.load(path, weights_only=True, map_location=device())
    network.load_state_dict(state["network"])
    optimiser.load_state_dict(state["optimiser"])
    return state["epochs"], state["kept"], state["mass"]


def written(path: Path, state: dict[str, Any]) -> None:
    """By rename: all of it or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    torch.save(state, draft)
    draft.replace(path)
