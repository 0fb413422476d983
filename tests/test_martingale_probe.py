"""The martingale probe against every sequence there is: four classes, four tokens, enumerated."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from small import write_scale
from torch import Tensor
from transformers import PreTrainedModel

from paper_tables.spec import load as load_exhibit
from replication.execution.execute import execute
from replication.experiment.recipe import parse
from replication.experiment.run import Run, student_of
from replication.experiment.scale import Role, load_scale
from replication.machine.device import Machine, this_machine
from replication.model.decoder import build as build_model
from replication.planning.plan import plan
from replication.probes import completions as completions_file
from replication.probes.completions import Buffer, Completions, chosen, completed
from replication.probes.martingale import Deviation, Moments, losses
from replication.training.loop import train

CLASSES, LENGTH = 4, 4
EVERY = torch.tensor(list(itertools.product(range(CLASSES), repeat=LENGTH)))  # all sequences behind one token 0
TABLES = [f"salt/table0{number}" for number in (6, 7, 8, 9)]
FIGURES = [f"salt/figure0{number}" for number in (2, 4, 5, 6, 7)]


def model(seed: int, width: int = 16) -> PreTrainedModel:
    """Far from uniform, in float64: what is claimed exactly is tested to 1e-10."""
    optimiser = {"peak_rate": 1e-3, "final_rate": 1e-4, "warmup": 0.1, "batch": 1}
    role = Role(layers=2, width=width, ffn=32, heads=4, kv_heads=2, length="4096", optimiser=optimiser)
    made = build_model(role, CLASSES, LENGTH, 0, seed).double().eval()
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if "norm" not in name:
                weight.mul_(12)
    return made


@pytest.fixture(scope="module")
def pair() -> tuple[PreTrainedModel, PreTrainedModel]:
    return model(1), model(2, 8)


@torch.no_grad()
def chances(oracle: PreTrainedModel, tokens_NL: Tensor) -> Tensor:
    """p(x_1 .. x_j | x_0) for each j from 0 to L, [N, L + 1], without any kept keys and values."""
    log_NL = oracle(input_ids=tokens_NL[:, :-1]).logits.log_softmax(-1).gather(2, tokens_NL[:, 1:, None])[..., 0]
    return torch.cat([torch.zeros(len(tokens_NL), 1).double(), log_NL.cumsum(1)], 1).exp()


def expected(pair: tuple[PreTrainedModel, PreTrainedModel], first: int) -> tuple[Tensor, Tensor, Tensor]:
    """Behind token 0 = first: all sequences, their chances, and the loss expected given each prefix of each of them.

    Returns [N, L + 1], [N, L + 1] and [N, s from 0 to L, T from 1 to L].
    """
    oracle, student = pair
    tokens_NL = torch.cat([torch.full((len(EVERY), 1), first), EVERY], 1)
    chance_NL = chances(oracle, tokens_NL)
    loss_NT = losses(student, tokens_NL, range(1, LENGTH + 1), CLASSES)
    found = []
    for prefix in range(LENGTH + 1):
        same_NN = (tokens_NL[:, None, : prefix + 1] == tokens_NL[None, :, : prefix + 1]).all(-1).double()
        weight_NN = same_NN * chance_NL[None, :, -1]
        found.append(weight_NN @ loss_NT / weight_NN.sum(1, keepdim=True))
    return tokens_NL, chance_NL, torch.stack(found, 1)


def test_losses_are_the_models_own(pair: tuple[PreTrainedModel, PreTrainedModel]) -> None:
    _, student = pair
    tokens_NL = torch.tensor([[0, 1, 2, 3, 0], [3, 3, 0, 1, 2]])
    with torch.no_grad():
        log_NLV = student(input_ids=tokens_NL[:, :-1]).logits.log_softmax(-1)
    for row, length in itertools.product(range(2), (1, 3, 4)):
        by_hand = -sum(float(log_NLV[row, j, tokens_NL[row, j + 1]]) for j in range(length)) / length
        assert float(losses(student, tokens_NL[row : row + 1], [length], CLASSES)) == pytest.approx(by_hand, abs=1e-6)


def test_the_deviations_of_a_sequence_telescope(pair: tuple[PreTrainedModel, PreTrainedModel]) -> None:
    """Summed over t they are the mean loss less the sequence's own; given the prefix their mean is zero."""
    for first in range(CLASSES):
        tokens_NL, chance_NL, expected_NPT = expected(pair, first)
        loss_NT = losses(pair[1], tokens_NL, range(1, LENGTH + 1), CLASSES)
        xi_NPT = expected_NPT[:, :-1] - expected_NPT[:, 1:]
        mean_T = chance_NL[:, -1] @ loss_NT
        assert torch.allclose(xi_NPT.sum(1), mean_T - loss_NT, atol=1e-10, rtol=0)
        for t in range(1, LENGTH + 1):
            same_NN = (tokens_NL[:, None, :t] == tokens_NL[None, :, :t]).all(-1).double()
            assert float((same_NN * chance_NL[:, -1] @ xi_NPT[:, t - 1]).abs().max()) < 1e-10
        assert float(xi_NPT.abs().max()) > 0.1  # or all of this would hold of nothing


def test_completions_follow_the_oracle_token_by_token(pair: tuple[PreTrainedModel, PreTrainedModel]) -> None:
    """Drawn with kept keys and values; counted against probabilities that were computed without."""
    oracle, _ = pair
    count, row_BL = 20_000, torch.tensor([[2, 1, 3, 0, 0]])
    for prefix in (0, 2):
        uniform = torch.rand(1, count, LENGTH - prefix, dtype=torch.float64, generator=torch.manual_seed(prefix))
        drawn_NL = completed(oracle, row_BL, [(prefix, uniform)], CLASSES)[0, 0]
        assert torch.equal(drawn_NL[:, : prefix + 1], row_BL[:, : prefix + 1].expand(count, -1))
        every_NL = torch.cat([torch.full((len(EVERY), 1), 2), EVERY], 1)
        every_NL = every_NL[(every_NL[:, : prefix + 1] == row_BL[0, : prefix + 1]).all(1)]
        chance_N = chances(oracle, every_NL)[:, -1] / chances(oracle, every_NL)[:, prefix]
        assert float(chance_N.sum()) == pytest.approx(1, abs=1e-10)
        digits_L = CLASSES ** torch.arange(LENGTH + 1)
        counts_C = torch.bincount(drawn_NL @ digits_L, minlength=CLASSES ** (LENGTH + 1))
        share_N = counts_C[every_NL @ digits_L] / count
        allowed_N = 5 * (chance_N * (1 - chance_N) / count).sqrt() + 1 / count
        assert bool(((share_N - chance_N).abs() <= allowed_N).all())


def test_a_class_without_probability_is_never_drawn() -> None:
    logits_MV = torch.tensor([0.5, 0.0, 0.25, 0.25]).log().expand(6, -1)
    drawn_M = chosen(logits_MV, torch.tensor([0.0, 0.49, 0.5, 0.74, 0.75, 1 - 1e-16], dtype=torch.float64))
    assert drawn_M.tolist() == [0, 0, 2, 2, 3, 3]


def test_a_buffer_holds_what_was_read_and_what_came_after() -> None:
    keys, values, more = torch.randn(2, 1, 4, 3), torch.randn(2, 1, 4, 3), torch.randn(6, 1, 1, 3)
    layer = Buffer(keys, values, 2, 4, 3)
    got_keys, got_values = layer.update(more, 2 * more)
    assert layer.get_seq_length() == 3
    assert torch.equal(got_keys, torch.cat([keys[:, :, :2].repeat_interleave(3, 0), more], 2))
    assert torch.equal(got_values, torch.cat([values[:, :, :2].repeat_interleave(3, 0), 2 * more], 2))


def test_the_plug_in_is_off_by_its_predicted_noise(pair: tuple[PreTrainedModel, PreTrainedModel]) -> None:
    """Eq. 66 against enumeration: error within 10 % of the floor, squares unbiased once it is taken off."""
    oracle, student = pair
    prefixes, lengths, count, rows = range(LENGTH + 1), range(1, LENGTH + 1), 16, 200
    exact = [expected(pair, first) for first in range(CLASSES)]
    tokens_NL, expected_NPT = torch.cat([one[0] for one in exact]), torch.cat([one[2] for one in exact])
    stream = torch.Generator().manual_seed(0)
    picked_S = torch.randint(len(tokens_NL), (rows,), generator=stream)
    uniform = [(s, torch.rand(rows, count, LENGTH - s, generator=stream, dtype=torch.float64)) for s in prefixes]
    drawn_SPNL = completed(oracle, tokens_NL[picked_S], uniform, CLASSES)
    moments = Moments(prefixes, lengths)
    for loss_PNT in losses(student, drawn_SPNL.flatten(0, 2), lengths, CLASSES).view(rows, LENGTH + 1, count, LENGTH):
        moments.add(loss_PNT)
    xi_SPT = (expected_NPT[:, :-1] - expected_NPT[:, 1:])[picked_S]
    errors, noises, biases = [], [], []
    for t, length in itertools.product(range(1, LENGTH + 1), lengths):
        if t > length:
            continue
        deviation = moments.deviation(t, length)
        xi_S, found = xi_SPT[:, t - 1, length - 1], deviation.metrics
        errors.append((deviation.plugin_S - xi_S).square().mean())
        noises.append(deviation.noise_S.mean())
        off = abs(found["v_debiased"] - float(xi_S.square().mean()))
        assert off < 4 * float((deviation.plugin_S.square() - deviation.noise_S - xi_S.square()).std()) / rows**0.5
        biases.append((found["xi"] - float(xi_S.abs().mean()), found["xi_debiased"] - float(xi_S.abs().mean())))
    assert float((torch.stack(errors) / torch.stack(noises)).mean().sqrt()) == pytest.approx(1, abs=0.1)
    plug_in, debiased = np.array(biases).T
    assert plug_in.mean() > 0 and abs(debiased.mean()) < plug_in.mean() / 2


@pytest.mark.parametrize("spread", [0.0, 0.5, 3.0])
def test_what_is_left_without_noise(spread: float) -> None:
    """Normal deviations under normal noise of size one: the mean sizes are known."""
    stream = torch.Generator().manual_seed(7)
    rows = 400_000
    xi_S = spread * torch.randn(rows, generator=stream, dtype=torch.float64)
    half_SH = xi_S[:, None] + math.sqrt(2) * torch.randn(rows, 2, generator=stream, dtype=torch.float64)
    found = Deviation(half_SH, torch.ones(rows, dtype=torch.float64)).metrics
    size = math.sqrt(2 / math.pi)
    assert found["xi"] == pytest.approx(size * math.hypot(spread, 1), rel=0.01)
    assert found["xi_floor"] == pytest.approx(size)
    assert found["xi_debiased"] == pytest.approx(size * spread, abs=0.05)
    assert found["v_debiased"] == pytest.approx(spread**2, abs=0.05) and found["v_floor"] == 1


def test_histograms_count_every_row_beside_the_noise() -> None:
    half_SH = torch.randn(500, 2, dtype=torch.float64, generator=torch.manual_seed(3))
    deviation = Deviation(half_SH, torch.full((500,), 0.5, dtype=torch.float64))
    for histogram, sizes in ((deviation.histogram(), half_SH.mean(1)), (deviation.squares(), half_SH.mean(1) ** 2)):
        assert sum(histogram["count"]) == 500
        assert 480 < sum(histogram["noise"]) < 500  # the rest of the noise lies beyond the largest value
        assert histogram["low"][1:] == histogram["high"][:-1] and histogram["high"][-1] > float(sizes.max())
        # these rows are noise: about as many in each bin as it puts there
        apart = np.array(histogram["count"]) - np.array(histogram["noise"])
        assert np.all(np.abs(apart) < 5 * np.sqrt(np.array(histogram["noise"]) + 1))


WORDS = {"64": 6, "128": 10, "256": 14, "512": 18, "1280": 24, "1": 1, "5": 2, "10": 3, "30": 4, "100": 8, "300": 12,
         "640": 16}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Machine]:
    """A scale with SALT's words; its teacher and student are trained."""
    folder = tmp_path_factory.mktemp("suite")
    machine = this_machine(folder / "results", folder / "artifacts").at("float32")
    path = write_scale(folder)
    words = "".join(f'"{word}" = {length}\n' for word, length in WORDS.items())
    path.write_text(path.read_text().replace("[lengths]\n", f"[lengths]\n{words}").replace(
        "probe_sequences = 8", "probe_sequences = 8\ncompleted_sequences = 3"))  # fmt: skip
    probe = run_of(folder)
    assert probe.teacher is not None
    for run in (probe.teacher, student_of(probe)):
        train(run, machine)
    return folder, machine


def run_of(folder: Path, **stated: str) -> Run:
    recipe = parse({"target": "OneHot", "probe": "martingale", **stated})
    return Run(recipe, load_scale(str(folder / "small.toml")), 0)


def test_one_run_fills_every_cell_and_shares_its_completions(place: tuple[Path, Machine], tmp_path: Path) -> None:
    folder, machine = place
    run = run_of(folder)
    record = execute(run, machine)
    found = json.loads((record.folder / "summary.json").read_text())
    for name in TABLES:
        for row in load_exhibit(name).rows:
            for metric in row.metrics.values():
                assert found["metrics"][metric] > 0
    assert found["metrics"]["v_t5_T64"] >= found["metrics"]["xi_t5_T64"] ** 2
    assert len(found["curves"]["cells"]["xi"]) == 27
    assert {f"{kind}_t{t}" for kind in ("xi", "v") for t in (1, 5, 10, 30, 100, 300, 640)} <= set(found["curves"])
    config = json.loads((record.folder / "config.json").read_text())
    assert config["settings"]["lengths"]["1280"] == 24 and config["settings"]["completed_sequences"] == 3

    files = sorted((machine.artifacts / "small" / "completions").glob("*/*.npy"))
    before = [(file.read_bytes(), file.stat().st_mtime_ns) for file in files]
    assert len(files) == 3
    files[1].unlink()  # as if it had been cut off there
    elsewhere = Machine(machine.device, machine.autocast, tmp_path, machine.artifacts)
    again = json.loads((execute(run, elsewhere).folder / "summary.json").read_text())
    assert again["metrics"] == found["metrics"] and again["curves"] == found["curves"]
    after = [(file.read_bytes(), file.stat().st_mtime_ns) for file in files]
    assert [content for content, _ in after] == [content for content, _ in before]
    assert [same == at for (_, same), (_, at) in zip(before, after, strict=True)] == [True, False, True]


def test_no_batch_decides_a_completion(
    place: tuple[Path, Machine], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder, machine = place
    tokens_T = np.arange(60) % CLASSES
    packing: Any = SimpleNamespace(vocabulary=CLASSES, rows=lambda rows: np.stack([tokens_T[r : r + 5] for r in rows]))
    wanted = Completions(packing, (0, 1, 4), LENGTH, 6, seed=0)
    oracle = model(1)
    together = wanted.sample([7, 9, 2], oracle, machine)
    assert torch.equal(together[1:2], wanted.sample([9], oracle, machine))
    assert torch.equal(together[0, 2], torch.from_numpy(tokens_T[7:12]).expand(6, -1))  # a whole row has no completion
    other_seed = Completions(packing, (0, 1, 4), LENGTH, 6, seed=1).sample([7], oracle, machine)
    assert not torch.equal(together[0, 0], other_seed[0, 0])
    monkeypatch.setitem(completions_file.ROOM, "cpu", 1)  # one row at a time
    wanted.write([7, 9, 2], oracle, tmp_path / "here", machine)
    for row, one in zip((7, 9, 2), together, strict=True):
        assert torch.equal(wanted.read(tmp_path / "here", row), one)


def test_what_is_missing_is_said_in_one_line(place: tuple[Path, Machine], tmp_path: Path) -> None:
    folder, machine = place
    with pytest.raises(
        ValueError, match=r"^The student onehot-.*, which martingale-.* measures, is not trained yet: run it first\.$"
    ):
        execute(run_of(folder, tokens="2000"), machine)
    words = {word: length for word, length in load_scale(str(folder / "small.toml")).lengths.items() if word != "64"}
    run = replace(run_of(folder), scale=run_of(folder).scale.model_copy(update={"lengths": words}))
    with pytest.raises(ValueError, match=r"does not say what length '64' is\. .*Add it to "):
        execute(run, Machine(machine.device, machine.autocast, tmp_path, machine.artifacts))
    with pytest.raises(ValueError, match="has no teacher"):
        execute(run_of(folder, teacher="none"), machine)


def test_an_exhibit_plans_teacher_student_and_one_probe() -> None:
    for name in TABLES + FIGURES:
        found = plan([name], load_scale("laptop"), [0, 1])
        assert list(found.teachers) == ["teacher-3b-onehot-s0-4b2f0ddd"]
        assert sorted(run.recipe.probe for run in found.runs.values()) == ["martingale"] * 2 + ["train"] * 2
    assert "onehot-s0-b1a820bf" in plan(["salt/table08"], load_scale("laptop"), [0]).runs  # CE of every other table


@pytest.mark.parametrize("name", TABLES)
def test_every_printed_cell_names_its_metric(name: str) -> None:
    kind = "xi" if name[-1] in "68" else "v"
    for row in load_exhibit(name).rows:
        assert row.metrics == {key: f"{kind}_{key}_T{row.label}" for key in row.published}


def test_scales_keep_the_order_of_the_papers_sizes() -> None:
    for name in ("smoke", "laptop", "h100", "paper"):
        lengths = load_scale(name).lengths
        for words in (("1", "5", "10", "30", "100", "300", "640"), ("64", "128", "256", "512", "1280")):
            sizes = [lengths[word] for word in words]
            assert sizes == sorted(set(sizes))
        for prefix, length in (("30", "64"), ("100", "128"), ("300", "512"), ("640", "1280")):
            assert lengths[prefix] <= lengths[length]
