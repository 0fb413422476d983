"""Which sequences are distilled: the selections on given scores, and the scores of a real student on real text."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pytest
import torch
from torch import Generator

from replication.axes.samples import (
    AllSamples,
    ChallengingSamples,
    DifferenceSamples,
    EasySamples,
    RandomSamples,
    Samples,
    TopSamples,
)
from replication.axes.scoring import STUDENT, Score, StudentEntropy
from replication.cache.manifest import read_manifest
from replication.data.packing import Packing
from replication.execution.execute import execute
from replication.experiment.lineage import AtItsEnd
from replication.experiment.recipe import parse
from replication.experiment.run import Run, Scores
from replication.experiment.scale import load_scale
from replication.machine.device import Machine, this_machine
from replication.model.decoder import fingerprint, load, logits_of
from replication.planning.plan import Plan
from replication.training import scores
from replication.training.before import refusals
from replication.training.needs import Need
from replication.training.replaced import settle
from replication.training.run_data import Data, data_for, order_of, pool_of
from replication.training.scores import scored
from replication.training.teacher_pass import build
from replication.training.training import Training
from replication.training.weights import model_folder, starting_point, teacher_for
from tests.small import write_scale
from workflow.steps import before

TOP = {"name": "TopSamples", "keep": 0.05}
KEEPING = ("RandomSamples", "TopSamples", "DifferenceSamples", "EasySamples")
NOT_SCORED = torch.full((10,), torch.nan)


def chosen(samples: Samples, scores_S: torch.Tensor = NOT_SCORED, seed: int = 0, stage: int = 0) -> list[int]:
    return samples(scores_S, stage, Generator().manual_seed(seed)).tolist()


def test_all_and_random_samples_look_at_no_score() -> None:
    assert chosen(AllSamples()) == list(range(10))
    two = {tuple(chosen(RandomSamples(0.2), seed=seed)) for seed in range(60)}
    assert {row for pair in two for row in pair} == set(range(10))
    assert all(len(pair) == 2 and pair[0] < pair[1] for pair in two)
    assert AllSamples().readers == () == RandomSamples().readers


@pytest.mark.parametrize(("keep", "number"), [(0.2, 2), (0.25, 2), (0.01, 1), (1.0, 10)])
def test_top_samples_have_the_highest_mean_entropy(keep: float, number: int) -> None:
    entropies = np.random.default_rng(0).random((10, 4))
    assert TopSamples().readers == (STUDENT,)
    given = torch.from_numpy(entropies.mean(1)).float()
    assert chosen(TopSamples(keep), given) == oracle.top_samples(entropies.tolist(), number)


def test_of_equal_scores_the_first_are_taken() -> None:
    assert chosen(TopSamples(0.3), torch.tensor([1.0, 2, 1, 1, 2, 1, 0, 1, 0, 0])) == [0, 1, 4]


def test_as_many_challenging_samples_as_the_stage_reads() -> None:
    given = torch.tensor([1.0, 2, -1, 1, 2, 1, 0, 1, 0, 0])
    assert chosen(ChallengingSamples(), given, stage=4) == [0, 1, 3, 4]
    assert chosen(ChallengingSamples(), given, stage=99) == list(range(10))
    assert chosen(EasySamples(), given, stage=4) == chosen(EasySamples(), given, stage=2) == [0, 1, 3, 4]
    assert chosen(DifferenceSamples(), given) == [0, 1, 3, 4, 5]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        *(({"name": name, "keep": 0.0}, f"{name}.keep is 0.0; give the share of sequences") for name in KEEPING),
        *(({"name": name, "keep": 1.5}, f"{name}.keep is 1.5; give the share of sequences") for name in KEEPING),
        ({"name": "TopSamples", "signal": "entropy"}, "TopSamples.signal is 'entropy'; give one of ce_ratio, kl,"),
        ({"name": "ChallengingSamples", "k": 0}, "ChallengingSamples.k is 0; give a whole number"),
        ({"name": "ChallengingSamples", "outside": "no"}, "outside is 'no'; give 'removed' or 'zeros'"),
        ({"name": "EasySamples", "until": 1.2}, "EasySamples.until is 1.2; give a share of training"),
        ({"name": "EasySamples", "early": 0.0}, "EasySamples.early is 0.0; give a share of training"),
    ],
)
def test_what_means_nothing_is_refused(said: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        parse({"samples": said})


@pytest.mark.parametrize("signal", ["ce_ratio", "kl"])
def test_scores_by_a_teacher_need_one(signal: str) -> None:
    with pytest.raises(ValueError, match="Samples TopSamples are chosen by a teacher, and teacher is 'none'"):
        parse({"teacher": "none", "target": "OneHot", "samples": {"name": "TopSamples", "signal": signal}})
    parse({"teacher": "none", "target": "OneHot", "samples": "TopSamples"})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Machine]:
    folder = tmp_path_factory.mktemp("samples")
    write_scale(folder)
    return folder, replace(this_machine(folder / "results", folder / "artifacts"), autocast=False)


def run_of(folder: Path, stated: dict[str, object], seed: int = 0) -> Run:
    return Run(parse(stated), load_scale(str(folder / "small.toml")), seed)


def scored_data(run: Run, machine: Machine) -> tuple[Data, Scores]:
    data = scored(run, data_for(run, machine.artifacts), machine)
    assert data.scores is not None
    return data, data.scores


@pytest.mark.parametrize("linear", [True, False], ids=["head and states", "logits"])
def test_scores_are_the_mean_entropies_of_the_student_before_its_first_step(
    place: tuple[Path, Machine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, linear: bool
) -> None:
    if not linear:
        monkeypatch.setattr("replication.training.scores.scaling_of", lambda *_: None)
    folder, machine = place
    run = run_of(folder, {"target": "OneHot", "samples": TOP})
    data, found = scored_data(run, replace(machine, artifacts=tmp_path))
    assert len(found.values_P) == len(data.train)
    rows_B = np.arange(5)
    tokens = torch.from_numpy(data.train.rows(rows_B)[:, :-1])
    model = starting_point(run, data, machine).eval()
    with torch.no_grad():
        logits_BLV = logits_of(model, tokens, data.tokenizer.vocabulary).double().numpy()
    meant = [np.mean([oracle.entropy(row) for row in rows]) for rows in logits_BLV]
    np.testing.assert_allclose(found.values_P[rows_B], meant, rtol=1e-5)
    kept = round(0.05 * len(data.train))
    assert order_of(run, data).tolist() == oracle.top_samples(found.values_P[:, None].tolist(), kept)


def test_scores_are_made_once_and_again_where_what_they_follow_from_is_another(
    place: tuple[Path, Machine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, machine = place
    machine, passes, of_rows = replace(machine, artifacts=tmp_path), [], scores.of_rows

    def noted(score: Score, *given: Any) -> Iterator[np.ndarray]:
        passes.append(score)
        return of_rows(score, *given)

    monkeypatch.setattr(scores, "of_rows", noted)
    run = run_of(folder, {"target": "OneHot", "samples": TOP})
    first, again = (scored_data(run, machine)[1] for _ in range(2))
    assert passes == [StudentEntropy()] and first.fingerprint == again.fingerprint
    assert np.array_equal(first.values_P, again.values_P)
    larger = run_of(folder, {"target": "OneHot", "samples": TOP, "student": "3B"})
    others = [
        scored_data(larger, machine)[1],
        scored_data(run_of(folder, {"target": "OneHot", "samples": TOP}, 1), machine)[1],
    ]
    assert len(passes) == 3 and len({each.fingerprint for each in (first, *others)}) == 3
    assert (
        scored(run_of(folder, {"target": "OneHot"}), first_data := data_for(run, machine.artifacts), machine)
        is first_data
    )
    (file,) = (tmp_path / "small/scores").glob(f"studententropy-{first.fingerprint}.npy")
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(ValueError, match="does not hold .* scores. Delete it"):
        scored_data(run, machine)


def test_a_pass_that_is_stopped_leaves_nothing_to_be_believed(
    place: tuple[Path, Machine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, machine = place
    machine = replace(machine, artifacts=tmp_path)
    run = run_of(folder, {"target": "OneHot", "samples": TOP})
    of_rows = scores.of_rows

    def stopping(*given: Any) -> Iterator[np.ndarray]:
        yield next(iter(of_rows(*given)))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(scores, "of_rows", stopping)
        scored_data(run, machine)
    assert not list(tmp_path.rglob("studententropy*"))
    assert len(scored_data(run, machine)[1].values_P) > 16


def test_a_cache_holds_the_chosen_rows_and_belongs_to_the_student_who_chose(place: tuple[Path, Machine]) -> None:
    folder, machine = place
    stated = {"target": {"name": "TopK", "k": 5}, "samples": TOP}
    run, larger = run_of(folder, stated), run_of(folder, {**stated, "student": "3B"})
    assert run.teacher is not None
    execute(run.teacher, machine)
    build([Need(run)], machine)
    data, _ = scored_data(run, machine)
    assert Need(run).problems(Need(run).folder(machine), data, teacher_for(run, machine), machine) == []
    assert Need(run).folder(machine) != Need(larger).folder(machine)
    everything = {"target": {"name": "TopK", "k": 5}}
    assert Need(run_of(folder, everything)).folder(machine) == Need(
        run_of(folder, {**everything, "student": "3B"})
    ).folder(machine)
    training = Training(run, data, teacher_for(run, machine), machine)
    assert set(
        np.concatenate([rows_B for step in range(run.steps) for rows_B, _ in training.micro_batches(step)])
    ) == set(order_of(run, data)[: Need(run).sequences].tolist())
    assert (execute(run, machine).folder / "summary.json").exists()


# Pools, stages, and models that are made to choose


MODELS = """
["roles"."tiny"]
layers = 1
width = 8
ffn = 16
heads = 2
kv_heads = 2
length = "4096"
optimiser = { peak_rate = 3e-3, final_rate = 3e-4, warmup = 0.1, batch = 8 }

["roles"."short"]
layers = 1
width = 8
ffn = 16
heads = 2
kv_heads = 2
length = "1024"
optimiser = { peak_rate = 3e-3, final_rate = 3e-4, warmup = 0.1, batch = 8 }
"""
DIFFERENCE = {"name": "DifferenceSamples", "reference": "tiny", "reference_tokens": "960", "pool": "2304"}
STAGED = {"name": "ChallengingSamples", "until": 0.3, "early": 0.5, "pool": "10B", "k": 20}
EASY = {**STAGED, "name": "EasySamples", "keep": 0.5}


@pytest.fixture(scope="module")
def staged(place: tuple[Path, Machine]) -> tuple[Path, Machine]:
    """With a third role, of shorter rows."""
    folder, machine = place
    path = folder / "small.toml"
    path.write_text(path.read_text() + MODELS)
    return place


def made(run: Run, machine: Machine) -> Plan:
    """All that the run needs, in the order of the plan."""
    found = Plan()
    found.add(run)
    for each in found.teachers.values():
        assert execute(each, machine).done
    build(found.needs, machine)
    return found


def test_a_pool_is_the_first_rows_that_training_would_read(staged: tuple[Path, Machine]) -> None:
    folder, machine = staged
    run = run_of(folder, {"target": "OneHot", "samples": {"name": "RandomSamples", "keep": 0.25, "pool": "960"}})
    data = data_for(run, machine.artifacts)
    assert pool_of(run, data).tolist() == list(range(40)) and run.settings()["pool"] == 960
    order = order_of(run, data).tolist()
    assert len(order) == 10 and set(order) < set(range(40)) and order == sorted(order)
    for word, rows in (("100_000_000", "4,166,666"), ("20", "0")):
        with pytest.raises(ValueError, match=rf"^A pool of {word} tokens is {rows} rows of 24, and .* are there"):
            other = run_of(folder, {"target": "OneHot", "samples": {"name": "RandomSamples", "pool": word}})
            order_of(other, data)


def test_an_early_checkpoint_is_the_whole_run_stopped(staged: tuple[Path, Machine]) -> None:
    """Weights and logged losses are those of the teacher on its way, after as many steps of its own schedule."""
    folder, machine = staged
    early = run_of(folder, {"samples": STAGED}).scorers["early"]
    assert isinstance(early, Run) and early.seed == 0 and (early.steps, early.horizon) == (6, 12)
    whole = replace(early, recipe=replace(early.recipe, stop=AtItsEnd()))
    assert whole == run_of(folder, {}).teacher and whole.id != early.id
    lines = execute(early, machine).lines("metrics.jsonl")
    training = Training(whole, data_for(whole, machine.artifacts), None, machine)
    losses = [training.advance()[0] for _ in range(6)]
    assert [line["loss"] for line in lines if line["step"] <= 6] == losses
    assert fingerprint(load(model_folder(early, machine))) == fingerprint(training.model)


@pytest.mark.parametrize("said", [STAGED, EASY], ids=lambda said: said["name"])
def test_a_first_stage_reads_chosen_rows_and_then_the_rest_of_the_pool(
    staged: tuple[Path, Machine], said: dict[str, Any]
) -> None:
    """None of which the early teacher has read, which for another seed packs them in another order."""
    folder, machine = staged
    run = run_of(folder, {"target": "OneHot", "samples": said, "schedule": {"name": "TwoStage", "until": 0.3}}, seed=1)
    early = run.scorers["early"]
    assert isinstance(early, Run)
    execute(early, machine)
    data, found = scored_data(run, machine)
    pool = pool_of(run, data)
    assert (
        run.stage == 16
        and len(pool) == 48
        and found.readers == {"early": fingerprint(load(model_folder(early, machine)))}
    )
    its = data_for(early, machine.artifacts)
    theirs = {(document, offset) for row in order_of(early, its)[:24] for document, offset in tokens_of(its.train, row)}
    assert all(theirs.isdisjoint(tokens_of(data.train, row)) for row in pool)
    order = order_of(run, data)
    assert sorted(order) == pool.tolist() and sorted(order[16:]) == order[16:].tolist()
    ranked = pool[np.argsort(-found.values_P, kind="stable")]
    assert set(order[:16]) <= set(ranked[: 16 if said is STAGED else 24])
    first = [rows_B for step in range(4) for rows_B, _ in Training(run, data, None, machine).micro_batches(step)]
    assert set(np.concatenate(first)) == set(order[:16])


def tokens_of(packing: Packing, row: int) -> set[tuple[int, int]]:
    """The tokens that a row has as inputs: (document of the corpus, offset in it)."""
    place, offset = packing.place_of(packing.positions_of([row], packing.length)[0])
    return set(zip(packing.documents_D[place].tolist(), offset.tolist(), strict=True))


def test_a_stage_that_reads_more_than_is_kept_is_refused(staged: tuple[Path, Machine]) -> None:
    folder, machine = staged
    run = run_of(folder, {"target": "OneHot", "samples": {**EASY, "keep": 0.1}})
    execute(run.scorers["early"], machine)  # type: ignore[arg-type]
    data, _ = scored_data(run, machine)
    with pytest.raises(
        ValueError, match="first stage reads 16 sequences, and samples EasySamples keeps 5 of 48: give a"
    ):
        order_of(run, data)


def test_miniplm_s_reference_is_a_run_of_its_own_on_other_rows(staged: tuple[Path, Machine]) -> None:
    """It is planned, recorded and looked after; half of a pool twice as large is read, in the text's order."""
    folder, machine = staged
    run = run_of(folder, {"target": "OneHot", "samples": DIFFERENCE}, seed=2)
    with pytest.raises(ValueError, match="by which samples of .* are chosen, is not trained yet: run it first"):
        execute(run_of(folder, {"target": "OneHot", "samples": DIFFERENCE}, seed=3).teacher, machine)  # type: ignore[arg-type]
        scored(run, data_for(run, machine.artifacts), machine)
    planned = made(run, machine)
    reference = run.scorers["reference"]
    assert isinstance(reference, Run) and list(planned.teachers) == [run.teacher.id, reference.id]  # type: ignore[union-attr]
    assert before(run, planned)["runs"] == [run.teacher.id, reference.id]  # type: ignore[union-attr]
    record = execute(run, machine)
    assert record.config["inputs"]["reference"] == fingerprint(load(model_folder(reference, machine)))
    assert record.config["settings"]["reference_tokens"] == 960 and record.config["settings"]["pool"] == 2304
    data, found = scored_data(run, machine)
    pool = pool_of(run, data)
    assert pool.tolist() == list(range(40, 136))  # one packing: the reference read the rows before
    order = order_of(run, data)
    assert len(order) == 48 == run.steps * 4 and set(order) == set(
        pool[np.argsort(-found.values_P, kind="stable")][:48]
    )
    assert order.tolist() == sorted(order)
    model = load(model_folder(reference, machine))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter += name.endswith("weight")
    model.save_pretrained(model_folder(reference, machine))
    with pytest.raises(ValueError, match=rf"{run.id} was made with another reference {reference.id} \("):
        settle([run], machine)


def test_a_cache_holds_only_what_is_kept_of_the_pool(staged: tuple[Path, Machine]) -> None:
    """By the divergence of two models, and read once: the cache has 12 rows, and training reads no other."""
    folder, machine = staged
    said = {"name": "TopSamples", "keep": 0.25, "signal": "kl", "pool": "1152"}
    run = run_of(folder, {"target": {"name": "TopK", "k": 5}, "samples": said, "tokens": "288"})
    made(run, machine)
    data, found = scored_data(run, machine)
    assert set(found.readers) == {"student", "teacher"} and len(found.values_P) == 48
    assert read_manifest(Need(run).folder(machine)).sequences == 12 == len(order_of(run, data))
    assert execute(run, machine).done


def test_a_run_that_is_stopped_reads_the_same_rows_again(staged: tuple[Path, Machine], monkeypatch: Any) -> None:
    """Killed in its second stage, after its checkpoint of step 3 and that of step 6."""
    folder, machine = staged
    stated = {"target": "OneHot", "samples": EASY, "schedule": {"name": "TwoStage", "until": 0.3}}
    run, advance, read = run_of(folder, stated), Training.advance, list[np.ndarray]()
    execute(run.teacher, machine)  # type: ignore[arg-type]
    execute(run.scorers["early"], machine)  # type: ignore[arg-type]

    def dying(self: Training) -> tuple[float, float, float]:
        if self.step == 7 and len(read) < 8:
            read.append(np.array(()))
            raise KeyboardInterrupt
        read.append(np.concatenate([rows_B for rows_B, _ in self.micro_batches(self.step)]))
        return advance(self)

    monkeypatch.setattr(Training, "advance", dying)
    with pytest.raises(KeyboardInterrupt):
        execute(run, machine)
    record = execute(run, machine)
    data, _ = scored_data(run, machine)
    assert [rows.tolist() for rows in [*read[:6], *read[8:]]] == order_of(run, data).reshape(12, 4).tolist()
    other = replace(machine, results=machine.results.with_name("undisturbed"))
    again = execute(run, other)
    for name in ("loss", "gradient_norm"):
        assert [x[name] for x in record.lines("metrics.jsonl")] == [x[name] for x in again.lines("metrics.jsonl")]


def test_a_reader_of_shorter_rows_is_left_out_too_and_scores_no_longer_ones(staged: tuple[Path, Machine]) -> None:
    folder, machine = staged
    run = run_of(folder, {"target": "OneHot", "samples": {**DIFFERENCE, "reference": "short"}})
    reference, data = run.scorers["reference"], data_for(run, machine.artifacts)
    assert isinstance(reference, Run) and reference.length == 8
    its = data.repack(run.seed, 8)
    read = {token for row in range(reference.steps * 8) for token in tokens_of(its, row)}
    left = set(pool_of(run, data).tolist())
    for row in range(max(left)):
        assert read.isdisjoint(tokens_of(data.train, row)) == (row in left)
    (line,) = refusals(run)
    assert line.startswith("The reference 'short' (llama) reads at most 8 tokens, and rows of scale")


def test_a_reference_may_come_from_elsewhere(staged: tuple[Path, Machine], tmp_path: Path) -> None:
    """It leaves no rows out; it is looked at before any work, and known again when it is replaced."""
    folder, machine = staged
    run = run_of(folder, {"target": "OneHot", "samples": DIFFERENCE}, seed=4)
    made(run, machine)
    place = tmp_path / "reference"
    shutil.copytree(model_folder(run.scorers["reference"], machine), place)  # type: ignore[arg-type]
    elsewhere = run_of(folder, {"target": "OneHot", "samples": {**DIFFERENCE, "reference": str(place)}}, seed=4)
    assert elsewhere.scorers["reference"] == str(place) == elsewhere.settings()["reference"]
    assert list(refusals(elsewhere)) == []
    record = execute(elsewhere, machine)
    assert record.config["inputs"]["reference"] == fingerprint(load(place))
    assert pool_of(elsewhere, data_for(elsewhere, machine.artifacts))[0] == 0
    settle([elsewhere], machine)
    model = load(place)
    with torch.no_grad():
        model.get_output_embeddings().weight.add_(1)
    model.save_pretrained(place)
    with pytest.raises(ValueError, match=r"was made with another reference .* \(.* then, .* now\)"):
        settle([elsewhere], machine)
    shutil.rmtree(place)
    (line,) = refusals(elsewhere)
    assert str(place) in line


def test_an_early_checkpoint_of_a_teacher_from_elsewhere_must_be_given(staged: tuple[Path, Machine]) -> None:
    folder, _ = staged
    run = run_of(folder, {"teacher": "some/model", "student": "some/model", "samples": STAGED})
    with pytest.raises(
        ValueError, match=r"'some/model' is no role that is trained here: give samples = \{ \.\.\., scorer"
    ):
        run.settings()
    given = run_of(folder, {"teacher": "some/model", "student": "some/model", "samples": {**STAGED, "scorer": "a/b"}})
    assert given.scorers == {"early": "a/b"}
    beside = run_of(folder, {"teacher": "some/model", "samples": DIFFERENCE})
    with pytest.raises(ValueError, match="'tiny' would be trained with the scale's tokenizer, and 'some/model' brings"):
        beside.settings()
