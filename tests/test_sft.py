"""Supervised fine-tuning: which tokens are learned, from which weights, and how conversations share a row."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from replication.axes import loss
from replication.axes.divergences import ForwardKL
from replication.axes.positions import Responses
from replication.data.chat import Turn, encoded, opening, pieces
from replication.data.chat_rows import conversation
from replication.data.conversations import open_conversations, read
from replication.data.corpus import Corpus, open_corpus
from replication.data.packed_conversations import Conversations, best_fit, cut, pack_conversations
from replication.data.tokenizer import Tokenizer, open_tokenizer
from replication.execution.execute import execute
from replication.experiment.recipe import parse
from replication.experiment.run import Run
from replication.experiment.scale import Optimiser, Role, load_scale
from replication.machine.device import Machine, this_machine
from replication.model.decoder import build, logits_of
from replication.planning.plan import Plan
from replication.probes.module import refuse_unready
from replication.training.loop import train
from replication.training.run_data import data_for
from replication.training.student import Student
from replication.training.supervision import FromResponses
from replication.training.training import Training
from replication.training.weights import model_folder, starting_point
from tests.small import SCALE, write_text

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="NO REAL DATA: ../shared/data is absent, these did not run")
TALK = (
    Turn("system", "Be brief."),
    Turn("user", "What is a list?"),
    Turn("assistant", "A sequence."),
    Turn("user", "And a set?"),
    Turn("assistant", " Things without order"),
)
MORE = """
"50B" = 1152
SFT = 9216

[texts]
other = "path:{other}"
instructions = "path:{talks}"

[roles."300M"]"""


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    return open_tokenizer("bpe:320", open_corpus(f"path:{write_text(folder / 'text')}"), folder)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Machine]:
    """A scale that knows another text and 70 conversations of one kind."""
    folder = tmp_path_factory.mktemp("suite")
    text, other, talks = write_text(folder / "text"), folder / "other", folder / "talks.jsonl"
    other.mkdir()
    for number in range(80):
        (other / f"{number}.txt").write_text(f"Number {number} comes before {number + 1}, as everyone knows. " * 8)
    talks.write_text("".join(json.dumps({"prompt": f"{n}?", "response": f"yes, {n % 3}"}) + "\n" for n in range(70)))
    tuning = "tuning = { peak_rate = 1e-2, final_rate = 1e-3, warmup = 0.03, batch = 4 }\n\n[lengths]"
    written = SCALE.format(text=text).replace("[lengths]", tuning)
    written = written.replace('\n[roles."300M"]', MORE.format(other=other, talks=talks))
    (folder / "small.toml").write_text(written)
    return folder, this_machine(folder / "results", folder / "artifacts").at("float32")


def run_of(place: tuple[Path, Machine], stated: dict[str, object]) -> Run:
    return Run(parse(stated), load_scale(str(place[0] / "small.toml")), 0)


def executed(run: Run, machine: Machine) -> dict[str, float]:
    found = Plan()
    found.add(run)
    for each in (found.teachers | found.runs).values():
        record = execute(each, machine)
    metrics: dict[str, float] = json.loads((record.folder / "summary.json").read_text())["metrics"]
    return metrics


def test_what_the_assistant_says_is_learned_and_nothing_else(tokenizer: Tokenizer) -> None:
    tokens_T, said_T = encoded(TALK, tokenizer)
    end = tokenizer.decode([tokenizer.end_of_text])
    written = "<|system|>\nBe brief.\n<|user|>\nWhat is a list?\n<|assistant|>\nA sequence."
    written += f"{end}\n<|user|>\nAnd a set?\n<|assistant|>\n Things without order{end}"
    assert tokenizer.decode(tokens_T) == written
    assert tokenizer.decode(tokens_T[said_T]) == f"A sequence.{end} Things without order{end}"
    first = int(np.flatnonzero(said_T)[0])  # the border of prompt and response is one of tokens
    assert tokenizer.decode(tokens_T[:first]).endswith("<|assistant|>\n")


def test_the_template_that_is_saved_writes_the_same(tokenizer: Tokenizer, tmp_path: Path) -> None:
    from dataclasses import replace

    from replication.data.chat import TEMPLATE

    replace(tokenizer, chat_template=TEMPLATE).save(tmp_path)
    loaded = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    messages = [{"role": turn.role, "content": turn.text} for turn in TALK]
    tokens_T, _ = encoded(TALK, tokenizer)
    assert loaded.apply_chat_template(messages, tokenize=False) == tokenizer.decode(tokens_T)
    asked = loaded.apply_chat_template(messages[:2], add_generation_prompt=True)["input_ids"]
    assert asked == tokenizer.encode_batch([opening(TALK[:2])])[0].tolist()
    # in the middle of a conversation too
    again = loaded.apply_chat_template(messages[:4], tokenize=False, add_generation_prompt=True)
    end = tokenizer.decode([tokenizer.end_of_text])
    before = [text for text, _ in pieces(TALK)]
    assert again == before[0] + before[1] + end + before[2]


def conversations(tokenizer: Tokenizer, folder: Path, length: int) -> tuple[Conversations, Corpus]:
    rows = [{"instruction": f"Say {'x' * (n % 7)}", "output": f"{'word ' * (1 + n % 5)}{n}"} for n in range(60)]
    (folder / "talks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = open_conversations(f"path:{folder / 'talks.jsonl'}")
    return pack_conversations(found, "train", tokenizer, 0, length, folder), found


def test_the_loss_is_that_of_the_responses(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Logits at t predict token t + 1: cross-entropy by hand over each row's responses, mean over rows; both losses."""
    packed, _ = conversations(tokenizer, tmp_path, 96)
    optimiser = Optimiser(peak_rate=1e-3, final_rate=1e-4, warmup=0.1, batch=4)
    role = Role(layers=1, width=16, ffn=32, heads=2, kv_heads=2, length="1", optimiser=optimiser)
    model = build(role, tokenizer.vocabulary, 96, tokenizer.end_of_text, 3)
    indices_B = np.array([0, 2, 5])
    rows = torch.from_numpy(packed.rows(indices_B))
    expected, starts = [], "<|assistant|>\n"
    with torch.no_grad():
        for row in rows:
            nats = []
            for t in range(1, len(row)):
                text = tokenizer.decode(row[:t].numpy())  # whose turn it is, from the text alone
                if starts in text.rpartition("<|endoftext|>")[2]:
                    logits_V = model(row[None, :t]).logits[0, -1]
                    nats.append(cross_entropy(logits_V[None], row[t : t + 1]))
            expected.append(torch.stack(nats).mean())
    recipe = parse({"student": "300M", "tuning": "Instructed"}).training_recipe
    target = FromResponses(packed)(indices_B, np.zeros(3), rows[:, :-1], rows[:, 1:]).target
    fused = Student(model, recipe, tokenizer.vocabulary)(rows[:, :-1], rows[:, 1:], target, 0.5)
    logits_BLV = logits_of(model, rows[:, :-1], tokenizer.vocabulary)
    plain = loss.distillation_loss(logits_BLV, rows[:, 1:], target, ForwardKL(), Responses(), 1.0, 0.0)  # type: ignore[arg-type]
    assert float(fused.detach()) == pytest.approx(float(torch.stack(expected).mean()), rel=1e-4)
    assert float(plain.detach()) == pytest.approx(float(fused.detach()), rel=1e-5)


def test_rows_hold_whole_conversations_each_once(tokenizer: Tokenizer, tmp_path: Path) -> None:
    packed, corpus = conversations(tokenizer, tmp_path, 96)
    told = [tokenizer.decode(row) for row in packed.rows(np.arange(len(packed)))]
    wanted = [tokenizer.decode(encoded(read(d), tokenizer)[0]) for d in corpus.training_documents]
    assert sorted(part + "<|endoftext|>" for row in told for part in row.split("<|endoftext|>") if part) == sorted(
        wanted
    )
    assert packed.cut == 0 and packed.count == len(wanted) and len(packed) < 0.6 * len(wanted)
    said = [
        tokenizer.decode(row[1:][mask])
        for row, mask in zip(packed.rows(np.arange(len(packed))), packed.responses(np.arange(len(packed))), strict=True)
    ]
    assert all(text.endswith("<|endoftext|>") and "<|" not in text.replace("<|endoftext|>", "") for text in said)


def test_seeds_shuffle_rows_and_leave_what_is_held_out(tokenizer: Tokenizer, tmp_path: Path) -> None:
    packed, corpus = conversations(tokenizer, tmp_path, 96)
    other = pack_conversations(corpus, "train", tokenizer, 1, 96, tmp_path)
    everything = np.arange(len(packed))
    assert packed.fingerprint != other.fingerprint and not np.array_equal(packed.order_R, other.order_R)
    assert sorted(map(tuple, packed.rows(everything))) == sorted(map(tuple, other.rows(everything)))
    held = [pack_conversations(corpus, "held out", tokenizer, seed, 96, tmp_path) for seed in (0, 1)]
    assert held[0].fingerprint == held[1].fingerprint and held[0].count == corpus.held_out.sum()


def test_best_fit_is_best_and_wastes_little() -> None:
    assert best_fit([6, 5, 4, 5, 1], 10) == [[0, 2], [1, 3], [4]]
    sizes = np.random.default_rng(0).integers(1, 60, 500).tolist()
    rows = best_fit(sizes, 64)
    assert sorted(item for row in rows for item in row) == list(range(500))
    assert all(sum(sizes[item] for item in row) <= 64 for row in rows)
    assert len(rows) < 1.1 * sum(sizes) / 64


@pytest.mark.parametrize(("prompt", "response"), [(3, 30), (30, 3), (30, 30), (5, 4)])
def test_too_long_conversations_lose_the_beginning_then_the_end(prompt: int, response: int) -> None:
    coded = np.concatenate([np.arange(prompt), ~np.arange(100, 100 + response)])
    found = cut(coded, 20)
    first = int(np.argmax(found < 0))
    assert len(found) == min(20, prompt + response) and ~found[first] == 100  # the response's first word is there
    assert first == min(prompt, max(10, 20 - response)) and (found[:first] == np.arange(prompt - first, prompt)).all()


def test_forms_of_a_row() -> None:
    plain = (Turn("user", "Add\n\n1 2"), Turn("assistant", "3"))
    alpaca = "Below is an instruction that describes a task, paired with an input. Write.\n\n### Instruction:\nAdd\n\n"
    assert conversation({"instruction": "Add", "input": "1 2", "output": "3"}, "") == plain
    assert conversation({"prompt": f"{alpaca}### Input:\n1 2\n\n### Response:\n", "response": "3"}, "") == plain
    messages = [{"role": "user", "content": "Add\n\n1 2"}, {"role": "assistant", "content": "3"}]
    assert conversation({"messages": [*messages, {"role": "user", "content": "?"}], "id": 4}, "") == plain
    assert conversation({"prompt": "Hi", "response": " "}, "") is None
    assert conversation({"messages": messages[:1]}, "") is None
    with pytest.raises(ValueError, match="line 7: no conversation in columns text"):
        conversation({"text": "x"}, "line 7")
    with pytest.raises(ValueError, match="unknown role 'tool'"):
        conversation({"messages": [{"role": "tool", "content": "x"}]}, "")


def test_bad_files_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "x", "response": "y"}\n{"prompt"\n')
    with pytest.raises(ValueError, match=r"a.jsonl, line 2: not a line of JSON"):
        open_conversations(f"path:{tmp_path}")
    with pytest.raises(ValueError, match="give a .jsonl"):
        open_conversations(f"path:{tmp_path / 'b.jsonl'}")
    with pytest.raises(ValueError, match="Unknown conversations 'chats'"):
        open_conversations("chats")


def test_the_standard_library_talks_of_itself() -> None:
    found = open_conversations("stdlib")
    talks = {read(document)[0].text: read(document)[1].text for document in found.documents}
    assert len(talks) > 3000 and talks["What is this?\ndef heappush(heap, item)"].startswith("Push item onto heap")


@needs_data
def test_questions_of_minillm_are_conversations() -> None:
    """Whose prompt says once more what is asked: not read, and not silently."""
    path = DATA / "if_minillm_eval" / "dolly_valid.jsonl.gz"
    with pytest.raises(ValueError, match=r"line 1, prompt would not be read.*#ignore=prompt'"):
        open_conversations(f"path:{path}")
    found = open_conversations(f"path:{path}#ignore=prompt")
    assert len(found.documents) == 500
    assert read(found.documents[0])[0].text.startswith("When did Virgin Australia start")


@needs_data
def test_dolly_is_unwrapped(tokenizer: Tokenizer) -> None:
    path = DATA / "if_dolly_hhrlhf_small" / "train.jsonl.gz"
    found = open_conversations(f"path:{path}")
    with gzip.open(path) as file:
        rows = [json.loads(line) for line in file]
    talks = [read(document) for document in found.documents]
    assert len(talks) + found.skipped == len(rows) == 1000
    assert not any("### " in talk[0].text for talk in talks)
    assert talks[0][0].text == "what is kangen water?"


def test_tuning_goes_on_from_the_student_and_learns_to_answer(place: tuple[Path, Machine]) -> None:
    run = run_of(place, {"target": "OneHot", "tuning": "Instructed"})
    metrics = executed(run, place[1])
    assert metrics["response_loss"] < 0.6 * metrics["response_loss_before"]
    assert run.start is not None and run.start.recipe.tuning != run.recipe.tuning
    begun = starting_point(run, data_for(run, place[1].artifacts), place[1]).state_dict()
    before = AutoModelForCausalLM.from_pretrained(model_folder(run.start, place[1])).state_dict()
    assert all(torch.equal(weight, before[name]) for name, weight in begun.items())
    saved = PreTrainedTokenizerFast.from_pretrained(model_folder(run, place[1]))
    assert "<|assistant|>" in saved.apply_chat_template([{"role": "user", "content": "5?"}], tokenize=False,
                                                        add_generation_prompt=True)  # fmt: skip
    config = json.loads((place[1].results / "small" / run.id / "config.json").read_text())
    assert {"positions.Responses", "target.OneHot", "tuning.Instructed"} <= set(config["numerics"])
    assert config["settings"]["tuned_on"]["steps"] == run.steps and config["settings"]["tokens"] == 1152


def test_a_batch_in_parts_is_the_same_training(place: tuple[Path, Machine]) -> None:
    from dataclasses import replace

    run = run_of(place, {"target": "OneHot", "tuning": "Instructed"})
    executed(run, place[1])
    data = data_for(run, place[1].artifacts)
    whole, parts = (Training(run, data, None, replace(place[1], at_once=size)) for size in (None, 2))
    for _ in range(3):
        assert whole.advance()[0] == pytest.approx(parts.advance()[0], rel=1e-5)


def test_a_teacher_from_another_text_is_adapted_first(place: tuple[Path, Machine]) -> None:
    _, machine = place
    run = run_of(place, {"target": {"name": "TopK", "k": 5}, "delivery": "online", "background": "Adapted"})
    found = Plan()
    found.add(run)
    elsewhere, adapted = found.teachers.values()
    assert (elsewhere.recipe.text, adapted.recipe.text) == ("other", "") and adapted.start == elsewhere
    assert run.teacher == adapted and list(found.runs.values()) == [run]
    with pytest.raises(ValueError, match="from which .* goes on, is not trained yet"):
        train(adapted, machine)
    executed(run, machine)
    begun = starting_point(adapted, data_for(adapted, machine.artifacts), machine).state_dict()
    before = AutoModelForCausalLM.from_pretrained(model_folder(elsewhere, machine)).state_dict()
    after = AutoModelForCausalLM.from_pretrained(model_folder(adapted, machine)).state_dict()
    assert all(torch.equal(weight, before[name]) for name, weight in begun.items())
    assert any(not torch.equal(weight, before[name]) for name, weight in after.items())
    # one tokenizer for all, that of the other text; the student's text is the scale's
    tokenizers = {data_for(each, machine.artifacts).tokenizer.fingerprint for each in (run, adapted, elsewhere)}
    assert len(tokenizers) == 1
    plain = run_of(place, {})
    assert data_for(plain, machine.artifacts).tokenizer.fingerprint not in tokenizers
    assert data_for(run, machine.artifacts).corpus == data_for(plain, machine.artifacts).corpus
    other = run_of(place, {"background": "OtherText"})
    assert other.teacher == elsewhere and plain.teacher not in (elsewhere, adapted)


def test_what_makes_no_sense_is_refused(place: tuple[Path, Machine], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'storage' measures distillation"):
        parse({"target": "TopK", "tuning": "Instructed", "probe": "storage"} | {"target": {"name": "TopK", "k": 3}})
    (tmp_path / "bare.toml").write_text(SCALE.format(text="nowhere"))
    bare = Run(parse({"tuning": "Instructed"}), load_scale(str(tmp_path / "bare.toml")), 0)
    with pytest.raises(ValueError, match="does not say how students are tuned"):
        refuse_unready(bare)
    with pytest.raises(ValueError, match="No package 'no_such_package'"):
        open_corpus("package:no_such_package")


def test_an_installed_package_is_a_text() -> None:
    corpus = open_corpus("package:tqdm")
    assert corpus.name == "package:tqdm" and any("class tqdm" in document for document in corpus.documents)
