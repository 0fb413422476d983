"""The Zipf toy of Figure 2a against closed forms computed here."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import binom

from replication.axes.divergences import GhostToken
from replication.axes.targets.base import SparseTarget, Target
from replication.axes.targets.kept import Full, NaiveFix, OneHot, SmoothedTopK, TopK
from replication.axes.targets.sampled import RandomSampling
from toy import zipf
from toy.octaves import SHOWN, grouped
from toy.sums import fitted
from toy.zipf import Setting

ERRORS = 4  # standard errors allowed


def teacher(classes: int, exponent: float = 1.0) -> np.ndarray:
    """By hand: proportional to 1 / i ** exponent."""
    powers = 1 / np.arange(1, classes + 1, dtype=np.float64) ** exponent
    return powers / powers.sum()


def mean_target(setting: Setting, seed: int = 0) -> np.ndarray:
    return np.array(zipf.run(setting, seed)[1]["targets"]["mean_target"])


@pytest.mark.parametrize("exponent", (1.0, 1.5))
def test_random_sampling_scatters_about_the_teacher_as_its_variance_says(exponent: float) -> None:
    """Each of N draws a round has variance p (1 - p) in a class: Pearson's sum over R rounds is chi-squared."""
    classes, draws, rounds = SHOWN, 22, 2000
    p = teacher(classes, exponent)
    pearson, squares = [], []
    for seed in range(8):
        mean = mean_target(Setting(RandomSampling(draws), classes, exponent, rounds), seed)
        pearson.append(draws * rounds * ((mean - p) ** 2 / p).sum())
        squares.append(((mean - p) ** 2).sum())
    freedom = len(pearson) * (classes - 1)
    assert abs(sum(pearson) - freedom) < ERRORS * math.sqrt(2 * freedom)
    # of the sum of squares itself the mean is sum p (1 - p) / (N R), and its variance about 2 sum (p (1 - p) / (N R))^2
    variance = p * (1 - p) / (draws * rounds)
    assert abs(np.mean(squares) - variance.sum()) < ERRORS * math.sqrt(2 * (variance**2).sum() / len(squares)) * 1.2


def test_the_error_falls_with_the_root_of_the_rounds() -> None:
    few, many = (zipf.run(Setting(RandomSampling(22), 200, rounds=rounds), 0)[0] for rounds in (100, 10_000))
    assert 7 < few["l1_bias"] / many["l1_bias"] < 13
    assert abs(few["l1_error"] - many["l1_error"]) < 0.03  # a single target's error does not fall


@pytest.mark.parametrize("k", (1, 20))
def test_top_k_has_the_bias_of_appendix_a3(k: int) -> None:
    metrics, curves = zipf.run(Setting(TopK(k)), 0)
    p = teacher(100_000)
    kept = p[:k].sum()
    for name in ("l1_bias", "l1_bias_grouped", "l1_error"):
        assert metrics[name] == pytest.approx(2 * (1 - kept), abs=1e-6), name
    assert metrics["unique_classes"] == k
    assert np.allclose(curves["targets"]["mean_target"][:k], p[:k] / kept, rtol=1e-5)
    assert not any(curves["targets"]["mean_target"][k:])
    # what is kept is scaled up by one over its mass (App. A.4), and App. A.3 has the error in closed form
    assert metrics["upscaling"] == pytest.approx(1 / kept, rel=1e-5) and metrics["kept_mass"] == pytest.approx(kept)
    assert metrics["expected_l1_error"] == pytest.approx(2 * (1 - kept), rel=1e-9)
    assert not {"variance", "expected_variance", "bias_over_noise"} & set(metrics)


def test_full_is_the_teacher() -> None:
    metrics, curves = zipf.run(Setting(Full()), 0)
    assert max(metrics[name] for name in ("l1_bias", "l1_bias_grouped", "l1_error")) < 1e-5
    assert metrics["unique_classes"] == 100_000
    assert curves["targets"]["class"] == list(range(1, 51))
    assert np.allclose(curves["targets"]["teacher"], teacher(100_000)[:50], rtol=1e-12)


def test_smoothing_spreads_the_rest() -> None:
    metrics, curves = zipf.run(Setting(SmoothedTopK(5), vocabulary=40), 0)
    p = teacher(40)
    wanted = (1 - p[:5].sum()) / 40 + np.where(np.arange(40) < 5, p, 0)
    assert np.allclose(curves["targets"]["mean_target"], wanted, rtol=1e-5)
    assert metrics["l1_error"] == pytest.approx(np.abs(wanted - p).sum(), rel=1e-5)
    assert metrics["unique_classes"] == 5


@pytest.mark.parametrize("target", (RandomSampling(22), RandomSampling(22, 0.5)))
def test_unique_classes_are_the_closed_form(target: RandomSampling) -> None:
    classes, rounds = 2000, 3000
    metrics, _ = zipf.run(Setting(target, classes, rounds=rounds), 3)
    proposal = teacher(classes, target.exponent)
    seen = 1 - (1 - proposal) ** target.draws
    assert metrics["expected_unique_classes"] == pytest.approx(seen.sum(), rel=1e-9)
    # classes compete for the draws, so the count's variance is below that of independent ones
    error = math.sqrt((seen * (1 - seen)).sum() / rounds)
    assert abs(metrics["unique_classes"] - seen.sum()) < ERRORS * error


def test_the_error_of_one_random_target_is_the_mean_deviation_of_its_counts() -> None:
    classes, draws, rounds = 300, 7, 4000
    metrics, _ = zipf.run(Setting(RandomSampling(draws), classes, rounds=rounds), 0)
    p, counts = teacher(classes)[:, None], np.arange(draws + 1)
    wanted = (binom.pmf(counts, draws, p) * np.abs(counts / draws - p)).sum()
    # a distance of two distributions lies in [0, 2], so its deviation is at most 1
    assert abs(metrics["l1_error"] - wanted) < ERRORS / math.sqrt(rounds)


def test_naive_fix_spreads_the_rest_like_the_teacher() -> None:
    """Over the teacher's own labels the mean is p (1 - a), and p more on the kept classes, whose mass is a."""
    classes, k, rounds = SHOWN, 5, 20_000
    p = teacher(classes)
    rest = 1 - p[:k].sum()
    wanted = p * rest + np.where(np.arange(classes) < k, p, 0)
    setting = Setting(NaiveFix(k), classes, rounds=rounds)
    error = rest * np.sqrt(p * (1 - p) / rounds)
    assert np.all(np.abs(mean_target(setting) - wanted) < ERRORS * error)
    metrics, _ = zipf.run(setting, 0)
    assert metrics["l1_bias"] == pytest.approx(2 * rest * (1 - rest), abs=0.05)
    # a slot of its own for every label outside the kept classes
    assert abs(metrics["unique_classes"] - (k + rest)) < ERRORS * math.sqrt(rest * (1 - rest) / rounds)
    # on label i the target is off by the tail's mass, and by the rest on i itself (less p_i where i is in the tail)
    off = np.where(np.arange(classes) < k, 2 * rest, 2 * (rest - p))
    assert metrics["l1_error"] == pytest.approx((p * off).sum(), abs=0.01)


def test_grouping_the_tail_takes_the_noise_out_of_the_bias() -> None:
    """OneHot is unbiased too: class by class its 1,000 labels look worse than naive fix's true bias, by octaves not."""
    a = teacher(100_000)[:20].sum()
    one_hot, _ = zipf.run(Setting(OneHot()), 0)
    naive, _ = zipf.run(Setting(NaiveFix(20)), 0)
    assert one_hot["l1_bias"] > 1 and naive["l1_bias"] > 1
    assert one_hot["l1_bias_grouped"] < 0.25
    assert naive["l1_bias_grouped"] == pytest.approx(2 * a * (1 - a), abs=0.1)


def test_groups_are_octaves_beyond_the_shown_classes() -> None:
    counts = grouped(torch.ones(450, dtype=torch.float64)).tolist()
    assert counts == [1.0] * 50 + [50.0, 100.0, 200.0, 50.0]


@pytest.mark.parametrize("target", (RandomSampling(22), OneHot(), NaiveFix(20)))
def test_the_variance_is_its_closed_form(target: Target) -> None:
    """Sum over classes of p (1 - p) / N; of the naive fix, the square of the rest times that of one label."""
    classes, rounds = 500, 4000
    p = teacher(classes)
    rest = 1 - p[:20].sum()
    factor = {RandomSampling: 1 / 22, OneHot: 1.0, NaiveFix: rest**2}[type(target)]
    wanted = factor * (p * (1 - p)).sum()
    ratios = [zipf.run(Setting(target, vocabulary=classes, rounds=rounds), seed)[0] for seed in range(4)]
    assert all(metrics["expected_variance"] == pytest.approx(wanted, rel=1e-9) for metrics in ratios)
    assert np.mean([metrics["variance_ratio"] for metrics in ratios]) == pytest.approx(1, abs=0.01)


def test_what_noise_alone_leaves_of_an_unbiased_draw() -> None:
    ratios = [
        zipf.run(Setting(RandomSampling(22), vocabulary=1000, rounds=200), seed)[0]["bias_over_noise"]
        for seed in range(20)
    ]
    # some sixty groups: a single ratio deviates by about 0.15
    assert np.mean(ratios) == pytest.approx(1, abs=ERRORS * 0.15 / math.sqrt(20))
    naive = zipf.run(Setting(NaiveFix(20), vocabulary=1000), 0)[0]
    assert naive["bias_over_noise"] > 4


@pytest.mark.parametrize("k", (1, 3))
def test_the_ghost_token_rests_where_it_is_said_to(k: int) -> None:
    """At the fitted point its gradient is zero; so it is wherever the rest of the mass lies (RS-KD App. A.5)."""
    p = torch.from_numpy(teacher(6))
    target = TopK(k)(p.log()[None].float(), torch.zeros(1, dtype=torch.long), torch.Generator())
    ids_NK, fit_NK = fitted(target, GhostToken(), 6)
    assert ids_NK.tolist() == [list(range(6))] and float(fit_NK.sum()) == pytest.approx(1, abs=1e-6)
    other_NK = fit_NK.clone()
    other_NK[:, k:] *= torch.arange(1.0, 7.0 - k) / torch.arange(1.0, 7.0 - k).mean()
    for point_NK in (fit_NK, other_NK):
        logits_NV = point_NK.log().requires_grad_()
        GhostToken()(logits_NV, target).sum().backward()
        assert logits_NV.grad is not None and float(logits_NV.grad.abs().max()) < 1e-6
    metrics, curves = zipf.run(Setting(TopK(k), divergence=GhostToken(), vocabulary=6), 0)
    assert np.allclose(curves["targets"]["mean_target"], fit_NK[0], rtol=1e-6)
    assert metrics["upscaling"] == pytest.approx(1, rel=1e-6) and metrics["unique_classes"] == k
    assert metrics["kept_mass"] == pytest.approx(teacher(6)[:k].sum())


def test_unused_slots_count_for_nothing() -> None:
    padded = SparseTarget(torch.tensor([[1, 0, 0]]), torch.tensor([[0.5, 0.0, 0.0]]))
    p = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    sums = zipf.Sums(p, torch.zeros(3, dtype=torch.float64))
    sums.add(padded, zipf.ForwardKL())
    assert sums.mean_V.tolist() == [0, 1, 0] and sums.kept == 1 and sums.mass == 0.5
    assert sums.error == pytest.approx(0.5 + 0.7 + 0.2) and sums.squared_error == pytest.approx(0.25 + 0.49 + 0.04)


@pytest.mark.parametrize("target", (RandomSampling(5), NaiveFix(3), OneHot()))
def test_a_seed_says_it_all(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    setting = Setting(target, vocabulary=100, rounds=50)
    assert zipf.run(setting, 1) == zipf.run(setting, 1)
    assert zipf.run(setting, 1) != zipf.run(setting, 2)
    before, _ = zipf.run(setting, 1)
    monkeypatch.setattr(zipf, "CHUNK", 700)  # the size of a chunk is of no consequence
    assert zipf.run(setting, 1)[0] == pytest.approx(before, rel=1e-12)
