"""RS-KD's App. K as printed and as meant: what the printed operations do, and that ours does what was meant."""

from __future__ import annotations

import inspect
import math

import numpy as np
import oracle
import pytest
import torch
from torch import Generator, Tensor
from torch.nn.functional import cross_entropy, kl_div

from replication.divergences import ForwardKL
from replication.loss import distillation_loss
from replication.positions import AllPositions
from replication.schedules import Constant
from replication.targets import Full, RandomSampling, TopK

CLASSES, ROWS, DRAWS = 20, 6, 50


def logits(seed: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(0, 2, (ROWS, CLASSES)))


def draws() -> Tensor:
    """Ids drawn with replacement, [ROWS, DRAWS]."""
    return torch.multinomial(logits(0).softmax(1), DRAWS, replacement=True, generator=Generator().manual_seed(0))


# repeated draws


def test_the_printed_scatter_is_the_oracle_s_printed_listing() -> None:
    ids = draws()
    scattered = torch.zeros(ROWS, CLASSES, dtype=torch.float64)
    scattered.scatter_(1, ids, torch.full((ROWS, DRAWS), 1 / DRAWS, dtype=torch.float64))
    printed = [oracle.listed_draws_as_printed(row, CLASSES) for row in ids.tolist()]
    np.testing.assert_allclose(scattered.numpy(), printed, rtol=0, atol=1e-15)


def test_overwriting_repeated_draws_loses_mass_and_flattens_the_target() -> None:
    """Every drawn class weighs 1/N whatever its probability: the sum is (unique classes) / N, well below one."""
    for row in draws().tolist():
        printed, meant = oracle.listed_draws_as_printed(row, CLASSES), oracle.listed_draws(row, CLASSES)
        assert printed.sum() == pytest.approx(len(set(row)) / DRAWS)
        assert printed.sum() < 0.5
        assert meant.sum() == pytest.approx(1)
        assert set(np.round(printed[printed > 0] * DRAWS, 9)) == {1.0}
        assert meant.max() > 5 / DRAWS


def test_our_draws_add_up() -> None:
    """Ours sums to one, repeated draws weigh their count, its mean is the teacher; the printed one's mean is not."""
    teacher = logits(0)[:1].softmax(1)
    target = RandomSampling(DRAWS)(
        logits(0)[:1].expand(20_000, -1), torch.zeros(20_000).long(), Generator().manual_seed(1)
    )
    dense = target.dense(CLASSES).double()
    np.testing.assert_allclose(dense.sum(1).numpy(), 1, rtol=0, atol=1e-6)
    deviation = (teacher * (1 - teacher) / DRAWS / len(dense)).sqrt()
    assert ((dense.mean(0) - teacher[0]).abs() < 4 * deviation[0] + 1e-7).all()
    overwritten = (dense > 0).double() / DRAWS
    assert float((overwritten.mean(0) - teacher[0]).abs().max()) > 0.1


def test_topk_has_no_repeated_ids_so_that_the_listing_is_right_there() -> None:
    """Its weights are not renormalised, as in Eq. 5."""
    teacher = logits(0).softmax(1)
    top = teacher.topk(4)
    listed = torch.zeros_like(teacher).scatter_(1, top.indices, top.values)
    ours = TopK(4)(logits(0), torch.zeros(ROWS).long(), Generator()).dense(CLASSES)
    np.testing.assert_allclose(ours.numpy(), listed.numpy(), rtol=0, atol=1e-6)


# the reduction of the loss


def target_rows() -> list[np.ndarray]:
    return [oracle.listed_draws(row, CLASSES) for row in draws().tolist()]


@pytest.mark.filterwarnings("ignore:reduction:UserWarning")
def test_the_printed_kl_div_divides_by_batch_and_vocabulary() -> None:
    target, student = target_rows(), logits(1)
    printed = kl_div(student.log_softmax(1), torch.from_numpy(np.array(target)))
    assert float(printed) == pytest.approx(oracle.listed_loss_as_printed(target, list(student.numpy())), abs=1e-14)
    assert float(printed) * CLASSES == pytest.approx(oracle.listed_loss(target, list(student.numpy())), abs=1e-13)


def test_our_loss_is_the_mean_over_positions_of_the_sum_over_classes() -> None:
    target = RandomSampling(DRAWS)(logits(0), torch.zeros(ROWS).long(), Generator())
    rows = list(target.dense(CLASSES).double().numpy())
    student, labels = logits(1).view(2, 3, CLASSES), torch.zeros(2, 3).long()
    ours = distillation_loss(student, labels, target, ForwardKL(), AllPositions(), kd_weight=1.0, ce_weight=0.0)
    assert float(ours) == pytest.approx(oracle.listed_loss(rows, list(logits(1).numpy())), abs=1e-6)


def test_the_printed_reduction_makes_the_balance_with_cross_entropy_depend_on_the_vocabulary() -> None:
    """Twice the classes, of which the new half is never met: the loss as meant stays, the printed one halves."""
    target, student = target_rows(), logits(1)
    wide_target = [np.concatenate([row, np.zeros(CLASSES)]) for row in target]
    wide = list(torch.cat([student, torch.full_like(student, -40.0)], 1).numpy())
    meant = oracle.listed_loss(wide_target, wide) / oracle.listed_loss(target, list(student.numpy()))
    printed = oracle.listed_loss_as_printed(wide_target, wide) / oracle.listed_loss_as_printed(
        target, list(student.numpy())
    )
    assert meant == pytest.approx(1) and printed == pytest.approx(0.5)


# the weight of the two losses


def test_alpha_is_the_cross_entropy_s_weight_in_the_text_and_the_distillation_s_in_the_listing() -> None:
    assert oracle.listed_mixture(0.1, ce_loss=5.0, kd_loss=2.0) == pytest.approx(2.3)
    assert oracle.listed_mixture_as_printed(0.1, ce_loss=5.0, kd_loss=2.0) == pytest.approx(4.7)


def test_our_mixture_follows_the_text() -> None:
    alpha, student, labels = 0.1, logits(1).view(2, 3, CLASSES), torch.tensor([[0, 3, 7], [19, 5, 5]])
    target = Full()(logits(0), labels.flatten(), Generator())
    kd_weight, ce_weight = Constant(kd_weight=1 - alpha, ce_weight=alpha)(0.0)
    ours = distillation_loss(student, labels, target, ForwardKL(), AllPositions(), kd_weight, ce_weight)
    ce_loss = float(cross_entropy(logits(1), labels.flatten()))
    kd_loss = float(ForwardKL()(logits(1), target).mean())
    assert float(ours) == pytest.approx(oracle.listed_mixture(alpha, ce_loss, kd_loss), abs=1e-5)
    assert abs(float(ours) - oracle.listed_mixture_as_printed(alpha, ce_loss, kd_loss)) > 0.1
    assert list(inspect.signature(Constant).parameters) == ["kd_weight", "ce_weight"]


# the toy loop


def toy_rounds(rounds: int, size: int = 22, classes: int = 1_000) -> tuple[np.ndarray, list[list[int]]]:
    """A Zipf teacher and the ids of each round, as in the toy listing (there V = 100,000 and 1,000 rounds)."""
    teacher = 1 / np.arange(1, classes + 1)
    teacher /= teacher.sum()
    return teacher, np.random.default_rng(12345).choice(classes, (rounds, size), p=teacher).tolist()


def test_the_toy_loop_by_hand() -> None:
    """Draws 0, 0, 1: printed, the first two are seen and divided again at every later draw."""
    printed, unique = oracle.toy_sampling_as_printed([[0, 0, 1]], 2)
    first, second, third = np.array([1 / 3, 0]), np.array([4 / 9, 0]), np.array([4 / 27, 1 / 3])
    total = first + second + third
    np.testing.assert_allclose(printed, total / total.sum(), rtol=0, atol=1e-15)
    assert unique == 1 + 1 + 2
    meant, unique = oracle.toy_sampling([[0, 0, 1]], 2)
    np.testing.assert_allclose(meant, [2 / 3, 1 / 3], rtol=0, atol=1e-15)
    assert unique == 2


def test_the_printed_indentation_spoils_the_count_of_unique_classes_not_the_mean() -> None:
    """Draws are exchangeable, so the printed mean is unbiased as well; the effective number is summed over prefixes."""
    teacher, rounds = toy_rounds(400)
    (printed, printed_unique), (meant, unique) = (
        listing(rounds, len(teacher)) for listing in (oracle.toy_sampling_as_printed, oracle.toy_sampling)
    )
    deviation = np.sqrt(teacher * (1 - teacher) / (400 * 22))
    assert (np.abs(meant - teacher) < 4 * deviation)[:50].all()
    # unequal weights of the draws of a round widen the spread a little
    assert (np.abs(printed - teacher) < 4.5 * deviation)[:50].all()
    assert unique == pytest.approx(np.mean([len(set(drawn)) for drawn in rounds]))
    assert unique <= 22 < 0.25 * printed_unique


def test_our_unique_classes_are_those_of_the_loop_as_meant() -> None:
    """Expected number: sum_i 1 - (1 - t_i)^22."""
    teacher, rounds = toy_rounds(400)
    target = RandomSampling(22)(
        torch.from_numpy(np.log(teacher)).expand(400, -1), torch.zeros(400).long(), Generator().manual_seed(0)
    )
    ours = float((target.weights_NK > 0).sum(1).double().mean())
    expected = float((1 - (1 - teacher) ** 22).sum())
    spread = np.std([len(set(drawn)) for drawn in rounds]) / math.sqrt(400)
    assert abs(ours - expected) < 4 * spread
    assert abs(oracle.toy_sampling(rounds, len(teacher))[1] - expected) < 4 * spread
