"""TAD's loss: its limits and invariances, and the same from a cache of the head and a sample of the tail."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
import torch
from torch import Generator, Tensor

from replication.axes.divergences import ForwardKL, TailAware
from replication.axes.positions import TopFraction
from replication.axes.targets.base import AnyTarget, DenseTarget, SparseTarget
from replication.axes.targets.sampled import HeadAndCountedTail
from replication.cache.choose import codec_of
from replication.cache.headed import PARTS, HeadedCodec
from replication.fused import loss as fused
from replication.fused.head import Head, TeacherStates

CLASSES, SEQUENCES, LENGTH = 24, 2, 5
POSITIONS = SEQUENCES * LENGTH


def logits(seed: int, spread: float = 1.5) -> Tensor:
    return spread * torch.randn(POSITIONS, CLASSES, generator=Generator().manual_seed(seed), dtype=torch.float64)


def teacher() -> DenseTarget:
    return DenseTarget(logits(0).softmax(1), sequences=SEQUENCES)


def losses(divergence: TailAware | ForwardKL, target: AnyTarget, student_NV: Tensor) -> tuple[Tensor, Tensor]:
    """Of each position, and the gradient of their sum."""
    leaf = student_NV.clone().requires_grad_()
    loss_N = divergence(leaf, target)
    (gradient,) = torch.autograd.grad(loss_N.sum(), leaf)
    return loss_N.detach(), gradient


def assert_same(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor], atol: float = 1e-12) -> None:
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=atol)


@pytest.mark.parametrize("k", [1, 5, 20, CLASSES - 1])
def test_where_beta_is_the_mean_mass_of_the_tail_it_is_kl(k: int) -> None:
    for n in range(SEQUENCES):
        rows = slice(n * LENGTH, (n + 1) * LENGTH)
        target = DenseTarget(teacher().probs_NV[rows])
        mass = 1 - target.probs_NV.topk(k, dim=1).values.sum(1)
        assert_same(
            losses(TailAware(k, float(mass.mean())), target, logits(1)[rows]),
            losses(ForwardKL(), target, logits(1)[rows]),
        )


def test_a_plain_weight_is_the_same_in_every_sequence() -> None:
    """And of one it is KL, whatever the tails are."""
    assert_same(
        losses(TailAware(3, 1.0, by_mass=False), teacher(), logits(1)), losses(ForwardKL(), teacher(), logits(1))
    )
    probs, student = teacher().probs_NV.numpy(), logits(1).numpy()
    meant = [oracle.tad_gradient(t, x, 3, 4.0) for t, x in zip(probs, student, strict=True)]
    found = losses(TailAware(3, 4.0, by_mass=False), teacher(), logits(1))[1]
    np.testing.assert_allclose(found, meant, rtol=0, atol=1e-9)


@pytest.mark.parametrize("beta", [0.5, 10.0])
def test_a_tail_of_one_class_has_no_shape_to_weigh(beta: float) -> None:
    found = losses(TailAware(CLASSES - 1, beta), teacher(), logits(1))
    assert_same(found, losses(ForwardKL(), teacher(), logits(1)))
    with pytest.raises(ValueError, match=rf"TailAware.k is {CLASSES} of {CLASSES} classes, so no tail is left"):
        TailAware(CLASSES)(logits(1), teacher())


@pytest.mark.parametrize("k", [1, 3])
def test_a_sequence_without_a_tail_is_kl_and_leaves_the_others_alone(k: int) -> None:
    probs = teacher().probs_NV.clone()
    probs[:LENGTH] = 0
    probs[:LENGTH, :k] = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)[:k] / sum([0.5, 0.3, 0.2][:k])
    target = DenseTarget(probs, sequences=SEQUENCES)
    loss, gradient = losses(TailAware(k), target, logits(1))
    plain, others = losses(ForwardKL(), target, logits(1)), losses(TailAware(k), teacher(), logits(1))
    assert_same((loss[:LENGTH], gradient[:LENGTH]), (plain[0][:LENGTH], plain[1][:LENGTH]))
    assert_same((loss[LENGTH:], gradient[LENGTH:]), (others[0][LENGTH:], others[1][LENGTH:]))


@pytest.mark.parametrize("k", [1, 4])
def test_at_the_teacher_it_rests_whatever_beta(k: int) -> None:
    loss, gradient = losses(TailAware(k, 10.0), teacher(), logits(0) + 7)  # a constant is no change
    assert float(loss.abs().max()) < 1e-12 and float(gradient.abs().max()) < 1e-12


def test_the_order_of_classes_and_of_sequences_is_nothing() -> None:
    divergence = TailAware(3)
    loss, gradient = losses(divergence, teacher(), logits(1))
    order = torch.randperm(CLASSES, generator=Generator().manual_seed(2))
    shuffled = DenseTarget(teacher().probs_NV[:, order], sequences=SEQUENCES)
    assert_same(losses(divergence, shuffled, logits(1)[:, order]), (loss, gradient[:, order]))
    turned = torch.arange(POSITIONS).roll(LENGTH)
    target = DenseTarget(teacher().probs_NV[turned], sequences=SEQUENCES)
    assert_same(losses(divergence, target, logits(1)[turned]), (loss[turned], gradient[turned]))


# from a cache


def through_the_cache(method: HeadAndCountedTail, target: SparseTarget) -> SparseTarget:
    codec = codec_of(method, CLASSES)
    rows = (target.ids_NK.numpy(), target.weights_NK.numpy(), method.lengths(target).numpy())
    ids, weights, _ = codec.decode(codec.encode(*rows))
    kept = SparseTarget(torch.from_numpy(ids), torch.from_numpy(weights))
    return method.complete(kept, torch.zeros(len(ids), dtype=torch.int64))


@pytest.mark.parametrize(("k", "head"), [(4, 4), (1, 4)], ids=["K is the head", "K is less than the head"])
def test_from_a_cache_the_gradient_is_that_of_the_whole_teacher_on_average(k: int, head: int) -> None:
    """In every class within 4 standard errors, and scattered as (12) of docs/theory.md times beta(X) squared says."""
    method, divergence, repetitions = HeadAndCountedTail(head, 6), TailAware(k, 2.0), 4000
    exact, generator = losses(divergence, teacher(), logits(1))[1], Generator().manual_seed(5)
    many = logits(0).float().repeat(repetitions, 1)
    target = method(many, torch.zeros(len(many), dtype=torch.int64), generator)
    target = through_the_cache(method, target)
    found = losses(
        divergence,
        SparseTarget(target.ids_NK, target.weights_NK, sequences=SEQUENCES * repetitions, head=target.head),
        logits(1).repeat(repetitions, 1),
    )[1].view(repetitions, POSITIONS, CLASSES)
    error = found.std(0) / repetitions**0.5
    share = divergence.shares((1 - teacher().probs_NV.topk(k, dim=1).values.sum(1)), SEQUENCES)
    rounding = 4 * share[:, None] * head / PARTS
    assert bool(((found.mean(0) - exact).abs() <= 4 * error + rounding).all())
    ids_of_head = logits(0).topk(head, dim=1).indices
    assert float(error.gather(1, ids_of_head).max()) < 1e-6  # a head is the same every time
    variance, meant = found.var(0).sum(1), share.square() * method.squared_error(teacher().probs_NV)
    np.testing.assert_allclose(variance, meant, rtol=0.1)


def test_a_target_with_fewer_exact_classes_than_k_is_refused() -> None:
    target = HeadAndCountedTail(3, 6)(logits(0), torch.zeros(POSITIONS, dtype=torch.int64), Generator())
    with pytest.raises(ValueError, match="TailAware.k is 4, and this target keeps 3 of the teacher's largest"):
        TailAware(4)(logits(1), target)


def test_a_row_comes_back_and_costs_what_it_says() -> None:
    """Also of a teacher so sharp that nothing is left to draw, or a class of the head underflows."""
    method = HeadAndCountedTail(3, 5)
    sharp = torch.full((3, CLASSES), -200.0)
    sharp[0, 4], sharp[1, [4, 7]], sharp[2] = 0.0, 0.0, 0.0
    target = method(sharp, torch.zeros(3, dtype=torch.int64), Generator().manual_seed(0))
    back = through_the_cache(method, target)
    np.testing.assert_allclose(back.dense(CLASSES), target.dense(CLASSES), rtol=0, atol=3 / PARTS + 1e-6)
    assert back.head == 3 and torch.equal(back.ids_NK[:, :3], target.ids_NK[:, :3])
    codec = codec_of(HeadAndCountedTail(10, 20), 100_278)
    assert isinstance(codec, HeadedCodec) and codec.width == 41


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda codes: codes[:-1], "stop in the middle"),
        (lambda codes: codes[[3]], "fewer classes than its head"),
        (lambda codes: np.delete(codes, 2), "do not sum to 6"),
    ],
    ids=["cut", "no head", "a draw lost"],
)
def test_a_damaged_row_is_found(spoil: object, why: str) -> None:
    codec = HeadedCodec(CLASSES, head=2, draws=6)
    codes, _ = codec.codes([[[3, 9, 1, 2]]], [[[0.5, 0.2, 0.2, 0.1]]], [[4]])
    with pytest.raises(ValueError, match=why):
        codec.rows(spoil(codes), 1)  # type: ignore[operator]


def test_weights_that_are_no_head_and_draws_are_refused() -> None:
    codec = HeadedCodec(CLASSES, head=2, draws=6)
    with pytest.raises(ValueError, match="stores 2 probabilities and counts of 6 draws"):
        codec.codes([[[3, 9, 1, 2]]], [[[0.5, 0.2, 0.17, 0.13]]], [[4]])
    with pytest.raises(ValueError, match="1 to 127 draws"):
        HeadedCodec(CLASSES, head=2, draws=128)
    with pytest.raises(ValueError, match="delivery = 'online'"):
        HeadAndCountedTail(2, 128).storage(CLASSES)


# a chunk at a time


@pytest.mark.parametrize("positions", [None, 0.4])
def test_a_sequence_of_many_chunks_is_the_definition(positions: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the oracle, from the teacher's states: three positions a chunk, sequences of five, some chosen."""
    monkeypatch.setitem(fused.CHUNK, "cpu", 3 * 8 * CLASSES)
    monkeypatch.setitem(fused.BLOCK, "cpu", 2 * 4 * CLASSES)
    random = Generator().manual_seed(3)
    hidden, states = (torch.randn(POSITIONS, 6, generator=random, dtype=torch.float64) for _ in range(2))
    head, weight = (torch.randn(CLASSES, 6, generator=random, dtype=torch.float64) for _ in range(2))
    given = TeacherStates(states, Head(weight))
    policy = fused.AllPositions() if positions is None else TopFraction(positions)
    leaf, labels = hidden.view(SEQUENCES, LENGTH, 6).requires_grad_(), torch.zeros(SEQUENCES, LENGTH, dtype=torch.int64)
    value = fused.fused_loss(leaf, Head(head), labels, given, TailAware(3, 2.0), policy, 1.0, 0.0)
    (gradient,) = torch.autograd.grad(value, leaf)
    probs, student = (states @ weight.T).softmax(1).numpy(), (hidden @ head.T).detach().numpy()
    meant = np.zeros((POSITIONS, CLASSES))
    for n in range(POSITIONS):
        scale = oracle.tad_scale(probs[n // LENGTH * LENGTH :][:LENGTH], 3, 2.0)
        meant[n] = oracle.tad_gradient(probs[n], student[n], 3, scale)
    weight_N = np.ones(POSITIONS)
    if positions is not None:
        entropy = -(torch.from_numpy(student).softmax(1) * torch.from_numpy(student).log_softmax(1)).sum(1)
        chosen = entropy.view(SEQUENCES, LENGTH).topk(2, dim=1).indices
        weight_N = np.zeros((SEQUENCES, LENGTH))
        np.put_along_axis(weight_N, chosen.numpy(), LENGTH / 2, 1)
        weight_N = weight_N.reshape(-1)
    wanted = (weight_N[:, None] * meant / POSITIONS) @ head.numpy()
    np.testing.assert_allclose(gradient.reshape(POSITIONS, 6).numpy(), wanted, rtol=0, atol=1e-9)
