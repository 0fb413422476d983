"""Averaged over draws, random sampling is the teacher; the finite-N bias of other proposals has its exact size.

Repetitions are rows of one call. Where V = 100,000 they are grouped: the mean of 200,000 targets of 50 independent
draws each is the mean of 200 targets of 50,000 draws (a test on fewer rows shows that 50 draws alone behave so too).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import oracle
import pytest
import torch
from torch import Generator, Tensor

from replication.axes.targets.sampled import RandomSampling

VOCABULARY = 100_000
REPETITIONS, DRAWS = 200_000, 50
ERRORS = 4  # standard errors allowed


def zipf_logits(classes: int) -> Tensor:
    return -torch.arange(1, classes + 1, dtype=torch.float32).log()


def gaussian_logits(classes: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(11).normal(0, 3, classes).astype(np.float32))


SHAPES = {"zipf": zipf_logits, "gaussian": gaussian_logits}


def exact(logits: Tensor) -> np.ndarray:
    """Softmax in float64, without the oracle's loops: V may be 10^5."""
    powers = np.exp(logits.double().numpy() - float(logits.max()))
    return powers / powers.sum()


def mean_target(logits: Tensor, method: RandomSampling, rows: int, chunk: int, seed: int) -> np.ndarray:
    """The mean of `rows` targets, [V] float64, summed from ids and weights in chunks."""
    generator, total = Generator().manual_seed(seed), torch.zeros(len(logits), dtype=torch.float64)
    for start in range(0, rows, chunk):
        size = min(chunk, rows - start)
        target = method(logits.expand(size, -1), torch.zeros(size, dtype=torch.int64), generator)
        ids, weights = target.ids_NK.flatten(), target.weights_NK.double().flatten()
        assert 0 <= int(ids.min()) and int(ids.max()) < len(logits)
        total += torch.bincount(ids, weights, minlength=len(logits))
    return (total / rows).numpy()


def assert_within(mean: float, probability: float, draws: int, what: str) -> None:
    """`mean` of `draws` indicators lies within 4 standard errors of `probability`."""
    error = math.sqrt(probability * (1 - probability) / draws)
    # the teacher is a float32 softmax: its own rounding comes on top
    assert abs(mean - probability) < ERRORS * error + 1e-6 * probability, f"{what}: {mean} instead of {probability}"


@pytest.fixture(scope="module", params=SHAPES)
def large(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    """(teacher, mean target) at V = 100,000 over 200,000 repetitions of 50 draws, classes by falling probability."""
    logits = SHAPES[request.param](VOCABULARY)
    rows = 200
    mean = mean_target(logits, RandomSampling(REPETITIONS * DRAWS // rows), rows, chunk=10, seed=1)
    order = np.argsort(-exact(logits), kind="stable")
    return exact(logits)[order], mean[order]


def test_the_head_class_by_class(large: tuple[np.ndarray, np.ndarray]) -> None:
    teacher, mean = large
    for i in range(30):
        assert_within(mean[i], teacher[i], REPETITIONS * DRAWS, f"class {i}")


def test_single_tail_classes(large: tuple[np.ndarray, np.ndarray]) -> None:
    """Down to the smallest class of which at least 10 draws are expected."""
    teacher, mean = large
    last = int((teacher * REPETITIONS * DRAWS >= 10).sum())
    assert last > 10_000
    for i in np.geomspace(31, last - 1, 20).astype(int):
        assert_within(mean[i], teacher[i], REPETITIONS * DRAWS, f"class {i}")


def test_the_tail_in_groups(large: tuple[np.ndarray, np.ndarray]) -> None:
    """Twenty groups between rank 30 and the last class, each of several hundred expected draws at the least."""
    teacher, mean = large
    edges = np.geomspace(30, VOCABULARY, 21).astype(int)
    assert edges[-1] == VOCABULARY
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        assert teacher[low:high].sum() * REPETITIONS * DRAWS > 300
        assert_within(mean[low:high].sum(), teacher[low:high].sum(), REPETITIONS * DRAWS, f"ranks {low} to {high}")


def test_the_mean_is_the_teacher_as_a_whole(large: tuple[np.ndarray, np.ndarray]) -> None:
    """Pearson's chi-square over all classes with 10 expected draws or more; the 4-sigma band of its distribution."""
    teacher, mean = large
    often = teacher * REPETITIONS * DRAWS >= 10
    statistic = REPETITIONS * DRAWS * ((mean - teacher)[often] ** 2 / teacher[often]).sum()
    freedom = int(often.sum())
    assert abs(statistic - freedom) < ERRORS * math.sqrt(2 * freedom)


@pytest.mark.parametrize("shape", SHAPES)
def test_200_000_targets_of_50_draws_every_class(shape: str) -> None:
    """Ungrouped, at V = 64: one row is one repetition."""
    logits = SHAPES[shape](64)
    mean = mean_target(logits, RandomSampling(DRAWS), REPETITIONS, chunk=20_000, seed=2)
    for i, probability in enumerate(exact(logits)):
        assert_within(mean[i], probability, REPETITIONS * DRAWS, f"class {i}")


def test_50_draws_from_a_large_vocabulary() -> None:
    """Ungrouped, at V = 100,000, on few rows."""
    logits, rows = zipf_logits(VOCABULARY), 400
    teacher, mean = exact(logits), mean_target(logits, RandomSampling(DRAWS), rows, chunk=50, seed=3)
    for low, high in [(0, 1), (1, 10), (10, 1_000), (1_000, 50_000), (50_000, VOCABULARY)]:
        assert_within(mean[low:high].sum(), teacher[low:high].sum(), rows * DRAWS, f"ranks {low} to {high}")


def test_rows_of_one_call_are_independent() -> None:
    """Were they not, the spread of the row means would not be that of a binomial."""
    logits = zipf_logits(64)
    target = RandomSampling(DRAWS)(
        logits.expand(20_000, -1), torch.zeros(20_000, dtype=torch.int64), Generator().manual_seed(6)
    )
    first = target.dense(64)[:, 0].double()
    probability = exact(logits)[0]
    assert float(first.var()) == pytest.approx(probability * (1 - probability) / DRAWS, rel=0.05)
    assert abs(float(torch.corrcoef(torch.stack([first[:-1], first[1:]]))[0, 1])) < ERRORS / math.sqrt(20_000)


# proposals other than the teacher: the normalised ratios are biased at finite N

SMALL = np.array([0.6, 0.3, 0.1])


def simulated(teacher: np.ndarray, tau: float, draws: int, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean target and its standard error by NumPy's own multinomial in float64, [V] each."""
    proposal = teacher**tau / (teacher**tau).sum()
    weighted = np.random.default_rng(seed).multinomial(draws, proposal, size=rows) * (teacher / proposal)
    targets = weighted / weighted.sum(1, keepdims=True)
    return targets.mean(0), targets.std(0) / math.sqrt(rows)


def ours(teacher: np.ndarray, tau: float, draws: int, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean target and its standard error of the implementation, [V] each."""
    logits = torch.from_numpy(np.log(teacher)).float().expand(rows, -1)
    target = RandomSampling(draws, tau)(logits, torch.zeros(rows, dtype=torch.int64), Generator().manual_seed(seed))
    dense = target.dense(len(teacher)).double().numpy()
    return dense.mean(0), dense.std(0) / math.sqrt(rows)


@pytest.mark.parametrize("draws", [1, 2, 3, 5])
def test_the_teacher_s_own_proposal_is_exactly_unbiased(draws: int) -> None:
    np.testing.assert_allclose(oracle.expected_random_sampling(SMALL, 1.0, draws), SMALL, rtol=0, atol=1e-14)


@pytest.mark.parametrize("tau", [0.0, 0.8, 1.2])
def test_one_draw_from_another_proposal_is_that_proposal(tau: float) -> None:
    """N = 1: the ratio cancels against its own sum."""
    expectation = oracle.expected_random_sampling(SMALL, tau, 1)
    np.testing.assert_allclose(expectation, oracle.powered(SMALL, tau), rtol=0, atol=1e-14)


@pytest.mark.parametrize("mean_of", [simulated, ours], ids=["simulation", "implementation"])
@pytest.mark.parametrize("tau", [0.0, 0.8, 1.0, 1.2])
def test_the_bias_is_that_of_the_enumeration(tau: float, mean_of: Callable[..., tuple[np.ndarray, np.ndarray]]) -> None:
    expectation = oracle.expected_random_sampling(SMALL, tau, 3)
    mean, error = mean_of(SMALL, tau, 3, rows=REPETITIONS, seed=4)
    assert (np.abs(mean - expectation) < ERRORS * error + 1e-6).all()
    if tau != 1:
        assert (np.abs(expectation - SMALL) > ERRORS * error).any(), "too few rows to see the bias"


@pytest.mark.parametrize(("tau", "sign"), [(0.8, -1), (1.2, 1)])
def test_size_and_sign_of_the_bias(tau: float, sign: int) -> None:
    """To first order t_i (sum_j t_j w_j - w_i) / N with w = t / q: a flat proposal (tau < 1) undervalues the head.

    By enumeration the head of (0.6, 0.3, 0.1) is off by -0.0154 (tau 0.8) and +0.0158 (tau 1.2) at N = 3, by -0.0045
    and +0.0049 at N = 10, and by -0.0011 and +0.0012 at N = 40.
    """
    ratios = SMALL / oracle.powered(SMALL, tau)
    first_order = SMALL * ((SMALL * ratios).sum() - ratios)
    bias = {draws: oracle.expected_random_sampling(SMALL, tau, draws) - SMALL for draws in (3, 10, 40)}
    assert np.sign(bias[3][0]) == sign and np.sign(bias[3][2]) == -sign
    assert bias[3][0] == pytest.approx({0.8: -0.0154, 1.2: 0.0158}[tau], abs=1e-4)
    assert bias[10][0] == pytest.approx({0.8: -0.0045, 1.2: 0.0049}[tau], abs=1e-4)
    np.testing.assert_allclose(10 * bias[10], first_order, rtol=0.04)
    np.testing.assert_allclose(40 * bias[40], first_order, rtol=0.01)
    for each in bias.values():
        assert each.sum() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("tau", "sign"), [(0.8, -1), (1.2, 1)])
def test_the_bias_at_50_draws_and_a_longer_tail(tau: float, sign: int) -> None:
    """Zipf over 64 classes: implementation and simulation agree; the head is off by -0.0018 (0.8), +0.0015 (1.2)."""
    teacher = exact(zipf_logits(64))
    (mean, error), (other, other_error) = (f(teacher, tau, DRAWS, rows=100_000, seed=5) for f in (ours, simulated))
    groups = [slice(0, 1), slice(1, 5), slice(5, 20), slice(20, 64)]
    for group in groups:
        allowed = ERRORS * math.sqrt((error[group] ** 2).sum() + (other_error[group] ** 2).sum()) + 1e-6
        assert abs(mean[group].sum() - other[group].sum()) < allowed
    # 100,000 rows put this bias at eight standard errors
    assert sign * (other[0] - teacher[0]) > ERRORS * other_error[0]
    assert sign * (mean[0] - teacher[0]) > ERRORS * error[0]
    ratios = teacher / oracle.powered(teacher, tau)
    assert mean[0] - teacher[0] == pytest.approx(teacher[0] * ((teacher * ratios).sum() - ratios[0]) / DRAWS, rel=0.5)
