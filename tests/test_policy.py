"""MiniLLM's rewards, weights, advantages and loss, against loops that import nothing of ours and a case by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from replication.axes.targets.base import DenseTarget
from replication.axes.writing import MiniLLM
from replication.training.policy import Rollout, advantages, label_logs, minillm_loss, rollout, surrogate
from tests.oracle import minillm_advantages, minillm_surrogate, minillm_tokens, softmax

ROWS, LENGTH, CLASSES = 3, 6, 5
WROTE = torch.tensor([[0, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1], [1, 0, 0, 0, 0, 0]], dtype=torch.bool)
ROOM = torch.tensor([[0, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]], dtype=torch.bool)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def logs(seed: int) -> Tensor:
    return numbers(ROWS, LENGTH, CLASSES, seed=seed).log_softmax(-1)[..., 0]


def test_advantages_of_a_case_by_hand() -> None:
    """Two tokens with rewards 2 and 4, discount 1/2: (2 + 4/2) / 2 and 4 / 1; a place behind the end has none."""
    reward, wrote, room = torch.tensor([[2.0, 4.0, 0.0]]), torch.tensor([[True, True, False]]), torch.ones(1, 3).bool()
    plain = torch.tensor([[2.0, 4.0, 0.0]])
    found = advantages(reward, wrote, room, 0.5)
    torch.testing.assert_close(found, (plain - 2) / math.sqrt(8 / 3 + 1e-8))


@pytest.mark.parametrize("discount", [0.0, 0.95, 1.0])
def test_advantages_are_those_of_plain_loops(discount: float) -> None:
    reward = numbers(ROWS, LENGTH) * WROTE
    meant = minillm_advantages(reward.tolist(), WROTE.tolist(), ROOM.tolist(), discount)
    found = advantages(reward, WROTE, ROOM, discount)
    np.testing.assert_allclose(found[ROOM], np.array(meant)[ROOM.numpy()], rtol=1e-9)
    assert float(found[ROOM].mean()) == pytest.approx(0, abs=1e-12)


def test_weights_and_rewards_are_those_of_plain_loops() -> None:
    settings = MiniLLM(teacher=0.3, scaling=0.5, reward_clip=1.5)
    student, teacher = logs(1), logs(2)
    found = rollout(student, teacher, WROTE, ROOM, settings)
    for row in range(ROWS):
        for place in range(LENGTH):
            weight, reward = minillm_tokens(float(student[row, place]), float(teacher[row, place]), 0.3, 0.5, 1.5)
            wanted = (weight, reward) if WROTE[row, place] else (0.0, 0.0)
            have = float(found.weight_BL[row, place]), float(found.reward_BL[row, place])
            assert have == pytest.approx(wanted, rel=1e-12)
    assert float(found.reward_BL.abs().max()) == 1.5  # something was clipped
    # without a share of the teacher nothing is weighted
    plain = rollout(student, teacher, WROTE, ROOM, MiniLLM(teacher=0.0)).weight_BL
    torch.testing.assert_close(plain, WROTE.double())


def test_weights_make_the_mixture_the_student() -> None:
    """The mean over the mixture of weight * x is the mean over the student of x, class by class."""
    student, teacher = (softmax(numbers(CLASSES, seed=seed).numpy()) for seed in (3, 4))
    written = torch.ones(1, CLASSES).bool()
    given = (torch.from_numpy(np.log(each))[None] for each in (student, teacher))
    weights = rollout(*given, written, written, MiniLLM()).weight_BL[0].numpy()
    np.testing.assert_allclose((0.8 * student + 0.2 * teacher) * weights, student, rtol=1e-12)


def test_the_surrogate_clips_weight_times_ratio() -> None:
    old, new, advantage = logs(1), logs(5), numbers(ROWS, LENGTH, seed=6)
    known = rollout(old, logs(2), WROTE, ROOM, MiniLLM())
    found = surrogate(new, known, advantage, 0.2)
    meant = minillm_surrogate(
        new.tolist(), old.tolist(), known.weight_BL.tolist(), advantage.tolist(), WROTE.tolist(), 0.2
    )
    assert float(found) == pytest.approx(meant, rel=1e-12)


def test_unclipped_its_gradient_is_the_policy_gradient() -> None:
    """At the student that wrote: minus the mean of weight * advantage * gradient of log q."""
    logits = numbers(ROWS, LENGTH, CLASSES, seed=1).requires_grad_()
    labels = torch.zeros(ROWS, LENGTH, dtype=torch.long)
    old, advantage = label_logs(logits, labels), numbers(ROWS, LENGTH, seed=6)
    known = rollout(old.detach(), logs(2), WROTE, ROOM, MiniLLM())
    surrogate(old, known, advantage, 1e9).backward()
    scale = (-known.weight_BL * advantage * WROTE / WROTE.sum())[..., None]
    one = torch.zeros(ROWS, LENGTH, CLASSES, dtype=torch.float64)
    one[..., 0] = 1
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, scale * (one - logits.detach().softmax(-1)))


def test_the_whole_loss_is_its_parts() -> None:
    settings = MiniLLM(text=0.7)
    logits, other = numbers(2 * ROWS, LENGTH, CLASSES, seed=1), numbers(2 * ROWS, LENGTH, CLASSES, seed=2)
    labels = torch.randint(CLASSES, (2 * ROWS, LENGTH), generator=torch.Generator().manual_seed(3))
    known = rollout(logs(4), logs(5), WROTE, ROOM, settings)
    found = minillm_loss(logits, labels, DenseTarget(other.softmax(-1).flatten(0, 1)), known, settings)
    student, teacher = (np.apply_along_axis(softmax, 2, each.numpy()) for each in (logits, other))
    new = [[math.log(student[b, t, labels[b, t]]) for t in range(LENGTH)] for b in range(ROWS)]
    advantage = minillm_advantages(known.reward_BL.tolist(), WROTE.tolist(), ROOM.tolist(), settings.discount)
    meant = minillm_surrogate(
        new, known.log_student_BL.tolist(), known.weight_BL.tolist(), advantage, WROTE.tolist(), settings.clip
    )
    reverse = [sum(s * math.log(s / t) for s, t in zip(*both, strict=True)) for both in pairs(student, teacher, WROTE)]
    meant += sum(reverse) / len(reverse)
    text = [(student[b, t], teacher[b, t], int(labels[b, t])) for b in range(ROWS, 2 * ROWS) for t in range(LENGTH)]
    for s, t, label in text:
        forward = sum(q * math.log(q / p) for p, q in zip(s, t, strict=True))
        meant += settings.text * (0.5 * forward - 0.5 * math.log(s[label])) / len(text)
    assert float(found) == pytest.approx(meant, rel=1e-9)


def pairs(student: np.ndarray, teacher: np.ndarray, wrote: Tensor) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(student[b, t], teacher[b, t]) for b in range(ROWS) for t in range(LENGTH) if wrote[b, t]]


def test_a_text_that_ends_at_once_weighs_its_one_token() -> None:
    """A row of one written token has that one's reward as its mean, whatever stands behind the end."""
    reward = torch.zeros(ROWS, LENGTH, dtype=torch.float64)
    reward[2, 0] = 3.0
    found = advantages(reward, WROTE, ROOM, 0.95)
    assert float(found[2, 0] - found[2, 1]) > 0 and torch.isfinite(found).all()
    assert isinstance(rollout(logs(1), logs(2), WROTE, ROOM, MiniLLM()), Rollout)
