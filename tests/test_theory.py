"""docs/theory.md: its formulas against our code or against enumerations, and every name on the page exists.

What is tested elsewhere is not tested again; the last table of the page says where. Numbers in parentheses are its
formulas'.
"""

from __future__ import annotations

import ast
import itertools
import math
import re
from pathlib import Path

import numpy as np
import oracle
import pytest
import torch
from scipy.optimize import brentq, minimize
from torch import Generator, Tensor

from replication.axes.divergences import ForwardKL
from replication.axes.targets.base import AnyTarget, DenseTarget, SparseTarget, Target
from replication.axes.targets.closed_form import SHARES, corrected_error, least_error, prices, set_entropy
from replication.axes.targets.kept import TopK
from replication.axes.targets.sampled import (
    HeadAndSampledTail,
    RandomSampling,
    Stratified,
    Systematic,
    WithoutReplacement,
)
from replication.axes.targets.water_filling import AdaptiveWaterFilling, WaterFilling, drawn_error, levelled
from replication.cache.choose import codec_for
from replication.cache.law import law_of
from replication.cache.unigram import Unigram
from toy.next_token import log_probs

PAGE = Path(__file__).resolve().parent.parent / "docs" / "theory.md"
CLASSES = 12


def teachers(positions: int, classes: int = CLASSES, seed: int = 0) -> Tensor:
    """Flat to sharp, [N, V] float64."""
    logits_NV = torch.randn(positions, classes, generator=Generator().manual_seed(seed), dtype=torch.float64)
    return (logits_NV * torch.linspace(0.3, 4, positions)[:, None]).softmax(1)


def drawn(target: Target, probs_NV: Tensor, seed: int = 0) -> SparseTarget:
    labels_N = torch.zeros(len(probs_NV), dtype=torch.long)
    kept = target(probs_NV.log(), labels_N, Generator().manual_seed(seed))
    assert isinstance(kept, SparseTarget)
    return kept


def gradient(target: AnyTarget, student_NV: Tensor) -> Tensor:
    leaf_NV = student_NV.clone().requires_grad_()
    ForwardKL()(leaf_NV, target).sum().backward()
    assert leaf_NV.grad is not None
    return leaf_NV.grad


def gradient_error(kept: SparseTarget, probs_NV: Tensor, student_NV: Tensor) -> Tensor:
    return gradient(kept, student_NV) - gradient(DenseTarget(probs_NV), student_NV)


SUM_TO_ONE = [RandomSampling(7), Stratified(7), Systematic(7), HeadAndSampledTail(2, 4), WaterFilling(5),
              AdaptiveWaterFilling(0.1)]  # fmt: skip


@pytest.mark.parametrize("target", SUM_TO_ONE, ids=str)
def test_the_gradient_is_off_by_what_the_target_is_off(target: Target) -> None:
    """(2), for students near to the teacher and far from it."""
    probs_NV = teachers(20)
    kept = drawn(target, probs_NV)
    off_NV = kept.dense(CLASSES).double() - probs_NV
    for student_NV in (probs_NV.log(), 3 * teachers(20, seed=1).log()):
        np.testing.assert_allclose(gradient_error(kept, probs_NV, student_NV), -off_NV, atol=1e-6)


@pytest.mark.parametrize("tau", [0.0, 0.7, 1.0, 1.4])
def test_ratios_over_their_number_have_a_term_in_the_student(tau: float) -> None:
    """(3) and (8), over every outcome of three draws."""
    teacher, student, draws = np.array([0.5, 0.3, 0.15, 0.05]), np.array([0.1, 0.2, 0.3, 0.4]), 3
    proposal = oracle.powered(teacher, tau)

    def moments(counts: tuple[int, ...]) -> np.ndarray:
        weights = oracle.sampled(teacher, counts, tau, normalise=False)
        target = SparseTarget(torch.arange(4)[None], torch.from_numpy(weights)[None])
        off = gradient_error(target, torch.from_numpy(teacher)[None], torch.from_numpy(student).log()[None])
        mass = weights.sum() - 1
        in_gradient = float(off.square().sum())
        return np.array([((weights - teacher) ** 2).sum(), mass**2, *(mass * weights), *weights, in_gradient])

    squares = (teacher**2 / proposal).sum()
    error, mass = (squares - (teacher**2).sum()) / draws, (squares - 1) / draws
    covariance = teacher * (teacher / proposal - 1) / draws
    in_gradient = error - 2 * (student * covariance).sum() + (student**2).sum() * mass
    found = oracle.expected_over_counts(list(proposal), draws, moments)
    np.testing.assert_allclose(found, [error, mass, *covariance, *teacher, in_gradient], rtol=1e-9, atol=1e-14)
    least = float(RandomSampling(draws).squared_error(torch.from_numpy(teacher)[None]))
    assert error == pytest.approx(least) if tau == 1 else error > least


def test_top_k_pushes_a_perfect_student_away() -> None:
    """(4); and its L1 error is half of that of the normalised choice."""
    probs_NV, target = teachers(20), TopK(3)
    kept = drawn(target, probs_NV)
    error_N = gradient_error(kept, probs_NV, probs_NV.log()).square().sum(1)
    np.testing.assert_allclose(error_N, target.gradient_error(probs_NV), rtol=1e-5)
    for probs_V, ids_K, weights_V in zip(probs_NV, kept.ids_NK, kept.dense(CLASSES), strict=True):
        normalised = oracle.l1_error_of_normalised(probs_V.numpy(), ids_K.tolist())
        assert 2 * float((weights_V - probs_V).abs().sum()) == pytest.approx(normalised, rel=1e-5)
    trained_NV = log_probs("laptop-3b").softmax(1)
    for k, times in ((5, 3.2), (22, 7.2), (50, 10.8)):
        error_N = gradient_error(drawn(TopK(k), trained_NV), trained_NV, trained_NV.log()).square().sum(1)
        assert float(error_N.mean() / TopK(k).squared_error(trained_NV).mean()) == pytest.approx(times, rel=0.01)


def test_in_a_batch_noise_is_divided_and_bias_is_not() -> None:
    """(5) and (6): every batch of so many of two positions, and every outcome of two draws at each."""
    probs_NV, draws = torch.tensor([[0.8, 0.15, 0.05], [0.1, 0.7, 0.2]], dtype=torch.float64), 2
    top, plain = TopK(2), RandomSampling(draws)
    biased = [(0.5, row.numpy()) for row in drawn(top, probs_NV).dense(3).double() - probs_NV]
    noisy = []
    for teacher in probs_NV.numpy():
        for counts in oracle.outcomes(3, draws):
            ways = math.factorial(draws) / math.prod(map(math.factorial, counts))
            noisy.append((0.5 * ways * math.prod(teacher**counts), np.array(counts) / draws - teacher))
    bias = float(sum(chance * off for chance, off in biased) @ sum(chance * off for chance, off in biased))
    single = {name: float(name.squared_error(probs_NV).mean()) for name in (top, plain)}
    crossing = 1 + (single[plain] - single[top]) / bias
    assert 2 < crossing
    for batch in (1, 2, 3):
        found = [mean_square(law, batch) for law in (biased, noisy)]
        assert found[0] == pytest.approx(bias + (single[top] - bias) / batch, rel=1e-6)
        assert found[1] == pytest.approx(single[plain] / batch)
        assert (found[0] > found[1]) == (batch > crossing)


def mean_square(law: list[tuple[float, np.ndarray]], batch: int) -> float:
    """Of the mean of so many independent errors, each with its chance."""
    found = 0.0
    for members in itertools.product(law, repeat=batch):
        off = sum(off for _, off in members) / batch
        found += math.prod(chance for chance, _ in members) * float(off @ off)
    return found


def test_systematic_errs_least_and_random_most() -> None:
    """(7), (10) and (11) class by class, hence in sum; and the more is kept."""
    probs_NV = teachers(200, 30)
    for draws in (1, 2, 5, 20, 60):
        methods = [method(draws) for method in (Systematic, Stratified, RandomSampling)]
        errors, classes = (
            [method.squared_error(probs_NV) for method in methods],
            [method.kept(probs_NV) for method in methods],
        )
        for better, worse in ((0, 1), (1, 2)):
            assert (errors[better] <= errors[worse] + 1e-12).all() and (classes[better] >= classes[worse] - 1e-9).all()


def test_without_replacement_the_sum_varies_by_all_that_its_weights_do() -> None:
    """(13): arrivals among the others by quadrature; covariances, gradient and a comparison by draws."""
    teacher_V, kept, rows = teachers(3, 8)[0], 5, 1_000_000  # a flat one: of a sharp one's head the rarest draws decide
    weights_NV = drawn(WithoutReplacement(kept), teacher_V.expand(rows, -1)).dense(8).double()
    off_NV = weights_NV - teacher_V
    variance_V = torch.tensor([arrival_variance(teacher_V.numpy(), i, kept) for i in range(8)])
    np.testing.assert_allclose(off_NV.square().mean(0), variance_V, rtol=0.05)
    assert float(off_NV.sum(1).square().mean()) == pytest.approx(float(variance_V.sum()), rel=0.02)
    correlation_VV = torch.corrcoef(off_NV.T).fill_diagonal_(0)
    assert float(correlation_VV.abs().max()) < 4.5 / math.sqrt(rows)
    student_V = teachers(3, 8, seed=2)[1]
    in_gradient_NV = off_NV.sum(1, keepdim=True) * student_V - off_NV
    wanted = float((variance_V * (1 - 2 * student_V + student_V.square().sum())).sum())
    assert float(in_gradient_NV.square().sum(1).mean()) == pytest.approx(wanted, rel=0.03)
    assert float(WaterFilling(kept).squared_error(teacher_V[None])) < float(variance_V.sum())


def arrival_variance(teacher: np.ndarray, i: int, kept: int) -> float:
    """t^2 E 1 / (exp(t time) - 1), time: when `kept` of the other classes have arrived."""
    times_T = np.geomspace(1e-3, 1e4, 20_000)
    number_TK = np.zeros((len(times_T), kept))  # the chance of so many arrivals
    number_TK[:, 0] = 1
    for rate in np.delete(teacher, i):
        arrived_T1 = -np.expm1(-rate * times_T)[:, None]
        number_TK = number_TK * (1 - arrived_T1) + np.pad(number_TK, ((0, 0), (1, 0)))[:, :-1] * arrived_T1
    within_T = 1 - number_TK.sum(1)
    value_T = teacher[i] ** 2 / np.expm1(np.minimum(teacher[i] * times_T, 700))
    return float((np.diff(within_T) * (value_T[1:] + value_T[:-1]) / 2).sum())


@pytest.mark.parametrize("number", [1, 3, 8, 20])
def test_the_level_is_the_root_and_the_error_that_of_its_chances(number: int) -> None:
    """(14) and (15)."""
    for probs_V in teachers(30, 25):
        head_11, tail_11, level_11 = levelled(probs_V.topk(number).values[None], torch.tensor([number]))
        c = brentq(lambda c, law_V=probs_V: float((c * law_V).clamp_max(1).sum()) - number, 0.5, 1e12, xtol=1e-12)
        chance_V = (c * probs_V).clamp_max(1)
        assert float(level_11) == pytest.approx(1 / c) and int(head_11) == int((chance_V == 1).sum())
        error = float(drawn_error(probs_V[None], level_11))
        assert error == pytest.approx(float((probs_V.square() * (1 / chance_V - 1)).sum()), abs=1e-15)
        tail_V = probs_V[chance_V < 1]
        assert error == pytest.approx(float(tail_V.sum() ** 2 / tail_11 - tail_V.square().sum()), abs=1e-15)


def test_no_split_of_a_budget_errs_less_than_one_level() -> None:
    """(16): every split of the same total over three positions, up to what rounding to whole classes costs."""
    probs_NV = teachers(3, 20)
    numbers_N = AdaptiveWaterFilling(0.06).wanted(probs_NV.topk(17).values).tolist()
    errors = [[filling_error(probs_V, number) for number in range(1, 21)] for probs_V in probs_NV]
    splits = [split for split in itertools.product(range(1, 21), repeat=3) if sum(split) == sum(numbers_N)]
    totals = {split: sum(error[number - 1] for error, number in zip(errors, split, strict=True)) for split in splits}
    assert len(set(numbers_N)) > 1 and len(splits) > 100
    assert min(totals.values()) <= totals[tuple(numbers_N)] < 1.02 * min(totals.values())


@pytest.mark.parametrize("classes", [1.5, 4.0, 9.0])
def test_no_chances_of_being_kept_err_less_than_the_floor(classes: float) -> None:
    """(17): the best of all chances over three positions, found by descent, has the floor's error; others more."""
    probs_NV, random = teachers(3, 12).double(), np.random.default_rng(0)
    floor = least_error(prices(probs_NV) / len(probs_NV), classes)
    law = probs_NV.numpy().ravel()

    def error(chances: np.ndarray) -> float:
        return float((law**2 * (1 / chances - 1)).sum() / 3)

    at_random = random.uniform(0.02, 1, (200, law.size))
    at_random *= np.minimum(1, 3 * classes / at_random.sum(1, keepdims=True))
    assert min(map(error, at_random)) > floor
    found = minimize(
        error,
        np.full(law.size, classes / 12),
        jac=lambda chances: -((law / chances) ** 2) / 3,
        bounds=[(1e-9, 1)] * law.size,
        constraints={"type": "eq", "fun": lambda chances: chances.sum() / 3 - classes},
        method="SLSQP",
        options={"maxiter": 1000, "ftol": 1e-14},
    )
    assert found.success and floor <= found.fun * (1 + 1e-9)
    assert found.fun == pytest.approx(floor, rel=3e-3)


def filling_error(probs_V: Tensor, number: int) -> float:
    """Without that of the rounding."""
    *_, level_11 = levelled(probs_V.topk(number).values[None], torch.tensor([number]))
    return float(drawn_error(probs_V[None], level_11))


def test_a_correction_to_a_prior() -> None:
    """(19), by draws, which round their weights; the closed form does not."""
    teacher_V, prior_V, rows = teachers(3, 60)[0], teachers(3, 60, seed=5)[0], 40_000
    errors_S = corrected_error(WaterFilling(5), teacher_V[None], prior_V)[0]
    for share in (0.1, 0.5):
        rest_V = teacher_V - share * prior_V
        size = rest_V.abs().sum()
        kept_NV = drawn(WaterFilling(5), (rest_V.abs() / size).expand(rows, -1)).dense(60).double()
        off_NV = share * prior_V + size * kept_NV * rest_V.sign() - teacher_V
        assert float((off_NV.mean(0).abs() / (off_NV.std(0) / math.sqrt(rows) + 1e-7)).max()) < 4.5
        assert float(off_NV.square().sum(1).mean()) == pytest.approx(float(errors_S[SHARES.index(share)]), rel=0.02)


def test_the_entropy_of_a_set_is_that_of_all_its_subsets() -> None:
    """(20)."""
    chances_V = torch.tensor([0.9, 0.5, 0.2, 0.03, 0.0], dtype=torch.float64)
    subsets = itertools.product(*((c, 1 - c) for c in chances_V.tolist()))
    assert float(set_entropy(chances_V)) == pytest.approx(-sum(c * math.log2(c) for c in map(math.prod, subsets) if c))


def test_coded_ids_are_half_a_bit_above_the_entropy() -> None:
    """(21), of a flat law: cells of 64 classes, of which 15 in 16 keep one."""
    classes, kept, length = 1024, 15, 256
    found = drawn(WaterFilling(kept), torch.full((length, classes), 1 / classes))
    codec = codec_for("WaterFilling", {"classes": kept}, classes)
    codes = codec.codes(found.ids_NK[None].numpy(), found.weights_NK[None].numpy(), np.full((1, length), kept))
    (block,) = Unigram(codec, law_of(np.ones(classes), kept), length).pack(*codes)
    bits = 8 * len(block) / (kept * length) - 1  # one says that the weight is the tail's
    floor = float(set_entropy(torch.full((classes,), kept / classes))) / kept
    assert bits == pytest.approx(2 + math.log2(classes / kept), rel=0.01)
    assert bits - floor == pytest.approx(2 - math.log2(math.e), abs=0.05)


TEXT = PAGE.read_text()
LINK = re.compile(r"\[`([\w.]+)`\]\(\.\./([\w/]+\.py)\)")
ROW = re.compile(r"^\| (\d+) \| (.+) \| (.+) \|$", re.MULTILINE)


def defined(path: Path) -> set[str]:
    """Functions and classes of a file, and methods as Class.method."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
            found |= {f"{node.name}.{one.name}" for one in ast.walk(node) if isinstance(one, ast.FunctionDef)}
    return found


def test_every_formula_is_numbered_once_and_has_a_function_and_a_test() -> None:
    blocks = re.findall(r"```math\n(.*?)```", TEXT, re.DOTALL)
    numbers = [int(number) for block in blocks for number in re.findall(r"quad \((\d+)\)", block)]
    assert len(numbers) >= 20 and numbers == list(range(1, len(numbers) + 1))
    rows = {int(number): (LINK.findall(function), LINK.findall(test)) for number, function, test in ROW.findall(TEXT)}
    assert list(rows) == numbers
    for functions, tests in rows.values():
        assert functions and tests and all(name.startswith("test_") for name, _ in tests)


def test_every_name_and_file_on_the_page_exists() -> None:
    for name, path in sorted(set(LINK.findall(TEXT))):
        assert name in defined(PAGE.parent.parent / path), f"{path} defines no {name}"
    for place in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert (PAGE.parent / place).exists(), place
