"""Corpora of every kind, what goes wrong in them, and the tokenizers over them."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import huggingface_hub
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from replication.data import corpus as corpus_module
from replication.data.corpus import Corpus, collect, is_validation, open_corpus
from replication.data.tokenizer import END_OF_TEXT, open_tokenizer

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"
TEXTS = ["der Fluß\nflows", "two  spaces", "emoji 🙂 and\ttab", "last one"]
needs_data = pytest.mark.skipif(not DATA.exists(), reason="NO REAL DATA: ../shared/data is absent, these did not run")


def words(count: int, start: int = 0) -> list[str]:
    return [
        f"document {index} speaks of {index * index} things and of the number {index}.\n"
        for index in range(start, count)
    ]


def jsonl(texts: list[str], column: str = "text") -> bytes:
    return "".join(json.dumps({column: text, "other": 1}) + "\n" for text in texts).encode()


def parquet(path: Path, texts: list[str | None], column: str = "text") -> bytes:
    pyarrow.parquet.write_table(pyarrow.table({column: texts, "other": list(range(len(texts)))}), path)
    return path.read_bytes()


def write(kind: str, folder: Path, column: str = "text") -> None:
    """TEXTS as files of one kind, in an order that sorting by path restores."""
    if kind.startswith("txt"):
        contents = {f"{index}.txt": text.encode() for index, text in reversed(list(enumerate(TEXTS)))}
    elif kind.startswith("jsonl"):
        contents = {"sub/b.jsonl": jsonl(TEXTS[2:], column), "a.jsonl": jsonl(TEXTS[:2], column)}
    else:
        contents = {"rows.parquet": parquet(folder / "scratch", list(TEXTS), column)}
        (folder / "scratch").unlink()
    for name, content in contents.items():
        path = folder / (name + ".gz" if kind.endswith("gz") else name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gzip.compress(content) if kind.endswith("gz") else content)


@pytest.mark.parametrize("kind", ["txt", "txt.gz", "jsonl", "jsonl.gz", "parquet", "parquet.gz"])
def test_every_kind_of_file_gives_the_same_corpus(kind: str, tmp_path: Path) -> None:
    write(kind, tmp_path)
    (tmp_path / "readme.md").write_text("not read")
    (tmp_path / ".hidden.txt").write_text("not read")
    corpus = open_corpus(f"path:{tmp_path}")
    assert corpus.documents == TEXTS
    assert corpus.bytes == sum(len(text.encode()) for text in TEXTS)
    assert corpus.fingerprint == collect("x", TEXTS).fingerprint
    assert corpus.name == f"path:{tmp_path.name}"
    assert len(corpus.fingerprint) == 16 and int(corpus.fingerprint, 16) >= 0


@pytest.mark.parametrize("kind", ["jsonl", "parquet.gz"])
def test_another_column(kind: str, tmp_path: Path) -> None:
    write(kind, tmp_path, column="body")
    corpus = open_corpus(f"path:{tmp_path}#body")
    assert corpus.documents == TEXTS and corpus.name == f"path:{tmp_path.name}#body"


def test_a_hash_sign_in_a_folder_name_is_no_column(tmp_path: Path) -> None:
    folder = tmp_path / "c#sharp"
    folder.mkdir()
    write("jsonl", folder)
    assert open_corpus(f"path:{folder}").documents == TEXTS
    with pytest.raises(ValueError, match="no column 'body'"):
        open_corpus(f"path:{folder}#body")


@pytest.mark.parametrize("kind", ["txt", "txt.gz", "jsonl", "jsonl.gz", "parquet", "parquet.gz"])
def test_kinds_in_capitals_are_the_same(kind: str, tmp_path: Path) -> None:
    write(kind, tmp_path)
    for path in filter(Path.is_file, list(tmp_path.rglob("*"))):
        path.rename(path.with_name(path.name.upper()))
    assert sorted(open_corpus(f"path:{tmp_path}").documents) == sorted(TEXTS)


def test_one_file_is_a_corpus(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(jsonl(TEXTS))
    assert open_corpus(f"path:{tmp_path / 'a.jsonl'}").documents == TEXTS


def test_empty_documents_are_dropped_and_counted(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet", ["one", None, " \n", "two"])
    corpus = open_corpus(f"path:{tmp_path}")
    assert corpus.documents == ["one", "two"] and corpus.skipped == 2


def test_linked_folders_are_read_once(tmp_path: Path) -> None:
    write("txt", tmp_path)
    (tmp_path / "loop").symlink_to(tmp_path)
    assert open_corpus(f"path:{tmp_path}").documents == TEXTS


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfword")
    (tmp_path / "b.jsonl").write_bytes(b"\xef\xbb\xbf" + jsonl(["line"]))
    (tmp_path / "c.jsonl").write_bytes(b"\xef\xbb\xbf\n")
    assert open_corpus(f"path:{tmp_path}").documents == ["word", "line"]


def broken_gzip(folder: Path) -> None:
    (folder / "a.txt.gz").write_bytes(gzip.compress(b"text" * 1000)[:-12])


def flipped_gzip(folder: Path) -> None:
    content = bytearray(gzip.compress(bytes(range(256)) * 9))
    content[40] ^= 0xFF
    (folder / "a.jsonl.gz").write_bytes(content)


def put(name: str, content: bytes) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda folder: None, "is empty"),
        (put("a.txt", b"  \n"), "is empty: 1 files"),
        (put("a.txt", "caf\xe9".encode("latin-1")), r"a\.txt is not UTF-8 \(byte 3\)"),
        (lambda folder: (folder / "a.txt").symlink_to("nowhere"), r"Cannot read .*a\.txt: No such file"),
        (put("a.txt.gz", b"plain text"), r"a\.txt\.gz: corrupt gzip"),
        (broken_gzip, r"a\.txt\.gz: corrupt gzip"),
        (flipped_gzip, r"a\.jsonl\.gz: corrupt gzip"),
        (put("a.jsonl", jsonl(TEXTS) + b'\n{"text": '), r"a\.jsonl, line 6: not a line of JSON"),
        (put("a.jsonl", b'{"text": "\xe9"}\n'), r"a\.jsonl, line 1: not a line of JSON"),
        (
            put("a.jsonl", jsonl(TEXTS[:1]) + b'{"body": "x", "id": 1}'),
            r"line 2: no column 'text', but columns body, id",
        ),
        (put("a.jsonl", b"[1, 2]"), r"line 1: list, where an object is wanted"),
        (put("a.jsonl", b'{"text": 3}'), r"line 1: column 'text' holds int"),
        (put("a.jsonl", b'{"text": "\\ud800"}'), r"line 1: half a surrogate pair is no Unicode"),
        (put("a.jsonl", b"[" * 100_000), r"line 1: not a line of JSON"),
        (put("a.txt", "word".encode("utf-16-le")), r"a\.txt is not text in UTF-8: it has null characters"),
        (put("a.txt", "word".encode("utf-16")), r"a\.txt is not UTF-8 \(byte 0\)"),
        (put("a.txt.gz", b""), r"a\.txt\.gz: corrupt gzip \(it has no bytes\)"),
        (put("a.parquet", b"PAR1 but not really"), r"Cannot read .*a\.parquet as parquet"),
        (
            lambda folder: parquet(folder / "a.parquet", ["x"], "body"),
            r"a\.parquet: no column 'text', but columns body",
        ),
    ],
)
def test_a_bad_folder_is_named(prepare: Callable[[Path], Any], message: str, tmp_path: Path) -> None:
    prepare(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        open_corpus(f"path:{tmp_path}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spec", ["wikipedia", "path:", "stdlib:3", "", "hub:"])
def test_an_unknown_spec_names_the_known_ones(spec: str) -> None:
    with pytest.raises(ValueError, match=f"Unknown corpus '{spec}'. Known: 'stdlib', 'package:<name>', 'path:"):
        open_corpus(spec)


def test_a_place_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="No file or folder"):
        open_corpus(f"path:{tmp_path / 'absent'}")
    (tmp_path / "a.pdf").write_bytes(b"%PDF")
    with pytest.raises(ValueError, match="unknown kind of file"):
        open_corpus(f"path:{tmp_path / 'a.pdf'}")


# --- the standard library -------------------------------------------------------------------------------------------


def test_the_standard_library_is_read_in_order_without_foreign_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {"Zlast.py": "Z", "a/b.py": "ab", "a/site.py": "own", "a.py": "a", "test/t.rst": "r", "LICENSE.txt": "l"}
    foreign = ["site-packages/x.py", "dist-packages/x.py", "a/__pycache__/x.py", "lib-dynload/x.py", "a/readme.md",
               "config-3.11-linux/x.py", "_sysconfigdata__linux_.py", "sitecustomize.py"]  # fmt: skip
    for name, content in {**kept, **dict.fromkeys(foreign, "foreign"), "empty.py": ""}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (tmp_path / "test/bad.py").write_bytes(b"# \xff\n")
    monkeypatch.setattr(corpus_module.sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    corpus = open_corpus("stdlib")
    assert corpus.documents == [kept[name] for name in sorted(kept)]
    assert corpus.skipped == 2 and corpus.name == "stdlib"


def test_this_standard_library_is_a_corpus() -> None:
    corpus = open_corpus("stdlib")
    assert corpus.bytes > 5_000_000 and 0 < corpus.held_out.mean() < 0.05
    assert sum(document.startswith('r"""HTTP/1.1 client library') for document in corpus.documents) == 1


# --- the hub --------------------------------------------------------------------------------------------------------


@pytest.fixture
def cache_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub-cache")


def test_a_local_data_set_goes_through_the_real_loader(tmp_path: Path, cache_elsewhere: None) -> None:
    folder = tmp_path / "my-set"
    folder.mkdir()
    parquet(folder / "train-00000.parquet", [*TEXTS, None], "body")
    corpus = open_corpus(f"hub:{folder}#body")
    assert corpus.documents == TEXTS and corpus.skipped == 1
    assert corpus.name == "hub:my-set#body"
    assert corpus.fingerprint == collect("x", TEXTS).fingerprint
    with pytest.raises(ValueError, match="no column 'text', but body, other"):
        open_corpus(f"hub:{folder}")


@pytest.mark.parametrize(
    ("spec", "loaded", "name"),
    [
        ("hub:org/set", ("org/set", None, None), "hub:org/set@c0ffee"),
        ("hub:org/set:small@v1", ("org/set", "small", "v1"), "hub:org/set:small@c0ffee"),
        ("hub:org/set:small#body@v1", ("org/set", "small", "v1"), "hub:org/set:small#body@c0ffee"),
    ],
)
def test_the_revision_is_pinned_and_recorded(
    spec: str, loaded: tuple[str, str | None, str | None], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def dataset_info(api: Any, name: str, revision: str | None = None) -> SimpleNamespace:
        asked.append((name, revision))
        return SimpleNamespace(sha="c0ffee")

    def load_dataset(name: str, config: str | None, **options: Any) -> datasets.Dataset:
        asked.append((name, config, options))
        return datasets.Dataset.from_dict({"body": TEXTS, "text": TEXTS})

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    corpus = open_corpus(spec)
    assert asked == [(loaded[0], loaded[2]), (loaded[0], loaded[1], {"split": "train", "revision": "c0ffee"})]
    assert corpus.name == name and corpus.documents == TEXTS
    assert open_corpus(corpus.name).name == name


def test_a_hub_that_fails_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(api: Any, name: str, revision: str | None = None) -> None:
        raise ConnectionError("no route\nto the hub")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", offline)
    with pytest.raises(ValueError, match="Cannot load data set 'org/set' from the hub: no route. Check") as caught:
        open_corpus("hub:org/set")
    assert "\n" not in str(caught.value)


# --- fingerprint and split ------------------------------------------------------------------------------------------


def test_the_fingerprint_is_of_contents_in_order() -> None:
    same = collect("a", TEXTS).fingerprint
    assert collect("another name", [*TEXTS, None]).fingerprint == same
    others = [
        TEXTS[::-1],
        TEXTS[:3],
        [*TEXTS[:2], TEXTS[2] + TEXTS[3]],
        [TEXTS[0] + TEXTS[1][0], TEXTS[1][1:], *TEXTS[2:]],
    ]
    assert len({same, *(collect("a", other).fingerprint for other in others)}) == 1 + len(others)


def test_equal_documents_fall_on_one_side() -> None:
    corpus = collect("a", words(1500) + words(1500)[::-1] + words(700))
    held_out = {document for document, held in zip(corpus.documents, corpus.held_out, strict=True) if held}
    assert held_out.isdisjoint(corpus.training_documents)
    assert held_out | set(corpus.training_documents) == set(words(1500))
    assert held_out == set(filter(is_validation, words(1500)))
    assert 1500 / 64 / 3 < len(held_out) < 1500 / 64 * 3


def test_a_tiny_corpus_holds_out_one_content() -> None:
    few = [document for document in words(40) if not is_validation(document)][:6]
    corpus = collect("few", [*few, *few])
    assert corpus.held_out.sum() == 2
    assert corpus.held_out.tolist() == [*collect("other", few).held_out] * 2
    only_held_out = list(filter(is_validation, words(1000)))[:3]
    assert collect("held", only_held_out).held_out.sum() == 1
    with pytest.raises(ValueError, match="one distinct document"):
        _ = collect("one", ["same", "same"]).held_out


# --- tokenizers -----------------------------------------------------------------------------------------------------


@pytest.fixture
def corpus() -> Corpus:
    return collect("words", words(400))


def test_training_is_deterministic_and_stored(corpus: Corpus, tmp_path: Path) -> None:
    contents = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        open_tokenizer("bpe:300", corpus, folder)
        (path,) = folder.iterdir()
        contents.append(path.read_bytes())
    assert contents[0] == contents[1]
    before = path.stat().st_mtime_ns
    again = open_tokenizer("bpe:300", corpus, tmp_path / "b")
    assert path.stat().st_mtime_ns == before
    assert again.vocabulary == 300
    fingerprints = {again.fingerprint, open_tokenizer("bpe:301", corpus, tmp_path / "b").fingerprint}
    fingerprints.add(open_tokenizer("bpe:300", collect("other", words(400, 5)), tmp_path / "b").fingerprint)
    assert len(fingerprints) == len(list((tmp_path / "b").iterdir())) == 3


@pytest.mark.parametrize("kept", [0, 100, -50])
def test_a_stored_tokenizer_that_is_damaged_is_trained_again(kept: int, corpus: Corpus, tmp_path: Path) -> None:
    open_tokenizer("bpe:300", corpus, tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:kept])
    with pytest.raises(ValueError, match=rf"Cannot read tokenizer {path}: .* Delete it; it is then trained again\."):
        open_tokenizer("bpe:300", corpus, tmp_path)
    path.unlink()  # as it says
    open_tokenizer("bpe:300", corpus, tmp_path)
    assert path.read_bytes() == whole


def test_only_training_documents_are_seen(tmp_path: Path) -> None:
    training = [document for document in words(300) if not is_validation(document)]
    held_out = next(text for index in range(10_000) if is_validation(text := f"zyxw{index} " * 400))
    tokenizer = open_tokenizer("bpe:300", collect("a", [*training, held_out]), tmp_path)
    assert not any("zy" in token or "yx" in token for token in tokenizer.backend.get_vocab())


def test_any_text_comes_back_and_no_document_ends_itself(corpus: Corpus, tmp_path: Path) -> None:
    tokenizer = open_tokenizer("bpe:300", corpus, tmp_path)
    texts = [*TEXTS, f"a {END_OF_TEXT} b", "\x00\r\n", "漢字"]
    encoded = tokenizer.encode_batch(texts)
    assert [tokenizer.decode(ids) for ids in encoded] == texts
    assert all(ids.dtype == np.int64 and tokenizer.end_of_text not in ids for ids in encoded)
    assert tokenizer.decode([tokenizer.end_of_text]) == END_OF_TEXT
    assert max(ids.max() for ids in encoded) < tokenizer.vocabulary


@pytest.mark.parametrize("model", [None, "llama", "qwen2"])
def test_a_saved_tokenizer_loads_everywhere(model: str | None, corpus: Corpus, tmp_path: Path) -> None:
    """Also beside a model's config.json, by which transformers chooses the class, and for qwen2 imposes its splits."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    tokenizer = open_tokenizer("bpe:300", corpus, tmp_path / "own")
    tokenizer.save(tmp_path / "saved")
    if model:
        (tmp_path / "saved" / "config.json").write_text(json.dumps({"model_type": model}))
    loader = PreTrainedTokenizerFast if model == "qwen2" else AutoTokenizer
    loaded = loader.from_pretrained(str(tmp_path / "saved"))
    expected = [ids.tolist() for ids in tokenizer.encode_batch([*TEXTS, *words(20)])]
    assert loaded([*TEXTS, *words(20)], add_special_tokens=False)["input_ids"] == expected
    assert loaded.eos_token_id == tokenizer.end_of_text and len(loaded) == tokenizer.vocabulary
    for spec in (tmp_path / "saved" / "tokenizer.json", tmp_path / "saved")[: 1 if model == "qwen2" else 2]:
        again = open_tokenizer(str(spec), corpus, tmp_path)
        assert again.fingerprint == tokenizer.fingerprint
        assert [ids.tolist() for ids in again.encode_batch([*TEXTS, *words(20)])] == expected


def test_stored_truncation_and_padding_do_not_touch_documents(corpus: Corpus, tmp_path: Path) -> None:
    tokenizer = open_tokenizer("bpe:300", corpus, tmp_path)
    expected = [len(ids) for ids in tokenizer.encode_batch(TEXTS)]
    tokenizer.backend.enable_truncation(3)
    tokenizer.backend.enable_padding(length=50)
    (tmp_path / "tokenizer.json").write_text(tokenizer.backend.to_str())
    reopened = open_tokenizer(str(tmp_path / "tokenizer.json"), corpus, tmp_path)
    assert [len(ids) for ids in reopened.encode_batch(TEXTS)] == expected


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("bpe:256", "at least 257"),
        ("bpe:many", "at least 257"),
        ("bpe:-400", "at least 257"),
        ("absent.json", r"Cannot read tokenizer absent\.json"),
        ("bad.json", r"Cannot read tokenizer .*bad\.json"),
        ("endless.json", "names no end-of-text token"),
        ("empty-folder", "Cannot load tokenizer"),
    ],
)
def test_a_bad_tokenizer_is_one_line(
    spec: str, message: str, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.json").write_text("{")
    Path("empty-folder").mkdir()
    open_tokenizer("bpe:257", corpus, tmp_path).save(tmp_path / "saved")
    Path("endless.json").write_text(Path("saved/tokenizer.json").read_text().replace(END_OF_TEXT, "<other>"))
    with pytest.raises(ValueError, match=message) as caught:
        open_tokenizer(spec, corpus, tmp_path)
    assert "\n" not in str(caught.value)


# --- real data ------------------------------------------------------------------------------------------------------


@needs_data
def test_real_text_in_every_tokenizer_comes_back(tmp_path: Path) -> None:
    corpus = open_corpus(f"path:{DATA / 'text_openstax'}")
    assert len(corpus.documents) == 6 and corpus.bytes > 13_000_000 and corpus.held_out.sum() == 1
    (tmp_path / "gpt2").mkdir()
    for ours, theirs in (("vocab.json", "encoder.json"), ("merges.txt", "vocab.bpe")):
        (tmp_path / "gpt2" / ours).write_bytes((DATA / "tok_gpt2" / theirs).read_bytes())
    (tmp_path / "gpt2" / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    sizes = {
        str(tmp_path / "gpt2"): 50257,
        str(DATA / "tok_olmo" / "neox_olmo_50k.json.gz"): 50280,
        str(DATA / "tok_olmo" / "dolma2_100k.json.gz"): 100278,
    }
    sample = [document[10_000:30_000] for document in corpus.documents]
    for spec, size in sizes.items():
        tokenizer = open_tokenizer(spec, corpus, tmp_path)
        encoded = tokenizer.encode_batch(sample)
        assert tokenizer.vocabulary == size
        assert [tokenizer.decode(ids) for ids in encoded] == sample
    assert open_tokenizer(str(tmp_path / "gpt2"), corpus, tmp_path).encode_batch(["Hello world"])[0].tolist() == [
        15496,
        995,
    ]


@needs_data
def test_real_jsonl_has_columns_to_choose(tmp_path: Path) -> None:
    lambada = DATA / "eval_lambada" / "lambada_test.jsonl.gz"
    assert len(open_corpus(f"path:{lambada}").documents) == 5153
    with pytest.raises(ValueError, match=r"lambada_test\.jsonl\.gz, line 1: no column 'body', but columns text"):
        open_corpus(f"path:{lambada}#body")


def test_documents_keep_their_multiplicity() -> None:
    assert Counter(collect("a", ["x", "y", "x"]).documents) == {"x": 2, "y": 1}
