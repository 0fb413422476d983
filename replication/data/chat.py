"""A conversation, and how a model reads it: Tulu's chat template, in pieces whose borders are token borders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Turn:
    role: str
    text: str
    learned: bool = True  # if the assistant says it; else it is read and nothing more


Conversation = tuple[Turn, ...]


def asked(instruction: str, context: str = "") -> str:
    """What a user says who gives an instruction and what it is about."""
    return f"{instruction.strip()}\n\n{context.strip()}".strip()


def opening(turns: Sequence[Turn]) -> str:
    """Up to where the assistant begins to speak."""
    return "".join(f"<|{turn.role}|>\n{turn.text}\n" for turn in turns) + "<|assistant|>\n"


def pieces(turns: Conversation) -> Iterator[tuple[str, Turn | None]]:
    """(text, the assistant's turn that it is); an end of text follows whatever it says, and is its own word."""
    before: list[Turn] = []
    lead = ""
    for turn in turns:
        if turn.role != "assistant":
            before.append(turn)
            continue
        yield lead + opening(before), None
        yield turn.text, turn
        before, lead = [], "\n"


def encoded(turns: Conversation, tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
    """(tokens [T] int64, said [T] bool: the token is the assistant's, and to be learned)."""
    parts = list(pieces(turns))
    tokens: list[np.ndarray] = []
    for ids, (_, turn) in zip(tokenizer.encode_batch([text for text, _ in parts]), parts, strict=True):
        tokens.append(ids if turn is None else np.append(ids, tokenizer.end_of_text))
    said = [turn is not None and turn.learned for _, turn in parts]
    return np.concatenate(tokens), np.repeat(said, [len(part) for part in tokens])
