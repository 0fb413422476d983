"""Answers on record: from bits in a file to a verdict that is paired by item."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from planted import CHANGED, exhibit, plant

from analysis.claims import judge
from analysis.load import frame, records
from analysis.relations import Verdict
from analysis.statistics import mean_interval
from paper_tables.spec import Claim, Column, Row

Bits = NDArray[np.bool_]
COLUMNS = [
    Column(key="next_line", label="Next line", unit="%", better="higher", metric="tasks_next_line"),
    Column(key="score", label="Score", unit="%", better="higher", metric="tasks_average"),
    Column(key="lm_loss", label="LM loss", unit="nats", better="lower"),
    Column(key="zero_shot", label="0-shot", unit="%", better="higher", metric="average", probe="zero_shot"),
    Column(key="hellaswag", label="HellaSwag", unit="%", better="higher", probe="zero_shot"),
]


def task(right: Bits, data: str = "d1") -> dict[str, Any]:
    correct = np.packbits(right).tobytes().hex()
    found = {"rows": len(right), "of": len(right), "chance": 0.25, "data": data, "low": 0.2, "high": 0.4}
    return {**found, "accuracy": float(right.mean()), "correct": correct}


def plant_answers(folder: Path, label: str, seed: int, tasks: dict[str, dict[str, Any]]) -> Path:
    metrics: dict[str, float | None] = {f"tasks_{name}": each["accuracy"] for name, each in tasks.items()}
    metrics |= {"tasks_average": float(np.mean([each["accuracy"] for each in tasks.values()])), "lm_loss": 3.0 + seed}
    path = plant(folder, label.lower(), CHANGED[label], seed, metrics)
    given = {"suite": "at_hand", "numerics": {"tasks": 1}, "harness": "0", "student": "5", "tasks": tasks}
    (path / "answers.json").write_text(json.dumps(given))
    return path


def answered(label: str, seed: int, items: int, of_task: int) -> Bits:
    """FullKD answers what CE does, and a tenth of the rest."""
    random = np.random.default_rng([seed, of_task])
    right = random.random(items) < 0.3
    return right | (random.random(items) < 0.1) if label == "FullKD" else right


def plant_both(folder: Path, seeds: int = 3, items: int = 203) -> None:
    for label in ("CE", "FullKD"):
        for seed in range(seeds):
            tasks = {
                name: task(answered(label, seed, size, place))
                for place, (name, size) in enumerate((("next_line", items), ("sums", 2 * items)))
            }
            plant_answers(folder, label, seed, tasks)


def judged(folder: Path, column: str, relation: str = "order", **fields: Any) -> Verdict:
    given = Claim(id="x", text="t", where="w", relation=relation, column=column, rows=["FullKD", "CE"], **fields)
    of = exhibit(columns=COLUMNS, claims=[given])
    return judge(given, of, frame(of, records(folder), "logged"))


def test_a_verdict_on_tasks_is_paired_by_item(tmp_path: Path) -> None:
    plant_both(tmp_path)
    one, both = judged(tmp_path, "next_line"), judged(tmp_path, "score")
    assert one.state == both.state == "holds"
    assert one.numbers.endswith("paired over 203 items, 3 seeds") and "points [" in one.numbers
    assert both.numbers.endswith("paired over 609 items, 3 seeds; the same leaving out any one of 2 tasks")
    by_seed = [
        np.mean([answered("FullKD", seed, size, at).mean() - answered("CE", seed, size, at).mean()
                 for at, size in enumerate((203, 406))])
        for seed in range(3)
    ]  # fmt: skip
    assert f"by {100 * np.mean(by_seed):+.3f} points" in both.numbers
    assert (judged(tmp_path, "zero_shot").numbers, judged(tmp_path, "hellaswag").numbers) == (both.numbers, one.numbers)
    assert judged(tmp_path, "lm_loss").numbers.split("; ")[0].endswith(", 3 seeds")


def test_a_mean_that_rests_on_one_task_says_so(tmp_path: Path) -> None:
    """As SALT's gain rests on LAMBADA."""
    for label in ("CE", "FullKD"):
        for seed in range(3):
            of = {"next_line": "CE", "last_word": label, "pairs": "CE"}
            tasks = {name: task(answered(by, seed, 400, place)) for place, (name, by) in enumerate(of.items())}
            plant_answers(tmp_path, label, seed, tasks)
    found = judged(tmp_path, "score")
    assert found.state == "holds" and found.numbers.endswith("3 seeds; inconclusive without last_word")


def test_a_row_or_a_column_shows_a_run_as_it_stood(tmp_path: Path) -> None:
    plant_both(tmp_path, seeds=2)
    early = {name: task(np.arange(203) < right) for name, right in (("next_line", 10), ("sums", 20))}
    for label in ("CE", "FullKD"):
        for seed in range(2):
            path = next(tmp_path.glob(f"{label.lower()}*-s{seed}"))
            summary, config = (json.loads((path / f"{part}.json").read_text()) for part in ("summary", "config"))
            config["settings"]["steps"] = 40
            summary["curves"]["by_step"] = {"step": [7, 40], "lm_loss": [5.0 + seed, 3.0], "accuracy": [0.1, 0.3]}
            given = json.loads((path / "answers.json").read_text())
            (path / "answers.7.json").write_text(json.dumps({**given, "tasks": early}))
            for part, content in (("summary", summary), ("config", config)):
                (path / f"{part}.json").write_text(json.dumps(content))
    late = exhibit(columns=COLUMNS)
    rows = [
        *late.rows,
        Row(label="CE, early", recipe=CHANGED["CE"], at=36 / 208),
        Row(label="CE, unseen", recipe=CHANGED["CE"], at=0.5),
        Row(label="CE, end", recipe=CHANGED["CE"], at=1.0),
    ]
    columns = [*COLUMNS, Column(key="then", label="Then", unit="%", better="higher", metric="accuracy", at=36 / 208)]
    table = frame(late.model_copy(update={"rows": rows, "columns": columns}), records(tmp_path), "logged")
    of_one = table[table["seed"] == 1][["row", "column", "value"]].values.tolist()
    shown = {(row, column): value for row, column, value in of_one}
    assert shown["CE, early", "lm_loss"] == 6.0 and shown["CE", "lm_loss"] == shown["CE, end", "lm_loss"] == 4.0
    assert shown["CE, early", "next_line"] == shown["CE, early", "hellaswag"] == pytest.approx(100 * 10 / 203)
    assert shown["CE, early", "zero_shot"] == shown["CE, early", "score"] == pytest.approx(100 * 15 / 203)
    assert shown["CE", "then"] == shown["FullKD", "then"] == 10.0
    assert not [key for key in shown if key[0] == "CE, unseen" and key[1] != "then"]
    kept = table.attrs["answers"].cells["CE, early", "next_line"][1]["next_line"]
    assert int(kept.right.sum()) == 10


@pytest.mark.parametrize(
    ("relation", "fields", "state"),
    [
        ("change", {"low": 1}, "holds"),
        ("equivalent", {"margin": 3.0}, "fails"),
        ("trend", {"direction": "decreasing"}, "holds"),
        ("best", {}, "holds"),
    ],
)
def test_every_difference_is_paired(tmp_path: Path, relation: str, fields: dict[str, Any], state: str) -> None:
    plant_both(tmp_path)
    found = judged(tmp_path, "score", relation, **fields)
    assert (found.state, "paired over 609 items" in found.numbers) == (state, True), found


def test_where_items_cannot_be_paired_seeds_decide_and_the_reason_stands_there(tmp_path: Path) -> None:
    plant_both(tmp_path / "ratio")
    found = judged(tmp_path / "ratio", "next_line", "ratio", low=1.0)
    assert found.numbers.split("; ")[0].endswith("3 seeds, not paired by item: the relation is taken seed by seed")

    plant_both(tmp_path / "lacking")
    (tmp_path / "lacking" / "ce-s1" / "answers.json").unlink()
    assert "3 seeds, not paired by item: no answers of 'CE' at seed 1" in judged(tmp_path / "lacking", "score").numbers

    plant_both(tmp_path / "other")
    path = tmp_path / "other" / "fullkd-s2" / "answers.json"
    path.write_text(path.read_text().replace('"d1"', '"d2"', 1))  # of the first task only
    assert "not paired by item: their items differ" in judged(tmp_path / "other", "score").numbers


def test_one_seed_decides_nothing_however_many_items(tmp_path: Path) -> None:
    plant_both(tmp_path, seeds=1, items=2000)
    found = judged(tmp_path, "score")
    assert found.state == "inconclusive" and "1 seed: direction agrees" in found.numbers
    assert "one seed has no spread" in found.numbers


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [("accuracy", 0.9, "items are right by `correct`"), ("rows", 300, "`correct`"), ("correct", "xyz", "hexadecimal")],
)
def test_bits_that_do_not_give_the_accuracy_are_refused(tmp_path: Path, field: str, value: Any, said: str) -> None:
    right = np.arange(203) % 3 == 0
    path = plant_answers(tmp_path, "CE", 0, {"next_line": task(right) | {field: value}})
    with pytest.raises(ValueError, match=said) as error:
        records(tmp_path)
    assert str(path / "answers.json") in str(error.value) and "\n" not in str(error.value)


def test_the_first_item_is_the_most_significant_bit(tmp_path: Path) -> None:
    plant_answers(tmp_path, "CE", 0, {"next_line": {**task(np.ones(10) == 1), "accuracy": 0.3, "correct": "8140"}})
    record = records(tmp_path)[0]
    assert record.answers is not None
    assert list(np.flatnonzero(record.answers.tasks["next_line"].right)) == [0, 7, 9]


def test_metrics_of_tasks_that_are_no_accuracy_are_not_paired(tmp_path: Path) -> None:
    plant_both(tmp_path)
    answers = records(tmp_path)[0].answers
    assert answers is not None
    assert set(answers.behind("tasks_average")) == {"next_line", "sums"} and set(answers.behind("tasks_sums")) == {
        "sums"
    }
    assert answers.behind("tasks_sums_chance") == answers.behind("lm_loss") == answers.behind("next_line") == {}


def test_without_items_seeds_are_what_they_were() -> None:
    from analysis.relations import Sample

    a, b = np.array([1.0, 1.2, 0.9]), np.array([0.7, 1.0, 0.8])
    assert Sample({"a": a, "b": b}).contrast(("a", 1.0), ("b", -1.0)) == mean_interval(a - b)
