"""Recipes, run ids and what they depend on."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from paper_tables import spec
from replication.axes.divergences import GhostToken
from replication.axes.targets.kept import TopK
from replication.axes.targets.sampled import RandomSampling
from replication.experiment.identity import changed, resolved, run_id
from replication.experiment.recipe import AXES, Recipe, parse, seeds
from replication.experiment.run import Run
from replication.experiment.scale import FOLDER, load_scale
from replication.planning.plan import recipes_of
from replication.probes.module import refuse_unready
from replication.records.promote import promote

GOLDEN = {
    "full-s0-4b34ddf6": {},
    "onehot-s0-b1a820bf": {"target": "OneHot"},
    "topk-k12-s0-e9b6628d": {"target": {"name": "TopK", "k": 12}},
    "randomsampling-s0-c6312b1f": {"target": {"name": "RandomSampling", "draws": 50}},
}


@pytest.mark.parametrize("name", GOLDEN)
def test_run_ids_stay_what_they_were(name: str) -> None:
    """Committed records are found by these ids: a change here orphans every one of them."""
    assert run_id(parse(GOLDEN[name]), "laptop", 0) == name


def test_stating_a_default_changes_nothing() -> None:
    stated = {
        "target": {"name": "RandomSampling", "draws": 50, "exponent": 1},
        "divergence": "ForwardKL",
        "teacher": "3B",
    }
    assert parse(stated) == parse({"target": "RandomSampling"})
    assert changed(parse(stated)) == {"target": {"name": "RandomSampling"}}


@pytest.mark.parametrize(
    "other",
    [{"student": "1B"}, {"tokens": "100B"}, {"target": "OneHot"}, {"target": {"name": "Full", "exponent": 0.5}},
     {"divergence": "L1"}, {"positions": "TopFraction"}, {"schedule": "TwoStage"}, {"delivery": "online"},
     {"samples": "RandomSamples"}, {"probe": "gradients"}, {"text": "path:x"},
     {"hidden": "Cosine"}, {"initial": "FromTeacherLayers"}, {"objective": "PrefixLM"}],
)  # fmt: skip
def test_every_field_that_decides_numbers_changes_the_id(other: dict[str, object]) -> None:
    assert run_id(parse(other), "laptop", 0) != run_id(Recipe(), "laptop", 0)
    assert run_id(parse(other), "laptop", 0) != run_id(parse(other), "laptop", 1)
    assert run_id(parse(other), "laptop", 0) != run_id(parse(other), "smoke", 0)


def test_a_resolved_recipe_reads_back() -> None:
    recipe = Recipe(target=TopK(50), divergence=GhostToken())
    assert parse(resolved(recipe)) == recipe
    assert json.loads(json.dumps(resolved(recipe))) == resolved(recipe)


@pytest.mark.parametrize("axis", AXES)
def test_the_methods_of_an_axis_are_named_after_their_classes(axis: str) -> None:
    for name, cls in AXES[axis].items():
        assert name == cls.__name__ and dataclasses.is_dataclass(cls) and cls.__dataclass_params__.frozen
        assert cls.__doc__


@pytest.mark.parametrize("name", spec.names())
def test_every_row_that_is_replicated_is_a_recipe(name: str) -> None:
    exhibit = spec.load(name)
    if exhibit.status == "replicated":
        for row in exhibit.rows:
            for stated in recipes_of(exhibit, row, load_scale("h100")):
                parse(stated)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.toml")), ids=lambda path: path.stem)
def test_every_scale_knows_the_words_of_every_exhibit(path: Path) -> None:
    scale = load_scale(path.stem)
    assert set(scale.roles) >= {"100M", "300M", "1B", "3B", "8B", "Qwen 0.5B"}
    for name in spec.names():
        exhibit = spec.load(name)
        here = path.stem in (exhibit.scales or [path.stem])
        for row in exhibit.rows if exhibit.status == "replicated" and here else []:
            for stated in recipes_of(exhibit, row, scale):
                run = Run(parse(stated), scale, 0)
                refuse_unready(run)
                assert run.steps >= 10


def test_paper_scale_is_tables_17_18_and_20() -> None:
    student, large = load_scale("paper").role("300M"), load_scale("paper").role("3B")
    assert (student.layers, student.width, student.ffn, student.heads) == (24, 1024, 2816, 8)
    assert (large.layers, large.width, large.ffn, large.heads, large.kv_heads) == (28, 3072, 8192, 24, 8)
    assert (student.optimiser.peak_rate, student.optimiser.final_rate, student.optimiser.batch) == (4e-4, 4e-5, 1024)
    assert (large.optimiser.peak_rate, large.optimiser.warmup, large.optimiser.clip) == (3e-4, 0.04, 1.0)
    assert Run(Recipe(), load_scale("paper"), 0).steps == 10_000


def test_seeds() -> None:
    assert seeds("2,0,1") == seeds(["0", "1", "2"]) == [0, 1, 2]
    for wrong in ("", "one", "-1", "1.5"):
        with pytest.raises(ValueError, match="whole numbers"):
            seeds(wrong)


def write_record(
    folder: Path, run: Run, loss: int = 1, corpus: str = "c", method: int = 1, teacher: str = "t",
    products: str = "float32", done: bool = True,
) -> None:  # fmt: skip
    place = folder / run.scale.name / run.id
    place.mkdir(parents=True)
    bound = {
        "numerics": {"loss": loss, "target.RandomSampling": method},
        "corpus": {"fingerprint": corpus},
        "inputs": {"teacher": teacher},
        "precision": {"products": products},
        "recipe": resolved(run.recipe),
        "settings": {},
    }
    (place / "config.json").write_text(json.dumps(bound))
    if done:
        (place / "summary.json").write_text("{}")


def two_runs() -> list[Run]:
    return [Run(Recipe(target=RandomSampling(draws)), load_scale("smoke"), 0) for draws in (5, 15)]


def test_complete_records_of_one_numerics_are_promoted(tmp_path: Path) -> None:
    for run in two_runs():
        write_record(tmp_path / "local", run)
    written = promote([run.id for run in two_runs()], "smoke", tmp_path / "local", tmp_path / "logged")
    assert [path.name for path in written] == [run.id for run in two_runs()]
    assert all((path / "summary.json").exists() for path in written)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"done": False}, "not complete"),
        ({"loss": 2}, "numerics of loss"),
        ({"corpus": "d"}, "text"),
        ({"method": 2}, "numerics of target.RandomSampling"),
        ({"teacher": "u"}, "teacher of"),
        ({"products": "bfloat16"}, "products"),
    ],
)
def test_incomplete_or_mixed_records_are_not_promoted(tmp_path: Path, second: dict[str, object], message: str) -> None:
    first, other = two_runs()
    write_record(tmp_path / "local", first)
    write_record(tmp_path / "local", other, **second)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        promote([run.id for run in two_runs()], "smoke", tmp_path / "local", tmp_path / "logged")
    assert not (tmp_path / "logged").exists()
