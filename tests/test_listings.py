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

from replication.axes.divergences import ForwardKL
from replication.axes.loss import distillation_loss
from replication.axes.positions import AllPositions
from replication.axes.schedules import Constant
from replication.axes.targets.base import SparseTarget
from replication.axes.targets.drawing import counted, draw
from replication.axes.targets.kept import Full, TopK
from replication.axes.targets.sampled import RandomSampling

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


def test_the_first_listing_needs_positions_in_rows() -> None:
    """A batch of sequences, [B, L, V], is refused: multinomial draws from rows."""
    with pytest.raises(RuntimeError, match="1 or 2 dim"):
        torch.multinomial(logits(0).softmax(1).view(2, 3, CLASSES), DRAWS, replacement=True)


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


# the classification task


def printed_draws(probs: Tensor, points: Tensor) -> Tensor:
    """The lines of loss_kd, in their order; `points` in the place of rand. Writes into `probs`, as they do."""
    running = probs.cumsum(dim=-1)
    ids = torch.searchsorted(running, points.sort(dim=-1)[0])
    probs *= 0
    probs.scatter_reduce_(dim=-1, index=ids, src=torch.ones_like(probs), reduce="sum")
    return probs.div_(probs.sum(dim=-1, keepdim=True))


def printed_loss(target: Tensor, student: Tensor) -> Tensor:
    log_sum = torch.log(torch.sum(torch.exp(student), dim=-1))
    return torch.sum(-target * (student - torch.unsqueeze(log_sum, dim=-1)), dim=-1).mean()


def points(draws: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(3).uniform(size=(ROWS, draws)))


def test_emptying_the_teacher_in_place_spoils_nothing_as_the_running_sum_is_a_copy() -> None:
    """Ones as wide as the vocabulary: only the first N of a row are read, so the target is c_i / N."""
    teacher, drawn = logits(0).softmax(1), points(12)
    printed = printed_draws(teacher.clone(), drawn)
    for row, probs, at in zip(printed, teacher, drawn, strict=True):
        ids = [oracle.drawn_by_inverse(probs.numpy(), float(point)) for point in at]
        np.testing.assert_allclose(row.numpy(), oracle.listed_draws(ids, CLASSES), rtol=0, atol=1e-15)


def test_our_draws_of_the_same_points_give_the_same_target_and_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, drawn, student = logits(0).softmax(1), points(12), logits(1)
    monkeypatch.setattr("replication.axes.targets.drawing.ascending", lambda *_: drawn.sort(-1)[0])
    ids_NK, counts_NK = counted(draw(teacher.log(), 12, Generator()))
    target = SparseTarget(ids_NK, counts_NK.double() / 12)
    printed = printed_draws(teacher.clone(), drawn)
    np.testing.assert_allclose(target.dense(CLASSES).numpy(), printed.numpy(), rtol=0, atol=1e-15)
    gradients = []
    for loss in (lambda x: printed_loss(printed, x), lambda x: ForwardKL()(x, target).mean()):
        leaf = student.clone().requires_grad_(True)
        loss(leaf).backward()
        gradients.append(leaf.grad.numpy())
    np.testing.assert_allclose(gradients[0], gradients[1], rtol=0, atol=1e-15)


def test_more_draws_than_classes_are_refused_by_the_printed_ones_alone() -> None:
    """index may not be larger than src; 50 draws from 1,024 classes are fine."""
    with pytest.raises(RuntimeError, match="Expected index"):
        printed_draws(logits(0).softmax(1), points(CLASSES + 1))
    assert draw(logits(0), CLASSES + 1, Generator()).shape == (ROWS, CLASSES + 1)


def test_a_point_beyond_the_running_sum_is_no_class() -> None:
    """1/7 seven times ends below the largest float under one, which rand may return."""
    teacher, last = torch.full((1, 7), 1 / 7, dtype=torch.float64), torch.tensor([[1 - 2.0**-53]], dtype=torch.float64)
    assert int(torch.searchsorted(teacher.cumsum(-1), last)) == 7
    with pytest.raises(RuntimeError, match="out of bounds"):
        printed_draws(teacher.clone(), last)
    assert oracle.drawn_by_inverse(teacher[0].numpy(), float(last)) == 6


def test_a_point_at_zero_finds_a_class_that_the_teacher_rules_out() -> None:
    teacher, zero = torch.tensor([[0.0, 0.5, 0.5]], dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    assert printed_draws(teacher.clone(), zero).tolist() == [[1.0, 0.0, 0.0]]
    assert oracle.drawn_by_inverse(teacher[0].numpy(), 0.0) == 1


def test_the_printed_top_k_is_kept_before_the_teacher_is_emptied() -> None:
    probs = logits(0).softmax(1)
    expected = [oracle.top_k(row, 7) for row in probs.numpy()]
    values, ids = probs.topk(7, dim=-1)
    probs *= 0
    probs.scatter_reduce_(dim=-1, index=ids, src=values, reduce="sum")
    np.testing.assert_allclose(probs.numpy(), expected, rtol=0, atol=0)


def test_the_emptied_teacher_does_not_disturb_the_backward_pass() -> None:
    """It is detached, so that nothing goes back through it; but its forward pass is recorded for nothing."""
    student, teacher = torch.nn.Linear(4, CLASSES).double(), torch.nn.Linear(4, CLASSES).double()
    inputs = torch.from_numpy(np.random.default_rng(0).normal(size=(ROWS, 4)))
    teacher_logits = teacher(inputs)
    target = printed_draws(torch.softmax(teacher_logits, dim=-1).detach(), points(12))
    printed_loss(target, student(inputs)).backward()
    assert student.weight.grad is not None and teacher.weight.grad is None
    assert teacher_logits.requires_grad


def test_the_printed_loss_is_cross_entropy_until_exp_overflows() -> None:
    target, student = torch.from_numpy(np.array(target_rows())), logits(1)
    expected = np.mean(
        [np.real(oracle.cross_entropy(t, x)) for t, x in zip(target.numpy(), student.numpy(), strict=True)]
    )
    assert float(printed_loss(target, student)) == pytest.approx(float(expected), abs=1e-13)
    assert not math.isfinite(float(printed_loss(target, student + 800)))
    ours = ForwardKL()(student + 800, Full()(logits(0), torch.zeros(ROWS).long(), Generator()))
    assert bool(torch.isfinite(ours).all())


def test_a_module_is_a_teacher_but_an_empty_container_is_none() -> None:
    """`if teacher:` asks the module for its truth: right for ToyModel, which has no length."""
    assert bool(torch.nn.Linear(2, 2)) and not torch.nn.Sequential()


def test_accuracy_is_averaged_over_stacked_batches() -> None:
    """vstack makes rows of the batches, [batches, batch size]; they are equally large, so their mean is the mean."""
    batches = [torch.tensor([True, False, True]), torch.tensor([False, False, True])]
    assert torch.vstack(batches).shape == (2, 3)
    assert float(torch.vstack(batches).float().mean()) == pytest.approx(3 / 6)
