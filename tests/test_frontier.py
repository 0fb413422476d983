"""What draws keep, cost and miss: closed forms against draws and codecs; the least budget; the probe; cache plan."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from replication.__main__ import main
from replication.axes.targets.base import DenseTarget, SparseTarget, Target
from replication.axes.targets.closed_form import SHARES, corrected_error
from replication.axes.targets.kept import Full, OneHot, TopK, TopP
from replication.axes.targets.sampled import (
    HeadAndSampledTail,
    RandomSampling,
    Stratified,
    Systematic,
    WithoutReplacement,
)
from replication.axes.targets.water_filling import AdaptiveWaterFilling, WaterFilling, drawn_error, levelled
from replication.cache.choose import codec_of
from replication.cache.codec import SetCodec
from replication.cache.manifest import Compression, Header
from replication.cache.manifest import Target as Named
from replication.cache.shard import Shard, file_name
from replication.cache.writer import Writer
from replication.cost.error_for_bytes import FAMILIES, REFERENCE, error_of, least, mean, size_of
from replication.execution.execute import execute
from replication.experiment.identity import plain
from replication.experiment.recipe import method, parse
from replication.experiment.run import Run
from replication.experiment.scale import load_scale
from replication.machine.device import Machine, this_machine
from replication.planning.cache_advice import Wanted, advice, look_at, stated, tokens
from replication.training.run_data import data_for
from replication.training.teacher_pass import probabilities, put
from tests.cases import and_others
from tests.small import write_scale
from toy.next_token import log_probs

DRAWS = [RandomSampling(12), Stratified(12), Systematic(12), HeadAndSampledTail(3, 8), WaterFilling(8),
         AdaptiveWaterFilling(0.05), WithoutReplacement(8), TopK(5)]  # fmt: skip
POSITIONS, CLASSES, ROUNDS = 40, 50, 1500


def teacher(seed: int = 0) -> Tensor:
    """Sharp and flat positions, [N, V] float64; classes without probability at some."""
    random = Generator().manual_seed(seed)
    logits_NV = torch.randn(POSITIONS, CLASSES, generator=random, dtype=torch.float64)
    probs_NV = (logits_NV * torch.linspace(0.2, 3.5, POSITIONS)[:, None]).softmax(1)
    probs_NV[:5, 6:] = 0
    return probs_NV / probs_NV.sum(1, keepdim=True)


def drawn(target: Target, probs_NV: Tensor) -> SparseTarget:
    logits = probs_NV.log().float().repeat(ROUNDS, 1)
    found = target(logits, torch.zeros(len(logits), dtype=torch.long), Generator().manual_seed(1))
    assert isinstance(found, SparseTarget)
    return found


@pytest.mark.parametrize("target", and_others(DRAWS), ids=str)
def test_the_closed_forms_are_what_is_drawn(target: Target) -> None:
    probs_NV = teacher()
    found = drawn(target, probs_NV)
    if (wanted_N := target.kept(probs_NV)) is not None:
        if isinstance(target, TopK):
            wanted_N = torch.minimum(wanted_N, (probs_NV > 0).sum(1))  # top-K stores k, whatever they weigh
        kept_N = (found.weights_NK > 0).double().sum(1).view(ROUNDS, POSITIONS).mean(0)
        assert np.allclose(kept_N, wanted_N, atol=0.12)
        assert float(kept_N.mean()) == pytest.approx(float(wanted_N.mean()), 0.01)
    weights_RNV = found.dense(CLASSES).view(ROUNDS, POSITIONS, CLASSES)
    if (closed := mean(target.squared_error, probs_NV)) is not None:
        assert closed == pytest.approx(float((weights_RNV - probs_NV).square().sum(2).mean()), rel=0.02)
    if (closed := mean(target.gradient_error, probs_NV)) is not None:
        off_RNV = weights_RNV - weights_RNV.sum(2, keepdim=True) * probs_NV
        assert closed == pytest.approx(float(off_RNV.square().sum(2).mean()), rel=0.02)


def test_what_has_no_closed_form_says_so() -> None:
    probs_NV = teacher()
    for target in (TopP(0.9, 20), RandomSampling(12, 0.8)):
        assert target.kept(probs_NV) is None and mean(target.squared_error, probs_NV) is None
    assert WithoutReplacement(8).squared_error(probs_NV) is None
    for target in DRAWS:
        assert target.kept(probs_NV) is not None
        assert isinstance(target, WithoutReplacement) or target.squared_error(probs_NV) is not None


LENGTH = 8  # of a sequence


def often(probs_NV: Tensor) -> NDArray[np.int64]:
    """How often each class occurs in a text of this teacher's."""
    return (1e6 * probs_NV.mean(0)).long().numpy()


@pytest.mark.parametrize("target", [*DRAWS[:3], *DRAWS[4:6], TopK(5), TopP(0.9, 20)], ids=str)
def test_bytes_are_those_of_a_cache(tmp_path: Path, target: Target) -> None:
    probs_NV = teacher()
    kept, law = drawn_once(target, probs_NV), often(probs_NV)
    codec = codec_of(target, CLASSES)
    sizes: dict[Compression, float] = {"none": size_of(target, kept, LENGTH, law).packed}
    if isinstance(codec, SetCodec):
        sizes["unigram"] = size_of(target, kept, LENGTH, law).coded
    else:
        assert size_of(target, kept, LENGTH, law).coded == sizes["none"]
    named = Named(name=type(target).__name__, fields=asdict(target))
    of: Any = {"teacher": "t", "tokenizer": "k", "packing": "p", "seed": 0, "vocabulary": CLASSES, "length": LENGTH}
    for compression, size in sizes.items():
        sequences, folder = POSITIONS // LENGTH, tmp_path / compression
        header = Header(target=named, **of)
        with Writer(folder, header, sequences, compression=compression, frequencies_V=law) as writer:
            put(writer, 0, target, kept, LENGTH)
        assert size * POSITIONS == Shard(folder / file_name(0), sequences).sizes.sum()


def test_bytes_of_what_no_cache_holds() -> None:
    probs_NV = teacher()
    law = often(probs_NV)
    assert size_of(OneHot(), drawn_once(OneHot(), probs_NV), LENGTH, law).packed == 2
    assert size_of(Full(), DenseTarget(probs_NV), LENGTH, law).coded == CLASSES
    kept = drawn_once(WithoutReplacement(8), probs_NV)
    classes = float((kept.weights_NK > 0).sum(1).double().mean())
    assert size_of(WithoutReplacement(8), kept, LENGTH, law).coded == pytest.approx(classes * (6 + 7) / 8)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_least_budget_reaches_the_error_and_the_one_before_does_not(name: str) -> None:
    probs_NV, family = teacher(), FAMILIES[name]
    for wanted in (0.05, 0.01):
        found = least(family, wanted, probs_NV)
        assert found is not None and error_of(found, probs_NV) <= wanted
        place = family.index(found)
        assert place == 0 or error_of(family[place - 1], probs_NV) > wanted
    assert least(family, 1e-9, probs_NV) is None
    assert least(family, 10, probs_NV) == family[0]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_larger_budget_keeps_more_and_misses_less(name: str) -> None:
    probs_NV, family = teacher(), FAMILIES[name][:120:8]
    kept = [mean(target.kept, probs_NV) for target in family]
    errors = [error_of(target, probs_NV) for target in family]
    assert kept == sorted(kept) and all(after < before for before, after in pairwise(errors))


def test_one_level_everywhere_is_the_least_error_at_a_mean_number_of_classes() -> None:
    """Against as many classes everywhere, and as many as give each position the same expected error."""
    probs_NV = log_probs("laptop-3b").softmax(1)
    errors_NU = torch.stack([WaterFilling(classes).squared_error(probs_NV) for classes in range(1, 81)], 1)
    for level, over_equal, over_fixed in ((0.2, 1.1, 1.2), (0.04, 1.22, 1.46), (0.02, 1.25, 1.58)):
        target = AdaptiveWaterFilling(level)
        kept = float(target.wanted(probs_NV.topk(80).values).double().mean())
        reached = ((errors_NU > error).sum(1).clamp_max(79) for error in np.geomspace(1e-4, 1, 4000))
        place_N = next(place_N for place_N in reached if place_N.double().mean() + 1 <= kept)
        equal = float(errors_NU.gather(1, place_N[:, None]).mean())
        fixed, least = float(errors_NU[:, round(kept) - 1].mean()), error_of(target, probs_NV)
        assert (equal / least, fixed / least) == pytest.approx((over_equal, over_fixed), rel=0.03)


@pytest.mark.parametrize("level", [0.2, 0.04, 0.01])
def test_one_level_everywhere_gives_each_class_the_same_worth(level: float) -> None:
    """Error plus level^2 a class is as low as any number of classes at each position makes it."""
    probs_NV = log_probs("laptop-3b").softmax(1)
    largest_NK, numbers = probs_NV.topk(120).values, torch.arange(1, 121)
    levels = [levelled(largest_NK, torch.full((len(probs_NV),), number))[2] for number in numbers]
    priced_NU = torch.stack([drawn_error(probs_NV, level_N1) for level_N1 in levels], 1) + level**2 * numbers
    chosen_N = AdaptiveWaterFilling(level).wanted(largest_NK)
    priced = float(priced_NU.gather(1, chosen_N[:, None] - 1).mean())
    assert priced == pytest.approx(float(priced_NU.amin(1).mean()), rel=0.003)


def test_a_prior_shrinks_what_is_drawn_or_does_not() -> None:
    """A control variate against its closed form, level by bisection; a prior that is the teacher leaves its share."""
    probs_V = teacher()[20]
    error_S = corrected_error(WaterFilling(8), probs_V[None], probs_V)[0]
    assert torch.allclose(error_S, error_S[0] * (1 - torch.tensor(SHARES, dtype=torch.float64)).square())
    prior_V = teacher(1)[10]
    for share, error in zip(SHARES, corrected_error(WaterFilling(8), probs_V[None], prior_V)[0], strict=True):
        rest_V = (probs_V - share * prior_V).abs().numpy()
        low, high = 0.0, 1.0
        for _ in range(60):
            level = (low + high) / 2
            low, high = (level, high) if np.minimum(1, rest_V / level).sum() > 8 else (low, level)
        assert float(error) == pytest.approx(float((rest_V * np.maximum(level - rest_V, 0)).sum()), rel=1e-6)


def test_an_offer_is_no_worse_than_wanted() -> None:
    probs_NV = teacher().float()
    law = often(probs_NV)
    found = advice(Wanted(1.0, absolute=False), probs_NV, LENGTH, law)
    points = {name: one for name, one in found.points.items() if one is not None}
    assert set(points) == set(FAMILIES) and points["RS-KD"].target == REFERENCE
    assert all(one.error <= found.reference.error * (1 + 1e-9) for one in points.values())
    for name in ("Systematic", "Adaptive water-filling"):
        assert points[name].size.coded < 0.55 * found.reference.size.packed
        assert points[name].size.coded < 0.9 * found.reference.size.coded
    kept_NV = drawn_once(found.top_k.target, probs_NV).dense(CLASSES)
    off_NV = kept_NV.sum(1, keepdim=True) * probs_NV - kept_NV  # a gradient that is zero with the whole distribution
    bias, single = float(off_NV.mean(0).square().sum()), float(off_NV.square().sum(1).mean())
    assert found.top_k.error == pytest.approx(single, rel=1e-4)
    assert found.overtaken == pytest.approx(1 + (found.reference.error - single) / bias, rel=1e-3)
    same = advice(Wanted(found.reference.error, absolute=True), probs_NV, LENGTH, law)
    assert same.points == found.points


def drawn_once(target: Target, probs_NV: Tensor) -> SparseTarget:
    kept = target(probs_NV.log().float(), torch.zeros(len(probs_NV), dtype=torch.long), Generator())
    assert isinstance(kept, SparseTarget)
    return kept


def test_a_draw_is_offered_as_a_recipe_states_it() -> None:
    import tomllib

    for family in FAMILIES.values():
        for target in (family[0], family[-1], family[49]):
            assert method("target", tomllib.loads(f"target = {stated(target)}")["target"]) == target


@pytest.mark.parametrize(("words", "number"), [("15T", 15e12), ("100B", 1e11), ("5_000_000", 5e6), ("1.5M", 1.5e6)])
def test_tokens_are_real_ones(words: str, number: float) -> None:
    assert tokens(words) == number


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Machine]:
    folder = tmp_path_factory.mktemp("frontier")
    machine = this_machine(folder / "results", folder / "artifacts").at("float32")
    write_scale(folder)
    run = run_of(folder, OneHot())
    assert run.teacher is not None
    execute(run.teacher, machine)
    return folder, machine


def run_of(folder: Path, target: Target, probe: str = "frontier") -> Run:
    return Run(parse({"target": plain(target), "probe": probe}), load_scale(str(folder / "small.toml")), 0)


@pytest.mark.parametrize("target", [*DRAWS, Full(), OneHot(), RandomSampling(12, 0.8)], ids=str)
def test_the_probe_measures_beside_the_closed_forms(place: tuple[Path, Machine], target: Target) -> None:
    folder, machine = place
    record = execute(run_of(folder, target), machine)
    metrics = json.loads((record.folder / "summary.json").read_text())["metrics"]
    assert {"unique_classes", "squared_error", "mass", "bias"} <= set(metrics)
    if "expected_classes" in metrics:
        assert metrics["unique_classes"] == pytest.approx(metrics["expected_classes"], rel=0.05)
    if isinstance(target, TopK):
        assert metrics["mass"] < 0.9 and metrics["error_ratio"] == pytest.approx(1, abs=1e-4)
    elif "error_ratio" in metrics:
        assert metrics["error_ratio"] == pytest.approx(1, abs=0.25)
    assert isinstance(target, WaterFilling) == ("with_prior" in metrics)
    assert 0 < metrics.get("with_prior", 0.5) < 1
    assert ("over_least" in metrics) == (not isinstance(target, Full))
    if not isinstance(target, Full | TopK | OneHot):
        assert metrics["over_least"] > 0.9  # measured on few positions; in closed form never below one
    if not isinstance(target, TopK | WithoutReplacement):
        assert metrics["mass"] == pytest.approx(1, abs=1e-5)
        assert metrics["gradient_error"] == pytest.approx(metrics["squared_error"], rel=1e-3, abs=1e-9)
    if isinstance(target, TopK):
        assert metrics["gradient_error"] == pytest.approx(metrics["expected_gradient_error"], rel=1e-3)
        assert metrics["gradient_error"] != pytest.approx(metrics["squared_error"], rel=0.1)
    if not isinstance(target, Full | OneHot):
        vocabulary = data_for(run_of(folder, target), machine.artifacts).tokenizer.vocabulary
        assert 0 < metrics["id_entropy"] < metrics["unique_classes"] * math.log2(vocabulary) / 8


def test_the_probe_looks_at_what_the_cache_would_hold(place: tuple[Path, Machine]) -> None:
    folder, machine = place
    run = run_of(folder, RandomSampling(12))
    data = data_for(run, machine.artifacts)
    positions = run.scale.probe_sequences * run.length
    probs_NV = probabilities(run, data, positions, machine)
    assert probs_NV.shape == (positions, data.tokenizer.vocabulary)
    metrics = json.loads((execute(run, machine).folder / "summary.json").read_text())["metrics"]
    assert metrics["expected_error"] == pytest.approx(mean(run.recipe.target.squared_error, probs_NV), rel=1e-4)


def planned(place: tuple[Path, Machine], monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    folder, machine = place
    monkeypatch.setenv("RESULTS", str(machine.results))
    monkeypatch.setenv("ARTIFACTS", str(machine.artifacts))
    return main(["cache", "plan", *words, "--scale", str(folder / "small.toml")])


def test_cache_plan_says_what_each_draw_would_weigh(
    place: tuple[Path, Machine], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert planned(place, monkeypatch, "--teacher", "3B", "--positions", "100", "--tokens", "1T") == 0
    said = capsys.readouterr().out
    assert "Draws on 120 positions of 3B" in said  # whole sequences of 24
    assert all(name in said for name in FAMILIES) and "Top-K (biased)" in said
    reference = next(line for line in said.splitlines() if "RS-KD, 50 draws" in line)
    shown = re.search(r"([0-9.]+) +([0-9.]+) +([0-9.]+) TB +([0-9]+)%", reference)
    assert shown
    packed, coded, written, share = map(float, shown.groups())
    # printed with one decimal of a byte, three digits of a terabyte
    assert written == pytest.approx(coded, rel=0.01) and share == pytest.approx(100 * coded / packed, abs=1)


def test_cache_plan_of_a_recipe_is_that_of_its_teacher(
    place: tuple[Path, Machine], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = place[0] / "recipe.toml"
    recipe.write_text('teacher = "3B"\ntarget = { name = "TopK", k = 5 }\n')
    wanted = "--error", "0.5", "--positions", "200"
    assert planned(place, monkeypatch, str(recipe), *wanted) == 0
    by_recipe = capsys.readouterr().out
    assert planned(place, monkeypatch, "--teacher", "3B", *wanted) == 0
    assert capsys.readouterr().out == by_recipe and "Systematic" in by_recipe


def test_a_recipe_without_a_teacher_has_none_to_look_at(
    place: tuple[Path, Machine], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = place[0] / "alone.toml"
    recipe.write_text('teacher = "none"\ntarget = "OneHot"\n')
    assert planned(place, monkeypatch, str(recipe)) == 2
    assert "alone.toml has no teacher to look at" in capsys.readouterr().err


WRONG = {
    "wants a recipe.toml, or --teacher": [],
    "wanted error is 0.0": ["--teacher", "3B", "--error", "0"],
    "wanted error is nan": ["--teacher", "3B", "--absolute", "nan"],
    "'many' tokens?": ["--teacher", "3B", "--tokens", "many"],
    "'0B' tokens?": ["--teacher", "3B", "--tokens", "0B"],
    "--positions is 0": ["--teacher", "3B", "--positions", "0"],
    "positions are more than the": ["--teacher", "3B", "--positions", "100_000_000"],
    "needs a teacher": ["--teacher", "none"],
    "Cannot read the recipe": ["nowhere.toml"],
    "is not trained yet": ["--teacher", "300M"],
}


def test_fewer_positions_are_looked_at_where_the_vocabulary_is_large() -> None:
    assert look_at(None, 320) == look_at(None, 4096) == (4096, 1)
    assert look_at(None, 50_257) == (667, 4) and look_at(None, 600_000) == (64, 4)
    assert look_at(700, 50_257) == (700, 1)


def test_some_positions_of_a_sequence_stand_for_it(place: tuple[Path, Machine]) -> None:
    folder, machine = place
    run = run_of(folder, RandomSampling(12))
    data = data_for(run, machine.artifacts)
    whole, some = probabilities(run, data, 48, machine), probabilities(run, data, 10, machine, every=5)
    assert len(whole) == 48 and torch.equal(some, whole.view(2, 24, -1)[:, ::5].flatten(0, 1))


@pytest.mark.parametrize("message", WRONG)
def test_bad_plans_are_one_line(
    place: tuple[Path, Machine], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert planned(place, monkeypatch, *WRONG[message]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("error: ") and message in said


def test_an_error_out_of_reach_is_said(
    place: tuple[Path, Machine], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert planned(place, monkeypatch, "--teacher", "3B", "--absolute", "1e-9", "--positions", "48") == 0
    assert f"Not within what their codecs hold: {', '.join(FAMILIES)}." in " ".join(capsys.readouterr().out.split())


def test_the_relative_error_of_a_batch_falls_with_the_root_of_its_tokens() -> None:
    """What cache plan says of an error: of n positions' mean, unbiased errors leave 1 / n, top-K's bias stays."""
    probs_NV = teacher()[5:]
    errors = {}
    for name, target in (("unbiased", Systematic(12)), ("top-k", TopK(5))):
        off = drawn(target, probs_NV).dense(CLASSES).view(ROUNDS, len(probs_NV), CLASSES) - probs_NV
        errors[name] = [
            float(off[:, ::step].mean(1).square().sum(1).mean()) * math.ceil(len(probs_NV) / step) for step in (1, 7)
        ]
    assert errors["unbiased"][0] == pytest.approx(errors["unbiased"][1], rel=0.6)
    assert errors["top-k"][0] > 2 * errors["top-k"][1]
