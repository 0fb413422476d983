"""Figure 2a of RS-KD: what the mean sparse target makes of a teacher that is known (App. B, toy listing of App. K).

P teachers (one Zipf law, or the positions of a sample), V classes, N rounds at a time, K kept classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from replication.axes.divergences import Divergence, ForwardKL, GhostToken
from replication.axes.targets.base import AnyTarget, Target, at_least_one, positive
from replication.axes.targets.drawing import draw
from replication.axes.targets.kept import Full, SmoothedTopK, TopK, TopP
from replication.experiment.recipe import one_of
from replication.seeds import generator
from toy import next_token
from toy.expectations import Law, law
from toy.octaves import Curves, curves, grouped
from toy.scatter import scatter
from toy.sums import Sums

FIXED = (Full, TopK, TopP, SmoothedTopK)  # the same in every round: one round says all
CHUNK = 500_000  # teacher probabilities at a time
NUMERICS = 2  # 2: says the teacher's entropy

Metrics = dict[str, float]


@dataclass(frozen=True)
class Setting:
    """Teacher "zipf": class i = 1, 2, ... has a probability proportional to 1 / i ** exponent.

    Any other teacher is a sample of next-token distributions, each raised to `exponent` and normalised.
    """

    target: Target
    vocabulary: int = 100_000
    exponent: float = 1.0
    rounds: int = 1000
    divergence: Divergence = ForwardKL()  # what a student makes of the target: ForwardKL or GhostToken
    teacher: str = "zipf"

    def __post_init__(self) -> None:
        one_of("teacher", self.teacher, ("zipf", *next_token.SAMPLES))
        at_least_one("vocabulary", self.vocabulary)
        at_least_one("rounds", self.rounds)
        positive("exponent", self.exponent)
        if not isinstance(self.divergence, (ForwardKL, GhostToken)):
            raise ValueError(
                f"{type(self.divergence).__name__} is not one of the divergences whose optimum this study knows: "
                "use ForwardKL or GhostToken."
            )
        if isinstance(self.divergence, GhostToken) and not isinstance(self.target, (TopK, TopP)):
            raise ValueError("GhostToken stands for the classes that a target leaves out: give it TopK or TopP.")

    @property
    def log_teacher_PV(self) -> Tensor:
        """Log-probabilities, float64, most probable class first. ValueError where the sample has other classes."""
        if self.teacher == "zipf":
            logits_PV = -torch.arange(1, self.vocabulary + 1, dtype=torch.float64).log()[None]
        else:
            logits_PV = next_token.log_probs(self.teacher)
        if logits_PV.shape[1] != self.vocabulary:
            raise ValueError(
                f"vocabulary is {self.vocabulary}, but teacher {self.teacher!r} has {logits_PV.shape[1]} classes."
            )
        return (self.exponent * logits_PV).log_softmax(1)


def run(setting: Setting, seed: int) -> tuple[Metrics, Curves]:
    """What the target keeps of the teacher over the rounds; means over the teachers where there are several.

    Metrics: `teacher_entropy`, nats; `l1_bias`, the L1 distance of the mean target to the teacher, with its noise;
    `l1_bias_grouped`, the same where the classes beyond the first 50 count by octaves of their rank, which takes most
    of that noise away; `upscaling`, the mean target's most probable class over the teacher's; `l1_error` and
    `squared_error`, the mean over rounds of one target's L1 distance and sum of squares; `unique_classes`, kept per
    round, and `kept_mass`, their weights' sum. For random targets `variance`, over rounds, summed over classes.
    Their closed forms (expectations.py), where there are any: `expected_l1_bias` (grouped, without noise),
    `expected_noise` (what noise alone would make of `l1_bias_grouped`), `expected_l1_error`, `expected_squared_error`,
    `expected_unique_classes`, `expected_variance`; and `bias_over_noise`, `variance_ratio`, measured over expected.
    Curves: `targets`, the first 50 classes: `class` (from 1), `teacher`, `mean_target`; `octaves`, the classes beyond:
    `first` and `last` of each, `teacher`, `mean_target` (sums). Raises ValueError for a target that does not fit the
    vocabulary.
    """
    keep_memory()
    labels, draws = generator(seed, "zipf", "labels"), generator(seed, "zipf", "draws")
    metrics, means, teachers = [], [], []
    for log_teacher_V in setting.log_teacher_PV:
        teacher_V = log_teacher_V.exp()
        sums = Sums(teacher_V, torch.zeros_like(teacher_V))
        for target in targets(setting, log_teacher_V, labels, draws):
            sums.add(target, setting.divergence)
        known = scatter(setting.target, teacher_V) or law(setting.target, setting.divergence, teacher_V)
        metrics.append(measured(sums) | expected(known, sums.rounds))
        means.append(sums.mean_V)
        teachers.append(teacher_V)
    mean = {name: sum(found[name] for found in metrics) / len(metrics) for name in metrics[0]}
    if "variance" in mean and mean.get("expected_noise", 0.0) > 0:
        mean["variance_ratio"] = mean["variance"] / mean["expected_variance"]
        mean["bias_over_noise"] = mean["l1_bias_grouped"] / mean["expected_noise"]
    return mean, curves(torch.stack(teachers).mean(0), torch.stack(means).mean(0))


def keep_memory() -> None:
    """Free one block of 32 MB: before it has seen such, the C library gives every chunk back, at half of the time."""
    torch.empty(4_000_000, dtype=torch.float64)


def measured(sums: Sums) -> Metrics:
    mean_V, teacher_V = sums.mean_V, sums.teacher_V
    found = {
        "teacher_entropy": float(torch.special.entr(teacher_V).sum()),
        "l1_bias": float((mean_V - teacher_V).abs().sum()),
        "l1_bias_grouped": float((grouped(mean_V) - grouped(teacher_V)).abs().sum()),
        "upscaling": float(mean_V[0] / teacher_V[0]),
        "l1_error": sums.error / sums.rounds,
        "squared_error": sums.squared_error,
        "unique_classes": sums.kept / sums.rounds,
        "kept_mass": sums.mass / sums.rounds,
    }
    return found | ({"variance": sums.variance} if sums.rounds > 1 else {})


def expected(law: Law | None, rounds: int) -> Metrics:
    if law is None:
        return {}
    found = {
        "expected_l1_bias": law.bias(grouped),
        "expected_squared_error": law.squared_error(),
        "expected_unique_classes": law.unique,
    }
    if law.error is not None:
        found["expected_l1_error"] = law.error
    if law.random:
        found |= {"expected_variance": law.variance(), "expected_noise": law.noise(rounds, grouped)}
    return found


def targets(setting: Setting, log_teacher_V: Tensor, labels: Generator, draws: Generator) -> Iterator[AnyTarget]:
    """The target of every round, many rounds at a time; of one round where all are equal."""
    rounds = 1 if isinstance(setting.target, FIXED) else setting.rounds
    # the ground truth of each round; sorted, which no sum over rounds sees
    labels_R = draw(log_teacher_V[None], rounds, labels)[0]
    logits_V = log_teacher_V.float()
    for labels_N in labels_R.split(max(1, CHUNK // setting.vocabulary)):
        yield setting.target(logits_V.expand(len(labels_N), -1), labels_N, draws)
