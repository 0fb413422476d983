"""Answers in thirds: which items a student finds easy, and how others answer those."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from planted import plant

from analysis.load import frame, records
from paper_tables.spec import Column, Exhibit, Row, load, names
from replication.evaluate.tasks.at_hand.difficulty import sure_of_choice, sure_of_text, sure_of_word, thirds
from replication.evaluate.tasks.at_hand.likelihoods import Likelihood
from replication.experiment.scale import load_scale

SLM = {"student": "3B", "teacher": "none", "target": "OneHot"}


def likelihood(nats: float, confidence: list[float], correct: list[bool]) -> Likelihood:
    return Likelihood(nats, all(correct), torch.tensor(confidence), torch.tensor(correct))


def test_thirds_are_by_score_then_by_confidence() -> None:
    right = [False, True, False, True, False, True, False]
    sure = [0.9, 0.3, 0.2, 0.8, 0.2, 0.1, 0.5]  # order: 3, 1, 5, 0, 6, 2, 4
    easy, hard = thirds(right, sure)
    assert [item for item, each in enumerate(easy) if each] == [1, 3, 5]
    assert [item for item, each in enumerate(hard) if each] == [2, 4]
    assert thirds([True], [0.5]) == ([True], [False])


def test_confidence_is_in_what_is_answered() -> None:
    assert sure_of_choice([math.log(0.1), math.log(0.3)]) == pytest.approx(0.75)
    # of three tokens the second is not what would be written, and the third follows one that would not stand there
    word = likelihood(-9.0, [0.5, 0.8, 0.9], [True, False, True])
    assert sure_of_word(word) == pytest.approx((math.log(0.5) + math.log(0.8)) / 2)
    assert sure_of_word(likelihood(-1.0, [0.5, 0.8], [True, True])) == pytest.approx(math.log(0.4) / 2)
    assert sure_of_text(word) == -3.0


def bits(values: list[int]) -> str:
    return np.packbits(np.array(values, bool)).tobytes().hex()


def plant_answers(path: Path, student: str, right: list[int], data: str = "a", **thirds_of_it: str) -> None:
    task = {"rows": len(right), "of": 9, "data": data, "chance": 0.5, "low": 0.0, "high": 1.0, "correct": bits(right)}
    tasks = {"pairs": {**task, "accuracy": sum(right) / len(right), **thirds_of_it}}
    path.write_text(
        json.dumps({"suite": "at_hand", "numerics": {"tasks": 1}, "harness": "0", "student": student, "tasks": tasks})
    )


def exhibit() -> Exhibit:
    hard = Column(key="hard", label="Hard", unit="%", better="higher", metric="tasks_pairs_hard")
    medium = Column(key="medium", label="Medium", unit="%", better="higher", metric="tasks_pairs_medium")
    rows = [
        Row(label="early", recipe={"target": "Full"}, at=0.25),
        Row(label="student", recipe={"target": "Full"}),
        Row(label="SLM", recipe=SLM),
    ]
    words = {"paper": "salt", "number": "1", "title": "t", "where": "w", "status": "runnable", "judge": "SLM"}
    return Exhibit.model_validate({**words, "columns": [medium, hard], "rows": rows})


def plant_both(folder: Path, data: str = "a") -> None:
    easy, hard = bits([1, 1, 0, 0, 0, 0]), bits([0, 0, 0, 0, 1, 1])
    judge = plant(folder, "slm", SLM, 0, {"lm_loss": 3.0})
    plant_answers(judge / "answers.json", "4", [1, 1, 1, 0, 0, 0], easy=easy, hard=hard)
    own = plant(folder, "student", {"target": "Full"}, 0, {"lm_loss": 3.0}, settings={"steps": 8})
    plant_answers(own / "answers.json", "5", [0, 1, 1, 1, 0, 1], data, easy=hard, hard=easy)  # its own play no part
    plant_answers(own / "answers.2.json", "6", [0, 0, 1, 0, 0, 0], data)


def test_all_rows_are_judged_by_one(tmp_path: Path) -> None:
    plant_both(tmp_path)
    table = frame(exhibit(), records(tmp_path), "logged")
    found = table.set_index(["row", "column"])["value"]
    assert [found[row, "hard"] for row in ("early", "student", "SLM")] == [0, 50, 0]
    assert [found[row, "medium"] for row in ("early", "student", "SLM")] == [50, 100, 50]
    cells = table.attrs["answers"].cells
    of_student, of_judge = (cells[row, "hard"][0]["pairs_hard"] for row in ("student", "SLM"))
    assert list(of_student.right) == [False, True] and of_student.data == of_judge.data


def test_answers_to_other_items_are_not_judged(tmp_path: Path) -> None:
    plant_both(tmp_path, "b")
    assert set(frame(exhibit(), records(tmp_path), "logged")["row"]) == {"SLM"}


def test_a_judge_is_a_row() -> None:
    for name in names():
        found = load(name)
        assert not found.judge or found.row(found.judge).recipe is not None, name


def test_a_row_that_looks_back_does_so_where_its_roles_are_asked() -> None:
    laptop = load_scale("laptop")
    for name in names():
        found = load(name)
        for row in found.rows:
            if row.at is not None and (stated := found.recipe_of(row)):
                assert row.at in laptop.role(stated["student"]).asked_at, (name, row.label)
