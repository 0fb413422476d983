"""Fine-tuning on one task: conversations that are made here, and what a tuned student answers to held-out ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from paper_tables.spec import load
from replication.data.chat import Conversation, Turn, opening
from replication.data.conversations import open_conversations, read
from replication.data.made_conversations import documented, is_it_said
from replication.evaluate.fine_tuned import answers, scores
from replication.execution.execute import execute
from replication.experiment.recipe import parse
from replication.experiment.run import Run
from replication.experiment.scale import load_scale
from replication.machine.device import this_machine
from replication.training.run_data import data_for
from replication.training.weights import model_folder
from tests.small import write_scale

LIBRARY = '''
class Box:
    """Hold one thing."""

    def put(self, thing, here=True):
        """Take it
        in.

        Whatever it is.
        """
        def inner():
            """Not for anyone."""
        self.thing = thing
        return here

    def get(self):
        """Give it back."""
'''


@pytest.fixture
def library(tmp_path: Path) -> Path:
    root = tmp_path / "library"
    (root / "test").mkdir(parents=True)
    (root / "boxes.py").write_text(LIBRARY)
    (root / "test" / "boxes.py").write_text(LIBRARY)
    (root / "other.py").write_text('def far(x):\n    """Lie far away."""\n    return x\n')
    (root / "broken.py").write_text("def broken(:\n")
    return root


def test_what_the_library_says_of_itself(library: Path) -> None:
    found = list(documented(library))
    assert [(each.module, each.heading, each.said) for each in found] == [
        ("boxes.py", "class Box", "Hold one thing."),
        ("boxes.py", "def put(self, thing, here=True)", "Take it in."),
        ("boxes.py", "def get(self)", "Give it back."),
        ("other.py", "def far(x)", "Lie far away."),
    ]
    assert found[1].code.startswith("        def inner():") and found[1].code.endswith("        return here")
    assert found[2].code == "" and found[3].code == "    return x"


def test_what_is_not_said_of_a_thing_is_said_of_another_from_farther_to_nearer(library: Path) -> None:
    own = {each.heading: each for each in documented(library)}
    said = {each.said for each in own.values()}
    found = list(is_it_said(library))
    assert {turns[1].text for turns in found} == {"yes", "no"}
    for asked, answer in found:
        question, heading, text = asked.text.split("\n")
        assert (answer.text == "yes") == (text == own[heading].said)
        if answer.text == "no" and question.startswith("Round 3"):
            assert text.split(" ", 1)[1] == own[heading].said.split(" ", 1)[1]
            assert text.split(" ", 1)[0] in {each.split(" ", 1)[0] for each in said}
        if answer.text == "no" and question.startswith("Round 2"):
            assert text in {each.said for each in own.values() if each.module == own[heading].module}


def test_sums_are_worked_and_right() -> None:
    for document in open_conversations("sums:60").documents:
        asked, answer = read(document)
        problem, *steps = asked.text.removesuffix(" = ?"), *answer.text.splitlines()
        one, sign, two, more, three = problem.split()
        between = int(one) + int(two) if sign == "+" else int(one) - int(two)
        result = between + int(three) if more == "+" else between - int(three)
        assert steps == [f"{one} {sign} {two} = {between}", f"{between} {more} {three} = {result}", f"A: {result}"]


def asked(*pairs: tuple[str, str]) -> list[Conversation]:
    return [(Turn("user", question), Turn("assistant", truth)) for question, truth in pairs]


def test_scores_by_hand() -> None:
    talks = asked(("1 + 2 + 3 = ?", "1 + 2 = 3\n3 + 3 = 6\nA: 6"), ("4 + 1 + 1 = ?", "4 + 1 = 5\n5 + 1 = 6\nA: 6"))
    assert scores(talks, ["anything\nA: 6\n", "4 + 1 = 5\nA: 7"])["exact"] == 0.5
    talks = asked(("Round 1: so?", "yes"), ("Round 3: so?", "no"), ("Round 1: so?", "no"))
    found = scores(talks, [" yes", "", "yes"])
    assert (found["exact"], found["exact_round1"], found["exact_round3"]) == (pytest.approx(1 / 3), 0.5, 0.0)
    assert "exact_round2" not in found
    # two of three words of the answer, two of four of the truth; one of two pairs, one of three
    found = scores(asked(("What?", "give the box back")), ["give the lid"])
    assert found["rouge1"] == pytest.approx(2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4))
    assert found["rouge2"] == pytest.approx(2 * (1 / 2) * (1 / 3) / (1 / 2 + 1 / 3))
    assert found["rougelsum"] == found["rouge1"]


def test_a_tuned_student_answers_its_held_out_conversations_greedily(tmp_path: Path) -> None:
    path = write_scale(tmp_path)
    tuning = "tuning = { peak_rate = 1e-2, final_rate = 1e-3, warmup = 0.03, batch = 4 }\n\n[lengths]"
    text = path.read_text().replace('"4096" = 24', '"4096" = 96').replace('"10B" = 1152', '"10B" = 1152\nSFT = 9216')
    path.write_text('tasks = "at hand"\ntask_rows = 5\n' + text.replace("[lengths]", tuning))
    stated = {"target": "OneHot", "teacher": "none", "tuning": {"name": "FineTuned", "text": "sums:400"}}
    run, machine = Run(parse(stated), load_scale(str(path)), 0), this_machine(tmp_path / "results", tmp_path / "made")
    assert run.start is not None
    execute(run.start, machine)
    folder = execute(run, machine).folder
    metrics = json.loads((folder / "summary.json").read_text())["metrics"]
    assert metrics["response_loss"] < metrics["response_loss_before"]
    assert not (folder / "answers.json").exists()  # it answers its own task instead
    talks = data_for(run, machine.artifacts).talks
    assert talks is not None
    held_out = [read(talks.documents[index]) for index in np.flatnonzero(talks.held_out)][:5]
    student = AutoModelForCausalLM.from_pretrained(model_folder(run, machine))
    tokenizer = PreTrainedTokenizerFast.from_pretrained(model_folder(run, machine))
    found = answers(student, tokenizer, held_out, False)
    assert {f"tuned_{name}": value for name, value in scores(held_out, found).items()}.items() <= metrics.items()
    ids = tokenizer(opening(held_out[0][:-1]), return_tensors="pt")["input_ids"]
    room = 1 + max(len(tokenizer(turns[-1].text)["input_ids"]) for turns in held_out)
    written = student.generate(ids, do_sample=False, max_new_tokens=room, pad_token_id=tokenizer.eos_token_id)
    end = tokenizer.eos_token
    assert found[0] == tokenizer.decode(written[0, ids.shape[1] :]).partition(end)[0]


def test_every_measure_of_the_tables_has_its_own_tuning() -> None:
    exhibit = load("salt/table04")
    for row in exhibit.rows:
        for column in exhibit.columns:
            stated = exhibit.recipe_of_cell(row, column)
            assert stated is None or parse(stated).tuning.text in ("sums:20000", "stdlib", "stdlib#code", "stdlib#said")
    assert len({json.dumps(column.recipe) for column in exhibit.columns}) == 4
    assert [column.recipe for column in exhibit.columns] == [column.recipe for column in load("salt/table15").columns]
