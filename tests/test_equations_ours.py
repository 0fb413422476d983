"""Where a paper prints one thing and means another, ours does what is meant: replication/ on the same states."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from test_equations import BY_NAME, WRONG
from torch import Generator, Tensor

from paper_tables.equations.draws import normalised, sequences
from paper_tables.equations.equation import State, arguments, words
from paper_tables.equations.tad_divergence import HEADS
from replication.axes.divergences import ForwardKL, GhostToken, TailAware
from replication.axes.loss import distillation_loss
from replication.axes.positions import AllPositions, TopFraction
from replication.axes.samples import SCORES, ChallengingSamples
from replication.axes.schedules import TwoStage
from replication.axes.signals import Signals
from replication.axes.targets.base import DenseTarget, SparseTarget
from replication.axes.targets.drawing import counted, draw
from replication.axes.targets.kept import Full, TopK
from replication.axes.targets.sampled import RandomSampling
from replication.cache.choose import codec_for
from replication.cache.counts import CountsCodec

Ours = Callable[..., Any]


def has_one_top_k(state: State) -> bool:
    """Which of several equally probable classes topk takes is not defined."""
    ranked = sorted(state.get("teacher", ()), reverse=True)
    return not {"teacher", "k"} <= state.keys() or ranked[state["k"] - 1] > ranked[state["k"]]


def gradient(divergence: object, target: object, student: np.ndarray) -> np.ndarray:
    leaf = torch.from_numpy(student)[None].clone().requires_grad_(True)
    divergence(leaf, target).sum().backward()
    return leaf.grad[0].numpy()


def top_k(teacher: np.ndarray, k: int) -> SparseTarget:
    kept = TopK(k)(torch.from_numpy(teacher).log()[None], torch.zeros(1).long(), Generator())
    return SparseTarget(kept.ids_NK, torch.from_numpy(teacher)[kept.ids_NK])  # float64, so that 1e-9 can be asked for


def in_tail(values: np.ndarray, teacher: np.ndarray, k: int) -> np.ndarray:
    return values[[i for i in range(len(teacher)) if i not in top_k(teacher, k).ids_NK]]


def ghost_alone(teacher: np.ndarray, student: np.ndarray, k: int) -> np.ndarray:
    target = top_k(teacher, k)
    return gradient(GhostToken(), target, student) - gradient(ForwardKL(), target, student)


def tail_aware(teacher: np.ndarray, student: np.ndarray, k: int, scale: float) -> np.ndarray:
    """One position is a sequence of its own, so that beta(X) is beta over its own tail mass."""
    beta = scale * float(in_tail(teacher, teacher, k).sum())
    return gradient(TailAware(k, beta), DenseTarget(torch.from_numpy(teacher)[None]), student)


def growth(teacher: np.ndarray, probs: np.ndarray, k: int, scale: float) -> float:
    """By a central difference along our own gradient."""
    downhill = -tail_aware(teacher, np.log(probs), k, scale)
    ends = [torch.from_numpy(np.log(probs) + sign * 1e-4 * downhill).softmax(0).numpy() for sign in (1, -1)]
    return float((in_tail(ends[0], teacher, k).sum() - in_tail(ends[1], teacher, k).sum()) / 2e-4)


def of_draws(drawn: Any, classes: int) -> SparseTarget:
    """What RandomSampling makes of these draws at exponent 1."""
    ids_NK, counts_NK = counted(torch.tensor([sorted(drawn)]))
    return SparseTarget(ids_NK, counts_NK.double() / len(drawn))


def dense(target: SparseTarget, classes: int) -> np.ndarray:
    return target.dense(classes)[0].double().numpy()


def mean_over_draws(value: Callable[[tuple[int, ...]], Any], teacher: np.ndarray, draws: int) -> Any:
    return sum(chance * value(drawn) for drawn, chance in sequences(teacher, draws))


def batch_loss(targets: np.ndarray, students: np.ndarray) -> float:
    probs = torch.from_numpy(targets)
    logits, labels = torch.from_numpy(students)[None], torch.zeros(1, len(students)).long()
    return float(distillation_loss(logits, labels, DenseTarget(probs), ForwardKL(), AllPositions(), 1.0, 0.0))


def found_by_draw(teacher: np.ndarray, points: np.ndarray) -> np.ndarray:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "replication.axes.targets.drawing.ascending", lambda *_: torch.from_numpy(points)[None].sort(1)[0]
        )
        return draw(torch.from_numpy(teacher).log()[None], len(points), Generator())[0].numpy()


def selected(scores: np.ndarray, keep: float) -> int:
    signals = Signals(torch.zeros(1, len(scores)), {"student_entropy": torch.from_numpy(scores)[None]})
    return int((TopFraction(keep)(signals, 0.0, None) > 0).sum())


def budget(kd_steps: int, steps: int) -> list[int]:
    """As training/loop.py asks for it: at step 0, 1, ... of `steps`."""
    schedule = TwoStage(omega=0.5, until=kd_steps / steps)
    kd = sum(schedule(step / steps)[0] > 0 for step in range(steps))
    return [kd, sum(schedule(step / steps) == (0.0, 1.0) for step in range(steps))]


def learnable_median(probs: np.ndarray, labels: np.ndarray, k: int) -> float:
    score = ChallengingSamples(k).score
    told = score.told({"early": torch.from_numpy(probs).log()}, torch.from_numpy(labels))
    return float(score.of(told[None]))


OURS: dict[str, Ours] = {
    "rskd/appA5-ghost-tail": lambda teacher, student, k: in_tail(ghost_alone(teacher, student, k), teacher, k),
    "rskd/sec4-sum-of-ce": lambda teacher, drawn, student: gradient(
        ForwardKL(), of_draws(drawn, len(teacher)), student
    ),
    "rskd/appK-draws": lambda teacher, drawn: dense(of_draws(drawn, len(teacher)), len(teacher)),
    "rskd/appK-kl-div": batch_loss,
    "rskd/appK-toy-sampling": lambda drawn, classes: dense(of_draws(drawn, classes), classes),
    "rskd/appK-toy-unique": lambda drawn, classes: int((of_draws(drawn, classes).weights_NK > 0).sum()),
    "rskd/appK-mlp-search": found_by_draw,
    "sekd/sec7.1-id-bits": lambda vocabulary: CountsCodec(vocabulary, 50).id_bits,
    "sekd/sec7.1-unique": lambda teacher, draws: mean_over_draws(
        lambda drawn: int((of_draws(drawn, len(teacher)).weights_NK > 0).sum()), teacher, draws
    ),
    "tad/eq2-kth": lambda teacher, k: teacher[top_k(teacher, k).ids_NK[0, -1]],
    "tad/eq12-cases": lambda teacher, student, k: gradient(ForwardKL(), top_k(teacher, k), student),
    "tad/eq13": ghost_alone,
    "tad/sec2.1-stronger": lambda teacher, probs, k, scale: abs(
        in_tail(tail_aware(teacher, np.log(probs), k, scale), teacher, k)
    ),
    "tad/sec2.1-tail-rises": growth,
    "tad/sec2.1-second-term": lambda teacher, probs, k, scale: (
        growth(teacher, probs, k, scale) - growth(teacher, probs, k, 1.0)
    ),
    "sekd/eq3": lambda teacher, student, draws: mean_over_draws(
        lambda drawn: gradient(ForwardKL(), of_draws(drawn, len(teacher)), student), teacher, draws
    ),
    "sekd/eq6": selected,
    "salt/alg1": budget,
    "salt/eq10": learnable_median,
    "sekd/code-sample-ratio": lambda student, teacher: float(
        SCORES["ce_ratio"].of(torch.from_numpy(np.stack([student, teacher], 1))[None]) - 1
    ),
}
# Held by a test of its own, here or elsewhere.
ELSEWHERE = {
    "rskd/sec4-proposal": "test_the_proposal_is_normalised_and_so_is_the_target",
    "rskd/sec4-unbiased": "test_the_proposal_is_normalised_and_so_is_the_target, test_unbiased.py",
    "rskd/sec4-temperature": "test_exponents_are_inverse_temperatures",
    "rskd/appD1-128": "test_128_draws_are_not_stored_as_counts",
    "rskd/appK-alpha": "test_listings.py: test_our_mixture_follows_the_text",
    "salt/eq3": "test_exponents_are_inverse_temperatures",
}
# Nothing of ours computes it.
NOT_OURS = {
    "rskd/sec7.1-variance": "an analysis of estimates",
    "sekd/sec7.1-full": "full logits are never stored",
    "sekd/eq4-drawn": "tests/test_position_sampling.py asks ours",
    "sekd/appA-zero-weight": "tests/test_position_sampling.py asks ours",
    "sekd/sec5-corrected": "tests/test_position_sampling.py asks ours",
    "salt/eq11": "what a word means",
    "salt/eq69": "theory",
    "salt/sec3.3-variance": "theory",
    "salt/eq57": "theory",
    "salt/eq60": "theory",
    "salt/eq53": "theory",
    "salt/eq21": "theory",
    "salt/eq23": "theory",
    "salt/eq64": "theory",
    **{name: "the authors' code" for name in WRONG if name.startswith("sekd/code-") and name not in OURS},
}


def test_every_wrong_equation_is_asked_of_our_code() -> None:
    assert OURS.keys() | ELSEWHERE.keys() | NOT_OURS.keys() == WRONG.keys()
    assert len(OURS) + len(ELSEWHERE) + len(NOT_OURS) == len(WRONG)


@pytest.mark.parametrize("name", OURS)
def test_ours_is_what_is_meant_and_not_what_is_printed(name: str) -> None:
    equation, apart = BY_NAME[name], 0.0
    for state in filter(has_one_top_k, equation.states):
        ours = np.asarray(OURS[name](**arguments(state)), float)
        # growth is a difference quotient
        np.testing.assert_allclose(ours, equation.truth(**arguments(state)), rtol=0, atol=1e-7, err_msg=words(state))
        apart = max(apart, float(abs(ours - np.asarray(equation.printed(**arguments(state)), float)).max()))
    assert apart > 1e-4


@pytest.mark.parametrize("state", list(filter(has_one_top_k, HEADS)), ids=words)
def test_tail_aware_has_the_derivative_and_not_the_sum_of_printed_parts(state: dict[str, Any]) -> None:
    """TAD's Eq. 12 and 13 as printed do not add up to Eq. 14, which ours has as a part."""
    teacher, student, k = arguments(state).values()
    parts = BY_NAME["tad/eq12"].printed(teacher, student, k) + BY_NAME["tad/eq13"].printed(teacher, student, k)
    ours = tail_aware(teacher, student, k, 1.0)
    np.testing.assert_allclose(ours, BY_NAME["tad/eq5"].truth(teacher, student), rtol=0, atol=1e-9)
    second = BY_NAME["tad/eq15"].truth(teacher, student, k) * in_tail(teacher, teacher, k).sum()
    same_mass = abs(in_tail(torch.from_numpy(student).softmax(0).numpy() - teacher, teacher, k).sum()) < 1e-9
    assert np.allclose(parts + second, ours) == same_mass


@pytest.mark.parametrize("tau", [0.8, 1.0, 1.2])
def test_the_proposal_is_normalised_and_so_is_the_target(tau: float) -> None:
    """Ours is Section 4 to the letter: exactly unbiased at its default, tau = 1, biased elsewhere."""
    teacher = np.array([0.6, 0.3, 0.1])
    seen = set()
    for seed in range(20):
        target = RandomSampling(3, exponent=tau)(
            torch.from_numpy(teacher).log()[None], torch.zeros(1).long(), Generator().manual_seed(seed)
        )
        ours = dense(target, 3)
        possible = [normalised(teacher, drawn, tau) for drawn, _ in sequences(teacher, 3)]
        distances = [abs(ours - each).max() for each in possible]
        assert min(distances) < 1e-6
        seen.add(int(np.argmin(distances)))
    assert len(seen) > 3
    assert RandomSampling().exponent == 1


def entropy(probs: Tensor) -> float:
    return float(-(probs * probs.log()).sum())


def test_exponents_are_inverse_temperatures() -> None:
    """A larger exponent sharpens, of the target and of the proposal: a larger temperature would flatten."""
    logits = torch.tensor([[1.0, 0.0, -2.0]])
    entropies = [
        entropy(Full(exponent=e)(logits, torch.zeros(1).long(), Generator()).probs_NV) for e in (0.25, 1.0, 4.0)
    ]
    assert entropies == sorted(entropies, reverse=True)
    labels, many = torch.zeros(4000).long(), logits.expand(4000, -1)
    unique = [
        float(
            (RandomSampling(5, exponent=e)(many, labels, Generator().manual_seed(0)).weights_NK > 0)
            .sum(1)
            .double()
            .mean()
        )
        for e in (0.25, 1.0, 4.0)
    ]
    assert unique == sorted(unique, reverse=True)


def test_128_draws_are_not_stored_as_counts() -> None:
    fields = {"draws": 127, "exponent": 1.0}
    assert codec_for("RandomSampling", fields, 1000).name == "counts"
    assert codec_for("RandomSampling", {**fields, "draws": 128}, 1000).name == "ratio"
    printed = BY_NAME["rskd/appD1-128"].printed(128)
    assert printed[-1] == 0 and (printed[:-1] == np.arange(1, 128)).all()
