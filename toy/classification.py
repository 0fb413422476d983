"""Figure 2b of RS-KD: calibration of a toy classifier under different targets (Section 2.2.1, App. B, third of App. K).

The classes are Gaussian with known centres and widths, so the true posterior is known, and a student's confidence can
be held against it, not only against labels. Axis letters: N points, D dimensions, V classes.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn
from tqdm import tqdm

from replication.axes.divergences import Divergence, ForwardKL
from replication.axes.targets.base import DenseTarget, Target, at_least_one, positive
from replication.axes.targets.kept import OneHot
from replication.experiment.identity import identified, plain
from replication.experiment.recipe import one_of
from replication.machine.files import ROOT
from replication.seeds import generator
from toy.checkpoint import Checkpoint
from toy.gaussians import Problem, drawn
from toy.study import code

BINS = 15  # equal-width bins of top-1 confidence, as for the language models, whose evaluation toys do not import
PRECISIONS = {"float64": torch.float64, "float32": torch.float32}
CHECKPOINT_SECONDS = 60.0

Metrics = dict[str, float]
Curves = dict[str, dict[str, list[Any]]]


@dataclass(frozen=True)
class Setting:
    """App. K's numbers. A network of `student` hidden units learns from one of `teacher` hidden units.

    Where both are equal and target and divergence those of cross-entropy, the setting is the teacher's own.
    """

    target: Target
    divergence: Divergence = ForwardKL()
    classes: int = 1024
    dimensions: int = 128
    sigma: float = 1.5  # the widest class's standard deviation
    teacher: int = 128
    student: int = 96
    steps: int = 20_000
    batch: int = 4096
    learning_rate: float = 2e-3
    evaluation: int = 100  # batches
    precision: str = "float64"

    def __post_init__(self) -> None:
        for name in ("classes", "dimensions", "teacher", "student", "steps", "batch", "evaluation"):
            at_least_one(name, getattr(self, name))
        positive("sigma", self.sigma)
        positive("learning_rate", self.learning_rate)
        one_of("precision", self.precision, tuple(PRECISIONS))
        # a target that wants too many classes, or that the divergence cannot take, is refused before a teacher trains
        flat_NV = torch.zeros(1, self.classes)
        self.divergence(flat_NV, self.target(flat_NV, torch.zeros(1, dtype=torch.long), torch.Generator()))

    @property
    def of_teacher(self) -> Setting:
        return replace(self, target=OneHot(), divergence=ForwardKL(), student=self.teacher)

    @property
    def role(self) -> str:
        return "teacher" if self == self.of_teacher else "student"

    @property
    def dtype(self) -> torch.dtype:
        return PRECISIONS[self.precision]


@dataclass
class Reliability:
    """Confidence in the predicted class against accuracy and against the truth, in 15 bins (Guo et al. 2017)."""

    sums: dict[str, Tensor] = field(
        default_factory=lambda: {
            name: torch.zeros(BINS, dtype=torch.float64) for name in ("confidence", "accuracy", "truth", "count")
        }
    )

    def add(self, **values_N: Tensor) -> None:
        """`confidence`, `accuracy` (0 or 1) and `truth` (the predicted class's true posterior), [N] each."""
        # bins are (0, 1/15], (1/15, 2/15], ...
        bin_N = (values_N["confidence"].double() * BINS).ceil().long().clamp(1, BINS).cpu() - 1
        for name, value_N in {**values_N, "count": torch.ones_like(bin_N)}.items():
            self.sums[name].index_add_(0, bin_N, value_N.double().cpu())

    def error(self, against: str) -> float:
        """Expected calibration error, a fraction: mean over points of |`against` - confidence| of their bin."""
        return float((self.sums[against] - self.sums["confidence"]).abs().sum() / self.sums["count"].sum())

    def mean(self, name: str) -> float:
        return float(self.sums[name].sum() / self.sums["count"].sum())

    def curve(self) -> dict[str, list[Any]]:
        count = self.sums["count"]
        filled = count > 0
        columns: dict[str, list[Any]] = {
            name: (self.sums[name][filled] / count[filled]).tolist() for name in ("confidence", "accuracy", "truth")
        }
        return columns | {"count": count[filled].long().tolist()}


def run(setting: Setting, seed: int) -> tuple[Metrics, Curves]:
    """A trained network on fresh points, against labels, against its teacher, against the truth.

    Metrics, fractions unless said otherwise: `accuracy`, and `ece` of the confidence against labels; `agreement` with
    the teacher's prediction (not of the teacher itself). Against the true posterior of the predicted class:
    `ece_truth`, the same bins without the labels' noise; `overconfidence`, the mean of confidence less truth;
    `truth_error`, the mean of their absolute difference, point by point, which is large also where a calibrated network
    merely knows less. `kl_truth`, KL(truth || network) in nats; `bayes_accuracy`, that of the best classifier there is.
    Of the target: `unique_classes` that it keeps, and `kept_mass`, the sum of its weights.
    Curve `reliability`: `confidence`, `accuracy`, `truth`, `count` per bin.
    """
    teacher = trained(setting.of_teacher, seed)
    asked = None if isinstance(setting.target, OneHot) else teacher
    student = teacher if setting.role == "teacher" else trained(setting, seed, asked)
    return measured(setting, seed, student, teacher)


def prepare(setting: Setting, seed: int) -> None:
    """Train the teacher that all targets of this seed share, unless it is there."""
    trained(setting.of_teacher, seed)


def measured(setting: Setting, seed: int, student: nn.Module, teacher: nn.Module) -> tuple[Metrics, Curves]:
    world, random, draws = problem(setting, seed), stream(seed, "evaluation"), stream(seed, "evaluation", "draws")
    bins = Reliability()
    names = ("agreement", "truth_error", "kl_truth", "bayes_accuracy", "unique_classes", "kept_mass")
    sums = dict.fromkeys(names, 0.0)
    with torch.no_grad():
        for _ in range(setting.evaluation):
            points_ND, labels_N = world.batch(setting.batch, setting.dtype, random)
            log_truth_NV = world.log_posterior(points_ND)
            truth_NV = log_truth_NV.exp()
            log_student_NV = student(points_ND).double().log_softmax(1)
            top = log_student_NV.max(1)
            confidence_N, truth_N = top.values.exp(), truth_NV.gather(1, top.indices[:, None])[:, 0]
            bins.add(confidence=confidence_N, accuracy=top.indices == labels_N, truth=truth_N)
            teacher_NV = teacher(points_ND)
            target = setting.target(teacher_NV, labels_N, draws)
            kept = target.probs_NV if isinstance(target, DenseTarget) else target.weights_NK
            sums["unique_classes"] += int((kept > 0).sum())
            sums["kept_mass"] += float(kept.double().sum())
            sums["agreement"] += float((teacher_NV.argmax(1) == top.indices).sum())
            sums["truth_error"] += float((confidence_N - truth_N).abs().sum())
            sums["kl_truth"] += float((truth_NV * (log_truth_NV - log_student_NV)).sum())
            sums["bayes_accuracy"] += float(truth_NV.amax(1).sum())
    metrics = {name: value / (setting.evaluation * setting.batch) for name, value in sums.items()}
    metrics |= {"accuracy": bins.mean("accuracy"), "ece": bins.error("accuracy"), "ece_truth": bins.error("truth")}
    metrics["overconfidence"] = bins.mean("confidence") - bins.mean("truth")
    if setting.role == "teacher":
        del metrics["agreement"]
    return metrics, {"reliability": bins.curve()}


def problem(setting: Setting, seed: int) -> Problem:
    return drawn(setting.classes, setting.dimensions, setting.sigma, stream(seed, "classes"))


def network(setting: Setting, random: Generator) -> nn.Sequential:
    """Three linear layers with GELU between, initialised as PyTorch does: uniform up to 1 / sqrt(inputs)."""
    widths = (setting.dimensions, setting.student, setting.student, setting.classes)
    layers: list[nn.Module] = []
    for inputs, outputs in zip(widths, widths[1:], strict=False):
        layer = nn.utils.skip_init(nn.Linear, inputs, outputs, dtype=setting.dtype, device=random.device)
        for parameter in layer.parameters():
            nn.init.uniform_(parameter, -(inputs**-0.5), inputs**-0.5, generator=random)
        layers += [layer, nn.GELU()]
    return nn.Sequential(*layers[:-1])


def trained(setting: Setting, seed: int, teacher: nn.Module | None = None) -> nn.Module:
    """The network after its last step: from its file, or trained from where the file stops.

    Students of one seed share initial weights and batches. Without a teacher the target must be OneHot.
    """
    path, role = file_of(setting, seed), setting.role
    model = network(setting, stream(seed, role, "init"))
    # App. K: AdamW at a constant rate, without weight decay
    optimiser = torch.optim.AdamW(model.parameters(), lr=setting.learning_rate, weight_decay=0.0)
    streams = [stream(seed, role, "batches"), stream(seed, role, "draws")]
    state = Checkpoint(path, model, optimiser, streams)
    first = state.load()
    world, saved = problem(setting, seed), time.monotonic()
    left, silent = range(first, setting.steps), None if first < setting.steps else True
    for step in tqdm(left, path.stem, initial=first, total=setting.steps, leave=False, disable=silent):
        points_ND, labels_N = world.batch(setting.batch, setting.dtype, streams[0])
        logits_NV = model(points_ND)
        with torch.no_grad():
            # what a one-hot target is given does not matter
            seen_NV = logits_NV if teacher is None else teacher(points_ND)
            target = setting.target(seen_NV, labels_N, streams[1])
        loss = setting.divergence(logits_NV, target).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step + 1 == setting.steps or time.monotonic() - saved > CHECKPOINT_SECONDS:
            state.save(step + 1)
            saved = time.monotonic()
    return model.requires_grad_(False)


def file_of(setting: Setting, seed: int) -> Path:
    """Where the network of a setting lies: named by all that decides its weights, code and device included."""
    known = {item.name: plain(getattr(setting, item.name)) for item in fields(setting) if item.name != "evaluation"}
    words = "-".join([setting.role, known["target"]["name"], known["divergence"]["name"]])
    known |= {"code": code(), "torch": torch.__version__}
    name = identified(words.lower(), known, device().type, seed)
    return Path(os.environ.get("ARTIFACTS", ROOT / "artifacts")).expanduser() / "toy" / "classification" / f"{name}.pt"


def stream(seed: int, *purpose: str) -> Generator:
    """The random numbers of one purpose, on the device that uses them."""
    return Generator(device()).manual_seed(generator(seed, "classification", *purpose).initial_seed())


def device() -> torch.device:
    # a network this small needs no GPU, but float64 batches of 4096 x 1024 want one; not yet measured on a GPU
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
