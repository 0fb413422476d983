"""Tasks at hand: what is asked follows from held-out text alone, and what is answered is the harness's number."""

from __future__ import annotations

import copy
import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from analysis.at_hand import MEANS, OF, PROBES, STANDS_FOR, Answers, Task
from analysis.load import frame, records
from analysis.sheet import sheet
from paper_tables import spec
from replication.__main__ import main
from replication.data.corpus import Corpus, collect, open_corpus
from replication.data.sums import PROBLEM, sums
from replication.data.tokenizer import open_tokenizer
from replication.evaluate.tasks.at_hand.answering import answered, asked, harness_task, packed
from replication.evaluate.tasks.at_hand.held_out import spans_of
from replication.evaluate.tasks.at_hand.instruct import obeyed
from replication.evaluate.tasks.at_hand.item import Item, digest, drawn
from replication.evaluate.tasks.at_hand.likelihoods import likelihoods
from replication.evaluate.tasks.at_hand.makers import MAKERS, made, right_sum
from replication.evaluate.tasks.at_hand.pairs import KINDS
from replication.evaluate.tasks.harness import reader
from replication.execution.execute import execute
from replication.experiment.recipe import parse
from replication.experiment.run import Run
from replication.experiment.scale import Optimiser, Role, load_scale
from replication.experiment.suites import AT_HAND, SUITES
from replication.machine.device import Machine, this_machine
from replication.model.checkpoint import publish
from replication.model.decoder import build
from replication.planning.plan import plan
from replication.training.answers import questions
from replication.training.weights import model_folder
from tests.planted import plant
from tests.rehearsal_stage import programs
from tests.small import write_scale, write_text

DIGESTS = json.loads((Path(__file__).parent / "items_at_hand.json").read_text())
REACH = 320  # tokens
Tool = tuple[PreTrainedModel, PreTrainedTokenizerFast]
OF_LINES = ("next_line", "last_word", "pairs", "docstring", "signature")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Modules of the standard library, of which a quarter are held out."""
    folder = write_text(tmp_path_factory.mktemp("corpus") / "text")
    found = collect("modules", [path.read_text() for path in sorted(folder.iterdir())])
    found.__dict__["held_out"] = np.arange(len(found.documents)) % 4 == 0
    return found


@pytest.fixture(scope="module")
def items(corpus: Corpus) -> dict[str, list[Item]]:
    return {name: found for name, (found, _) in made(corpus, None).items()}


def stripped(documents: list[str]) -> set[str]:
    return {line.strip() for document in documents for line in document.split("\n")}


def test_code_has_items_of_every_task_but_sums(items: dict[str, list[Item]]) -> None:
    assert list(MAKERS) == list(AT_HAND.tasks)
    assert items.keys() == MAKERS.keys() - {"sums"}
    assert {item.kind for item in items["pairs"]} == KINDS.keys()
    for name in OF_LINES:
        sizes = {len(item.choices) for item in items[name]}
        assert sizes == {{"last_word": 1, "pairs": 2}.get(name, 4)}
        assert all(len(item.context) <= 320 and len(set(item.choices)) == len(item.choices) for item in items[name])


def test_the_right_answer_is_the_documents_and_no_wrong_one_is(corpus: Corpus, items: dict[str, list[Item]]) -> None:
    texts = [corpus.documents[index] for index in np.flatnonzero(corpus.held_out)]
    for name in OF_LINES:
        for item in items[name]:
            for place, text in enumerate(item.choices):
                written = any(item.context + text in document for document in texts)
                assert written == (place == item.answer), (name, item)


def test_no_line_that_is_asked_for_stands_in_training_text(corpus: Corpus, items: dict[str, list[Item]]) -> None:
    seen = stripped(corpus.training_documents)
    texts = [corpus.documents[index] for index in np.flatnonzero(corpus.held_out)]
    assert stripped(texts) & seen - {""}  # lines that both have are there, and are left out
    for name in OF_LINES:
        for item in items[name]:
            right = item.choices[item.answer]
            (text, place), *_ = (
                (text, text.find(item.context + right)) for text in texts if item.context + right in text
            )
            last = place + len(item.context + right.rstrip()) - 1
            line = text[text.rfind("\n", 0, last) + 1 :].split("\n", 1)[0]
            assert line.strip() not in seen, (name, item)


def test_a_document_that_is_copied_into_training_text_is_never_asked_for(corpus: Corpus) -> None:
    document = corpus.documents[0]
    copied = collect("copied", [document, *corpus.documents[1:], document + "\nx = 1\n"])
    copied.__dict__["held_out"] = np.arange(len(copied.documents)) == 0
    assert made(copied, None) == {}


def test_items_are_the_same_on_every_machine() -> None:
    """`python -m tests.test_at_hand` prints the digests."""
    assert digests(collect("programs", programs(0, 40)), 50) == DIGESTS["programs"]
    library = open_corpus("stdlib")
    if library.fingerprint not in DIGESTS:
        pytest.skip(f"this Python's standard library is {library.fingerprint}; known: {', '.join(DIGESTS)}")
    assert digests(library, load_scale("laptop").task_rows) == DIGESTS[library.fingerprint]


def digests(corpus: Corpus, rows: int | None) -> dict[str, str]:
    return {name: digest(found) for name, (found, _) in made(corpus, rows).items()}


def test_rows_are_drawn_alike_from_every_kind() -> None:
    many = [
        Item(f"{kind} {n}", ("a",), kind=kind) for kind, count in (("x", 50), ("y", 3), ("z", 50)) for n in range(count)
    ]
    found = drawn("t", many, 23)
    assert [sum(item.kind == kind for item in found) for kind in "xyz"] == [10, 3, 10]
    assert found != many[:23] and found == drawn("t", reversed(many), 23)
    assert sorted(map(str, drawn("t", many, None))) == sorted(map(str, many))


def test_long_lines_of_prose_are_taken_sentence_by_sentence() -> None:
    text = "One sentence of prose. " * 8 + "And a last one!\n\nshort line  \n"
    found = [text[begin:end] for begin, end in spans_of(text)]
    assert found == [*["One sentence of prose."] * 8, "And a last one!", "short line"]


def test_no_sum_stands_twice_and_all_are_right() -> None:
    documents = list(sums(400))
    assert len(documents) == 20
    found = [place for document in documents for place in PROBLEM.finditer(document)]
    assert len(found) == 400 == len({place.group(1) for place in found})
    for place in found:
        steps = place.group(2).splitlines()
        for step in [*steps, f"{place.group(1)} = {place.group(3)}"]:
            left, right = step.split(" = ")
            assert eval(left) == int(right)
    assert list(sums(400)) == documents == list(sums(800))[:20]
    with pytest.raises(
        ValueError, match="'sums:7' asks for 7 problems of numbers up to 49; give a number from 40 to 100,000"
    ):
        open_corpus("sums:7")


def test_smaller_numbers_make_fewer_problems_and_each_once() -> None:
    asked = [found.group(1) for text in sums(1600, 9) for found in PROBLEM.finditer(text)]
    assert len(set(asked)) == len(asked) == 1600
    assert {int(number) for each in asked for number in re.findall(r"[0-9]+", each)} == set(range(1, 10))
    with pytest.raises(ValueError, match="of numbers up to 9; give a number from 40 to 1,620"):
        open_corpus("sums:1621:9")
    with pytest.raises(ValueError, match="of numbers up to 1; allow larger ones"):
        open_corpus("sums:40:1")


def test_what_a_joined_text_asks_no_part_of_it_trains_on(tmp_path: Path) -> None:
    """Of fewer sums of the same numbers the documents are the same, so what one text holds out the other does."""
    (tmp_path / "a.txt").write_text("Some other text.\n")
    whole, part = open_corpus(f"path:{tmp_path} + sums:8000:29"), open_corpus("sums:4000:29")
    assert whole.documents == ["Some other text.\n", *open_corpus("sums:8000:29").documents]
    assert set(part.documents) < set(whole.documents)
    items = made(whole, None)["sums"][0]
    asked = {item.context[item.context.rindex("Q: ") :] for item in items}
    read = "".join(part.training_documents + whole.training_documents)
    assert len(asked) == len(items) > 50 and not any(question in read for question in asked)
    assert [item for item in made(part, None)["sums"][0] if item not in items] == []


def test_each_task_is_asked_of_one_text_the_one_of_most_tasks_first(tmp_path: Path) -> None:
    """Of a run on sums whose models read other text before, with more sums in it: lines of sums are no next lines."""
    text, machine = f"path:{write_text(tmp_path / 'text')}", replace(this_machine(), artifacts=tmp_path)

    def tasks(text: str, **stated: Any) -> dict[str, str]:
        run = Run(parse({"text": text, **stated}), load_scale("smoke"), 0)
        return {each.task: each.data for each in questions(run, open_corpus(text), machine)}

    code, few, more = tasks(text), tasks("sums:1600:29"), tasks("sums:4000:29")
    assert len(code) > 4 and few.keys() == {"next_line", "sums", "instruct"} and few["sums"] != more["sums"]
    both = {**code, "sums": more["sums"]}
    assert tasks(f"{text} + sums:4000:29") == both
    background = {"name": "OtherText", "text": f"{text} + sums:4000:29"}
    assert tasks("sums:1600:29", background=background) == both
    # without sums the text that is read before changes nothing, as long as it is the smaller one
    assert tasks(text, background={"name": "OtherText", "text": f"path:{write_text(tmp_path / 'again')}"}) == code


def test_sums_are_asked_of_a_corpus_that_has_them() -> None:
    corpus = open_corpus("sums:4000")
    found = made(corpus, None)["sums"][0]
    training = "".join(corpus.training_documents)
    for item in found:
        question = item.context.split("Q: ")[-1].removesuffix(" = ?\n")
        assert eval(question) == int(item.choices[0]) and f"Q: {question} = ?" not in training
    row = found[0].row()
    assert right_sum(row, [f"1 + 1 = 2\nA: {row['target']}\n"]) == {"exact_match": 1.0}
    assert right_sum(row, ["A: 12345"]) == right_sum(row, [row["target"]]) == {"exact_match": 0.0}


def test_instructions_are_checked_by_program(items: dict[str, list[Item]]) -> None:
    for kind, argument, good, bad in (
        ("start", "self", "  self.x = 1", "x = self"),
        ("format", ":", "else:", "else: pass"),
        ("length", "2", "a b", "a b c"),
        ("forbidden", "self", "x = 1", "self.x"),
    ):
        assert obeyed(kind, argument, good) and not obeyed(kind, argument, bad) and not obeyed(kind, argument, " ")
    assert {item.kind for item in items["instruct"]} == {"start", "format", "length", "forbidden"}
    assert all(f"{item.choices[0]}" in item.context.rsplit("# The next line", 1)[1] for item in items["instruct"])


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory, corpus: Corpus) -> Tool:
    """A small Llama of random but decided weights, saved and loaded as a trained student is."""
    folder = tmp_path_factory.mktemp("student")
    tokenizer = open_tokenizer("bpe:320", corpus, folder)
    optimiser = Optimiser(peak_rate=1e-3, final_rate=1e-4, warmup=0.1, batch=4)
    role = Role(layers=2, width=16, ffn=32, heads=2, kv_heads=1, length="1", optimiser=optimiser)
    model = build(role, tokenizer.vocabulary, REACH, tokenizer.end_of_text, 3)
    with torch.no_grad():
        model.lm_head.weight.mul_(20)
    publish(model, tokenizer, folder / "model")
    loaded = AutoModelForCausalLM.from_pretrained(folder / "model").eval()
    return loaded, PreTrainedTokenizerFast.from_pretrained(folder / "model")


@torch.no_grad()
def alone(model: PreTrainedModel, context: list[int], answer: list[int]) -> tuple[float, list[tuple[float, bool]]]:
    """Nats of an answer, and (confidence, correct) of its tokens, all read at once."""
    logs_TV = model(torch.tensor([[*context, *answer]])).logits[0, len(context) - 1 : -1].log_softmax(-1)
    nats = sum(float(logs_TV[place, token]) for place, token in enumerate(answer))
    return nats, [
        (float(logs_V.max().exp()), int(logs_V.argmax()) == t) for logs_V, t in zip(logs_TV, answer, strict=True)
    ]


def test_shared_contexts_change_no_likelihood(student: Tool, items: dict[str, list[Item]]) -> None:
    model, tokenizer = copy.deepcopy(student[0]).double(), student[1]
    pairs = [
        (tokenizer.encode(item.context), tokenizer.encode(text))
        for name in OF_LINES
        for item in items[name][:6]
        for text in item.choices
    ]
    pairs += [([0], answer) for _, answer in pairs[:9]]
    found = likelihoods(model, pairs, REACH)
    for each, pair in zip(found, pairs, strict=True):
        nats, tokens = alone(model, *pair)
        assert each.nats == pytest.approx(nats, rel=1e-9) and each.greedy == all(correct for _, correct in tokens)
        assert each.confidence_T.tolist() == pytest.approx([confidence for confidence, _ in tokens])
        assert each.correct_T.tolist() == [correct for _, correct in tokens]
    forward = model.forward
    with patch.object(model, "forward", lambda **given: forward(**{**given, "use_cache": False})):
        again = likelihoods(model, pairs, REACH)  # a model that keeps no keys and values
    assert [each.nats for each in again] == pytest.approx([each.nats for each in found], rel=1e-9)


def test_what_is_too_long_loses_its_beginning_alike_for_every_answer(student: Tool) -> None:
    model = copy.deepcopy(student[0]).double()
    context, short, long, endless = [3 + n % 300 for n in range(REACH)], [7, 8], [9] * 20, [5, 6] * REACH
    found = likelihoods(model, [(context, short), (context, long), (context[:5], endless)], REACH)
    kept = context[-(REACH + 1 - len(long)) :]
    assert found[0].nats == pytest.approx(alone(model, kept, short)[0], rel=1e-9)
    assert found[1].nats == pytest.approx(alone(model, kept, long)[0], rel=1e-9)
    assert found[2].nats == pytest.approx(alone(model, context[4:5], endless[:REACH])[0], rel=1e-9)


def test_the_harness_alone_gets_the_same_scores(student: Tool, corpus: Corpus, tmp_path: Path) -> None:
    from lm_eval.evaluator import evaluate

    tasks = asked(corpus, 24, tmp_path)
    ours = answered(*student, tasks, tmp_path, False)
    for each in tasks:
        given = {"tasks": {each.task: harness_task(each, tmp_path)}}
        theirs, metric = evaluate(reader(*student, False), given, bootstrap_iters=0), MAKERS[each.task].metrics[0]
        results, samples, found = theirs["results"][each.task], theirs["samples"][each.task], ours[each.task]
        assert found["accuracy"] == results[f"{metric},none"] == results[found["metric"]] and found["cut"] == 0
        assert found["correct"] == packed([bool(sample[metric]) for sample in samples])
        assert found["rows"] == len(samples) and found["data"] == digest(each.items)
        if each.task == "last_word":
            assert found["perplexity"] == pytest.approx(results["perplexity,none"], rel=1e-4) and 0 <= found["ece"] <= 1
    assert ours["pairs"]["kinds"].keys() == KINDS.keys() and ours["next_line"]["chance"] == 0.25
    assert sum(kind["rows"] * kind["accuracy"] for kind in ours["pairs"]["kinds"].values()) == pytest.approx(
        ours["pairs"]["rows"] * ours["pairs"]["accuracy"]
    )


def test_a_text_without_a_line_to_ask_for_gives_no_task(student: Tool, tmp_path: Path) -> None:
    corpus = collect("one word", ["a", "b"])
    assert asked(corpus, 5, tmp_path) == [] and answered(*student, [], tmp_path, False) == {}
    assert Answers(suite="at_hand", numerics={"tasks": 1}, harness="0.4.13", tasks={}).metrics() == {}


def test_bits_are_packed_from_the_left() -> None:
    assert packed([True, False, False, False, False, False, False, True, True]) == "8180"


def machine_of(folder: Path) -> Machine:
    return this_machine(folder / "results", folder / "artifacts")


def write_answering_scale(folder: Path) -> Path:
    path = write_scale(folder)
    path.write_text('tasks = "at hand"\ntask_rows = 12\n' + path.read_text())
    return path


def test_a_training_answers_at_its_end_what_its_weights_answer_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("ARTIFACTS", str(tmp_path / "artifacts"))
    scale, recipe = write_answering_scale(tmp_path), tmp_path / "recipe.toml"
    recipe.write_text('target = "OneHot"\nteacher = "none"\n')
    run, machine = Run(parse({"target": "OneHot", "teacher": "none"}), load_scale(str(scale)), 0), this_machine()
    folder = execute(run, machine).folder
    path = folder / "answers.json"
    first = path.read_bytes()
    said = json.loads(first)
    assert said["suite"] == "at_hand" and said["numerics"] == {"tasks": 1} and said["harness"] == "0.4.13"
    for task in said["tasks"].values():
        bits = f"{int(task['correct'], 16):0{4 * len(task['correct'])}b}"[: task["rows"]]
        assert bits.count("1") / task["rows"] == task["accuracy"] and task["rows"] <= min(12, task["of"])
        assert len(task["data"]) == 16 and task["low"] <= task["accuracy"] <= task["high"]
    assert path.stat().st_mtime <= (folder / "summary.json").stat().st_mtime
    config = json.loads((folder / "config.json").read_text())
    assert "tasks" not in config["numerics"] and "tasks" not in config["settings"]

    def late() -> str:
        assert main(["answer", str(recipe), "--scale", str(scale)]) == 0
        return capsys.readouterr().out.strip().removeprefix(f"{run.id}: ")

    assert late() == "it has answers already"
    path.unlink()
    shutil.rmtree(tmp_path / "artifacts" / "tasks")
    assert late() == "answered" and path.read_bytes() == first
    said["tasks"]["next_line"]["data"] = "0" * 16  # of other items
    path.write_text(json.dumps(said))
    assert late() == "answered" and path.read_bytes() == first
    model_folder(run, machine).rename(tmp_path / "elsewhere")
    assert late().startswith("its weights are not in ")
    (folder / "summary.json").unlink()
    assert late() == "it is not finished here"


def test_where_task_data_is_named_the_papers_tasks_are_asked_else_a_training_suffices(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Table 8 has a column of students after tuning: their trainings are planned, not their probes."""
    monkeypatch.delenv("TASK_DATA", raising=False)
    runs = plan(["rskd/table08"], load_scale("laptop"), [0]).runs.values()
    assert {run.recipe.probe for run in runs} == {"train"}
    assert sum(type(run.recipe.tuning).__name__ == "Instructed" for run in runs) == 6
    assert {run.recipe.probe for run in plan(["rskd/table22"], load_scale("h100"), [0]).runs.values()} == {
        "train",
        "zero_shot",
    }
    monkeypatch.setenv("TASK_DATA", "hub")
    planned = plan(["rskd/table08"], load_scale("laptop"), [0]).runs.values()
    assert {run.recipe.probe for run in planned} == {"train", "zero_shot"}
    assert spec.load("rskd/table08").column("if_sft").probe == "zero_shot"


def bits(task: dict[str, Any]) -> dict[str, Any]:
    return {
        "metric": "acc,none",
        "shots": 0,
        "rows": 8,
        "of": 9,
        "cut": 0.0,
        "correct": f"{0xFF00 >> int(8 * task['accuracy']) & 0xFF:02x}",
        "low": 0.2,
        "high": 0.8,
        **task,
    }


def plant_answers(folder: Path, right: float, data: str = "a") -> None:
    task = {"accuracy": right, "chance": 0.25, "data": data}
    tasks = {
        "next_line": bits({**task, "ece": 0.125}),
        "last_word": bits({**task, "accuracy": right / 2, "chance": 0.0, "perplexity": 3.0}),
        "pairs": bits({**task, "kinds": {"order": {"rows": 4, "accuracy": 0.75}}}),
    }
    said = {"suite": "at_hand", "numerics": {"tasks": 1}, "harness": "0.4.13", "student": "x", "tasks": tasks}
    (folder / "answers.json").write_text(json.dumps(said))


def test_answers_fill_the_columns_of_the_papers_tasks(tmp_path: Path) -> None:
    exhibit = spec.load("rskd/table22")
    rows = exhibit.rows[:3]
    for row, right in zip(rows[:2], (0.5, 0.75), strict=True):
        stated = exhibit.recipe_of(row)
        assert stated is not None
        for seed in (0, 1):
            plant_answers(plant(tmp_path, row.label, stated, seed, {"lm_loss": 3.0}), right + seed / 8)
    stated = exhibit.recipe_of(rows[2])
    assert stated is not None
    plant(tmp_path, "diverged", stated, 0, {"lm_loss": None}, diverged=True)
    plant(tmp_path, "not answered", {"target": "Full", "tokens": "50B"}, 0, {"lm_loss": 3.0})
    found = records(tmp_path)
    metrics = next(each for each in found if each.run_id == f"{rows[0].label}-s0").summary.metrics
    assert metrics["tasks_average"] == pytest.approx((0.5 + 0.25 + 0.5) / 3) and metrics["lm_loss"] == 3.0
    assert (metrics["tasks_next_line"], metrics["tasks_next_line_ece"], metrics["tasks_pairs_order"]) == (
        0.5,
        0.125,
        0.75,
    )
    assert (metrics["tasks_last_word_perplexity"], metrics["tasks_next_line_chance"]) == (3.0, 0.25)
    table = frame(exhibit, found, "logged").set_index(["row", "column", "seed"])["value"]
    assert table[rows[0].label, "hellaswag", 0] == 50 and table[rows[1].label, "lambada_openai", 1] == 43.75
    assert table[rows[1].label, "zero_shot", 0] == pytest.approx(100 * (0.75 + 0.375 + 0.75) / 3)
    assert (
        table[rows[2].label, "zero_shot", 0] == -math.inf
        and "arc_easy" not in table.index.get_level_values("column")[:8]
    )
    made_of = sheet(exhibit, "laptop", {"logged": found, "yours": []})
    assert any(
        "tasks at hand, made of held-out text: next line (8), last word (8), pairs (8)" in line
        for line in made_of.header
    )
    assert any("5 runs" in line for line in made_of.header)
    assert made_of.text(rows[0], exhibit.column("hellaswag"), "logged").endswith("[20.0 to 80.0, chance 25.0]")


def test_a_probe_of_the_papers_tasks_goes_first_and_other_items_stay_apart(tmp_path: Path) -> None:
    exhibit = spec.load("rskd/table06")
    own = [exhibit.recipe_of(row) for row in exhibit.rows[:3]]
    for number, (stated, data) in enumerate(zip(own, ("a", "a", "b"), strict=True)):
        assert stated is not None
        plant_answers(plant(tmp_path, f"run {number}", stated, 0, {"lm_loss": 3.0 + number}), 0.5, data)
    table = frame(exhibit, records(tmp_path), "logged")
    assert (
        set(table[table["column"] == "zero_shot"]["row"]) == {"CE", "2.4"}
        and len(table[table["column"] == "lm_loss"]) == 3
    )
    assert any("other sizes behind the scale's words" in note for note in table.attrs["notes"])
    stated = exhibit.recipe_of_cell(exhibit.rows[0], exhibit.column("zero_shot"))
    assert stated is not None
    place = plant(tmp_path, "probe", stated, 0, {"average": 0.875}) / "config.json"
    table = frame(exhibit, records(tmp_path), "logged")
    assert 87.5 not in table["value"].values  # it asked weights of before: fewer cells are of its kind
    config = json.loads(place.read_text())
    place.write_text(json.dumps({**config, "inputs": {**config["inputs"], "start": "x"}}))
    table = frame(exhibit, records(tmp_path), "logged")
    assert table[table["column"] == "zero_shot"][["row", "value"]].values.tolist() == [["CE", 87.5]]


def test_every_column_of_downstream_tasks_has_a_stand_in() -> None:
    """The analysis imports none of the suite: it names probes and tasks a second time."""
    asked_by = {
        (column.probe, (column.metric or column.key).removesuffix("_ece").removesuffix("_perplexity"))
        for name in spec.names()
        for column in spec.load(name).columns
        if column.probe in SUITES and column.derive is None
    }
    assert {probe for probe, _ in asked_by} == set(PROBES) <= SUITES.keys()
    assert {task for _, task in asked_by} - {"average", "validation"} - {
        c.key for c in spec.load("rskd/figure04").columns
    } <= STANDS_FOR.keys() | {task for own in OF.values() for task in own}
    assert set(STANDS_FOR.values()) == set(AT_HAND.tasks)
    for probe, tasks in MEANS.items():  # no task of a suite is forgotten, none is foreign to it
        assert set(tasks) == {STANDS_FOR[theirs] for theirs in SUITES[probe].tasks}


def test_a_validation_split_has_items_of_its_own() -> None:
    right = np.random.default_rng(0).random((2, 50)) < 0.6
    tasks = {
        name: Task(
            rows=50, data=name, accuracy=float(row.mean()), correct=np.packbits(row).tobytes().hex(), of=50,
            chance=0.25, low=0.0, high=1.0,
        )
        for name, row in zip(("next_line", "last_word"), right, strict=True)
    }  # fmt: skip
    own = Answers(suite="at_hand", numerics={"tasks": 1}, harness="x", tasks=tasks)
    split = own.of("zero_shot_sekd")
    places = np.arange(50)
    assert (split.validation["next_line"].right == right[0][places % 4 == 0]).all() and len(split.validation) == 1
    assert (split.tasks["next_line"].right == right[0][places % 4 != 0]).all()
    assert split.tasks["last_word"] == tasks["last_word"]  # SE-KD's validation suite has no LAMBADA
    found = split.counterparts()
    test = right[0][places % 4 != 0].mean()
    assert found["average"] == pytest.approx((test + right[1].mean()) / 2)
    assert found["validation"] == pytest.approx(right[0][places % 4 == 0].mean())
    assert dict(split.behind("average")) == dict(split.tasks) and split.behind("validation") == split.validation
    assert {task.data for task in (*split.tasks.values(), *split.validation.values())} == {
        "next_line/test", "next_line/validation", "last_word",
    }  # fmt: skip
    assert own.of("zero_shot").tasks == own.tasks and "validation" not in own.counterparts()


if __name__ == "__main__":
    standard = open_corpus("stdlib")
    known = {"programs": digests(collect("programs", programs(0, 40)), 50)}
    print(json.dumps({**known, standard.fingerprint: digests(standard, load_scale("laptop").task_rows)}, indent=1))
