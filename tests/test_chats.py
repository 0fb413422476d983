"""Conversations that people bring: what the model reads of each and what it learns, or the one line that refuses it."""

from __future__ import annotations

import json
import re
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from replication.data.chat import TEMPLATE, Turn, encoded
from replication.data.chat_rows import FORMS, conversation
from replication.data.conversations import open_conversations, read
from replication.data.corpus import collect, open_corpus
from replication.data.packed_conversations import pack_conversations
from replication.data.tokenizer import Tokenizer, open_tokenizer
from replication.evaluate.judged.questions import question
from tests.small import write_text

Row = dict[str, Any]
ASK, YES = {"role": "user", "content": "Well?"}, {"role": "assistant", "content": "yes"}
READ = "<|user|>\nWell?\n<|assistant|>\n[yes.]"  # [ ]: learned; the dot: end of text


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    return open_tokenizer("bpe:300", open_corpus(f"path:{write_text(folder / 'text')}"), folder)


def marked(tokens_T: np.ndarray, said_T: np.ndarray, tokenizer: Tokenizer) -> str:
    """What is read, with what is learned in brackets and ends of text as dots."""
    parts = []
    for learned, group in groupby(zip(tokens_T, said_T, strict=True), key=lambda pair: bool(pair[1])):
        text = tokenizer.decode([int(token) for token, _ in group]).replace("<|endoftext|>", ".")
        parts.append(f"[{text}]" if learned else text)
    return "".join(parts)


def turns(*said: Row, **columns: Any) -> Row:
    return {"messages": list(said), **columns}


def parts(*texts: str) -> list[Row]:
    return [{"type": "text", "text": text, "image_url": None} for text in texts]


UNDERSTOOD: dict[str, tuple[Row, str]] = {
    "messages": (turns(ASK, YES), READ),
    "a system's turn": (
        turns({"role": "system", "content": "Be brief."}, ASK, YES),
        f"<|system|>\nBe brief.\n{READ}",
    ),
    "a system column": (turns(ASK, YES, system="Be brief."), f"<|system|>\nBe brief.\n{READ}"),
    "an empty system column": (turns(ASK, YES, system=""), READ),
    "content in one part": (turns({"role": "user", "content": parts("Well?")}, YES), READ),
    "content in parts": (turns({"role": "user", "content": parts("We", "ll?")}, YES), READ),
    "an answer in parts": (turns(ASK, {"role": "assistant", "content": parts("y", "e", "s")}), READ),
    "weight 1": (turns(ASK, {**YES, "weight": 1}), READ),
    "weight 1.0 and 0 on the user": (turns({**ASK, "weight": 0}, {**YES, "weight": 1.0}), READ),
    "weight null": (turns({**ASK, "weight": None}, {**YES, "weight": None}), READ),
    "weight 0": (
        turns(ASK, {"role": "assistant", "content": "no", "weight": 0}, {"role": "user", "content": "?"}, YES),
        "<|user|>\nWell?\n<|assistant|>\nno.\n<|user|>\n?\n<|assistant|>\n[yes.]",
    ),
    "an empty turn that is not learned": (
        turns(ASK, {"role": "assistant", "content": "", "weight": 0}, ASK, YES),
        f"<|user|>\nWell?\n<|assistant|>\n.\n{READ}",
    ),
    "weight 0 at the end": (turns(ASK, YES, ASK, {**YES, "weight": 0}), READ),
    "a question at the end": (turns(ASK, YES, ASK), READ),
    "nulls, as tables have them": (
        turns({**ASK, "tool_calls": None, "name": None}, {**YES, "reasoning_content": None}, tools=None, prompt=None),
        READ,
    ),
    "empty fields": (turns(ASK, {**YES, "tool_calls": [], "reasoning_content": ""}, tools=[], images=[]), READ),
    "where a row comes from": (turns({**ASK, "id": 3}, YES, id="a7", source="WildChat", category="chat"), READ),
    "ShareGPT": (
        {
            "conversations": [
                {"from": "system", "value": "Be brief."},
                {"from": "human", "value": "Well?"},
                {"from": "gpt", "value": "yes"},
            ]
        },
        f"<|system|>\nBe brief.\n{READ}",
    ),
    "ShareGPT of axolotl": (
        {"conversations": [{"from": "human", "value": "Well?", "weight": 0}, {"from": "gpt", "value": "yes"}]},
        READ,
    ),
    "conversations of roles": ({"conversations": [ASK, YES]}, READ),
    "messages from someone": ({"messages": [{"from": "user", "value": "Well?"}, YES]}, READ),
    "prompt and completion": ({"prompt": [ASK], "completion": [YES]}, READ),
    "an answer in the prompt": (
        {"prompt": [ASK, {"role": "assistant", "content": "no"}, ASK], "completion": [YES]},
        f"<|user|>\nWell?\n<|assistant|>\nno.\n{READ}",
    ),
    "prompt and response": ({"prompt": "Well?", "response": "yes"}, READ),
    "instruction": ({"instruction": "Well?", "output": "yes"}, READ),
    "instruction and input": (
        {"instruction": "Add.", "input": "1 2", "output": "3"},
        "<|user|>\nAdd.\n\n1 2\n<|assistant|>\n[3.]",
    ),
    "an input that is null": ({"instruction": "Well?", "input": None, "output": "yes"}, READ),
    "an instruction to a system": (
        {"instruction": "Well?", "input": "", "output": "yes", "system": "Be brief."},
        f"<|system|>\nBe brief.\n{READ}",
    ),
    "a pair of surrogates": (turns(ASK, {"role": "assistant", "content": "\U0001f642"}), READ.replace("yes", "🙂")),
}


@pytest.mark.parametrize("row, wanted", UNDERSTOOD.values(), ids=UNDERSTOOD)
def test_what_is_understood_is_read_as_it_is_meant(row: Row, wanted: str, tokenizer: Tokenizer) -> None:
    found = conversation(row, "here")
    assert found is not None
    assert marked(*encoded(found, tokenizer), tokenizer) == wanted


def test_the_template_reads_every_one_alike(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """transformers, given the turns and the template that a student is published with."""
    from dataclasses import replace

    from transformers import PreTrainedTokenizerFast

    replace(tokenizer, chat_template=TEMPLATE).save(tmp_path)
    theirs = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    for row, _ in UNDERSTOOD.values():
        found = conversation(row, "here")
        assert found is not None
        messages = [{"role": turn.role, "content": turn.text} for turn in found]
        assert theirs.apply_chat_template(messages, tokenize=False) == tokenizer.decode(encoded(found, tokenizer)[0])


NOTHING_LEARNED: list[Row] = [
    turns(ASK),
    turns(),
    turns(ASK, {**YES, "weight": 0}),
    turns(ASK, {"role": "assistant", "content": " \n"}),
    turns(ASK, YES, ASK, {"role": "assistant", "content": ""}),  # else an end of text alone is learned
    turns(ASK, {"role": "assistant", "content": []}),
    {"prompt": "Well?", "response": ""},
]


@pytest.mark.parametrize("row", NOTHING_LEARNED)
def test_a_row_of_which_nothing_is_learned_is_left_out_and_counted(row: Row, tmp_path: Path) -> None:
    path = tmp_path / "talks.jsonl"
    path.write_text(json.dumps(row) + "\n" + json.dumps(turns(ASK, YES)) + "\n")
    found = open_conversations(f"path:{path}")
    assert found.skipped == 1 and [read(each) for each in found.documents] == [
        (Turn("user", "Well?"), Turn("assistant", "yes"))
    ]
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(ValueError, match=r"is empty: 1 files or rows, none of use\. Conversations need a turn of the"):
        open_conversations(f"path:{path}")


CALL = [{"type": "function", "function": {"name": "sum", "arguments": "{}"}}]
LEFT_OUT = "would not be read. Write what it says into the text, or have it left out, as in 'path:talks.jsonl#ignore="
REFUSED: dict[str, tuple[Row, str]] = {
    "an image": (
        turns({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x.png"}}]}, YES),
        "messages[0].content[0].type: a part of type 'image_url', where only 'text' is read; remove the part.",
    ),
    "a part without text": (
        turns({"role": "user", "content": [{"type": "text"}]}, YES),
        "messages[0].content[0].text: missing; repair or remove the row.",
    ),
    "a part of a part": (
        turns({"role": "user", "content": [{"type": "text", "text": ["Well?"]}]}, YES),
        "messages[0].content[0].text: list, where text is wanted.",
    ),
    "content that is a number": (
        turns({"role": "user", "content": 21}, YES),
        "messages[0].content: int, where text or a list of its parts is wanted.",
    ),
    "content that is an object": (
        turns(ASK, {"role": "assistant", "content": {"answer": "yes"}}),
        "messages[1].content: dict, where text or a list of its parts is wanted.",
    ),
    "a turn without content": (
        turns(ASK, {"role": "assistant"}),
        "messages[1].content: missing; repair or remove the row.",
    ),
    "content that is null": (
        turns(ASK, {"role": "assistant", "content": None}),
        "messages[1].content: missing; repair or remove the row.",
    ),
    "only calls of tools": (
        turns(ASK, {"role": "assistant", "content": "", "tool_calls": CALL}),
        f"messages[1]: tool_calls {LEFT_OUT}tool_calls'.",
    ),
    "reasoning": (
        turns(ASK, {**YES, "reasoning_content": "Hm.", "name": "B"}),
        f"messages[1]: name,reasoning_content {LEFT_OUT}name,reasoning_content'.",
    ),
    "columns that nobody reads": (
        turns(ASK, YES, tools=CALL, chat_template_kwargs={"thinking": False}),
        f"chat_template_kwargs,tools {LEFT_OUT}chat_template_kwargs,tools'.",
    ),
    "a flag that is not raised": (turns(ASK, YES, thinking=False), f"thinking {LEFT_OUT}thinking'."),
    "two forms at once": (turns(ASK, YES, prompt="Well?"), f"prompt {LEFT_OUT}prompt'."),
    "two names of one thing": (
        turns({**ASK, "value": "What?"}, YES),
        f"messages[0]: value {LEFT_OUT}value'.",
    ),
    "a tool's turn": (
        turns(ASK, {"role": "tool", "content": "3"}, YES),
        "messages[1].role: unknown role 'tool'. Known: system, user, assistant, human, gpt.",
    ),
    "a role that is none": (
        turns({"role": 1, "content": "x"}, YES),
        "messages[0].role: int, where text is wanted.",
    ),
    "half a weight": (
        turns(ASK, {**YES, "weight": 0.5}),
        "messages[1].weight: 0.5, where a turn is learned, 1, or not, 0.",
    ),
    "a weight in words": (
        turns(ASK, {**YES, "weight": "0"}),
        "messages[1].weight: str, where a number is wanted.",
    ),
    "a user who is to be learned": (
        turns({**ASK, "weight": 1}, YES),
        "messages[0].weight: 1, where only what the assistant says is learned.",
    ),
    "messages that are text": ({"messages": "Well?"}, "messages: str, where a list is wanted."),
    "turns that are text": ({"messages": ["Well?", "yes"]}, "messages[0]: str, where an object is wanted."),
    "an input of a number": (
        {"instruction": "Double.", "input": 21, "output": "42"},
        "input: int, where text is wanted.",
    ),
    "an input of nothing": (
        {"instruction": "Double.", "input": 0, "output": "0"},
        "input: int, where text is wanted.",
    ),
    "an output of a list": (
        {"instruction": "Double.", "output": ["42"]},
        "output: list, where text is wanted.",
    ),
    "a response of a number": ({"prompt": "21?", "response": 42}, "response: int, where text is wanted."),
    "two systems": (
        turns({"role": "system", "content": "Be brief."}, ASK, YES, system="Be long."),
        "system: a turn of the system's says something as well. Keep one of them.",
    ),
    "a text to go on with": (
        {"prompt": "Once", "completion": " upon"},
        "prompt: str, where a list is wanted.",
    ),
}


@pytest.mark.parametrize("row, message", REFUSED.values(), ids=REFUSED)
def test_what_is_not_understood_is_refused_with_file_and_line(row: Row, message: str, tmp_path: Path) -> None:
    path = tmp_path / "talks.jsonl"
    path.write_text(json.dumps(turns(ASK, YES)) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(ValueError) as caught:
        open_conversations(f"path:{path}")
    assert str(caught.value) == f"{path}, line 2, {message}"


def test_columns_of_no_form_name_the_known_ones() -> None:
    with pytest.raises(ValueError) as caught:
        conversation({"question": "Well?", "answer": "yes", "messages": None}, "a.jsonl, line 7")
    assert str(caught.value) == (
        "a.jsonl, line 7: no conversation in columns question, answer, messages. Known: messages; conversations; "
        "prompt, completion; prompt, response; instruction, output."
    )


@pytest.mark.parametrize(
    "line, message",
    [
        (rb'{"prompt": "Well?", "response": "\ud83d"}', "half a surrogate pair is no Unicode. Repair or"),
        (rb'{"prompt": "Well?", "response": "yes", "other": "\uDE42\uD83D"}', "half a surrogate pair is no Unicode."),
        (b'{"prompt": "Well?", "response": "caf\xe9"}', "not a line of JSON ('utf-8' codec can't decode byte 0xe9"),
        (b'{"prompt": "Well?"', "not a line of JSON ("),
        (b"[" * 100_000, "not a line of JSON ("),
        (b"null", "NoneType, where an object is wanted. Write one a line."),
        (b'["Well?", "yes"]', "list, where an object is wanted. Write one a line."),
    ],
)
def test_a_line_that_is_no_row(line: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "talks.JSONL"
    path.write_bytes(b'\xef\xbb\xbf{"prompt": "Well?", "response": "yes"}\r\n\r\n' + line + b"\n")
    with pytest.raises(ValueError) as caught:
        open_conversations(f"path:{path}")
    assert str(caught.value).startswith(f"{path}, line 3: {message}") and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [name for name, (_, message) in REFUSED.items() if LEFT_OUT in message])
def test_the_advice_is_followed(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the refusal says, typed as it stands there: the row is then read without these fields."""
    row, message = REFUSED[name]
    monkeypatch.chdir(tmp_path)
    Path("talks.jsonl").write_text(json.dumps(row) + "\n")
    advised = re.findall(r"'(path:.*)'", message)[0]
    if name == "only calls of tools":  # nothing is left to learn
        with pytest.raises(ValueError, match="is empty: 1 files or rows"):
            open_conversations(advised)
        return
    found = open_conversations(advised)
    assert read(found.documents[0]) == (Turn("user", "Well?"), Turn("assistant", "yes"))
    assert found.name == advised


def test_a_table_of_conversations_is_read_as_its_lines_are(tmp_path: Path) -> None:
    rows = [{"messages": [ASK, {**YES, "weight": 0}, ASK, YES]}, {"messages": [ASK, YES]}]
    (tmp_path / "lines.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "table.parquet")
    lines, table = (open_conversations(f"path:{tmp_path / name}") for name in ("lines.jsonl", "table.parquet"))
    assert lines.fingerprint == table.fingerprint and len(table.documents) == 2
    pyarrow.parquet.write_table(pyarrow.table({"messages": [[ASK, YES]], "tools": ["sum"]}), tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=r"t\.parquet, row 1, tools would not be read"):
        open_conversations(f"path:{tmp_path / 't.parquet'}")


def test_a_data_set_goes_through_the_real_loader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    rows = [turns(ASK, {**YES, "weight": 0}, ASK, YES, tools=None), turns(ASK, YES, tools="sum")]
    (tmp_path / "my-set").mkdir()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "my-set" / "train.parquet")
    with pytest.raises(ValueError, match=r"hub:my-set, row 2, tools would not be read"):
        open_conversations(f"hub:{tmp_path / 'my-set'}")
    found = open_conversations(f"hub:{tmp_path / 'my-set'}#ignore=tools,score")
    assert found.name == "hub:my-set#ignore=tools,score"
    assert [turn.learned for turn in read(found.documents[0])] == [True, False, True, True]
    assert read(found.documents[1]) == (Turn("user", "Well?"), Turn("assistant", "yes"))


def test_the_mask_reaches_the_rows(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Of a file with turns of weight 0, through the packing: labels and what of them is learned."""
    no = {"role": "assistant", "content": "no", "weight": 0}
    rows = [turns({"role": "user", "content": f"{n}?"}, no, ASK, YES) for n in range(40)]
    (tmp_path / "talks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    corpus = open_conversations(f"path:{tmp_path / 'talks.jsonl'}")
    packed = pack_conversations(corpus, "train", tokenizer, 0, 128, tmp_path)
    everything = np.arange(len(packed))
    labels, learned = packed.rows(everything)[:, 1:], packed.responses(everything)
    assert tokenizer.decode(labels[learned]) == "yes<|endoftext|>" * packed.count
    assert tokenizer.decode(labels.ravel()).count("no<|endoftext|>") == packed.count > 30


def test_a_stored_packing_that_is_damaged_says_so_and_is_written_again(tokenizer: Tokenizer, tmp_path: Path) -> None:
    rows = [{"prompt": f"{n}?", "response": "yes"} for n in range(20)]
    (tmp_path / "talks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    corpus, folder = open_conversations(f"path:{tmp_path / 'talks.jsonl'}"), tmp_path / "text"
    whole = pack_conversations(corpus, "train", tokenizer, 0, 64, folder).coded_RL.tolist()
    about, place = sorted(folder.iterdir())
    for path in (about, place):
        for size in (0, path.stat().st_size // 2):
            path.write_bytes(path.read_bytes()[:size])
            with pytest.raises(ValueError, match=f"{about.name} beside it is damaged. Delete both"):
                pack_conversations(corpus, "train", tokenizer, 0, 64, folder)
            about.unlink(), place.unlink()
            assert pack_conversations(corpus, "train", tokenizer, 0, 64, folder).coded_RL.tolist() == whole
    about.unlink()  # a process that was killed between the two
    assert pack_conversations(corpus, "train", tokenizer, 0, 64, folder).coded_RL.tolist() == whole


def test_what_was_read_before_has_the_fingerprint_of_before(tmp_path: Path) -> None:
    (tmp_path / "talks.jsonl").write_text('{"prompt": "Well?", "response": "yes"}\n')
    stored = '[{"role": "user", "text": "Well?"}, {"role": "assistant", "text": "yes"}]'
    assert open_conversations(f"path:{tmp_path}").fingerprint == collect("", [stored]).fingerprint


@pytest.mark.parametrize("spec", ["hub:org/set#messages", "path:", "hub:#ignore=a", "stdlib#ignore=a"])
def test_an_unknown_spec_names_the_known_ones(spec: str) -> None:
    with pytest.raises(ValueError, match=r"Unknown conversations .* Known: 'stdlib', .*'path:<file or folder>"):
        open_conversations(spec)


def test_every_form_is_in_the_table() -> None:
    assert {names for names in FORMS if any(set(names) <= set(row) for row, _ in UNDERSTOOD.values())} == set(FORMS)


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "Double.", "input": 21, "output": "42"},
        {"instruction": "Double.", "input": 0, "output": ["0"]},
        {"instruction": "Double.", "output": ["42", 42]},
        {"instruction": "Double.", "instances": [{"input": 21, "output": "42"}]},
    ],
)
def test_a_question_of_no_text_is_refused(row: Row) -> None:
    with pytest.raises(ValueError, match=r"line 3: columns instruction \(str\), .* are wanted as text"):
        question(row, "dolly.jsonl, line 3")


def test_a_question_without_input() -> None:
    asked = question({"instruction": "Double 21.", "input": None, "output": ["42", "84 / 2"]}, "")
    assert (asked.instruction, asked.answers) == ("Double 21.", ("42", "84 / 2"))
