"""The fused loss is the loss: equal to `axes/loss.py` for every divergence and target, in pieces, and never N x V."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_gradients import CLASSES, LENGTH, METHODS, PAIRS, POSITIONS, SEQUENCES, drawn, inputs
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from replication.axes import loss
from replication.axes.divergences import ForwardKL, GhostToken, TailAware
from replication.axes.positions import AllPositions, HardTokens, Positions, TopFraction
from replication.axes.targets.base import AnyTarget, SparseTarget, one_hot
from replication.axes.targets.kept import Full, SmoothedTopK, TopK
from replication.axes.targets.sampled import RandomSampling
from replication.fused import loss as fused
from replication.fused import products
from replication.fused.head import Head, TeacherStates
from replication.machine import memory as memory_module

WIDTH = 5
EVERYWHERE = AllPositions()


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two positions a chunk; one a block; strips and part of one."""
    monkeypatch.setitem(fused.CHUNK, "cpu", 2 * 8 * CLASSES)
    monkeypatch.setitem(fused.BLOCK, "cpu", 4 * CLASSES)
    monkeypatch.setitem(products.WHOLE, "cpu", CLASSES // 3 + 1)


def student(seed: int = 0, bias: bool = False) -> tuple[Tensor, Head]:
    """Hidden states [B, L, D] and a head, float64 leaves."""
    random = torch.Generator().manual_seed(seed)
    shapes = [(SEQUENCES, LENGTH, WIDTH), (CLASSES, WIDTH), (CLASSES,)]
    hidden, weight, offset = (torch.randn(shape, generator=random, dtype=torch.float64) for shape in shapes)
    return hidden.requires_grad_(), Head(weight.requires_grad_(), offset.requires_grad_() if bias else None)


def labels_BL() -> Tensor:
    return inputs()[2].view(SEQUENCES, LENGTH)


def gradients(value: Tensor, hidden: Tensor, head: Head) -> list[np.ndarray]:
    leaves = [hidden, head.weight_VD, *([] if head.bias_V is None else [head.bias_V])]
    return [value.detach().numpy(), *(part.numpy() for part in torch.autograd.grad(value, leaves))]


def both(
    target: AnyTarget | TeacherStates,
    divergence: object,
    positions: Positions = EVERYWHERE,
    kd_weight: float = 0.7,
    ce_weight: float = 0.4,
    bias: bool = False,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Loss and gradients, fused and by definition."""
    hidden, head = student(bias=bias)
    rest = (labels_BL(), target, divergence, positions, kd_weight, ce_weight)
    ours = gradients(fused.fused_loss(hidden, head, *rest), hidden, head)
    whole = target.whole() if isinstance(target, TeacherStates) else target
    meant = loss.distillation_loss(head(hidden), labels_BL(), whole, *rest[2:])
    return ours, gradients(meant, hidden, head)


def assert_equal(ours: list[np.ndarray], meant: list[np.ndarray], atol: float = 1e-12) -> None:
    for one, other in zip(ours, meant, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=atol)


@pytest.mark.parametrize(("name", "method"), PAIRS, ids=str)
@pytest.mark.parametrize("positions", [AllPositions(), TopFraction(0.5), HardTokens(3.0)], ids=str)
def test_loss_and_gradients_equal_the_definition(name: str, method: object, positions: Positions) -> None:
    divergence = METHODS[name]
    assert_equal(*both(drawn(method), divergence, positions, bias=True))


@pytest.mark.parametrize(("kd_weight", "ce_weight"), [(1.0, 0.0), (0.0, 1.0)])
@pytest.mark.parametrize("method", [Full(), TopK(3)], ids=str)
def test_either_loss_alone_equals_the_definition(method: object, kd_weight: float, ce_weight: float) -> None:
    assert_equal(*both(drawn(method), ForwardKL(), kd_weight=kd_weight, ce_weight=ce_weight))
    if method == Full():
        assert_equal(*both(drawn(method), TailAware(k=3), kd_weight=kd_weight, ce_weight=ce_weight))


@pytest.mark.parametrize("name", ["ForwardKL", "ReverseKL", "TailAware", "L1"])
def test_a_teacher_given_as_hidden_states_and_head_is_the_dense_target(name: str) -> None:
    """The teacher is float32, as its probabilities are: to float32 precision."""
    random = torch.Generator().manual_seed(3)
    states = TeacherStates(
        torch.randn(POSITIONS, 7, generator=random), Head(torch.randn(CLASSES, 7, generator=random)), exponent=0.5
    )
    states = replace(states, sequences=SEQUENCES)
    divergence = METHODS[name]
    assert_equal(*both(states, divergence), atol=1e-6)
    assert_equal(*both(states, divergence, TopFraction(0.5)), atol=1e-6)
    assert_equal(*both(states, divergence, HardTokens(3.0)), atol=1e-6)


def test_unused_slots_and_a_head_of_all_classes() -> None:
    ids = torch.tensor([[4, 2, 0, 0]] * POSITIONS)
    padded = SparseTarget(ids, torch.tensor([[0.5, 0.25, 0.0, 0.0]] * POSITIONS, dtype=torch.float64))
    assert_equal(*both(padded, GhostToken()))
    teacher, _, labels = inputs()
    everything = TopK(CLASSES)(teacher, labels, torch.Generator())
    everything = replace(everything, weights_NK=everything.weights_NK.double())
    assert_equal(*both(everything, GhostToken()), atol=1e-7)


def test_a_rest_too_small_for_one_minus_the_head_keeps_its_logarithm() -> None:
    """The student leaves exp(-60) to the ghost, the target a quarter: log(rest) is -60, not the log of a rounding."""
    hidden = torch.tensor([[[60.0]]], requires_grad=True)
    head = Head(torch.tensor([[1.0]] + [[0.0]] * (CLASSES - 1), requires_grad=True))
    target = SparseTarget(torch.tensor([[0]]), torch.tensor([[0.75]]))
    ours = fused.fused_loss(hidden, head, torch.tensor([[0]]), target, GhostToken(), AllPositions(), 1.0, 0.0)
    meant = 0.75 * np.log(0.75) + 0.25 * (np.log(0.25) + 60 - np.log(CLASSES - 1))
    assert float(ours.detach()) == pytest.approx(meant, rel=1e-6)
    (of_hidden,) = torch.autograd.grad(ours, hidden)
    assert float(of_hidden) == pytest.approx(0.25, rel=1e-6)


@pytest.mark.parametrize("method", [TopK(12), RandomSampling(50), SmoothedTopK(12), Full()], ids=str)
def test_float32_gradients_at_a_large_vocabulary_lie_within_1e_5_of_float64(
    method: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    random = torch.Generator().manual_seed(0)
    classes, width, positions = 20_011, 64, 48
    hidden = torch.randn(1, positions, width, generator=random)
    weight = torch.randn(classes, width, generator=random) * 0.4
    teacher = torch.randn(positions, classes, generator=random) * 3
    labels = torch.randint(classes, (1, positions), generator=random)
    target = method(teacher, labels[0], random)
    found = {}
    for dtype in (torch.float32, torch.float64):
        leaf, head = hidden.to(dtype).requires_grad_(), Head(weight.to(dtype).requires_grad_())
        value = fused.fused_loss(leaf, head, labels, target, ForwardKL(), AllPositions(), 1.0, 0.0)
        if dtype == torch.float64:
            value = loss.distillation_loss(head(leaf), labels, target, ForwardKL(), AllPositions(), 1.0, 0.0)
        found[dtype] = [value.detach(), *torch.autograd.grad(value, (leaf, head.weight_VD))]
    for one, other in zip(found[torch.float32], found[torch.float64], strict=True):
        assert float((one - other).norm() / other.norm()) < 1e-5


def test_bfloat16_products_keep_a_float32_softmax_and_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against float64 on the rounded inputs: what is left is the rounding of the products, not of the softmax."""
    monkeypatch.setitem(fused.CHUNK, "cpu", 2 * 3000 * 16)
    random = torch.Generator().manual_seed(0)
    hidden = torch.randn(1, 64, 32, generator=random).bfloat16().float().requires_grad_()
    head = Head((torch.randn(3000, 32, generator=random) * 0.3).bfloat16().float().requires_grad_())
    labels = torch.randint(3000, (1, 64), generator=random)
    rest = (labels, one_hot(labels[0]), ForwardKL(), AllPositions(), 1.0, 0.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = fused.fused_loss(hidden, head, *rest)
    meant = loss.distillation_loss(hidden.double() @ head.weight_VD.double().T, *rest)
    leaves = (hidden, head.weight_VD)
    assert ours.dtype == torch.float32
    assert float(ours.detach()) == pytest.approx(float(meant.detach()), rel=2e-3)
    for one, other in zip(torch.autograd.grad(ours, leaves), torch.autograd.grad(meant, leaves), strict=True):
        assert one.dtype == torch.float32
        assert float((one - other).norm() / other.norm()) < 0.01


@pytest.mark.parametrize("rows", [1, 16, 64])
def test_strips_of_the_head_are_the_whole_head(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """3000 rows of the head in strips of 1000, 16 positions in chunks: the same products, summed in parts."""
    monkeypatch.setitem(fused.CHUNK, "cpu", 2 * 3000 * rows)
    random = torch.Generator().manual_seed(0)
    hidden_ND = torch.randn(16, 32, generator=random)
    weight_VD, bias_V = torch.randn(3000, 32, generator=random), torch.randn(3000, generator=random)
    labels_N = torch.randint(3000, (16,), generator=random)

    def result() -> list[Tensor]:
        leaves = [part.clone().requires_grad_() for part in (hidden_ND, weight_VD, bias_V)]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = fused.fused_loss(
                leaves[0][None], Head(*leaves[1:]), labels_N[None], one_hot(labels_N), ForwardKL(), EVERYWHERE, 1.0, 0.0
            )
        return [value.detach(), *torch.autograd.grad(value, leaves)]

    monkeypatch.setitem(products.STRIP, "cpu", 1000)
    in_strips = result()
    monkeypatch.setitem(products.STRIP, "cpu", 3000)
    for one, other in zip(in_strips, result(), strict=True):
        assert float((one - other).norm() / other.norm()) < 5e-3


def test_a_head_converted_for_the_products_is_never_copied_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its float32 gradient aside, nothing of half the head's size or more is made."""
    monkeypatch.setitem(products.STRIP, "cpu", 64)
    random = torch.Generator().manual_seed(0)
    classes, width, positions = 1000, 64, 8
    hidden = torch.randn(1, positions, width, generator=random, requires_grad=True)
    head = Head(torch.randn(classes, width, generator=random, requires_grad=True))
    labels = torch.randint(classes, (1, positions), generator=random)
    with Made() as made, torch.autocast("cpu", dtype=torch.bfloat16):
        rest = (labels, one_hot(labels[0]), ForwardKL(), EVERYWHERE, 1.0, 0.0)
        fused.fused_loss(hidden, head, *rest).backward()
    assert head.weight_VD.grad is not None
    allowed = {head.weight_VD.untyped_storage().data_ptr(), head.weight_VD.grad.untyped_storage().data_ptr()}
    large = {place for place, size in made.bytes.items() if size >= classes * width}
    assert large == allowed


def test_large_results_stand_in_memory_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """As large as it takes to leave the ordinary allocator: usable like any other tensor, and as a gradient."""
    monkeypatch.setattr(memory_module, "LARGE", 64)
    room = memory_module.spacious((5, 7), torch.float32, torch.device("cpu"))
    assert room.shape == (5, 7) and room.is_contiguous() and room.fill_(2.0).sum() == 70
    hidden, head = student()
    rest = (labels_BL(), one_hot(inputs()[2]), ForwardKL(), EVERYWHERE, 1.0, 0.0)
    fused.fused_loss(hidden, head, *rest).backward()
    loss.distillation_loss(head(hidden), *rest).backward()  # added to what stands there
    meant = gradients(loss.distillation_loss(head(hidden), *rest), hidden, head)
    assert hidden.grad is not None and head.weight_VD.grad is not None
    assert_equal([hidden.grad.numpy(), head.weight_VD.grad.numpy()], [2 * part for part in meant[1:]])


def test_large_results_stand_where_those_before_them_stood(monkeypatch: pytest.MonkeyPatch) -> None:
    """And only there: what anything still looks at is nobody else's, a view of it and a gradient included."""
    monkeypatch.setattr(memory_module, "LARGE", 64)
    monkeypatch.setattr(memory_module, "LEFT", deque(maxlen=2))

    def room(numbers: int = 100) -> Tensor:
        return memory_module.spacious((numbers,), torch.float32, torch.device("cpu"))

    one, other = room(), room()
    first, view = one.data_ptr(), other[50:]
    del one, other
    again, fresh = room(), room()
    assert again.data_ptr() == first
    assert fresh.data_ptr() not in (first, view.data_ptr() - 200)
    second = view.untyped_storage().data_ptr()
    del view
    assert room(101).data_ptr() != second  # it is of another size
    assert room().data_ptr() == second
    for numbers in (60, 70, 80):
        del again  # of these only the last two are kept
        again = room(numbers)
    del again, fresh
    assert [len(memory) for memory in memory_module.LEFT] == [320, 400]


def test_memory_is_given_to_one_at_a_time_from_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_module, "LARGE", 64)

    def worker(number: int) -> bool:
        for _ in range(300):
            room = memory_module.spacious((64,), torch.int64, torch.device("cpu")).fill_(number)
            time.sleep(0)
            if not bool((room == number).all()):
                return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(worker, range(8)))


def test_a_broken_teacher_is_refused() -> None:
    hidden, head = student()
    states = torch.randn(POSITIONS, 7)
    states[3] = torch.nan
    target = TeacherStates(states, Head(torch.randn(CLASSES, 7)))
    with pytest.raises(ValueError, match="not a distribution"):
        fused.fused_loss(hidden, head, labels_BL(), target, ForwardKL(), EVERYWHERE, 1.0, 0.0)


class Made(TorchDispatchMode):
    """The sizes of all storages that operations within it return, by where they begin."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes: dict[int, int] = {}

    def __torch_dispatch__(
        self, function: object, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        made = function(*args, **(kwargs or {}))
        for part in made if isinstance(made, (tuple, list)) else [made]:
            if isinstance(part, Tensor):
                storage = part.untyped_storage()
                self.bytes[storage.data_ptr()] = max(storage.nbytes(), self.bytes.get(storage.data_ptr(), 0))
        return made


class Largest(TorchDispatchMode):
    """The most numbers that any tensor made within it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(
        self, function: object, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        made = function(*args, **(kwargs or {}))
        for part in made if isinstance(made, (tuple, list)) else [made]:
            if isinstance(part, Tensor):
                self.numbers = max(self.numbers, part.numel())
        return made


METHODS_AT_LENGTH = [
    (ForwardKL(), TopK(3), AllPositions()),
    (ForwardKL(), Full(), AllPositions()),
    (ForwardKL(), Full(), TopFraction(0.5)),
    (GhostToken(), TopK(3), AllPositions()),
    (TailAware(k=3), Full(), AllPositions()),
]


@pytest.mark.parametrize(("divergence", "method", "positions"), METHODS_AT_LENGTH, ids=str)
def test_no_tensor_grows_with_positions_times_classes(
    divergence: object, method: object, positions: Positions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a sequence twice as long nothing but what is N x D or V x D may grow."""
    classes, width, length = 500, 4, 8
    monkeypatch.setitem(fused.CHUNK, "cpu", 4 * classes * length)
    random = torch.Generator().manual_seed(0)
    head, teacher_head = (Head(torch.randn(classes, width, generator=random, requires_grad=True)) for _ in range(2))

    def largest(times: int) -> int:
        labels = torch.randint(classes, (1, times * length), generator=random)
        hidden, states = (torch.randn(1, times * length, width, generator=random) for _ in range(2))
        target: object = TeacherStates(states.flatten(0, 1), teacher_head)
        if not isinstance(method, Full):
            target = method(torch.randn(times * length, classes, generator=random), labels.flatten(), random)
        with Largest() as seen:
            value = fused.fused_loss(hidden.requires_grad_(), head, labels, target, divergence, positions, 1.0, 0.0)
            value.backward()
        return seen.numbers

    assert largest(4) == largest(8) <= max(length * classes, classes * width)


def test_the_head_s_gradient_becomes_weight_grad_without_a_copy() -> None:
    hidden, head = student()
    given: list[int] = []

    def told(gradient: Tensor) -> Iterator[None] | None:
        given.append(gradient.data_ptr())
        return None

    head.weight_VD.register_hook(told)
    rest = (labels_BL(), one_hot(inputs()[2]), ForwardKL(), AllPositions(), 1.0, 0.0)
    value = fused.fused_loss(hidden, head, *rest)
    value.backward(retain_graph=True)
    assert head.weight_VD.grad is not None and given == [head.weight_VD.grad.data_ptr()]
    with pytest.raises(RuntimeError, match="once"):
        value.backward()


def test_a_frozen_head_and_no_grad_are_served() -> None:
    hidden, head = student()
    frozen = Head(head.weight_VD.detach())
    rest = (labels_BL(), one_hot(inputs()[2]), ForwardKL(), AllPositions(), 1.0, 0.0)
    value = fused.fused_loss(hidden, frozen, *rest)
    meant = gradients(loss.distillation_loss(head(hidden), *rest), hidden, head)
    np.testing.assert_allclose(torch.autograd.grad(value, hidden)[0].numpy(), meant[1], rtol=0, atol=1e-12)
    with torch.no_grad():
        assert float(fused.fused_loss(hidden, head, *rest)) == pytest.approx(float(meant[0]))


def test_the_loss_scales_what_comes_back() -> None:
    hidden, head = student()
    rest = (labels_BL(), one_hot(inputs()[2]), ForwardKL(), AllPositions(), 1.0, 0.0)
    once = gradients(fused.fused_loss(hidden, head, *rest), hidden, head)
    thrice = gradients(3 * fused.fused_loss(hidden, head, *rest), hidden, head)
    assert_equal(thrice, [3 * part for part in once])
