"""The Zipf toy of Figure 2a against closed forms, and its records against the exhibit's rows."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from analysis.load import comparable, frame, records
from analysis.matching import by_cell
from paper_tables import spec
from replication.targets import Full, NaiveFix, OneHot, RandomSampling, SmoothedTopK, Target, TopK
from toy import __main__ as command
from toy import zipf
from toy.zipf import Setting

EXHIBIT = "rskd/figure02a"
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
    classes, draws, rounds = zipf.SHOWN, 22, 2000
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
    assert "expected_unique_classes" not in metrics


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
    classes, k, rounds = zipf.SHOWN, 5, 20_000
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
    import torch

    counts = zipf.grouped(torch.ones(450, dtype=torch.float64)).tolist()
    assert counts == [1.0] * 50 + [50.0, 100.0, 200.0, 50.0]


@pytest.mark.parametrize("target", (RandomSampling(5), NaiveFix(3), OneHot()))
def test_a_seed_says_it_all(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    setting = Setting(target, vocabulary=100, rounds=50)
    assert zipf.run(setting, 1) == zipf.run(setting, 1)
    assert zipf.run(setting, 1) != zipf.run(setting, 2)
    before, _ = zipf.run(setting, 1)
    monkeypatch.setattr(zipf, "CHUNK", 700)  # the size of a chunk is of no consequence
    assert zipf.run(setting, 1)[0] == pytest.approx(before, rel=1e-12)


def small(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exhibit with 300 classes and 40 rounds, so that writing records takes no time."""
    shutil.copytree(spec.ROOT, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    path = folder / f"{EXHIBIT}.toml"
    text = path.read_text()
    path.write_text(text.replace("vocabulary = 100000", "vocabulary = 300").replace("rounds = 1000", "rounds = 40"))
    assert path.read_text() != text
    monkeypatch.setattr(spec, "ROOT", folder)


def test_records_fill_the_exhibit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small(tmp_path / "tables", monkeypatch)
    ours = tmp_path / "results"
    arguments = [EXHIBIT, "--seeds", "0,1", "--results", str(ours)]
    assert command.main(arguments) == 0
    assert "8 runs" in capsys.readouterr().out

    exhibit, found = spec.load(EXHIBIT), records(ours / "laptop")
    assert len(found) == 8
    cells = by_cell(exhibit, found)
    for row in exhibit.rows:
        for column in exhibit.columns:
            assert [record.seed for record in cells[row.label, column.key]] == [0, 1], (row.label, column.key)
    assert len(comparable(exhibit, found)[0]) == 8
    table = frame(exhibit, found, "yours")
    assert len(table) == 4 * 2 * 3 and table.attrs["notes"] == []
    assert all(set(record.summary.curves["targets"]) == {"class", "teacher", "mean_target"} for record in found)

    written = {path: path.read_bytes() for path in ours.rglob("*.json")}
    assert command.main(arguments) == 0
    assert "8 of them done before" in capsys.readouterr().out
    assert written == {path: path.read_bytes() for path in ours.rglob("*.json")}


def test_a_record_says_what_was_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(tmp_path / "tables", monkeypatch)
    assert command.main([EXHIBIT, "--results", str(tmp_path)]) == 0
    path = next((tmp_path / "laptop").glob("zipf-randomsampling-draws22-s0-????????/config.json"))
    config = json.loads(path.read_text())
    target = {"name": "RandomSampling", "draws": 22, "exponent": 1.0}
    rest = {"vocabulary": 300, "rounds": 40}
    assert config["recipe"] == {"toy": "zipf", "exponent": 1.0, "target": target, **rest}
    assert config["changed"] == {"toy": "zipf", "target": {"name": "RandomSampling", "draws": 22}, **rest}
    assert config["corpus"] == {"name": "none", "fingerprint": "none"} and config["settings"] == {}
    assert {"code", "commit", "versions", "hardware", "format"} <= set(config) and config["run_id"] == path.parent.name


def test_the_exhibit_as_printed_is_the_default_setting() -> None:
    changed = [set(run.changed) for _, run in command.runs(EXHIBIT, "laptop", [0])]
    assert changed == [{"toy", "target"}] * 4


def test_ids_differ_where_runs_do() -> None:
    def identity(stated: dict[str, object], scale: str = "laptop", seed: int = 0) -> str:
        return command.Run(command.setting({"toy": "zipf", **stated}), scale, seed).id

    base = {"target": {"name": "RandomSampling", "draws": 22}}
    ids = [identity(base), identity(base, "smoke"), identity(base, seed=1), identity({**base, "rounds": 5})]
    ids.append(identity({"target": {"name": "RandomSampling", "draws": 22, "exponent": 2}}))
    assert len(set(ids)) == len(ids)
    assert identity({**base, "exponent": 1}) == ids[0] == identity({**base, "vocabulary": 100_000})
    assert identity({"target": "Full"}) == identity({"target": {"name": "Full"}})
    assert identity({"target": "Full"}).startswith("zipf-full-s0-")


WRONG = {
    'target = { name = "TopK", k = 20 }': {
        'target = { name = "TopK", k = 0 }': "TopK.k is 0",
        'target = { name = "TopK", k = "20" }': "TopK.k is '20'",
        'target = { name = "TopK" }': "TopK needs 'k'",
        'target = { name = "TopKK", k = 20 }': "Unknown target 'TopKK'",
        'target = { name = "TopK", k = 20, p = 1 }': "TopK has no field 'p'",
        'target = { name = "TopK", k = 301 }': "the teacher has 300 classes",
        'target = "Full", round = 3': "Setting has no field 'round'",
    },
    "rounds = 40": {"rounds = 0": "rounds is 0", "rounds = true": "Setting.rounds is True"},
    "vocabulary = 300": {"vocabulary = 2.5": "Setting.vocabulary is 2.5"},
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
    assert not list((tmp_path / "results").rglob("summary.json")) or "301" in wrong


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([EXHIBIT, "--seeds", "0,x"], "Seeds are '0,x'"),
        ([EXHIBIT, "--seeds", ""], "Seeds are ''"),
        ([EXHIBIT, "--seeds", "-1"], "Seeds are '-1'"),
        ([EXHIBIT, "--scale", "lap"], "Unknown scale 'lap'. Known: "),
        (["rskd/figure99"], "No exhibit 'rskd/figure99'"),
        (["rskd/table06"], "rskd/table06 has no row with toy"),
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
