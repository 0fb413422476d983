"""Instruction following: what is asked, what a student answers, the whole way to a judge that transformers serves."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from paper_tables import spec
from replication.__main__ import main
from replication.data.chat import TEMPLATE, Turn, opening
from replication.data.conversations import open_conversations
from replication.data.corpus import open_corpus
from replication.data.packed_conversations import pack_conversations
from replication.data.tokenizer import Tokenizer, open_tokenizer
from replication.evaluate.judged import answers as answering
from replication.evaluate.judged.answers import Answer, answered, answers, folder_of, rouge_l
from replication.evaluate.judged.judge import PROMPT
from replication.evaluate.judged.questions import Question, questions, questions_ready
from replication.execution.execute import execute
from replication.experiment.recipe import parse
from replication.experiment.run import Run
from replication.experiment.scale import Optimiser, Role, load_scale
from replication.experiment.suites import INSTRUCTION_SETS
from replication.machine.device import Machine, this_machine
from replication.model.checkpoint import publish
from replication.model.decoder import build
from replication.planning.plan import Plan, plan, recipes_of
from replication.probes.module import refuse_unready
from replication.training.student import Student
from replication.training.supervision import FromResponses
from tests.small import SCALE, write_text

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="NO REAL DATA: ../shared/data is absent, these did not run")
REACH = 64


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    made = open_tokenizer("bpe:320", open_corpus(f"path:{write_text(folder / 'text')}"), folder)
    return Tokenizer(made.backend, made.end_of_text, TEMPLATE)


def model(tokenizer: Tokenizer, sharper: float, reach: int = REACH) -> PreTrainedModel:
    optimiser = Optimiser(peak_rate=1e-3, final_rate=1e-4, warmup=0.1, batch=4)
    role = Role(layers=1, width=16, ffn=32, heads=2, kv_heads=2, length="1", optimiser=optimiser)
    built = build(role, tokenizer.vocabulary, reach, tokenizer.end_of_text, 3).eval()
    with torch.no_grad():
        built.lm_head.weight.mul_(sharper)
    return built


ASKED = [Question(f"{'Write. ' * (1 + 5 * n % 13)}{n}", (f"number {n}",)) for n in range(11)]


def test_a_student_reads_what_it_was_tuned_on_and_answers_up_to_the_end_of_text(tokenizer: Tokenizer) -> None:
    """A student so sharp that sampling is greedy, against a loop without padding."""
    student = model(tokenizer, 1e5)
    found = answered(student, tokenizer, ASKED, 20)
    for number, (question, answer) in enumerate(zip(ASKED, found, strict=True)):
        prompt = tokenizer.encode_batch([opening([Turn("user", question.instruction)])])[0].tolist()
        tokens = prompt[-REACH // 2 :]
        said: list[int] = []
        while len(said) < REACH // 2:
            with torch.no_grad():
                said.append(int(student(torch.tensor([tokens + said])).logits[0, -1].argmax()))
            if said[-1] == tokenizer.end_of_text:
                break
        assert answer.ended == (said[-1] == tokenizer.end_of_text)
        assert answer.answer == tokenizer.decode(said[:-1] if answer.ended else said)
        assert answer.cut == (len(prompt) > REACH // 2) and answer.number == 20 + number
    assert {answer.cut for answer in found} == {True, False}


def test_a_student_that_has_nothing_to_say(tokenizer: Tokenizer) -> None:
    student = model(tokenizer, 0.0)
    student.lm_head.register_forward_hook(  # as a bias would
        lambda *parts: parts[-1] + 100 * torch.nn.functional.one_hot(torch.tensor(tokenizer.end_of_text), 320)
    )
    assert {(each.answer, each.ended) for each in answered(student, tokenizer, ASKED, 0)} == {("", True)}


def test_answers_are_drawn_at_temperature_1_from_everything(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "LONGEST", 1)
    student, times = model(tokenizer, 25.0), 4000
    torch.manual_seed(1)
    found = Counter(each.answer for _ in range(4) for each in answered(student, tokenizer, ASKED[:1] * (times // 4), 0))
    prompt = torch.from_numpy(tokenizer.encode_batch([opening([Turn("user", ASKED[0].instruction)])])[0])
    with torch.no_grad():
        probs_V = student(prompt[None]).logits[0, -1].softmax(-1)
    wanted: Counter[str] = Counter()
    for token, chance in enumerate(probs_V.tolist()):
        wanted["" if token == tokenizer.end_of_text else tokenizer.decode([token])] += chance  # type: ignore[assignment]
    assert 5 < sum(chance > 0.01 for chance in wanted.values())
    for text, chance in wanted.items():
        assert abs(found[text] / times - chance) < 4.5 * (chance * (1 - chance) / times) ** 0.5 + 1e-3, text


def test_answers_resume_where_they_were_stopped(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "BATCH", 4)
    student = model(tokenizer, 20.0)
    folder = folder_of(student, tmp_path)
    whole = answers(student, tokenizer, "dolly", ASKED, 5, folder)
    assert [each.number for each in whole] == list(range(11)) and len({each.answer for each in whole}) > 5
    (path,) = folder.iterdir()
    text = path.read_text()
    made: list[int] = []
    again = answering.answered
    monkeypatch.setattr(
        answering, "answered", lambda *given: made.extend(range(given[3], given[3] + len(given[2]))) or again(*given)
    )
    for kept in (text[: len(text) // 2], text[:-5], "", text[: text.index("\n", 10)], text):
        path.write_text(kept)
        assert answers(student, tokenizer, "dolly", ASKED, 5, folder) == whole
        assert path.read_text() == text
        lines = kept.count("\n") // 4 * 4 if kept != text else 11
        assert made == list(range(lines, 11))
        made.clear()
    assert answers(student, tokenizer, "dolly", ASKED, 6, folder) != whole  # another seed
    assert folder_of(model(tokenizer, 21.0), tmp_path) != folder  # other weights


def test_rouge_by_hand() -> None:
    def answer(text: str, *truth: str) -> Answer:
        return Answer(0, "", truth, text, True, False)

    # two of three words in order: precision 1, recall 2/3; the nearest truth counts; stems are equal
    assert rouge_l([answer("the cat", "the cat sat")]) == pytest.approx(0.8)
    assert rouge_l([answer("cats", "dogs", "cat"), answer("", "x")]) == pytest.approx(0.5)
    assert rouge_l([answer("a c b", "a b c d")]) == pytest.approx(2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4))


def write_sets(folder: Path) -> Path:
    rows = {
        "dolly": [{"instruction": f"What is {n}?", "input": "", "output": f"It is {n}."} for n in range(2)],
        "vicuna": [{"instruction": "Talk", "output": ["Hello.", "Hi."]}],
    }
    for name, lines in rows.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_sets_come_from_a_folder_and_what_it_lacks_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASK_DATA", str(write_sets(tmp_path / "tasks")))
    questions_ready()
    assert {name: len(questions(name, None)) for name in INSTRUCTION_SETS} == {
        "dolly": 2, "self_inst": 0, "vicuna": 1, "s_ni": 0, "unni": 0,
    }  # fmt: skip
    assert questions("dolly", 1) == questions("dolly", 1) and len(questions("dolly", 1)) == 1
    (tmp_path / "tasks/unni").mkdir()
    (tmp_path / "tasks/unni/test.jsonl").write_text('{"turns": ["x"]}\n')
    with pytest.raises(ValueError, match=r"test.jsonl, line 1: columns turns \(list\), where instruction"):
        questions("unni", None)
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("TASK_DATA", str(tmp_path / "empty"))
    with pytest.raises(ValueError, match="has no instruction set: neither <set>/test.jsonl.* or set TASK_DATA=hub"):
        questions_ready()


@needs_data
def test_the_releases_are_the_papers_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASK_DATA", str(DATA))
    sizes = {name: len(questions(name, None)) for name in INSTRUCTION_SETS}
    assert sizes == {"dolly": 500, "self_inst": 252, "vicuna": 80, "s_ni": 1694, "unni": 0}
    assert all(each.instruction and all(each.answers) for name in INSTRUCTION_SETS for each in questions(name, None))


@contextmanager
def served(folder: Path) -> Iterator[Callable[[], str]]:
    """The address of `transformers serve` with this model, on 127.0.0.1: waits, when asked, until it is there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = "from transformers.cli.transformers import main; main()"
    command = [sys.executable, "-c", code, "serve", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    with open(folder / "served.txt", "w") as said:
        process = subprocess.Popen([*command, "--device", "cpu"], stdout=said, stderr=said)

    def address() -> str:
        for _ in range(240):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
                    break
            except (urllib.error.URLError, TimeoutError):
                assert process.poll() is None, (folder / "served.txt").read_text()[-2000:]
                time.sleep(0.25)
        return f"http://127.0.0.1:{port}/v1"

    try:
        yield address
    finally:
        process.terminate()
        process.wait(20)


def trained_judge(tokenizer: Tokenizer, folder: Path) -> Path:
    """A model that learned to say '7 5' to whatever two responses, by the suite's own training."""
    rows = [
        {"prompt": PROMPT.format(instruction=f"{n}?", first="x" * (n % 5), second=f"It is {n}."), "response": "7 5"}
        for n in range(24)
    ]
    (folder / "judge.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    talks = open_conversations(f"path:{folder / 'judge.jsonl'}")
    packed = pack_conversations(talks, "train", tokenizer, 0, 800, folder)
    judge = model(tokenizer, 1.0, reach=800).train()
    training = Student(judge, parse({"tuning": "Instructed"}).training_recipe, tokenizer.vocabulary)
    optimiser = torch.optim.AdamW(judge.parameters(), lr=1e-2)
    for step in range(80):
        indices_B = np.arange(2 * step, 2 * step + 2) % len(packed)
        rows_BL = torch.from_numpy(packed.rows(indices_B))
        target = FromResponses(packed)(indices_B, np.zeros(2), rows_BL[:, :-1], rows_BL[:, 1:]).target
        optimiser.zero_grad()
        loss = training(rows_BL[:, :-1], rows_BL[:, 1:], target, 0.0)
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.05
    publish(judge, tokenizer, folder / "judge")
    return folder / "judge"


def left_to_ask(
    folder: Path,
    stated: dict[str, str],
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> int:
    """As `judge-cost` says it, which asks nothing."""
    words = "".join(f'{key} = "{value}"\n' for key, value in {**stated, "probe": "judged"}.items())
    (folder / "judged.toml").write_text(words)
    monkeypatch.setenv("RESULTS", str(machine.results))
    monkeypatch.setenv("ARTIFACTS", str(machine.artifacts))
    capsys.readouterr()
    assert main(["judge-cost", str(folder / "judged.toml"), "--scale", str(folder / "small.toml")]) == 0
    said = capsys.readouterr().out.splitlines()
    found = re.fullmatch(r"all: .*judge: (\d+) of 30 ratings to ask for.*", said[-1])
    assert found is not None, said
    return int(found[1])


def test_the_whole_way_to_a_judge_that_transformers_serves(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    judge = trained_judge(tokenizer, tmp_path)
    talks = tmp_path / "talks.jsonl"
    talks.write_text("".join(json.dumps({"prompt": f"{n}?", "response": f"yes {n}"}) + "\n" for n in range(70)))
    words = f'SFT = 1152\n\n[texts]\ninstructions = "path:{talks}"\n\n[roles."300M"]'
    scale = SCALE.format(text=write_text(tmp_path / "text")).replace('\n[roles."300M"]', words)
    tuning = "tuning = { peak_rate = 1e-3, final_rate = 1e-4, warmup = 0.03, batch = 4 }\n\n[lengths]"
    (tmp_path / "small.toml").write_text(scale.replace("[lengths]", tuning))
    monkeypatch.setenv("TASK_DATA", str(write_sets(tmp_path / "tasks")))
    monkeypatch.setenv("JUDGE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("JUDGE_MODEL", str(judge))
    machine = this_machine(tmp_path / "results", tmp_path / "artifacts").at("float32")
    stated = {"teacher": "none", "target": "OneHot", "tuning": "Instructed"}
    run, plain = (
        Run(parse({**stated, "probe": probe}), load_scale(str(tmp_path / "small.toml")), 0)
        for probe in ("judged", "answers")
    )
    found = Plan()
    found.add(run)
    assert [each.recipe.probe for each in found.runs.values()] == ["train", "train", "judged"]
    with served(judge) as address:
        for each in (*list(found.runs.values())[:-1], plain):
            execute(each, machine)
        monkeypatch.setenv("JUDGE_URL", address())
        assert left_to_ask(tmp_path, stated, machine, monkeypatch, capsys) == 30
        judged = json.loads((execute(run, machine).folder / "summary.json").read_text())
    assert left_to_ask(tmp_path, stated, machine, monkeypatch, capsys) == 0
    summary = json.loads((machine.results / "small" / plain.id / "summary.json").read_text())
    rouge = summary["metrics"]
    assert rouge["rouge_l"] == pytest.approx((rouge["rouge_l_dolly"] + rouge["rouge_l_vicuna"]) / 2)
    assert 0 <= rouge["rouge_l"] < 1 and summary["curves"]["answers"]["answers"] == [2] * 5 + [1] * 5
    metrics = judged["metrics"]
    assert metrics["unrated"] == 0 and "average" not in metrics  # three sets are not at hand
    assert metrics["dolly"] == metrics["vicuna"] == 100 and metrics["dolly_sd"] == 0
    assert metrics["position_bias"] == 2 and metrics["flipped"] == 1  # it likes what stands first
    assert judged["curves"]["spent"]["written"][0] >= 3 * 2 * 15
    (log,) = (tmp_path / "artifacts/small/ratings").iterdir()
    assert len(log.read_text().splitlines()) == 2 * 15  # pairs in two orders
    config = json.loads((machine.results / "small" / run.id / "config.json").read_text())
    assert config["settings"]["judge"] == str(judge) and config["settings"]["tasks"].startswith("dolly, self_inst")


def test_a_judge_is_asked_only_where_one_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TASK_DATA", str(write_sets(tmp_path / "tasks")))
    exhibit = spec.load("rskd/table09")
    for url, probes in (("", {"answers"}), ("http://127.0.0.1:8000/v1", {"answers", "judged"})):
        monkeypatch.setenv("JUDGE_URL", url)
        monkeypatch.setenv("JUDGE_MODEL", "m")
        assert {
            recipe["probe"] for row in exhibit.rows for recipe in recipes_of(exhibit, row, load_scale("smoke"))
        } == probes
    runs = plan(["rskd/table09"], load_scale("smoke"), [0]).runs.values()
    assert sum(run.recipe.probe == "judged" for run in runs) == 5
    monkeypatch.delenv("JUDGE_MODEL")
    with pytest.raises(ValueError, match="JUDGE_MODEL=<a model there>"):
        refuse_unready(next(run for run in runs if run.recipe.probe == "judged"))
    assert os.environ["JUDGE_URL"]
