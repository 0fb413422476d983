"""The harness's numbers on a saved student: the same twice, equal to a scorer of our own, and refused in one line."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import binomtest
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from paper_tables import spec
from replication.data.corpus import open_corpus
from replication.data.tokenizer import open_tokenizer
from replication.evaluate.tasks import task_data
from replication.evaluate.tasks.harness import pieces, reader
from replication.evaluate.tasks.releases import RELEASES
from replication.evaluate.tasks.task_data import rows_of, specification
from replication.evaluate.tasks.zero_shot import Score, drawn, scores, summary, wilson
from replication.execution.execute import execute
from replication.experiment.recipe import parse
from replication.experiment.run import Run, students
from replication.experiment.scale import Optimiser, Role, load_scale
from replication.experiment.suites import METRICS, SUITES, Suite
from replication.machine.device import this_machine
from replication.machine.hub import silence
from replication.model.checkpoint import publish
from replication.model.decoder import build
from replication.planning.plan import plan
from replication.probes import speculative
from replication.probes.module import refuse_unready
from replication.training.loop import train
from tests.families import FAMILIES
from tests.small import write_scale, write_text

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="NO REAL DATA: ../shared/data is absent, these did not run")
REACH = 48
CHOOSING = Suite(("arc_easy", "hellaswag", "lambada_openai", "lambada_standard", "piqa"))
Tool = tuple[PreTrainedModel, PreTrainedTokenizerFast]


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Tool:
    """A small Llama of random but decided weights, saved and loaded as a trained student is."""
    folder = tmp_path_factory.mktemp("student")
    tokenizer = open_tokenizer("bpe:320", open_corpus(f"path:{write_text(folder / 'text')}"), folder)
    optimiser = Optimiser(peak_rate=1e-3, final_rate=1e-4, warmup=0.1, batch=4)
    role = Role(layers=1, width=16, ffn=32, heads=2, kv_heads=2, length="1", optimiser=optimiser)
    model = build(role, tokenizer.vocabulary, REACH, tokenizer.end_of_text, 3)
    with torch.no_grad():
        model.lm_head.weight.mul_(20)
    publish(model, tokenizer, folder / "model")
    loaded = AutoModelForCausalLM.from_pretrained(folder / "model").eval()
    return loaded, PreTrainedTokenizerFast.from_pretrained(folder / "model")


WORDS = "import the of value returns class None list self a tuple error name def file is not with for string".split()


def sentence(seed: int, length: int) -> str:
    chosen = torch.randint(len(WORDS), (length,), generator=torch.Generator().manual_seed(seed)).tolist()
    return " ".join(WORDS[place] for place in chosen)


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Task data in the hub's form, made up: fourteen rows of each, some choices longer than the student reads."""
    place = tmp_path_factory.mktemp("tasks")
    numbers = range(14)
    choices = {n: [sentence(100 * n + k, 2 + 3 * (n + k) % 40) for k in range(4)] for n in numbers}
    arc = [
        {
            "question": sentence(n, 5),
            "choices": {"text": choices[n][: 3 + n % 2], "label": list("ABCD"[: 3 + n % 2])},
            "answerKey": "ABC"[n % 3],
        }
        for n in numbers
    ]
    for split in ("train", "validation", "test"):
        write_rows(place / "arc_easy" / f"{split}.jsonl", arc)
    hellaswag = [
        {
            "ctx_a": f"{sentence(n, 30)}.",
            "ctx_b": "a man",
            "activity_label": "Doing",
            "endings": choices[n],
            "label": "2",
        }
        for n in numbers
    ]
    write_rows(place / "hellaswag" / "validation.jsonl", hellaswag)
    for name in ("lambada_openai", "lambada_standard"):
        write_rows(place / name / "test.jsonl", [{"text": sentence(n, 10 + 5 * n)} for n in numbers])
    piqa = [{"goal": sentence(n, 4), "sol1": choices[n][0], "sol2": choices[n][1], "label": n % 2} for n in numbers]
    write_rows(place / "piqa" / "validation.jsonl", piqa)
    sums = [{"question": sentence(n, 6), "answer": f"{sentence(n, 3)} #### {n}"} for n in numbers]
    for split in ("train", "test"):
        write_rows(place / "gsm8k" / f"{split}.jsonl", sums)
    asked = [{"question": sentence(n, 6), "answer": [sentence(n, 1)]} for n in numbers]
    write_rows(place / "nq_open" / "validation.jsonl", asked)
    return place


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("artifacts")


class Scorer:
    """Log-likelihoods in float64, one request at a time: written from the harness's description, not from its code."""

    def __init__(self, student: Tool) -> None:
        self.model, self.tokenizer = student[0].double(), student[1]

    def __call__(self, context: str, answer: str) -> tuple[float, bool, list[tuple[float, bool]]]:
        """Nats, whether it is what greedy decoding writes, and (confidence, correct) of each token."""
        whole = self.tokenizer.encode(context + answer)
        first = len(self.tokenizer.encode(context))
        spans = [(first, len(whole))]
        if len(whole) - first > REACH:
            spans = [(at, min(at + REACH // 2, len(whole))) for at in range(first, len(whole), REACH // 2)]
        nats, tokens = 0.0, []
        for begin, end in spans:
            start = max(0, end - REACH - 1)
            with torch.no_grad():
                logits_LV = self.model(torch.tensor([whole[start : end - 1]])).logits[0]
            for place in range(begin, end):
                logs_V = logits_LV[place - 1 - start].log_softmax(-1)
                nats += float(logs_V[whole[place]])
                tokens.append((float(logs_V.max().exp()), int(logs_V.argmax()) == whole[place]))
        return nats, all(correct for _, correct in tokens), tokens


def requests(task: str, row: dict[str, Any]) -> tuple[list[tuple[str, str]], int]:
    """(context, answer) of each choice, and the right one."""
    match task:
        case "arc_easy":
            prompt = f"Question: {row['question']}\nAnswer:"
            return [(prompt, f" {text}") for text in row["choices"]["text"]], "ABCDE".index(row["answerKey"])
        case "hellaswag":
            tidy = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}".strip().replace("  ", " ")
            return [(tidy, f" {end.replace('  ', ' ').strip()}") for end in row["endings"]], int(row["label"])
        case "piqa":
            prompt = f"Question: {row['goal']}\nAnswer:"
            return [(prompt, f" {row['sol1']}"), (prompt, f" {row['sol2']}")], row["label"]
        case _:
            head, _, word = row["text"].rpartition(" ")
            return [(head, f" {word}")], 0


def ece(pairs: list[tuple[float, bool]]) -> float:
    gaps = [0.0] * 15
    for confidence, correct in pairs:
        gaps[max(math.ceil(confidence * 15), 1) - 1] += correct - confidence
    return sum(map(abs, gaps)) / len(pairs)


def by_hand(task: str, rows: list[dict[str, Any]], scorer: Scorer) -> dict[str, float]:
    hits, normed, nats, pairs = 0, 0, 0.0, []
    for row in rows:
        asked, gold = requests(task, row)
        answers = [scorer(*each) for each in asked]
        if len(asked) == 1:
            hits += answers[0][1]
            nats += answers[0][0]
            pairs += answers[0][2]
            continue
        likely = torch.tensor([answer[0] for answer in answers], dtype=torch.float64)
        # the harness divides by the letters of the choice, without the space before it
        per_letter = likely / torch.tensor([len(words) - 1 for _, words in asked])
        hits += int(likely.argmax()) == gold
        normed += int(per_letter.argmax()) == gold
        pairs.append((float(likely.softmax(0).max()), int(likely.argmax()) == gold))
    if task.startswith("lambada"):
        return {"acc": hits / len(rows), "perplexity": math.exp(-nats / len(rows)), "ece": ece(pairs)}
    return {"acc": hits / len(rows), "acc_norm": normed / len(rows), "ece": ece(pairs)}


def agrees(score: Score, rows: list[dict[str, Any]], scorer: Scorer) -> None:
    expected = by_hand(score.task, rows, scorer)
    assert score.rows == len(rows) and score.calibration is not None
    assert score.calibration.error() == pytest.approx(expected.pop("ece"), abs=1e-4), score.task
    for name, value in expected.items():
        assert score.others[f"{name},none"] == pytest.approx(value, rel=1e-3), (score.task, name)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().split("\n") if line]


EVALUATED = {"arc_easy": "test", "lambada_openai": "test", "lambada_standard": "test"}


def test_the_harness_agrees_with_a_scorer_of_our_own_and_with_itself(
    student: Tool, folder: Path, artifacts: Path
) -> None:
    found = scores(*student, CHOOSING, None, folder, artifacts)
    again = scores(*student, CHOOSING, None, folder, artifacts)
    assert summary(found, CHOOSING) == summary(again, CHOOSING)  # to the last bit
    assert {score.task for score in found if score.cut > 0} >= {"hellaswag", "lambada_openai"}
    scorer = Scorer((AutoModelForCausalLM.from_pretrained(student[0].name_or_path).eval(), student[1]))
    for score in found:
        agrees(score, lines(folder / score.task / f"{EVALUATED.get(score.task, 'validation')}.jsonl"), scorer)
    assert found[0].chance == pytest.approx((1 / 3 + 1 / 4) / 2)


@needs_data
def test_real_rows_agree_with_a_scorer_of_our_own(student: Tool, artifacts: Path) -> None:
    found = scores(*student, CHOOSING, 12, DATA, artifacts)
    scorer = Scorer((AutoModelForCausalLM.from_pretrained(student[0].name_or_path).eval(), student[1]))
    sizes = {"arc_easy": 2376, "hellaswag": 10042, "lambada_openai": 5153, "lambada_standard": 5153, "piqa": 1838}
    for score in found:
        assert score.of == sizes[score.task]
        path = rows_of(score.task, DATA, artifacts)[EVALUATED.get(score.task, "validation")]
        rows = lines(path)
        agrees(score, [rows[place] for place in drawn(score.task, len(rows), 12)], scorer)
    assert 0.24 < found[0].chance < 0.26 and found[4].chance == 0.5


@needs_data
def test_every_release_becomes_what_the_harness_reads(artifacts: Path) -> None:
    """The first prompt of each task, and its right answer."""
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_defaults=False)
    seen = {}
    for name in sorted(set(METRICS) - {"ifeval", "mbpp"}):  # these need packages, or the hub's metric
        (task,) = manager.load([str(specification(name, 0, DATA, artifacts))])["tasks"].values()
        doc = task.eval_docs[0]
        seen[name] = (task.config.task, len(task.eval_docs), task.doc_to_text(doc), task.doc_to_target(doc))
    assert all(name == found[0] for name, found in seen.items())
    assert seen["hellaswag"][2:] == ("Roof shingle removal: A man is sitting on a roof. He", 3)
    assert seen["arc_easy"][2].startswith("Question: Which statement best explains why photosynthesis")
    assert seen["arc_easy"][3] == 0 and seen["openbookqa"][3] == 1 and seen["winogrande"][2] == 1
    assert seen["triviaqa"][2] == (
        "Question: Brunswick, Lancastrian and Pearl Pickler are types of which vegetable??\nAnswer:"
    )
    assert "Onion" in seen["triviaqa"][3] and seen["triviaqa"][1] == 3000 and seen["boolq"][3] == 0
    assert seen["social_iqa"][3] == 2 and seen["nq_open"][1] == 3610 and seen["lambada_standard"][1] == 5153


def test_answers_longer_than_the_student_reads_are_scored_whole(student: Tool) -> None:
    from lm_eval.api.instance import Instance

    lengths = [(3, 2), (60, 2), (3, 90), (60, 90), (2, 41)]  # words of prompt and answer
    asked = [
        (sentence(place, before), f" {sentence(50 + place, after)}") for place, (before, after) in enumerate(lengths)
    ]
    harness = reader(*student, autocast=False)
    found = harness.loglikelihood([Instance("loglikelihood", {}, pair, 0) for pair in asked])
    scorer = Scorer((AutoModelForCausalLM.from_pretrained(student[0].name_or_path).eval(), student[1]))
    expected = [scorer(*pair) for pair in asked]
    assert [nats for nats, _ in found] == pytest.approx([nats for nats, _, _ in expected], rel=1e-5)
    assert [greedy for _, greedy in found] == [greedy for _, greedy, _ in expected]
    assert harness.cut == set(asked[1:]) and len(student[1].encode(asked[4][1])) > REACH


def test_one_text_in_two_splits_is_scored_twice(student: Tool) -> None:
    """With its cache of logits the harness gives the second what it has of the first."""
    from lm_eval.api.instance import Instance

    words = sentence(0, 9).split()
    asked = [(" ".join(words[:place]), " " + " ".join(words[place:])) for place in (4, 6, 8)]
    found = reader(*student, autocast=False).loglikelihood([Instance("loglikelihood", {}, pair, 0) for pair in asked])
    scorer = Scorer((AutoModelForCausalLM.from_pretrained(student[0].name_or_path).eval(), student[1]))
    assert [nats for nats, _ in found] == pytest.approx([scorer(*pair)[0] for pair in asked], rel=1e-5)


@pytest.mark.parametrize(("name", "reach"), [("Mamba", 2048), ("MPT", 64), ("Gemma 3, that also sees", 64)])
def test_families_that_call_their_reach_otherwise_are_scored(name: str, reach: int, student: Tool) -> None:
    from lm_eval.api.instance import Instance

    family = next(each for each in FAMILIES if each.name == name)
    text = family.settings.get("text_config", {})
    model = family.model(**({"text_config": {**text, "vocab_size": 320}} if text else {"vocab_size": 320})).eval()
    harness = reader(model, student[1], autocast=False)
    prompt, answer = sentence(0, 5), f" {sentence(1, 3)}"
    ((nats, _),) = harness.loglikelihood([Instance("loglikelihood", {}, (prompt, answer), 0)])
    before, ids = (torch.tensor(student[1].encode(words)) for words in (prompt, prompt + answer))
    with torch.no_grad():
        log_NV = model(input_ids=ids[None, :-1]).logits[0, len(before) - 1 :].log_softmax(-1)
    assert nats == pytest.approx(float(log_NV.gather(1, ids[len(before) :, None]).sum()), rel=1e-5)
    assert harness.max_length == reach


def test_few_shot_and_written_answers(student: Tool, folder: Path, artifacts: Path) -> None:
    """One example in each prompt; written answers leave half of what the student reads to the prompt."""
    suite = Suite(("arc_easy", "gsm8k", "nq_open"), shots=1)
    found = {score.task: score for score in scores(*student, suite, 5, folder, artifacts)}
    assert found["gsm8k"].cut == 1 and found["gsm8k"].chance == 0 and found["gsm8k"].rows == 5
    assert found["gsm8k"].calibration is None and found["nq_open"].accuracy <= 1
    (zero,) = scores(*student, Suite(("arc_easy",)), 5, folder, artifacts)
    assert zero.data != found["arc_easy"].data  # other prompts


def test_a_long_answer_is_read_in_pieces_behind_all_that_fits() -> None:
    context, answer = list(range(7)), list(range(100, 123))
    assert list(pieces(context, answer[:10], 10)) == [(context, answer[:10])]
    parts = list(pieces(context, answer, 10))
    assert [token for _, part in parts for token in part] == answer
    assert all(len(part) <= 5 for _, part in parts)
    for before, part in parts:
        assert before + part == (context + answer)[: len(before) + len(part)]


@pytest.mark.parametrize(("hits", "rows"), [(0, 40), (13, 40), (40, 40), (511, 2000)])
def test_intervals_are_wilson_s(hits: int, rows: int) -> None:
    expected = binomtest(hits, rows).proportion_ci(method="wilson")
    assert wilson(hits / rows, rows) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_the_summary_says_what_noise_is() -> None:
    found = [
        Score("arc_easy", 0.5, 100, 100, 0.25, 0.0, "x", {"acc,none": 0.5}, None),
        Score("piqa", 0.6, 400, 1838, 0.5, 0.0, "y", {"acc,none": 0.6}, None),
    ]
    metrics, curves = summary(found, Suite(("arc_easy", "piqa")))
    assert metrics["average"] == pytest.approx(0.55) and metrics["average_chance"] == pytest.approx(0.375)
    half = 1.959964 * math.sqrt(0.25 / 100 + 0.24 / 400) / 2
    assert metrics["average_high"] - metrics["average"] == pytest.approx(half)
    assert metrics["piqa_low"] < 0.6 < metrics["piqa_high"]
    assert curves["tasks"]["rows"] == [100, 400] and curves["tasks"]["of"] == [100, 1838]


# Rows of each release as it is published, and what the harness's task wants of them.
ARC = {"id": "1", "query": "Question: Why?\nAnswer:", "choices": ["a", "b", "c"], "gold": 2}
RAW: dict[str, list[dict[str, Any]] | str] = {
    **{f"eval_arc/ARC-Easy-{split}.jsonl.gz": [ARC] for split in ("train", "validation", "test")},
    "eval_hellaswag/hellaswag_val.jsonl.gz": [
        {"ctx": "A man sits. He (a man) stands up. the dog", "label": 1},
        {"ctx": "How to. Do it well.", "label": 0},
    ],
    "eval_piqa/valid.jsonl.gz": [{"goal": "g"}, {"goal": "h"}],
    "eval_piqa/valid-labels.lst": "1\n0\n",
    "eval_triviaqa/triviaqa_sm_sub.jsonl.gz": [
        {"context": "Question: A\u2028B?\nAnswer:", "answer": "c", "aliases": ["c", "C"]}
    ],
    "eval_lambada/lambada_test_plain_text.txt.gz": "one two three \nfour five\n",
    "eval_mbpp/mbpp.jsonl.gz": [{"task_id": n} for n in (10, 11, 510, 511)],
}


@pytest.fixture
def releases(tmp_path: Path) -> Path:
    for name, content in RAW.items():
        path = tmp_path / "raw" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = (
            content if isinstance(content, str) else "\n".join(json.dumps(row, ensure_ascii=False) for row in content)
        )
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return tmp_path / "raw"


def test_releases_are_converted_once(releases: Path, tmp_path: Path) -> None:
    def made(task: str, split: str) -> list[dict[str, Any]]:
        return lines(rows_of(task, releases, tmp_path)[split])

    assert made("arc_easy", "test") == [
        {
            "id": "1",
            "question": "Why?",
            "choices": {"text": ["a", "b", "c"], "label": ["A", "B", "C"]},
            "answerKey": "C",
        }
    ]
    broken, whole = made("hellaswag", "validation")
    assert (broken["ctx_a"], broken["ctx_b"], broken["label"]) == ("A man sits. He (a man) stands up.", "the dog", "1")
    assert (whole["ctx_a"], whole["ctx_b"]) == ("How to. Do it well.", "")
    assert [row["label"] for row in made("piqa", "validation")] == [1, 0]
    assert made("triviaqa", "validation") == [
        {"question": "A\u2028B?", "answer": {"value": "c", "aliases": ["c", "C"]}}
    ]
    assert made("lambada_standard", "test") == [{"text": "one two three"}, {"text": "four five"}]
    assert [row["task_id"] for row in made("mbpp", "test")] == [11, 510]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("tasks/**/*.jsonl")}
    made("piqa", "validation")
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.glob("tasks/**/*.jsonl")}
    (releases / "eval_piqa/valid-labels.lst").write_text("0\n0\n")
    assert [row["label"] for row in made("piqa", "validation")] == [0, 0]  # other data, another file


def test_each_task_states_only_another_source() -> None:
    from lm_eval.tasks._yaml_loader import load_yaml

    assert {path.stem for path in task_data.TASKS.glob("*.yaml")} == set(RELEASES) == set(METRICS)
    assert {task for suite in SUITES.values() for task in suite.tasks} == set(METRICS)
    for name, splits in RELEASES.items():
        ours = load_yaml(task_data.TASKS / f"{name}.yaml", resolve_func=False, recursive=False)
        assert set(ours) <= {
            "include",
            "dataset_path",
            "dataset_name",
            "dataset_kwargs",
            "training_split",
            "validation_split",
        }
        assert set(ours["dataset_kwargs"]["data_files"]) == set(splits)


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from huggingface_hub import constants

    monkeypatch.delenv("TASK_DATA", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    silence.cache_clear()
    yield
    silence.cache_clear()


def test_without_hub_and_directory_one_line_names_both(no_hub: None) -> None:
    run = Run(parse({"target": "OneHot", "probe": "zero_shot"}), load_scale("smoke"), 0)
    with pytest.raises(ValueError, match=r"does not answer .* the Hugging Face hub, .* TASK_DATA=<folder>") as raised:
        refuse_unready(run)
    assert "\n" not in str(raised.value)


def test_a_task_that_cannot_be_loaded_is_one_line() -> None:
    with pytest.raises(ValueError, match=r"Task ifeval needs a package: No module named 'langdetect'"):
        with task_data.unreachable("ifeval"):
            raise ImportError("No module named 'langdetect'")
    with pytest.raises(
        ValueError, match=r"Task piqa cannot be loaded: Couldn't reach 'baber/piqa'.*TASK_DATA=<folder>"
    ):
        with task_data.unreachable("piqa"):
            raise ConnectionError("Couldn't reach 'baber/piqa' on the Hub\nand more")


def test_a_directory_that_is_none_or_lacks_a_task_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASK_DATA", str(tmp_path / "absent"))
    with pytest.raises(ValueError, match="which is no folder"):
        task_data.ready(["piqa"])
    monkeypatch.setenv("TASK_DATA", str(folder))
    task_data.ready(CHOOSING.tasks)
    with pytest.raises(
        ValueError, match=r"no data of boolq: neither boolq/validation.jsonl.* nor eval_boolq/validation"
    ):
        task_data.ready(["boolq"])


def test_tables_with_other_columns_ask_for_task_data_only_where_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    scale = load_scale("smoke")

    def probes(name: str) -> list[str]:
        return sorted({run.recipe.probe for run in plan([name], scale, [0]).runs.values()})

    monkeypatch.delenv("TASK_DATA", raising=False)
    assert probes("rskd/table06") == probes("rskd/table22") == ["train"]  # which leaves answers to tasks at hand
    monkeypatch.setenv("TASK_DATA", "hub")
    assert probes("rskd/table06") == ["train", "zero_shot"]


def test_probes_measure_a_trained_student(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine, scale = this_machine(tmp_path / "results", tmp_path / "artifacts"), load_scale(str(write_scale(tmp_path)))
    monkeypatch.setenv("TASK_DATA", str(folder))
    monkeypatch.setattr(speculative, "DRAFTS", 60)
    found = {}
    for probe in ("zero_shot", "speculative", "tail"):
        run = Run(parse({"target": "OneHot", "probe": probe}), scale, 0)
        assert run.teacher is not None
        for before in (run.teacher, *students(run)):
            train(before, machine)
        found[probe] = json.loads((execute(run, machine).folder / "summary.json").read_text())
    tasks, metrics = found["zero_shot"]["curves"]["tasks"], found["zero_shot"]["metrics"]
    assert tasks["task"] == list(CHOOSING.tasks) and set(tasks["rows"]) == {14} and set(tasks["harness"]) == {"0.4.13"}
    assert metrics["average"] == pytest.approx(sum(metrics[task] for task in CHOOSING.tasks) / 5)
    assert metrics["average_low"] < metrics["average_chance"] < metrics["average_high"]  # it cannot know any of this
    assert 0 < found["speculative"]["metrics"]["decoded_acceptance"] <= 1
    beyond, trained_on = found["tail"]["metrics"], run.teacher.id
    teacher = json.loads((machine.results / "small" / trained_on / "summary.json").read_text())["metrics"]
    assert beyond["mismatch"] == pytest.approx(1 - teacher["accuracy"])  # on the same rows
    assert 1 > beyond["tail_mass_1"] > beyond["tail_mass_5"] > beyond["tail_mass_20"] > 0
    config = json.loads((machine.results / "small" / found["zero_shot"]["run_id"] / "config.json").read_text())
    assert "piqa; 0-shot; all rows; lm_eval 0.4.13" in config["settings"]["tasks"]


def test_a_probe_reads_the_student_of_its_own_row() -> None:
    found = plan(["rskd/table22"], load_scale("h100"), [0])
    asked = [run for run in found.runs.values() if run.recipe.probe == "zero_shot"]
    assert len(asked) == sum(row.recipe is not None for row in spec.load("rskd/table22").rows)
    for run in asked:
        (student,) = students(run)
        assert found.runs[student.id].recipe.probe == "train" and student.recipe.target == run.recipe.target
    assert all(need.run.recipe.probe == "train" for need in found.needs)
