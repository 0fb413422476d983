"""Records, their match with rows, the frame, and the statistics, against scipy.stats and known cases."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted import CHANGED, DEFAULTS, exhibit, plant, plant_all, top_k
from scipy import stats

from analysis import load, statistics
from analysis.derived import gap_closed
from paper_tables.spec import Column, Row


def config(changed: dict) -> dict:
    return {"recipe": {**DEFAULTS, **changed}, "changed": changed}


@pytest.mark.parametrize(
    ("stated", "changed", "same"),
    [
        ({"target": "Full"}, {}, True),
        ({}, {}, True),
        ({"target": {"name": "Full"}}, {}, True),
        ({"target": {"name": "TopK", "k": 12}}, top_k(12), True),
        ({"target": {"name": "TopK", "k": 12.0}}, top_k(12), True),
        ({"target": {"name": "TopK", "k": 12}}, top_k(13), False),
        ({"target": "TopK"}, top_k(12), False),  # k was changed and is not stated
        ({}, top_k(12), False),
        ({"target": "Full"}, top_k(12), False),
        ({**top_k(12), "divergence": "GhostToken"}, top_k(12), False),
        (top_k(12), {**top_k(12), "divergence": {"name": "GhostToken"}}, False),
        ({**top_k(12), "divergence": "GhostToken"}, {**top_k(12), "divergence": {"name": "GhostToken"}}, True),
        ({"schedule": {"name": "Constant", "kd_weight": 1}}, {}, True),  # a default may be stated, 1 is 1.0
        ({"student": "300M", "tokens": "10B"}, {}, True),
        ({"student": "1B"}, {}, False),
        ({"probe": "train", "novel": 1}, {}, False),
        ({"target": {"name": "TopK", "k": True}}, top_k(1), False),
    ],
)
def test_match(stated: dict, changed: dict, same: bool) -> None:
    assert load.match(stated, config(changed)) is same


def test_records_ignore_but_count_what_is_unfinished(tmp_path: Path) -> None:
    plant_all(tmp_path)
    (tmp_path / "fullkd-s0" / "summary.json").unlink()
    assert len(load.records(tmp_path)) == 8
    assert load.unfinished(tmp_path) == 1
    assert load.records(tmp_path / "nowhere") == []


@pytest.mark.parametrize("text", ["{", "[]", '{"metrics": {"lm_loss": "good"}}', "{}"])
@pytest.mark.parametrize("name", ["summary.json", "config.json"])
def test_a_malformed_file_is_named(tmp_path: Path, name: str, text: str) -> None:
    path = plant(tmp_path, "full", {}, 0, {"lm_loss": 3.0}) / name
    path.write_text(text)
    with pytest.raises(ValueError, match=name) as error:
        load.records(tmp_path)
    assert "full-s0" in str(error.value) and "\n" not in str(error.value)


def test_frame_pairs_the_gap_by_seed_and_scales_percent(tmp_path: Path) -> None:
    plant_all(tmp_path)
    table = load.frame(exhibit(), load.records(tmp_path), "logged").set_index(["row", "column", "seed"])["value"]
    assert table["Top-K 12", "gap_closed", 1] == pytest.approx(100 * (3.84 - 4.13) / (3.84 - 3.47))
    assert table["CE", "gap_closed", 2] == 0 and table["FullKD", "gap_closed", 0] == 100
    assert table["CE", "ece", 0] == pytest.approx(3.82)
    assert "zero_shot" not in table.index.get_level_values("column")


def test_gap_needs_its_ends_at_the_same_seed(tmp_path: Path) -> None:
    plant_all(tmp_path, {"CE": (3.8,), "Top-K 12": (4.1, 4.2), "FullKD": (3.4, 3.5)})
    table = load.frame(exhibit(), load.records(tmp_path), "logged")
    assert list(table[(table["column"] == "gap_closed") & (table["row"] == "Top-K 12")]["seed"]) == [0]
    assert any("'CE' at seed 1" in note for note in table.attrs["notes"])


def test_gap_closed_by_hand() -> None:
    assert gap_closed(2.78, start=2.81, end=2.75) == pytest.approx(50)
    assert gap_closed(2.87, start=2.81, end=2.75) == pytest.approx(-100)
    assert gap_closed(math.inf, start=2.81, end=2.75) == -math.inf
    assert gap_closed(2.0, start=2.81, end=2.81) is None
    assert gap_closed(2.0, start=math.inf, end=2.75) is None


def test_a_companion_fills_its_cell(tmp_path: Path) -> None:
    plant(tmp_path, "ghost", {"divergence": {"name": "GhostToken"}, **top_k(5)}, 0, {"lm_loss": 2.0})
    plant(tmp_path, "topk", top_k(5), 0, {"lm_loss": 3.0})
    columns = [Column(key="plain", label="Plain", metric="lm_loss"), Column(key="lm_loss", label="New")]
    row = Row(label="Ghost", recipe={**top_k(5), "divergence": "GhostToken"}, companions={"plain": top_k(5)})
    table = load.frame(exhibit(columns=columns, rows=[row]), load.records(tmp_path), "logged")
    assert dict(zip(table["column"], table["value"], strict=True)) == {"plain": 3.0, "lm_loss": 2.0}


def test_a_column_s_own_run_and_a_gain_over_it(tmp_path: Path) -> None:
    for seed in (0, 1):
        plant(tmp_path, "topk", top_k(5), seed, {"lm_loss": 3.0 - seed})
    plant(tmp_path, "onehot", {"target": {"name": "OneHot"}}, 0, {"lm_loss": 3.5})
    columns = [
        Column(key="lm_loss", label="Loss"),
        Column(key="ce", label="Of CE", metric="lm_loss", recipe={"target": "OneHot"}),
        Column(key="gain", label="Gain", derive={"function": "minus", "of": "ce", "base": "lm_loss"}),
        Column(key="loss_gain", label="Its own", derive={"function": "minus", "of": "lm_loss", "base": "ce"}),
    ]
    table = load.frame(
        exhibit(columns=columns, rows=[Row(label="S", recipe=top_k(5))]), load.records(tmp_path), "logged"
    )
    found = table.set_index(["column", "seed"])["value"].to_dict()
    assert found == {("lm_loss", 0): 3.0, ("lm_loss", 1): 2.0, ("ce", 0): 3.5, ("gain", 0): 0.5, ("loss_gain", 0): -0.5}
    assert table.attrs["notes"] == ["Its own needs column 'ce' at seed 1, which is missing."]


def test_a_derived_column_finds_the_base_of_its_own_models(tmp_path: Path) -> None:
    """As Rel of TAD's Table 1: 100 log10 of accuracy over the base's, mean over tasks, by the base's own student."""
    accuracies = {"small": ([0.2, 0.8], [0.4, 0.8]), "large": ([0.5, 0.5], [0.25, 0.5])}  # the base's, the method's
    rows = []
    for student, pair in accuracies.items():
        for label, target, each in zip(("base", "method"), ("Full", "OneHot"), pair, strict=True):
            changed = {"student": student, "target": target, "probe": "zero_shot_tad"}
            mean = sum(map(math.log10, each)) / len(each)
            plant(tmp_path, f"{student}-{label}", changed, 0, {"average_log10": mean})
            rows.append(Row(label=f"{student}, {label}", recipe={"student": student, "target": target}))
    derive = {"function": "percent_log10", "of": "average_log10", "base": ["small, base", "large, base"]}
    column = Column(key="rel", label="Rel", better="higher", probe="zero_shot_tad", derive=derive)
    table = load.frame(exhibit(columns=[column], rows=rows), load.records(tmp_path), "logged")
    found = table.set_index("row")["value"].to_dict()
    wanted = {
        f"{student}, {label}": sum(100 * math.log10(a / b) for a, b in zip(each, pair[0], strict=True)) / 2
        for student, pair in accuracies.items()
        for label, each in zip(("base", "method"), pair, strict=True)
    }
    assert found == pytest.approx(wanted, abs=1e-9) and wanted["large, method"] < -15
    lonely = column.model_copy(update={"derive": {**derive, "base": ["small, base"]}})
    with pytest.raises(ValueError, match="row 'large, base': of small, base, not one alone has its models"):
        load.frame(exhibit(columns=[lonely], rows=rows), load.records(tmp_path), "logged")


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"corpus": "beef"}, "corpus beef instead of c0ffee"),
        ({"scale": "h100"}, "scale h100 instead of laptop"),
        ({"products": "bfloat16"}, "products in bfloat16 where theirs are in float32"),
        ({"products": "unrecorded"}, "products of unrecorded precision where theirs are in float32"),
        ({"numerics": {"loss": 2}}, "another numerics of loss (2 instead of 1)"),
        ({"numerics": {"loss": 2, "data": 2}}, "another numerics of data and loss (2 instead of 1)"),
        ({"teacher": "0dd"}, "another teacher"),
        ({"teacher": "0dd", "numerics": {"loss": 2}}, "another numerics of loss (2 instead of 1), another teacher"),
    ],
)
def test_unlike_records_are_never_averaged(tmp_path: Path, other: dict[str, Any], why: str) -> None:
    plant_all(tmp_path / "a")
    plant(tmp_path / "b", "full-other", {}, 7, {"lm_loss": 99.0}, **other)
    table = load.frame(exhibit(), load.records(tmp_path / "b") + load.records(tmp_path / "a"), "logged")
    assert 99.0 not in set(table["value"]) and len(set(table["corpus"])) == 1
    assert table.attrs["notes"] == [f"1 records left out, never averaged with the others: {why}."]


def test_source_and_packing_set_nothing_apart(tmp_path: Path) -> None:
    plant_all(tmp_path)
    path = tmp_path / "full-s7" / "config.json"
    plant(tmp_path, "full", {}, 7, {"lm_loss": 99.0})
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "source": {"code": "xyz", "commit": "new"}}))
    choice = load.choose(exhibit(), load.records(tmp_path))
    assert len(choice.kept) == 10 and choice.left == []


def test_records_of_a_method_s_other_numerics_are_left_out(tmp_path: Path) -> None:
    """Two seeds of today's TopK, one of another; the records of FullKD stay whatever TopK is."""
    today, old = {"target.TopK": 2, "divergence.ForwardKL": 1}, {"target.TopK": 1, "divergence.ForwardKL": 1}
    for seed in (0, 1):
        plant(tmp_path, "topk", top_k(12), seed, {"lm_loss": 3.0}, numerics=today)
    plant(tmp_path, "topk", top_k(12), 2, {"lm_loss": 99.0}, numerics=old)
    plant(tmp_path, "full", {}, 0, {"lm_loss": 2.0}, numerics={"target.Full": 1, "divergence.ForwardKL": 1})
    choice = load.choose(exhibit(), load.records(tmp_path))
    assert sorted(record.summary.metrics["lm_loss"] for record in choice.kept) == [2.0, 3.0, 3.0]
    assert [(left.record.run_id, left.why) for left in choice.left] == [
        ("topk-s2", "another numerics of target.TopK (1 instead of 2)")
    ]


def test_teachers_of_other_names_stand_in_one_table(tmp_path: Path) -> None:
    """An exhibit compares students of several teachers; of one name there is one teacher."""
    plant_all(tmp_path)
    for seed, teacher in ((0, "b16"), (1, "b16"), (2, "other")):
        plant(tmp_path, "big", {"teacher": "8B"}, seed, {"lm_loss": 2.0 + seed}, teacher=teacher)
    rows = [*exhibit().rows, Row(label="Of 8B", recipe={"teacher": "8B"})]
    choice = load.choose(exhibit(rows=rows), load.records(tmp_path))
    assert len(choice.kept) == 9 + 2
    assert [(left.record.run_id, left.why) for left in choice.left] == [("big-s2", "another teacher")]


def test_records_without_a_part_stand_beside_either(tmp_path: Path) -> None:
    """CE reads nothing that is delivered: it joins the group that fills most, whichever that is."""
    numbers = {"CE": 0, "Top-K 12": 2, "FullKD": 2}
    for label, delivery in numbers.items():
        changed = CHANGED[label]
        for seed in range(3):
            path = plant(tmp_path, label.lower(), changed, seed, {"lm_loss": 3.0}, numerics={"delivery": delivery})
            config = json.loads((path / "config.json").read_text())
            if label == "CE":
                del config["numerics"]["delivery"]
            (path / "config.json").write_text(json.dumps(config))
    plant(tmp_path, "full", {}, 7, {"lm_loss": 3.0}, numerics={"delivery": 1})
    choice = load.choose(exhibit(), load.records(tmp_path))
    assert len(choice.kept) == 9 and [left.record.run_id for left in choice.left] == ["full-s7"]


def test_an_old_format_names_its_remedy(tmp_path: Path) -> None:
    path = plant(tmp_path, "full", {}, 0, {"lm_loss": 3.0}) / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 1}))
    with pytest.raises(ValueError, match=r"full-s0.*format 1: run `python -m tools.migrate_records`") as error:
        load.records(tmp_path)
    assert "\n" not in str(error.value)


def test_a_scale_that_changed_its_sizes_is_not_averaged(tmp_path: Path) -> None:
    plant_all(tmp_path)
    plant(tmp_path, "full-big", {}, 7, {"lm_loss": 99.0}, settings={"tokens": 5})
    table = load.frame(exhibit(), load.records(tmp_path), "logged")
    assert 99.0 not in set(table["value"])
    words = "other sizes behind the scale's words"
    assert f"1 records left out, never averaged with the others: {words}." in table.attrs["notes"]


def test_divergence_is_infinite_and_absence_is_absent(tmp_path: Path) -> None:
    plant(tmp_path, "topk", top_k(12), 0, {"lm_loss": None}, diverged=True)
    plant(tmp_path, "full", {}, 0, {"lm_loss": 3.0})
    table = load.frame(exhibit(), load.records(tmp_path), "logged").set_index(["row", "column"])["value"]
    assert table["Top-K 12", "lm_loss"] == math.inf
    assert table["Top-K 12", "ece"] == math.inf  # a diverged run has no calibration to speak of
    assert ("FullKD", "ece") not in table.index  # not measured
    assert ("Top-K 12", "zero_shot") not in table.index


def test_json_infinity_is_no_number(tmp_path: Path) -> None:
    path = plant(tmp_path, "full", {}, 0, {"lm_loss": 1.0}) / "summary.json"
    summary = json.loads(path.read_text())
    summary["metrics"]["lm_loss"] = math.nan
    path.write_text(json.dumps(summary))
    table = load.frame(exhibit(), load.records(tmp_path), "logged")
    assert list(table[table["column"] == "lm_loss"]["value"]) == [math.inf]


def test_unknown_derived_function_names_the_known(tmp_path: Path) -> None:
    plant(tmp_path, "full", {}, 0, {"lm_loss": 3.0})
    column = Column(key="x", label="x", derive={"function": "gapclosed", "of": "lm_loss"})
    with pytest.raises(ValueError, match="gap_closed"):
        load.frame(exhibit(columns=[column]), load.records(tmp_path), "logged")


def test_published_infinity_is_a_number() -> None:
    table = load.published(exhibit()).set_index(["row", "column"])["value"]
    assert table["CE", "lm_loss"] == 2.81 and table["Top-K 12", "ece"] == math.inf


RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("n", [2, 3, 10])
def test_mean_interval_is_scipys(n: int) -> None:
    x = RANDOM.normal(3, 0.1, n)
    ours = statistics.mean_interval(x)
    low, high = stats.t.interval(0.95, n - 1, loc=x.mean(), scale=stats.sem(x))
    assert (ours.value, ours.low, ours.high, ours.n) == pytest.approx((x.mean(), low, high, n))


def test_interval_covers_the_mean_as_often_as_it_says() -> None:
    found = [statistics.mean_interval(x) for x in RANDOM.normal(1, 2, (2500, 3))]
    assert np.mean([one.low <= 1 <= one.high for one in found]) == pytest.approx(0.95, abs=0.015)


def test_one_seed_has_no_bounds() -> None:
    assert statistics.mean_interval([3.0]) == statistics.Estimate(3.0, -math.inf, math.inf, 1)


def test_diverged_means() -> None:
    assert statistics.mean_interval([3.0, math.inf]).value == math.inf
    with pytest.raises(ValueError, match="NaN"):
        statistics.mean_interval([3.0, math.nan])


def test_p_and_interval_are_scipys() -> None:
    a, b = RANDOM.normal(0, 1, 6), RANDOM.normal(0.4, 1, 6)
    ours = statistics.mean_interval(b - a)
    assert ours.p_greater() == pytest.approx(stats.ttest_rel(b, a, alternative="greater").pvalue)
    assert ours.p_greater(0.3) == pytest.approx(stats.ttest_1samp(b - a, 0.3, alternative="greater").pvalue)
    low, high = stats.ttest_rel(b, a).confidence_interval()
    assert (ours.low, ours.high) == pytest.approx((low, high))
    assert math.isnan(statistics.mean_interval([1.0]).p_greater())


def equivalence(d: np.ndarray, margin: float) -> float:
    return statistics.equivalence(statistics.mean_interval(margin - d), statistics.mean_interval(margin + d))


def test_equivalence_is_the_larger_of_two_one_sided_tests() -> None:
    d = np.array([1.00, 1.02, 0.99, 1.01]) - np.array([1.01, 1.00, 1.00, 1.02])
    lower = stats.ttest_1samp(d, -0.05, alternative="greater").pvalue
    upper = stats.ttest_1samp(d, 0.05, alternative="less").pvalue
    assert equivalence(d, 0.05) == pytest.approx(max(lower, upper))
    assert statistics.equivalence(*map(statistics.mean_interval, (d, -d)), -0.05) == pytest.approx(max(lower, upper))
    assert equivalence(d, 0.05) < 0.05
    assert equivalence(d, 0.001) > 0.05
    assert equivalence(d - 0.2, 0.05) > 0.95


def test_equivalence_is_rarely_found_at_the_margin() -> None:
    found = [equivalence(d, 0.1) < 0.05 for d in RANDOM.normal(0.1, 0.05, (2500, 4))]
    assert np.mean(found) == pytest.approx(0.05, abs=0.015)


def test_trend_is_scipys_per_seed() -> None:
    values = RANDOM.normal(0, 1, (3, 6)) + np.arange(6)
    values[0, 2] = values[0, 3]  # a tie
    found = statistics.trend(values)
    assert found.slopes == pytest.approx([stats.linregress(np.arange(6), seed).slope for seed in values])
    assert found.spearman == pytest.approx([stats.spearmanr(np.arange(6), seed).statistic for seed in values])


def test_trend_of_a_diverged_row_has_a_rank_only() -> None:
    found = statistics.trend([[1.0, 2.0, math.inf]])
    assert np.isnan(found.slopes[0]) and found.spearman[0] == pytest.approx(1)


def test_power_law_finds_the_planted_exponent() -> None:
    x = np.array([1, 2, 5, 10, 20, 50])
    exact = statistics.power_law(x, 1.5 * x**0.6)
    assert (exact.factor, exact.exponent.value, exact.r_squared) == pytest.approx((1.5, 0.6, 1.0))
    y = 1.5 * x**0.6 * np.exp(RANDOM.normal(0, 0.1, 6))
    ours, theirs = statistics.power_law(x, y), stats.linregress(np.log(x), np.log(y))
    assert ours.exponent.value == pytest.approx(theirs.slope)
    assert ours.exponent.half_width == pytest.approx(theirs.stderr * stats.t.ppf(0.975, 4))
    assert ours.r_squared == pytest.approx(theirs.rvalue**2)
    with pytest.raises(ValueError, match="above 0"):
        statistics.power_law([1, 2], [0, 1])
