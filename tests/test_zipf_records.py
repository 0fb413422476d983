"""The records of the Zipf toy against the rows of its exhibits, from the command line; and how bad rows are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from analysis.cells import cells
from analysis.figures import inline
from analysis.load import choose, frame, records
from analysis.matching import by_cell
from paper_tables import spec
from toy import __main__ as command
from toy.study import stated_run

EXHIBIT = "rskd/figure02a"


def small(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str = EXHIBIT) -> None:
    """The exhibit with 1200 classes and 40 rounds, so that writing records takes no time."""
    shutil.copytree(spec.ROOT, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    path = folder / f"{name}.toml"
    text = path.read_text()
    path.write_text(text.replace("vocabulary = 100000", "vocabulary = 1200").replace("rounds = 1000", "rounds = 40"))
    assert path.read_text() != text
    monkeypatch.setattr(spec, "ROOT", folder)


NEVER_RANDOM = ("FullKD", "Top-K 20", "Smoothing 20", "Ghost Token 20", "Top-p 0.98, at most 100", "Top-p 0.5")
RATIOS = ("Random Sampling 22, exponent 0.8", "Random Sampling 22, exponent 1.2")
EMPTY = {(row, column) for row in NEVER_RANDOM for column in ("bias_over_noise", "variance_ratio")}
EMPTY |= {(row, "expected_l1_error") for row in RATIOS}


def test_records_fill_the_exhibit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small(tmp_path / "tables", monkeypatch)
    ours = tmp_path / "results"
    arguments = [EXHIBIT, "--seeds", "0,1", "--results", str(ours)]
    assert command.main(arguments) == 0
    assert "22 runs" in capsys.readouterr().out

    exhibit, found = spec.load(EXHIBIT), records(ours / "laptop")
    assert len(found) == 22
    matched = by_cell(exhibit, found)
    for row in exhibit.rows:
        for column in exhibit.columns:
            assert [record.seed for record in matched[row.label, column.key]] == [0, 1], (row.label, column.key)
    assert len(choose(exhibit, found).kept) == 22
    table = frame(exhibit, found, "yours")
    assert table.attrs["notes"] == []
    everywhere = {(row.label, column.key) for row in exhibit.rows for column in exhibit.columns}
    assert everywhere - set(cells(table)) == EMPTY
    for record in found:
        first, beyond = record.summary.curves["targets"], record.summary.curves["octaves"]
        assert sum(first["teacher"]) + sum(beyond["teacher"]) == pytest.approx(1, abs=1e-12)
        assert sum(first["mean_target"]) + sum(beyond["mean_target"]) == pytest.approx(1, abs=1e-5)
        assert beyond["first"] == [51, 101, 201, 401, 801] and beyond["last"] == [100, 200, 400, 800, 1200]

    written = {path: path.read_bytes() for path in ours.rglob("*.json")}
    assert command.main(arguments) == 0
    assert "22 of them done before" in capsys.readouterr().out
    assert written == {path: path.read_bytes() for path in ours.rglob("*.json")}

    drawn = inline(exhibit, {"logged": table, "yours": table[:0]}, {"logged": found, "yours": []})
    # a label may be folded
    assert drawn is not None and all(f">{row.label.split(', ')[0]}" in drawn for row in exhibit.rows)


def test_every_row_is_a_run() -> None:
    exhibit = spec.load(EXHIBIT)
    printed = command.runs(EXHIBIT, "laptop", [0])
    assert len(exhibit.rows) == len(printed)


def test_the_better_draws_fill_their_exhibit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "ours/figure07"
    small(tmp_path / "tables", monkeypatch, name)
    assert command.main([name, "--results", str(tmp_path / "results"), "--scale", "smoke"]) == 0
    exhibit = spec.load(name)
    filled = set(cells(frame(exhibit, records(tmp_path / "results" / "smoke"), "yours")))
    for row in exhibit.rows:
        for column in exhibit.columns:
            # no closed form is known of a choice without replacement
            closed = column.key.startswith("expected") or column.key in ("variance_ratio", "bias_over_noise")
            wanted = not (closed and "Without replacement" in row.label)
            assert ((row.label, column.key) in filled) == wanted, (row.label, column.key)
    for one in exhibit.claims:
        assert all((row, one.column) in filled for row in one.rows), one.id


def test_records_fill_our_own_exhibit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "ours/figure02"
    small(tmp_path / "tables", monkeypatch, name)
    assert command.main([name, "--results", str(tmp_path / "results"), "--scale", "smoke"]) == 0
    exhibit, found = spec.load(name), records(tmp_path / "results" / "smoke")
    assert len(found) == len(exhibit.rows) == 15
    table = frame(exhibit, found, "yours")
    filled = set(cells(table))
    for row in exhibit.rows:
        for column in exhibit.columns:
            random = "Top-K" not in row.label
            assert ((row.label, column.key) in filled) == (
                random or (row.label, column.key) not in without_noise(row.label)
            )
    for one in exhibit.claims:
        assert all((row, one.column) in filled for row in one.rows), one.id


def without_noise(row: str) -> set[tuple[str, str]]:
    return {(row, "bias_over_noise"), (row, "variance_ratio")}


def test_a_record_says_what_was_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(tmp_path / "tables", monkeypatch)
    assert command.main([EXHIBIT, "--results", str(tmp_path)]) == 0
    path = next((tmp_path / "laptop").glob("zipf-randomsampling-draws22-forwardkl-s0-????????/config.json"))
    config = json.loads(path.read_text())
    target = {"name": "RandomSampling", "draws": 22, "exponent": 1.0}
    rest = {"divergence": {"name": "ForwardKL"}, "vocabulary": 1200, "rounds": 40}
    assert config["recipe"] == {"toy": "zipf", "teacher": "zipf", "exponent": 1.0, "target": target, **rest}
    assert config["changed"] == {"toy": "zipf", "target": {"name": "RandomSampling", "draws": 22}, **rest}
    assert config["corpus"] == {"name": "none", "fingerprint": "none"} and config["settings"] == {}
    assert {"source", "versions", "hardware", "format"} <= set(config) and config["run_id"] == path.parent.name
    one = {"toy.zipf": 2, "loss": 1, "target.RandomSampling": 1, "divergence.ForwardKL": 1}
    assert config["numerics"] == one and config["inputs"] == {} and "precision" not in config


def test_the_exhibit_as_printed_is_the_default_setting() -> None:
    changed = [set(run.changed) for _, run in command.runs(EXHIBIT, "laptop", [0])]
    assert changed == [{"toy", "target", "divergence"}] * 11


def test_ids_differ_where_runs_do() -> None:
    def identity(stated: dict[str, object], scale: str = "laptop", seed: int = 0) -> str:
        return stated_run({"toy": "zipf", **stated}, scale, seed).id

    base = {"target": {"name": "RandomSampling", "draws": 22}}
    ids = [identity(base), identity(base, "smoke"), identity(base, seed=1), identity({**base, "rounds": 5})]
    ids.append(identity({"target": {"name": "RandomSampling", "draws": 22, "exponent": 2}}))
    assert len(set(ids)) == len(ids)
    assert identity({**base, "exponent": 1}) == ids[0] == identity({**base, "vocabulary": 100_000})
    assert identity({"target": "Full"}) == identity({"target": {"name": "Full"}})
    assert identity({"target": "Full"}).startswith("zipf-full-forwardkl-s0-")


WRONG = {
    'target = { name = "TopK", k = 20 }': {
        'target = { name = "TopK", k = 0 }': "TopK.k is 0",
        'target = { name = "TopK", k = "20" }': "TopK.k is '20'",
        'target = { name = "TopK" }': "TopK needs 'k'",
        'target = { name = "TopKK", k = 20 }': "Unknown target 'TopKK'",
        'target = { name = "TopK", k = 20, p = 1 }': "TopK has no field 'p'",
        'target = { name = "TopK", k = 1201 }': "the teacher has 1200 classes",
        'target = "Full", round = 3': "Setting has no field 'round'",
    },
    "rounds = 40": {"rounds = 0": "rounds is 0", "rounds = true": "Setting.rounds is True"},
    "vocabulary = 1200": {"vocabulary = 2.5": "Setting.vocabulary is 2.5"},
    'divergence = "GhostToken"': {'divergence = "MSE"': "MSE is not one of the divergences whose optimum"},
    'target = "Full"': {
        'target = "Full", divergence = "GhostToken"': "give it TopK or TopP",
        'target = "Full", teacher = "laptop-3B"': "Unknown teacher 'laptop-3B' (did you mean 'laptop-3b'?)",
        'target = "Full", teacher = "laptop-3b"': "vocabulary is 1200, but teacher 'laptop-3b' has 2048 classes.",
    },
    "exponent = 1.0": {"exponent = -1": "exponent is -1.0"},
}


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [(right, wrong, message) for right, all_wrong in WRONG.items() for wrong, message in all_wrong.items()],
)
def test_bad_rows_are_one_line(
    right: str,
    wrong: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    small(tmp_path / "tables", monkeypatch)
    path = tmp_path / "tables" / f"{EXHIBIT}.toml"
    path.write_text(path.read_text().replace(right, wrong, 1))
    assert command.main([EXHIBIT, "--results", str(tmp_path / "results")]) == 2
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ") and message in last and "row " in last
    assert not list((tmp_path / "results").rglob("summary.json")) or "1201" in wrong or "laptop-3b" in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([EXHIBIT, "--seeds", "0,x"], "Seeds are '0,x'"),
        ([EXHIBIT, "--seeds", ""], "Seeds are ''"),
        ([EXHIBIT, "--seeds", "-1"], "Seeds are '-1'"),
        ([EXHIBIT, "--scale", "lap"], "Unknown scale 'lap'. Known: "),
        (["rskd/figure99"], "No exhibit 'rskd/figure99'"),
        (["rskd/table06"], "rskd/table06 has no row of a toy study"),
    ],
)
def test_bad_arguments_are_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([*arguments, "--results", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and message in said and said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    small(tmp_path / "tables", monkeypatch)
    (tmp_path / "file").write_text("")
    assert command.main([EXHIBIT, "--results", str(tmp_path / "file")]) == 2
    assert capfd.readouterr().err.splitlines()[-1].startswith("error: ")
