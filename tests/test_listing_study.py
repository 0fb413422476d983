"""The study of App. K's listings against the listings themselves (oracle.py), and its records against its exhibit."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import oracle
import pytest
import torch

from analysis.cells import cells
from analysis.load import frame, records
from paper_tables import spec
from toy import __main__ as command
from toy import listing
from toy.listing import LISTINGS, Setting

EXHIBIT = "ours/figure01"
ROUNDS = [[0, 1, 2, 3], [1, 0, 0, 0], [4, 4, 4, 4], [0, 3, 0, 3], [2, 1, 2, 4]]


def listed(rounds: list[list[int]], name: str) -> tuple[np.ndarray, float | None]:
    """The normalised mean target over 5 classes and the reported number."""
    ids_RD = torch.tensor(rounds)
    found = LISTINGS[name](listing.first_slots(ids_RD))
    return listing.mean_target(ids_RD, found, 5).numpy(), found.reported


def test_the_toy_listing_does_what_is_printed() -> None:
    mean, reported = listed(ROUNDS, "toy as printed")
    wanted, effective = oracle.toy_sampling_as_printed(ROUNDS, 5)
    assert np.allclose(mean, wanted, rtol=1e-14) and reported == effective


def test_the_toy_listing_as_meant() -> None:
    mean, reported = listed(ROUNDS, "as meant")
    wanted, unique = oracle.toy_sampling(ROUNDS, 5)
    assert np.allclose(mean, wanted, rtol=1e-14) and reported == unique
    assert np.allclose(mean, sum(oracle.listed_draws(drawn, 5) for drawn in ROUNDS) / len(ROUNDS), rtol=1e-14)


def test_the_training_listing_does_what_is_printed() -> None:
    mean, reported = listed(ROUNDS, "training as printed")
    total = sum(oracle.listed_draws_as_printed(drawn, 5) for drawn in ROUNDS)
    assert np.allclose(mean, total / total.sum(), rtol=1e-14) and reported is None


def test_the_printed_toy_weighs_draws_by_their_order() -> None:
    first, _ = listed([[0, 1, 1, 1]], "toy as printed")
    last, _ = listed([[1, 1, 1, 0]], "toy as printed")
    assert first[0] > 0.25 > last[0]
    # a draw is divided by 4 once, and again at every later draw: 1/4 + 1/16 + ...
    weights = [sum(4.0**-power for power in range(1, 5 - i)) for i in range(4)]
    assert first[0] == pytest.approx(weights[0] / sum(weights)) and last[0] == pytest.approx(weights[3] / sum(weights))


@pytest.mark.parametrize("name", LISTINGS)
def test_closed_forms(name: str) -> None:
    """Against every outcome of three draws from four classes, in every order."""
    teacher = np.array([1, 1 / 2, 1 / 3, 1 / 4]) / (1 + 1 / 2 + 1 / 3 + 1 / 4)
    printed = {
        "toy as printed": oracle.toy_sampling_as_printed,
        "training as printed": lambda rounds, classes: (oracle.listed_draws_as_printed(rounds[0], classes), None),
        "as meant": oracle.toy_sampling,
    }[name]
    mean, reported, mass = np.zeros(4), 0.0, 0.0
    for drawn in np.ndindex(4, 4, 4):
        chance = math.prod(teacher[list(drawn)])
        weights = LISTINGS[name](listing.first_slots(torch.tensor([drawn]))).weights_RD
        target, effective = printed([list(drawn)], 4)
        mass += chance * float(weights.sum())
        mean += chance * target * (float(weights.sum()) / target.sum())
        reported += chance * effective if effective is not None else math.nan
    found = listing.expected(Setting(name, 4, 3), torch.from_numpy(teacher))
    assert found["expected_mass"] == pytest.approx(mass, rel=1e-12)
    assert found["expected_l1_bias"] == pytest.approx(np.abs(mean / mean.sum() - teacher).sum(), abs=1e-12)
    assert found["expected_unique_classes"] == pytest.approx((1 - (1 - teacher) ** 3).sum(), rel=1e-12)
    if math.isnan(reported):
        assert "expected_reported_classes" not in found
    else:
        assert found["expected_reported_classes"] == pytest.approx(reported, rel=1e-12)


def test_all_listings_see_the_same_draws() -> None:
    found = {name: listing.run(Setting(name, 2000, rounds=300), 4)[0] for name in LISTINGS}
    assert len({metrics["unique_classes"] for metrics in found.values()}) == 1
    assert found["as meant"]["round_error"] == 0 and found["as meant"]["mass"] == pytest.approx(1)
    toy, training = found["toy as printed"], found["training as printed"]
    assert toy["round_error"] == pytest.approx(toy["mass"] - 1) and toy["mass"] == pytest.approx(toy["expected_mass"])
    assert training["round_error"] == pytest.approx(1 - training["mass"])
    assert toy["reported_classes"] == pytest.approx(toy["expected_reported_classes"], rel=0.02)
    assert "reported_classes" not in training


def test_draws_come_in_no_order() -> None:
    setting = Setting("as meant", 50, 10, 4000)
    teacher_V = torch.full((50,), 0.02, dtype=torch.float64)
    ids_RD = listing.rounds(setting, teacher_V, 0).double()
    # of uniform draws each place in a round has the mean 24.5, with a standard error of 0.23
    assert (ids_RD.mean(0) - 24.5).abs().max() < 4 * 0.23


@pytest.mark.parametrize("name", LISTINGS)
def test_a_seed_says_it_all(name: str) -> None:
    setting = Setting(name, 300, rounds=50)
    assert listing.run(setting, 1) == listing.run(setting, 1)
    assert listing.run(setting, 1) != listing.run(setting, 2)


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"listing": "as ment"}, r"Unknown listing 'as ment' \(did you mean 'as meant'\?\)"),
        ({"draws": 0}, "draws is 0"),
        ({"rounds": True}, "rounds is True"),
        ({"vocabulary": -5}, "vocabulary is -5"),
    ],
)
def test_bad_settings_are_refused(stated: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Setting(**stated)  # type: ignore[arg-type]


def test_one_class_and_one_draw() -> None:
    metrics, curves = listing.run(Setting("toy as printed", 1, 1, 1), 0)
    assert metrics["l1_bias"] == 0 and metrics["reported_classes"] == metrics["expected_reported_classes"] == 1
    assert curves["targets"] == {"class": [1], "teacher": [1.0], "mean_target": [1.0]}


def test_records_fill_the_exhibit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = tmp_path / "tables"
    shutil.copytree(spec.ROOT, tables, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    path = tables / f"{EXHIBIT}.toml"
    path.write_text(path.read_text().replace("vocabulary = 100000", "vocabulary = 900"))
    monkeypatch.setattr(spec, "ROOT", tables)
    assert command.main([EXHIBIT, "--seeds", "0,1", "--scale", "smoke", "--results", str(tmp_path)]) == 0
    exhibit, found = spec.load(EXHIBIT), records(tmp_path / "smoke")
    assert len(found) == 6
    filled = set(cells(frame(exhibit, found, "yours")))
    everywhere = {(row.label, column.key) for row in exhibit.rows for column in exhibit.columns}
    training = "Training listing, as printed"
    assert everywhere - filled == {(training, "reported_classes"), (training, "expected_reported_classes")}
    assert all((row, one.column) in filled for one in exhibit.claims for row in one.rows)
