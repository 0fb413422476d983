"""A conversation, and how a model reads it: Tulu's chat template, in pieces whose borders are token borders."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from replication.data.tokenizer import Tokenizer

ROLES = ("system", "user", "assistant")
# What `opening` and `pieces` write, for transformers' apply_chat_template and what serves by it.
TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\\n' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% if message['role'] != 'assistant' or not loop.last or add_generation_prompt %}{{ '\\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)
# The wrapping of Stanford Alpaca, in which some data sets come; the template takes its place.
ALPACA = re.compile(
    r"Below is an instruction that describes a task.*?### Instruction:\n(?P<instruction>.*?)"
    r"(\n\n### Input:\n(?P<input>.*?))?\n\n### Response:\s*",
    re.DOTALL,
)


@dataclass(frozen=True)
class Turn:
    role: str
    text: str


Conversation = tuple[Turn, ...]


def asked(instruction: str, context: str = "") -> str:
    """What a user says who gives an instruction and what it is about."""
    return f"{instruction.strip()}\n\n{context.strip()}".strip()


def conversation(row: dict[str, Any], place: str) -> Conversation | None:
    """Of a data set's row: `messages` (role, content), `prompt` and `response`, or `instruction`, `input`, `output`.

    None where nothing is answered. ValueError, one line, for any other row.
    """
    match row:
        case {"messages": [*messages]} if all(isinstance(each, dict) for each in messages):
            turns = [Turn(str(each.get("role")), str(each.get("content") or "")) for each in messages]
        case {"prompt": str(prompt), "response": str(response)}:
            wrapped = ALPACA.fullmatch(prompt)
            said = prompt if wrapped is None else asked(wrapped["instruction"], wrapped["input"] or "")
            turns = [Turn("user", said), Turn("assistant", response)]
        case {"instruction": str(instruction), "output": str(output)}:
            turns = [Turn("user", asked(instruction, row.get("input") or "")), Turn("assistant", output)]
        case _:
            raise ValueError(
                f"{place}: no conversation in columns {', '.join(row)}. Known: messages; prompt, response; "
                "instruction, input, output."
            )
    unknown = [turn.role for turn in turns if turn.role not in ROLES]
    if unknown:
        raise ValueError(f"{place}: unknown role {unknown[0]!r}. Known: {', '.join(ROLES)}.")
    while turns and turns[-1].role != "assistant":
        turns.pop()  # nothing follows that could be learned
    return tuple(turns) if any(turn.role == "assistant" and turn.text.strip() for turn in turns) else None


def opening(turns: Sequence[Turn]) -> str:
    """Up to where the assistant begins to speak."""
    return "".join(f"<|{turn.role}|>\n{turn.text}\n" for turn in turns) + "<|assistant|>\n"


def pieces(turns: Conversation) -> Iterator[tuple[str, bool]]:
    """(text, whether the assistant says it); an end of text follows whatever it says, and is its own word."""
    before: list[Turn] = []
    lead = ""
    for turn in turns:
        if turn.role != "assistant":
            before.append(turn)
            continue
        yield lead + opening(before), False
        yield turn.text, True
        before, lead = [], "\n"


def encoded(turns: Conversation, tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
    """(tokens [T] int64, said [T] bool: the token is the assistant's)."""
    parts = list(pieces(turns))
    tokens: list[np.ndarray] = []
    for ids, (_, said) in zip(tokenizer.encode_batch([text for text, _ in parts]), parts, strict=True):
        tokens.append(np.append(ids, tokenizer.end_of_text) if said else ids)
    lengths = [len(part) for part in tokens]
    return np.concatenate(tokens), np.repeat([said for _, said in parts], lengths)
