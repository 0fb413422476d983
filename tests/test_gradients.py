"""Every divergence on every target it takes: loss and gradient equal the float64 oracle to 1e-9, and gradcheck."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial

import numpy as np
import oracle
import pytest
import torch
from torch import Tensor

from replication.axes.comparison import AtLabel
from replication.axes.divergences import DIVERGENCES, ForwardKL, GhostToken, ReverseKL, TailAware
from replication.axes.loss import distillation_loss
from replication.axes.positions import AllPositions, TopFraction
from replication.axes.targets.base import AnyTarget, DenseTarget, SparseTarget
from replication.axes.targets.kept import Full, NaiveFix, OneHot, SmoothedTopK, TopK, TopP
from replication.axes.targets.sampled import HeadAndSampledTail, RandomSampling
from replication.axes.targets.water_filling import AdaptiveWaterFilling
from tests.cases import EXAMPLES, example

CLASSES, SEQUENCES, LENGTH = 9, 2, 3
POSITIONS = SEQUENCES * LENGTH
EXACT = 1e-9

# targets whose hyper-parameters make different cases, or take more than there is; an example of each of the others
CASES = {name: [one] for name, one in EXAMPLES.items()} | {
    "Full": [Full(), Full(exponent=0.25)],
    "TopK": [TopK(3), TopK(1)],
    "TopP": [TopP(p=0.8, cap=5), TopP(p=0.9, cap=8, exponent=0.5)],
    "RandomSampling": [RandomSampling(12), RandomSampling(12, exponent=0.8)],
    "AdaptiveWaterFilling": [AdaptiveWaterFilling(0.1)],
}
METHODS = {name: example(cls) for name, cls in DIVERGENCES.items()} | {"TailAware": TailAware(k=3, beta=2.0)}
# one that the papers do not have may take what it can
NEEDS_DENSE = {"ReverseKL", "ForwardReverseKL", "TailAware", "Tempered"}

PositionLoss = Callable[[np.ndarray, np.ndarray], complex]


def inputs(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Teacher logits [N, V], student logits [N, V], labels [N], float64; label 0 is among the labels."""
    random = np.random.default_rng(seed)
    teacher, student = (torch.from_numpy(1.5 * random.standard_normal((POSITIONS, CLASSES))) for _ in range(2))
    return teacher, student, torch.from_numpy(random.permutation(CLASSES)[:POSITIONS])


def drawn(method: object, seed: int = 0) -> AnyTarget:
    """The method's target, its float32 numbers taken as exact float64 ones that sum to one where they should."""
    teacher, _, labels = inputs(seed)
    target = method(teacher, labels, torch.Generator().manual_seed(7))
    if isinstance(target, DenseTarget):
        probs = target.probs_NV.double()
        return DenseTarget(probs / probs.sum(1, keepdim=True), sequences=SEQUENCES)
    spread, weights = None if target.spread_N is None else target.spread_N.double(), target.weights_NK.double()
    if target.head:
        weights = weights / weights.sum(1, keepdim=True)
    return replace(target, weights_NK=weights, spread_N=spread, sequences=SEQUENCES)


def by_hand(target: AnyTarget) -> np.ndarray:
    """The target over all classes, summed up slot by slot, [N, V] float64."""
    if isinstance(target, DenseTarget):
        return target.probs_NV.double().numpy()
    full = np.zeros((POSITIONS, CLASSES))
    for n in range(POSITIONS):
        for i, weight in zip(target.ids_NK[n].tolist(), target.weights_NK[n].tolist(), strict=True):
            full[n, i] += weight
        if target.spread_N is not None:
            full[n] += float(target.spread_N[n]) / CLASSES
    return full


def position_losses(name: str, full: np.ndarray) -> list[PositionLoss]:
    """The oracle's loss at each of the N positions of the target `full` [N, V]."""
    if name != "TailAware":
        assert name in oracle.DIVERGENCES, f"divergence {name} has no oracle: write its equation in tests/oracle.py"
        return [partial(oracle.DIVERGENCES[name], **asdict(METHODS[name]))] * POSITIONS
    share = METHODS["TailAware"]
    scales = [oracle.tad_scale(full[n : n + LENGTH], share.k, share.beta) for n in range(0, POSITIONS, LENGTH)]
    return [partial(oracle.tad, k=share.k, scale=scales[n // LENGTH]) for n in range(POSITIONS)]


def expected(name: str, target: AnyTarget, student: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The oracle's losses [N] and their gradients [N, V] (complex step)."""
    full = by_hand(target)
    losses, gradients = np.zeros(POSITIONS), np.zeros((POSITIONS, CLASSES))
    for n, loss in enumerate(position_losses(name, full)):
        losses[n] = np.real(loss(full[n], student[n].numpy()))
        gradients[n] = oracle.numerical_gradient(partial(loss, full[n]), student[n].numpy())
    return losses, gradients


def measured(divergence: object, target: AnyTarget, student: Tensor) -> tuple[np.ndarray, np.ndarray]:
    leaf = student.clone().requires_grad_(True)
    loss = divergence(leaf, target)
    assert loss.shape == (len(student),) and loss.dtype == torch.float64
    loss.sum().backward()
    return loss.detach().numpy(), leaf.grad.numpy()


def refused(divergence: str, method: object) -> bool:
    """A ValueError, which names the divergence."""
    try:
        METHODS[divergence](inputs()[1], drawn(method))
    except ValueError as error:
        assert divergence in str(error) and "\n" not in str(error)
        return True
    return False


# a divergence that looks at the label is tried in test_decoupled.py
BY_TARGET = [name for name, cls in DIVERGENCES.items() if not issubclass(cls, AtLabel)]
ALL_PAIRS = [(name, method) for name in BY_TARGET for methods in CASES.values() for method in methods]
PAIRS = [pair for pair in ALL_PAIRS if not refused(*pair)]


@pytest.mark.parametrize(("name", "method"), ALL_PAIRS, ids=str)
def test_a_target_that_the_divergence_cannot_use_is_refused(name: str, method: object) -> None:
    dense, spread = isinstance(method, Full), isinstance(method, SmoothedTopK)
    if name == "GhostToken":
        assert refused(name, method) == (dense or spread)
    elif name in NEEDS_DENSE:
        headed = name == "TailAware" and isinstance(method, HeadAndSampledTail)
        assert refused(name, method) == (not (dense or headed))
    elif name in ("ForwardKL", "L1", "MSE"):
        assert not refused(name, method)


@pytest.mark.parametrize(("name", "method"), PAIRS, ids=str)
def test_loss_and_gradient_equal_the_oracle(name: str, method: object) -> None:
    target, student = drawn(method), inputs()[1]
    losses, gradients = measured(METHODS[name], target, student)
    expected_losses, expected_gradients = expected(name, target, student)
    np.testing.assert_allclose(losses, expected_losses, rtol=0, atol=EXACT)
    np.testing.assert_allclose(gradients, expected_gradients, rtol=0, atol=EXACT)


@pytest.mark.parametrize(("name", "method"), PAIRS, ids=str)
def test_gradcheck(name: str, method: object) -> None:
    target, student = drawn(method), inputs()[1]
    divergence = METHODS[name]
    assert torch.autograd.gradcheck(lambda x: divergence(x, target), student.clone().requires_grad_(True))


@pytest.mark.parametrize(("name", "method"), PAIRS, ids=str)
def test_float32_logits_give_the_same_to_float32_precision(name: str, method: object) -> None:
    teacher, student, labels = inputs()
    target = replace(method(teacher, labels, torch.Generator().manual_seed(7)), sequences=SEQUENCES)
    loss = METHODS[name](student.float(), target)
    assert loss.dtype == torch.float32
    np.testing.assert_allclose(loss.numpy(), expected(name, drawn(method), student)[0], rtol=1e-5, atol=2e-6)


# the gradients as the papers print them


@pytest.mark.parametrize("method", [Full(), TopK(3), TopK(1), NaiveFix(3), RandomSampling(12), OneHot()], ids=str)
def test_forward_kl_has_the_gradient_of_equations_1_2_4_5(method: object) -> None:
    target, student = drawn(method), inputs()[1]
    printed = [oracle.kl_gradient(t, x) for t, x in zip(by_hand(target), student.numpy(), strict=True)]
    np.testing.assert_allclose(measured(ForwardKL(), target, student)[1], printed, rtol=0, atol=EXACT)


def test_ghost_token_has_the_gradient_of_appendix_a5_and_full_kd_s_in_the_head() -> None:
    target, full, student = drawn(TopK(3)), drawn(Full()), inputs()[1]
    gradient = measured(GhostToken(), target, student)[1]
    printed = [oracle.ghost_gradient(t, x) for t, x in zip(by_hand(target), student.numpy(), strict=True)]
    np.testing.assert_allclose(gradient, printed, rtol=0, atol=EXACT)
    head = by_hand(target) > 0
    np.testing.assert_allclose(gradient[head], measured(ForwardKL(), full, student)[1][head], rtol=0, atol=1e-7)


def test_ghost_token_counts_class_0_outside_the_head_where_slots_are_unused() -> None:
    """Unused slots carry id 0: it must still belong to the ghost's rest."""
    ids = torch.tensor([[4, 2, 0, 0]])
    weights = torch.tensor([[0.5, 0.25, 0.0, 0.0]])
    student = inputs()[1][:1]
    padded = measured(GhostToken(), SparseTarget(ids, weights), student)
    bare = measured(GhostToken(), SparseTarget(ids[:, :2], weights[:, :2]), student)
    np.testing.assert_allclose(padded[0], bare[0], rtol=0, atol=1e-12)
    np.testing.assert_allclose(padded[1], bare[1], rtol=0, atol=1e-12)


def test_tail_aware_has_the_gradient_of_equation_6() -> None:
    target, student = drawn(Full()), inputs()[1]
    full, printed = by_hand(target), np.zeros((POSITIONS, CLASSES))
    for n in range(POSITIONS):
        sequence = full[n // LENGTH * LENGTH :][:LENGTH]
        scale = oracle.tad_scale(sequence, 3, 2.0)
        printed[n] = oracle.tad_gradient(full[n], student[n].numpy(), 3, scale)
    np.testing.assert_allclose(measured(TailAware(k=3, beta=2.0), target, student)[1], printed, rtol=0, atol=EXACT)


def test_derivations_that_are_printed_wrong() -> None:
    """RS-KD A.5's rewriting and TAD Eq. 13 differ from the derivative; so does the variance of SALT Eq. 69."""
    teacher, student = oracle.softmax(inputs()[0][0].numpy()), inputs()[1][0].numpy()
    target, tail = oracle.top_k(teacher, 3), oracle.top_k(teacher, 3) == 0

    ghost = oracle.numerical_gradient(lambda x: oracle.ghost_residual(target, x), student)
    np.testing.assert_allclose(oracle.ghost_residual_gradient(target, student), ghost, rtol=0, atol=1e-13)
    printed = oracle.ghost_residual_tail_gradient_as_printed(target, student)
    assert np.abs(printed - ghost)[tail].max() > 1e-3
    np.testing.assert_allclose(printed[tail], oracle.ghost_gradient(target, student)[tail], rtol=0, atol=1e-13)

    complement = oracle.numerical_gradient(lambda x: oracle.tad_complement(teacher, x, 3), student)
    np.testing.assert_allclose(oracle.tad_complement_gradient(teacher, student, 3), complement, rtol=0, atol=1e-13)
    printed = oracle.tad_complement_gradient_as_printed(teacher, student, 3)
    assert np.abs(printed - complement)[tail].max() > 1e-3
    # with Eq. 12 it does not give Eq. 14 either
    eq_14 = oracle.ghost_gradient(target, student)
    assert np.abs(oracle.kl_gradient(target, student) + printed - eq_14)[tail].max() > 1e-3

    second_moment, squared, printed_variance = oracle.salt_last_difference(
        truth=oracle.softmax(inputs(1)[0][0].numpy()), teacher=teacher, student=student, omega=0.667
    )
    assert second_moment == pytest.approx(squared, abs=1e-13)
    assert printed_variance / second_moment == pytest.approx(1 / (1 - 0.667))


# properties


@pytest.mark.parametrize("seed", range(3))
def test_the_oracle_s_printed_gradients_are_derivatives(seed: int) -> None:
    teacher, student = oracle.softmax(inputs(seed)[0][0].numpy()), inputs(seed)[1][0].numpy()
    target = oracle.top_k(teacher, 3)
    pairs: list[tuple[oracle.Loss, np.ndarray]] = [
        (lambda x: oracle.kl(target, x), oracle.kl_gradient(target, student)),
        (lambda x: oracle.ghost(target, x), oracle.ghost_gradient(target, student)),
        (lambda x: oracle.tad(teacher, x, 3, 4.2), oracle.tad_gradient(teacher, student, 3, 4.2)),
    ]
    for loss, gradient in pairs:
        np.testing.assert_allclose(gradient, oracle.numerical_gradient(loss, student), rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", ["ForwardKL", "GhostToken"])
def test_with_k_equal_to_v_top_k_is_full_distillation(name: str) -> None:
    """Float32 weights do not sum to exactly one: what is missing by rounding must not become a ghost of no classes."""
    teacher, student, labels = inputs()
    target = TopK(CLASSES)(teacher, labels, torch.Generator())
    losses, gradients = measured(DIVERGENCES[name](), target, student)
    full_losses, full_gradients = measured(ForwardKL(), drawn(Full()), student)
    np.testing.assert_allclose(losses, full_losses, rtol=0, atol=1e-5)
    np.testing.assert_allclose(gradients, full_gradients, rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", [Full(), TopK(3), RandomSampling(12)], ids=str)
def test_cross_entropy_to_a_distribution_has_the_gradient_of_kl(method: object) -> None:
    target, student = drawn(method), inputs()[1]
    leaf = student.clone().requires_grad_(True)
    (-target.dense(CLASSES) * leaf.log_softmax(-1)).sum().backward()
    np.testing.assert_allclose(measured(ForwardKL(), target, student)[1], leaf.grad.numpy(), rtol=0, atol=1e-14)


def test_top_k_is_at_rest_at_the_scaled_up_teacher_with_negative_loss() -> None:
    """RS-KD A.4: p = t / sum_K t on K; there the gradient is 0 and the loss sum_K t log(sum_K t)."""
    target = drawn(TopK(3))
    dense = torch.from_numpy(by_hand(target))
    mass = dense.sum(1)
    losses, gradients = measured(ForwardKL(), target, (dense / mass[:, None] + 1e-300).log())
    np.testing.assert_allclose(gradients, 0, atol=EXACT)
    np.testing.assert_allclose(losses, (mass * mass.log()).numpy(), rtol=0, atol=EXACT)
    assert (losses < 0).all()


def test_tail_aware_is_kl_where_the_sequence_factor_is_one() -> None:
    """One sequence per position and beta = its tail mass make beta(X) = 1."""
    full, student = drawn(Full()), inputs()[1]
    for n in range(POSITIONS):
        one = DenseTarget(full.probs_NV[n : n + 1])
        tail_mass = 1 - float(one.probs_NV.topk(3).values.sum())
        losses, gradients = measured(TailAware(k=3, beta=tail_mass), one, student[n : n + 1])
        kl_losses, kl_gradients = measured(ForwardKL(), one, student[n : n + 1])
        np.testing.assert_allclose(losses, kl_losses, rtol=0, atol=EXACT)
        np.testing.assert_allclose(gradients, kl_gradients, rtol=0, atol=EXACT)


@pytest.mark.parametrize("name", ["ForwardKL", "ReverseKL", "ForwardReverseKL", "TailAware"])
def test_the_teacher_is_a_fixed_point_with_loss_zero(name: str) -> None:
    target = drawn(Full())
    losses, gradients = measured(METHODS[name], target, target.probs_NV.log())
    np.testing.assert_allclose(losses, 0, atol=1e-12)
    np.testing.assert_allclose(gradients, 0, atol=1e-12)


def test_tail_aware_normalises_each_sequence_by_itself() -> None:
    target, student = drawn(Full()), inputs()[1]
    both = measured(TailAware(k=3), target, student)[0]
    first = measured(TailAware(k=3), DenseTarget(target.probs_NV[:LENGTH]), student[:LENGTH])[0]
    merged = measured(TailAware(k=3), replace(target, sequences=1), student)[0]
    np.testing.assert_allclose(both[:LENGTH], first, rtol=0, atol=1e-14)
    assert np.abs(both - merged).max() > 1e-3


def test_forward_and_reverse_are_named_after_their_first_argument() -> None:
    """A student sure of one of two teacher modes: reverse KL forgives it, forward KL does not."""
    target = DenseTarget(torch.tensor([[0.499, 0.499, 0.002]], dtype=torch.float64))
    student = torch.tensor([[0.997, 0.001, 0.002]], dtype=torch.float64).log()
    assert ForwardKL()(student, target).item() > 2 * ReverseKL()(student, target).item()


# the loss of a batch


def batch() -> tuple[Tensor, Tensor]:
    _, student, labels = inputs()
    return student.view(SEQUENCES, LENGTH, CLASSES), labels.view(SEQUENCES, LENGTH)


def batch_gradient(student: Tensor, loss: Callable[[Tensor], Tensor]) -> tuple[float, np.ndarray]:
    leaf = student.clone().requires_grad_(True)
    value = loss(leaf)
    value.backward()
    return float(value.detach()), leaf.grad.numpy().reshape(-1)


def test_the_batch_loss_is_salt_s_equation_4() -> None:
    """The two differ by the teacher's entropy, so that the gradients are equal and the losses differ by a constant."""
    student, labels = batch()
    target, omega = drawn(Full(exponent=0.25)), 0.667
    teachers = [oracle.softmax(row) for row in inputs()[0].numpy()]

    def ours(logits: Tensor) -> Tensor:
        return distillation_loss(logits, labels, target, ForwardKL(), AllPositions(), omega, 1 - omega)

    def papers(logits: np.ndarray) -> complex:
        rows = list(logits.reshape(POSITIONS, CLASSES))
        return oracle.salt_loss(teachers, rows, labels.reshape(-1).tolist(), omega, rho=0.25)

    flat = student.numpy().reshape(-1)
    value, gradient = batch_gradient(student, ours)
    entropy = -np.mean([sum(t * np.log(t) for t in oracle.powered(teacher, 0.25)) for teacher in teachers])
    np.testing.assert_allclose(gradient, oracle.numerical_gradient(papers, flat), rtol=0, atol=1e-7)
    assert value == pytest.approx(np.real(papers(flat)) - omega * entropy, abs=1e-6)


def test_the_batch_loss_is_se_kd_s_equations_3_to_6() -> None:
    student, labels = batch()
    target, kd_weight = drawn(Full()), 0.7
    teachers = by_hand(target).reshape(SEQUENCES, LENGTH, CLASSES)
    masks = [oracle.top_fraction([oracle.entropy(row) for row in rows], "0.5") for rows in student.numpy()]

    def papers(logits: np.ndarray) -> complex:
        rows = logits.reshape(SEQUENCES, LENGTH, CLASSES)
        losses = [
            [
                oracle.selective_position_loss(teachers[b][n], rows[b][n], int(labels[b, n]), kd_weight)
                for n in range(LENGTH)
            ]
            for b in range(SEQUENCES)
        ]
        return oracle.selective_loss(losses, masks, [1] * SEQUENCES)

    def ours(logits: Tensor) -> Tensor:
        return distillation_loss(logits, labels, target, ForwardKL(), TopFraction(0.5), kd_weight, 1 - kd_weight)

    flat = student.numpy().reshape(-1)
    value, gradient = batch_gradient(student, ours)
    assert [sum(mask) for mask in masks] == [2, 2]
    assert value == pytest.approx(np.real(papers(flat)), abs=1e-6)
    np.testing.assert_allclose(gradient, oracle.numerical_gradient(papers, flat), rtol=0, atol=1e-7)


def test_the_batch_loss_tells_the_divergence_where_sequences_begin() -> None:
    """TAD Eq. 3 takes its mean over one sequence; a target is told by the batch where they begin."""
    student, labels = batch()
    target = replace(drawn(Full()), sequences=1)
    losses = expected("TailAware", target, inputs()[1])[0]
    ours = distillation_loss(student, labels, target, METHODS["TailAware"], AllPositions(), 1.0, 0.0)
    assert float(ours) == pytest.approx(losses.mean(), abs=EXACT)
