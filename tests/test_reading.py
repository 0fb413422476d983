"""One tokenizer for teacher and student: compared by every id, read as its teacher reads, published as it came."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import AddedToken, processors
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from replication.__main__ import main
from replication.data.corpus import Corpus, collect
from replication.data.packing import pack
from replication.data.tokenizer import END_OF_TEXT, SAMPLE, Tokenizer, differences, fitted, open_tokenizer, train
from replication.experiment.recipe import parse
from replication.experiment.run import Run
from replication.experiment.scale import load_scale
from replication.machine.notes import note
from replication.model.checkpoint import publish
from replication.training.needs import Need
from replication.training.run_data import data_for
from tests.small import SCALE, write_text

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"
TEXTS = ["", "Hello world", " two  spaces\n\n", "naïve café, 漢字 and 12345", "<s> spelled out </s> [PAD]"]
TEXTS += ["def f(x):\n\treturn x"]
TEMPLATE = "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}{% endfor %}"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small text and scale; checkpoints are added by each test in a copy."""
    folder = tmp_path_factory.mktemp("reading")
    write_text(folder / "text")
    (folder / "small.toml").write_text(SCALE.format(text="text"))
    return folder


@pytest.fixture
def here(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(place, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("RESULTS", "results")
    monkeypatch.setenv("ARTIFACTS", "artifacts")
    note.cache_clear()
    return tmp_path / "here"


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return collect("words", [f"word{n} another{n % 7} {n * n} [PAD]" for n in range(300)])


def brought(corpus: Corpus, folder: Path, **special: Any) -> PreTrainedTokenizerFast:
    """What a Llama-like checkpoint brings: <s> before every text, an unknown token, a template, padding on the left."""
    backend = train(corpus, 300)
    backend.add_special_tokens(["<s>", "</s>", "<unk>"])
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", backend.token_to_id("<s>"))]
    )
    words = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "padding_side": "left", **special}
    made = PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=77, **words)
    made.chat_template = TEMPLATE
    made.save_pretrained(folder)
    return made


def write_model(folder: Path, width: int, seed: int = 0) -> None:
    torch.manual_seed(seed)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=width, max_position_embeddings=64, **shape)).save_pretrained(folder)


def run_of(**stated: Any) -> Run:
    return Run(parse({"target": "Full", **stated}), load_scale("small.toml"), 0)


# --- compared ----------------------------------------------------------------------------------------------------


def plain(corpus: Corpus) -> Tokenizer:
    return Tokenizer(train(corpus, 300), 0)


def with_added(corpus: Corpus, *tokens: str, special: bool) -> Tokenizer:
    found = plain(corpus)
    found.backend.add_tokens([AddedToken(token, special=special, normalized=False) for token in tokens])
    return found


def swapped(corpus: Corpus) -> Tokenizer:
    stored = json.loads(plain(corpus).backend.to_str())
    words = stored["model"]["vocab"]
    one, two = (next(word for word, place in words.items() if place == wanted) for wanted in (100, 200))
    words[one], words[two] = 200, 100
    backend = type(plain(corpus).backend).from_str(json.dumps(stored))
    return Tokenizer(backend, 0)


@pytest.mark.parametrize(
    ("other", "ids"),
    [
        (plain, []),
        (swapped, [100, 200]),
        (lambda corpus: with_added(corpus, "[PAD]", special=True), []),  # the text spells it out, and it is text there
        (lambda corpus: with_added(corpus, "[MASK]", special=False), []),  # is in no document
        (lambda corpus: with_added(corpus, "[PAD]", special=False), [300]),  # every document would have it
        (lambda corpus: with_added(corpus, "<a>", "<b>", special=True), []),
        (lambda corpus: Tokenizer(with_added(corpus, "</s>", special=True).backend, 300), [300]),  # ends its texts
    ],
)
def test_two_tokenizers_are_compared_by_the_ids_that_may_occur(
    other: Callable[[Corpus], Tokenizer], ids: list[int], corpus: Corpus
) -> None:
    mine, theirs = plain(corpus), other(corpus)
    for found in (list(differences(mine, theirs, corpus)), list(differences(theirs, mine, corpus))):
        assert [int(each.split()[1]) for each in found] == ids
    if len(ids) == 2:
        token = mine.backend.id_to_token(100)
        assert found[0].startswith("id 100 is ") and found[0].endswith(f"and {token!r} there")


def test_a_reserved_token_that_somebody_named_is_no_difference_unless_special_tokens_are_read(corpus: Corpus) -> None:
    documents = collect("named", [*corpus.documents, "<think> is said here"])
    one, two = (with_added(corpus, name, special=True) for name in ("<reserved>", "<think>"))
    assert not list(differences(one, two, documents))
    assert len(list(differences(*(each.read_as("none", "tokens") for each in (one, two)), documents))) == 1


def test_the_unknown_token_occurs(corpus: Corpus) -> None:
    from tokenizers import Tokenizer as Backend
    from tokenizers.models import Unigram, WordLevel

    for model in (
        WordLevel({"a": 0, "<unk>": 1, "</s>": 2}, unk_token="<unk>"),
        Unigram([("a", 0.0), ("<unk>", 0.0), ("</s>", 0.0)], unk_id=1),
    ):
        backend = Backend(model)
        backend.add_special_tokens(["<unk>", "</s>", "<other>"])
        found = Tokenizer(backend, 2)
        assert found.unknown == "<unk>"
        assert [found.occurs(token, corpus) for token in ("<unk>", "</s>", "<other>", "a")] == [True, True, False, True]


def test_a_student_of_another_tokenizer_is_refused_before_any_work(
    here: Path, corpus: Corpus, capsys: pytest.CaptureFixture[str]
) -> None:
    """As wide as the teacher: only the ids tell. The first one that differs is named."""
    write_model(Path("teacher"), 300)
    write_model(Path("student"), 300)
    plain(corpus).save(Path("teacher"))
    swapped(corpus).save(Path("student"))
    Path("recipe.toml").write_text('teacher = "teacher"\nstudent = "student"\ntarget = { name = "TopK", k = 5 }\n')
    assert main(["run", "recipe.toml", "--scale", "small.toml"]) == 2
    (line,) = [each for each in capsys.readouterr().err.splitlines() if each.startswith("error:")]
    assert "The student student has another tokenizer" in line and "id 100 is " in line and "2 of 300 ids" in line
    assert not Path("results").exists() and not list(Path("artifacts").rglob("*.npy"))
    plain(corpus).save(Path("student"))  # the advice: one that was trained with the teacher's
    assert data_for(run_of(teacher="teacher", student="student"), Path("artifacts")).tokenizer.vocabulary == 300


def test_a_teacher_that_is_trained_here_must_share_the_students_tokenizer(here: Path, corpus: Corpus) -> None:
    run = run_of(student="student", teacher="3B")
    write_model(Path("student"), 320)
    Tokenizer(train(corpus, 320), 0).save(Path("student"))
    with pytest.raises(ValueError, match=r"The teacher 3B has another tokenizer than this run.*id \d+ is "):
        data_for(run, Path("artifacts"))
    own = data_for(run_of(), Path("artifacts")).tokenizer  # the scale's
    own.save(Path("student"))
    assert data_for(run, Path("artifacts")).tokenizer.fingerprint == own.fingerprint


def test_a_student_without_tokenizer_is_taken_on_trust_and_that_is_said(
    here: Path, corpus: Corpus, capsys: pytest.CaptureFixture[str]
) -> None:
    write_model(Path("teacher"), 300)
    write_model(Path("student"), 300)
    plain(corpus).save(Path("teacher"))
    data_for(run_of(teacher="teacher", student="student"), Path("artifacts"))
    assert "note: student brings no tokenizer" in capsys.readouterr().err


@pytest.mark.parametrize("who", ["teacher", "student", "both"])
def test_an_added_pad_that_no_text_has_is_no_class(who: str, here: Path, corpus: Corpus) -> None:
    """Whoever has it, in the tokenizer alone or in the model too: both are over the 300 classes that they share."""
    for model in ("teacher", "student"):
        padded = who in (model, "both")
        write_model(Path(model), 301 if padded and who != "both" else 300)
        (with_added(corpus, "[PAD]", special=True) if padded else plain(corpus)).save(Path(model))
    found = data_for(run_of(teacher="teacher", student="student"), Path("artifacts"))
    assert found.tokenizer.vocabulary == found.train.vocabulary == 300
    Path("recipe.toml").write_text('teacher = "teacher"\nstudent = "student"\n')
    assert main(["run", "recipe.toml", "--scale", "small.toml"]) == 0


def test_a_class_that_a_text_needs_is_never_cut_off(corpus: Corpus) -> None:
    with pytest.raises(ValueError, match="299 output classes cannot predict token .*widen the model"):
        fitted(plain(corpus), 299, corpus)
    used = with_added(corpus, "[PAD]", special=False), Tokenizer(with_added(corpus, "</s>", special=True).backend, 300)
    for tokenizer in used:
        with pytest.raises(ValueError, match="300 output classes cannot predict"):
            fitted(tokenizer, 300, corpus)
    assert fitted(with_added(corpus, "[PAD]", special=True), 300, corpus).vocabulary == 300


# --- read ----------------------------------------------------------------------------------------------------


@pytest.fixture
def llama_like(corpus: Corpus, tmp_path: Path) -> Tokenizer:
    brought(corpus, tmp_path / "brought")
    return open_tokenizer(str(tmp_path / "brought"), corpus, tmp_path)


def test_rows_begin_as_the_tokenizer_begins_a_text(llama_like: Tokenizer, corpus: Corpus, tmp_path: Path) -> None:
    """At "rows" the stream is cut into rows of L labels, each predicted once; at "documents" it has the token."""
    (first,) = llama_like.before
    none, rows, documents = (
        pack(corpus, llama_like.read_as(begin, "text"), 0, 16, tmp_path) for begin in ("none", "auto", "documents")
    )
    stream = none.tokens_of(np.arange(none.tokens))
    assert first not in stream
    read = rows.rows(np.argsort(rows.order_R))
    assert read.shape == (none.tokens // 16, 17) and (read[:, 0] == first).all()
    assert np.array_equal(read[:, 1:].ravel(), stream[: read[:, 1:].size])
    begun = documents.tokens_of(np.arange(documents.tokens))
    assert np.array_equal(begun[begun != first], stream) and begun[0] == first
    assert (np.flatnonzero(begun == first)[1:] == np.flatnonzero(begun == llama_like.end_of_text)[:-1] + 1).all()
    assert len({each.fingerprint for each in (none, rows, documents)}) == 3


def test_without_begin_nothing_changes(llama_like: Tokenizer, corpus: Corpus, tmp_path: Path) -> None:
    as_before = pack(corpus, llama_like, 0, 16, tmp_path)
    for tokenizer, begin in ((llama_like, "none"), (plain(corpus), "auto")):
        read = tokenizer.read_as(begin, "text")
        assert read.fingerprint == tokenizer.fingerprint and read.begins == "none"
    assert pack(corpus, llama_like.read_as("none", "text"), 0, 16, tmp_path).fingerprint == as_before.fingerprint


def test_a_begin_that_the_tokenizer_has_not_is_refused(llama_like: Tokenizer, corpus: Corpus) -> None:
    with pytest.raises(ValueError, match="puts no token before a text"):
        plain(corpus).read_as("rows", "text")
    llama_like.backend.post_processor = processors.TemplateProcessing(
        single="<s> </s> $A", special_tokens=[(each, llama_like.ids[each]) for each in ("<s>", "</s>")]
    )
    with pytest.raises(ValueError, match="puts '<s>', '</s>' before a text"):
        replace(llama_like).read_as("auto", "text")


def test_special_tokens_in_a_text_are_text_or_tokens(llama_like: Tokenizer) -> None:
    words, tokens = (llama_like.read_as("none", special) for special in ("text", "tokens"))
    spelled, meant = (each.encode_batch(["a</s>b"])[0] for each in (words, tokens))
    assert words.end_of_text not in spelled and meant.tolist().count(tokens.end_of_text) == 1
    assert words.decode(spelled) == tokens.decode(meant) == "a</s>b"
    assert words.fingerprint == llama_like.fingerprint != tokens.fingerprint
    assert words.end_of_text not in words.encode_batch(["a</s>b"])[0]  # the other reading has left this one alone


def test_both_are_in_the_recipe_and_change_no_other_run() -> None:
    same = (Run(parse(stated), load_scale("smoke"), 0).id for stated in ({}, {"begin": "none", "special": "text"}))
    assert len(set(same)) == 1
    stated = parse({"begin": "auto", "special": "tokens"})
    run = Run(stated, load_scale("smoke"), 0)
    usual = Run(parse({}), load_scale("smoke"), 0)
    assert run.id != usual.id and Need(run).identity != Need(usual).identity
    assert run.teacher is not None and (run.teacher.recipe.begin, run.teacher.recipe.special) == ("auto", "tokens")
    with pytest.raises(ValueError, match="Unknown begin 'always'"):
        parse({"begin": "always"})
    with pytest.raises(ValueError, match="begin 'rows' puts one before each row"):
        other = {"name": "Different", "teacher_length": "1024"}
        parse({"begin": "rows", "target": {"name": "TopK", "k": 5}, "alignment": other})


# --- published ----------------------------------------------------------------------------------------------------


def assert_alike(one: Any, other: Any) -> None:
    for added in (True, False):
        assert one(TEXTS, add_special_tokens=added)["input_ids"] == other(TEXTS, add_special_tokens=added)["input_ids"]
    assert one.get_vocab() == other.get_vocab()
    assert one.special_tokens_map == other.special_tokens_map
    for what in ("bos_token_id", "eos_token_id", "unk_token_id", "pad_token_id", "padding_side", "model_max_length"):
        assert getattr(one, what) == getattr(other, what), what
    assert one.chat_template == other.chat_template
    ids = one(TEXTS)["input_ids"]
    assert one.batch_decode(ids) == other.batch_decode(ids)


def test_a_student_is_published_with_the_tokenizer_that_came(
    here: Path, corpus: Corpus, capsys: pytest.CaptureFixture[str]
) -> None:
    """From end to end: its rows begin as the teacher's, the record says so, and its folder reads as the teacher's."""
    came = brought(corpus, Path("teacher"), pad_token="<pad>")
    write_model(Path("teacher"), len(came))
    Path("plain.toml").write_text('teacher = "teacher"\n')
    Path("begun.toml").write_text('teacher = "teacher"\nbegin = "auto"\n')
    loss = {}
    for name in ("plain", "begun"):
        note.cache_clear()
        assert main(["run", f"{name}.toml", "--scale", "small.toml"]) == 0
        said = capsys.readouterr()
        folder = Path(next(line.split()[1] for line in said.out.splitlines() if line.startswith("checkpoint")))
        assert_alike(AutoTokenizer.from_pretrained(folder), AutoTokenizer.from_pretrained("teacher"))
        assert AutoModelForCausalLM.from_pretrained(folder).config.vocab_size == len(came)
        config = json.loads(Path("results/small", folder.name, "config.json").read_text())
        assert config["corpus"].get("begin") == (None if name == "plain" else {"rows": "<s>"})
        assert ("puts <s> before every text, and this run does not" in said.err) == (name == "plain")
        loss[name] = json.loads(Path("results/small", folder.name, "summary.json").read_text())["metrics"]["lm_loss"]
    assert loss["plain"] != loss["begun"]


def test_a_tuned_students_template_is_what_was_added(llama_like: Tokenizer, tmp_path: Path) -> None:
    replace(llama_like, chat_template="{{ messages }}").save(tmp_path / "saved")
    loaded = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert loaded.chat_template == "{{ messages }}" and loaded.bos_token == "<s>"
    assert llama_like.came is not None and llama_like.came.chat_template == TEMPLATE


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_what_auto_tokenizer_would_read_otherwise_is_said(
    family: str, corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """transformers 5 splits as Qwen2 does beside a model of that family, whatever the tokenizer's files say."""
    note.cache_clear()
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, vocab_size=300, **shape))
    publish(model, plain(corpus), tmp_path / "student")
    said = capsys.readouterr().err
    alike = plain(corpus).comes_back(tmp_path / "student")
    assert ("by PreTrainedTokenizerFast.from_pretrained" in said) == (not alike) == (family == "qwen2")
    loaded = PreTrainedTokenizerFast.from_pretrained(tmp_path / "student")  # the advice
    assert loaded(SAMPLE)["input_ids"] == plain(corpus).encode_batch([SAMPLE])[0].tolist()


def gpt2(folder: Path) -> str:
    folder.mkdir()
    for ours, theirs in (("vocab.json", "encoder.json"), ("merges.txt", "vocab.bpe")):
        shutil.copy(DATA / "tok_gpt2" / theirs, folder / ours)
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    return str(folder)


def mistral(folder: Path) -> str:
    pytest.importorskip("sentencepiece")
    folder.mkdir()
    shutil.copy(DATA / "tok_mistral" / "tokenizer.model.v1", folder / "tokenizer.model")
    stated = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "padding_side": "left"}
    stated["chat_template"] = TEMPLATE
    (folder / "tokenizer_config.json").write_text(json.dumps(stated))
    return str(folder)


@pytest.mark.skipif(not DATA.exists(), reason="NO REAL DATA: ../shared/data is absent, this did not run")
@pytest.mark.parametrize("make", [gpt2, mistral])
def test_a_real_tokenizer_comes_back_beside_another_familys_model(
    make: Callable[[Path], str], corpus: Corpus, tmp_path: Path
) -> None:
    spec = make(tmp_path / "came")
    tokenizer = open_tokenizer(spec, corpus, tmp_path)
    write_model(tmp_path / "student", 400)
    tokenizer.save(tmp_path / "student")
    assert_alike(AutoTokenizer.from_pretrained(tmp_path / "student"), AutoTokenizer.from_pretrained(spec))
    assert bool(tokenizer.before) == (make is mistral)
    assert not list(differences(tokenizer, open_tokenizer(str(tmp_path / "student"), corpus, tmp_path), corpus))


@pytest.mark.skipif(not DATA.exists(), reason="NO REAL DATA: ../shared/data is absent, this did not run")
@pytest.mark.parametrize("name", ["neox_olmo_50k", "dolma2_100k"])
def test_a_real_tokenizer_file_comes_back(name: str, corpus: Corpus, tmp_path: Path) -> None:
    tokenizer = open_tokenizer(str(DATA / "tok_olmo" / f"{name}.json.gz"), corpus, tmp_path)
    write_model(tmp_path / "student", 400)
    tokenizer.save(tmp_path / "student")
    loaded = AutoTokenizer.from_pretrained(tmp_path / "student")
    assert loaded.get_vocab() == tokenizer.ids and loaded.eos_token == END_OF_TEXT
    for text in TEXTS:
        ids = loaded(text, add_special_tokens=False)["input_ids"]
        assert loaded.decode(ids) == text and ids == tokenizer.backend.encode(text, add_special_tokens=False).ids
