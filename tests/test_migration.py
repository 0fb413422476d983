"""Records of format 1 become records of format 2: once, without a number changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from planted import DEFAULTS, SETTINGS

from analysis.records import records
from tools.migrate_records import BEFORE, main

TODAY, NOVEMBER_25, NOVEMBER_22 = (
    next(code for code in BEFORE if code.startswith(short)) for short in ("cb0781", "5f45cd", "64ecac")
)
SAMPLED = {"target": {"name": "RandomSampling", "draws": 50}}
ONE_HOT = {"target": {"name": "OneHot"}}
ZIPF = {"toy": "zipf", "target": {"name": "TopK", "k": 20}, "divergence": {"name": "ForwardKL"}}


def plant_old(folder: Path, name: str, recipe: dict[str, Any], code: str, **other: Any) -> Path:
    """A record of format 1 with a summary and a log; `methods` is absent, as from the first ones."""
    path = folder / name
    path.mkdir(parents=True)
    config = {
        "format": 1, "run_id": name, "recipe": recipe, "changed": {}, "scale": folder.name, "settings": SETTINGS,
        "seed": 0, "corpus": {"name": "stdlib", "fingerprint": "c0ffee"}, "packing": "9acced", "code": code,
        "commit": "c0441417", "versions": {"torch": "2"}, "hardware": {"cores": 2}, **other,
    }  # fmt: skip
    summary = {"run_id": name, "metrics": {"lm_loss": 3.1234567890123457}, "curves": {}, "diverged": False}
    (path / "config.json").write_text(json.dumps(config))
    (path / "summary.json").write_text(json.dumps(summary))
    (path / "metrics.jsonl").write_text('{"step": 20, "loss": 4.0}\n')
    return path / "config.json"


def migrated(tmp_path: Path, recipe: dict[str, Any], code: str, **other: Any) -> dict[str, Any]:
    path = plant_old(tmp_path / "laptop", "run", recipe, code, **other)
    assert main(["--results", str(tmp_path)]) == 0
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_numbers_and_names_stay(tmp_path: Path) -> None:
    old = json.loads(plant_old(tmp_path / "kept", "run", DEFAULTS, TODAY, methods={"Full": "f"}).read_text())
    path = plant_old(tmp_path / "results" / "laptop", "run", DEFAULTS, TODAY, methods={"Full": "f"})
    others = {name: path.with_name(name).read_bytes() for name in ("summary.json", "metrics.jsonl")}
    assert main(["--results", str(tmp_path / "results")]) == 0
    new = json.loads(path.read_text())
    same = ("run_id", "recipe", "changed", "settings", "seed", "corpus", "versions", "hardware")
    assert {key: new[key] for key in same} == {key: old[key] for key in same}
    assert set(new) == {*same, "format", "scale", "numerics", "inputs", "precision", "source"}
    assert new["source"] == {"code": TODAY, "methods": {"Full": "f"}, "commit": "c0441417"}
    assert {name: path.with_name(name).read_bytes() for name in others} == others
    assert sorted(each.name for each in path.parent.iterdir()) == ["config.json", "metrics.jsonl", "summary.json"]
    assert [record.run_id for record in records(path.parent.parent)] == ["run"]


def test_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also of this machine's own records, which lie under local/."""
    paths = [plant_old(tmp_path / place / "laptop", "run", DEFAULTS, TODAY) for place in (".", "local")]
    assert main(["--results", str(tmp_path)]) == 0
    texts = [path.read_bytes() for path in paths]
    times = [path.stat().st_mtime_ns for path in paths]
    assert main(["--results", str(tmp_path)]) == 0
    assert [path.read_bytes() for path in paths] == texts and [p.stat().st_mtime_ns for p in paths] == times
    assert capsys.readouterr().out == (
        "2 records: 2 migrated, 0 were in format 2.\n2 records: 0 migrated, 2 were in format 2.\n"
    )


def test_a_cached_student_went_through_an_older_delivery_and_plain_training_through_none(tmp_path: Path) -> None:
    cached = migrated(tmp_path / "a", {**DEFAULTS, **SAMPLED}, NOVEMBER_25)
    assert cached["numerics"] == {
        **dict.fromkeys(("data", "model", "loss", "optimiser", "evaluate"), 1), "delivery": 0,
        "target.RandomSampling": 0, "divergence.ForwardKL": 1, "schedule.Constant": 1,
    }  # fmt: skip
    assert cached["inputs"] == {"packing": "9acced", "teacher": "unrecorded (5f45cd)"}
    assert cached["precision"] == {"products": "unrecorded"}
    plain = migrated(tmp_path / "b", {**DEFAULTS, **ONE_HOT}, NOVEMBER_25)["numerics"]
    assert "delivery" not in plain and set(plain.values()) == {1}


def test_nothing_of_the_oldest_is_taken_for_today_s(tmp_path: Path) -> None:
    found = migrated(tmp_path, {**DEFAULTS, **SAMPLED}, NOVEMBER_22)
    shared = {part: number for part, number in found["numerics"].items() if "." not in part}
    assert len(shared) == 6 and set(shared.values()) == {0}
    assert found["inputs"]["teacher"] == "unrecorded (64ecac)"


def test_a_probe_and_a_teacher_s_own_run(tmp_path: Path) -> None:
    probe = migrated(tmp_path / "a", {**DEFAULTS, **SAMPLED, "probe": "frontier"}, TODAY)["numerics"]
    assert set(probe) >= {"data", "model", "delivery", "probe.frontier"} and set(probe.values()) == {1}
    assert not {"loss", "optimiser", "evaluate"} & set(probe)
    teacher = migrated(tmp_path / "b", {**DEFAULTS, **ONE_HOT, "teacher": "none"}, TODAY)
    assert teacher["inputs"] == {"packing": "9acced"}


@pytest.mark.parametrize(("short", "number"), [("667d99", 0), ("70767b", 1)])
def test_a_toy_has_no_weights_and_its_study_s_integer(tmp_path: Path, short: str, number: int) -> None:
    code = next(code for code in BEFORE if code.startswith(short))
    found = migrated(tmp_path, ZIPF, code, packing="none")
    assert found["numerics"] == {"toy.zipf": number, "target.TopK": 1, "divergence.ForwardKL": 1}
    assert found["inputs"] == {} and "precision" not in found


@pytest.mark.parametrize(
    ("change", "said"),
    [({"code": "feed"}, "made by source feed"), ({"format": 3}, "no format that is known"), (None, "is not JSON")],
)
def test_what_is_unknown_is_left_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any] | None, said: str
) -> None:
    odd = plant_old(tmp_path / "laptop", "odd", DEFAULTS, TODAY)
    odd.write_text("{" if change is None else json.dumps({**json.loads(odd.read_text()), **change}))
    text = odd.read_text()
    plain = plant_old(tmp_path / "laptop", "plain", DEFAULTS, TODAY)
    assert main(["--results", str(tmp_path)]) == 2
    printed = capsys.readouterr()
    assert said in printed.err and len(printed.err.splitlines()) == 1 and "odd" in printed.err
    assert odd.read_text() == text and json.loads(plain.read_text())["format"] == 2
    assert printed.out == "2 records: 1 migrated, 0 were in format 2.\n"


def test_every_logged_record_is_migrated() -> None:
    results = Path(__file__).parent.parent / "results"
    formats = {json.loads(path.read_text())["format"] for path in results.glob("*/*/config.json")}
    assert formats == {2}
