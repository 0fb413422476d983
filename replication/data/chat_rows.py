"""What a row of somebody's data set says as a conversation: a schema of the forms in use, and nothing beside them.

    messages (or conversations)   turns of role and content, or of from and value: TRL, axolotl, OpenAI, ShareGPT
    prompt, completion            two lists of such turns; what the assistant says in the prompt is only read (TRL)
    prompt, response              two texts; Alpaca's wrapping is taken off
    instruction, input, output    texts; without an input, too (Stanford Alpaca)

Each may have a `system`, which is said first. A content is a text or a list of its parts, which follow one another as
in transformers' templates. A turn of `weight` 0 is read and not learned. Our template has no place for anything else
(calls of tools, reasoning, images), and to leave it out silently would be to train on another conversation: it is
refused, unless it is empty, says where the row comes from, or is named as ignored.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from replication.data.chat import ROLES, Conversation, Turn, asked

# Columns that say where a row comes from, never what is said in it.
ORIGIN = frozenset(
    "id _id idx index uuid hash prompt_id conversation_id question_id source dataset category topic task model "
    "language lang license split url created timestamp".split()
)
WANTED = {"string_type": "text", "list_type": "a list", "float_type": "a number", "model_type": "an object"}
SHAREGPT = {"human": "user", "gpt": "assistant"}
# The wrapping of Stanford Alpaca, in which some data sets come; the template takes its place.
ALPACA = re.compile(
    r"Below is an instruction that describes a task.*?### Instruction:\n(?P<instruction>.*?)"
    r"(\n\n### Input:\n(?P<input>.*?))?\n\n### Response:\s*",
    re.DOTALL,
)


def only_text(kind: str) -> str:
    if kind != "text":
        raise ValueError(f"a part of type {kind!r}, where only 'text' is read; remove the part")
    return kind


def known_role(role: str) -> str:
    role = SHAREGPT.get(role, role)
    if role not in ROLES:
        raise ValueError(f"unknown role {role!r}. Known: {', '.join((*ROLES, *SHAREGPT))}")
    return role


def in_parts(content: Any) -> list[Any]:
    match content:
        case str():
            return [{"type": "text", "text": content}]
        case list():
            return content
    raise ValueError(f"{type(content).__name__}, where text or a list of its parts is wanted")


class Known(BaseModel):
    """An object of known fields. The context of a validation is the set of names that are ignored."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow")

    @model_validator(mode="before")
    @classmethod
    def what_is_there(cls, fields: Any, info: ValidationInfo) -> Any:
        """Without what is null: a column of a table has it wherever another row says something."""
        if not isinstance(fields, dict):
            return fields
        ignored = info.context or frozenset()
        return {name: value for name, value in fields.items() if value is not None and name not in ignored}

    @model_validator(mode="after")
    def nothing_else(self) -> Self:
        said = {name for name, value in (self.model_extra or {}).items() if value not in ("", [], {})}
        unread = ",".join(sorted(said - ORIGIN))
        if unread:
            raise ValueError(
                f"{unread} would not be read. Write what it says into the text, or have it left out, as in "
                f"'path:talks.jsonl#ignore={unread}'"
            )
        return self


class Part(Known):
    type: Annotated[str, AfterValidator(only_text)]
    text: str


class Message(Known):
    role: Annotated[str, AfterValidator(known_role)] = Field(validation_alias=AliasChoices("role", "from"))
    content: Annotated[list[Part], BeforeValidator(in_parts)] = Field(validation_alias=AliasChoices("content", "value"))
    weight: float | None = None

    @field_validator("weight")
    @classmethod
    def all_or_nothing(cls, weight: float | None, info: ValidationInfo) -> float | None:
        if weight not in (None, 0, 1):
            raise ValueError(f"{weight}, where a turn is learned, 1, or not, 0")
        if weight == 1 and info.data.get("role") != "assistant":
            raise ValueError("1, where only what the assistant says is learned")
        return weight

    @property
    def turn(self) -> Turn:
        learned = self.role != "assistant" or self.weight != 0
        return Turn(self.role, "".join(part.text for part in self.content), learned)


class Form(Known, ABC):
    system: str = ""

    @abstractmethod
    def turns(self) -> list[Turn]:
        """What is said after the system's turn."""


class Messages(Form):
    messages: list[Message] = Field(validation_alias=AliasChoices("messages", "conversations"))

    def turns(self) -> list[Turn]:
        return [message.turn for message in self.messages]


class Completion(Form):
    prompt: list[Message]
    completion: list[Message]

    def turns(self) -> list[Turn]:
        before = [message.turn for message in self.prompt]
        read = [replace(turn, learned=turn.role != "assistant") for turn in before]
        return read + [message.turn for message in self.completion]


class Response(Form):
    prompt: str
    response: str

    def turns(self) -> list[Turn]:
        wrapped = ALPACA.fullmatch(self.prompt)
        said = self.prompt if wrapped is None else asked(wrapped["instruction"], wrapped["input"] or "")
        return [Turn("user", said), Turn("assistant", self.response)]


class Instruction(Form):
    instruction: str
    input: str = ""
    output: str

    def turns(self) -> list[Turn]:
        return [Turn("user", asked(self.instruction, self.input)), Turn("assistant", self.output)]


FORMS: dict[tuple[str, ...], type[Form]] = {  # by what a row of the form must have
    ("messages",): Messages,
    ("conversations",): Messages,
    ("prompt", "completion"): Completion,
    ("prompt", "response"): Response,
    ("instruction", "output"): Instruction,
}


def conversation(row: dict[str, Any], place: str, ignored: frozenset[str] = frozenset()) -> Conversation | None:
    """Up to the last turn that is learned. None where there is none, or where such a turn says nothing.

    ValueError, one line, for a row of no known form and for whatever in it would not be read.
    """
    there = {name for name, value in row.items() if value is not None and name not in ignored}
    form = next((form for names, form in FORMS.items() if there.issuperset(names)), None)
    if form is None:
        known = "; ".join(", ".join(names) for names in FORMS)
        raise ValueError(f"{place}: no conversation in columns {', '.join(row)}. Known: {known}.")
    try:
        found = form.model_validate(row, context=ignored)
    except ValidationError as error:
        raise ValueError(f"{place}, {first_fault(error)}.") from None
    turns = found.turns()
    if found.system:
        if any(turn.role == "system" for turn in turns):
            raise ValueError(f"{place}, system: a turn of the system's says something as well. Keep one of them.")
        turns.insert(0, Turn("system", found.system))
    while turns and not (turns[-1].role == "assistant" and turns[-1].learned):
        turns.pop()  # nothing follows that could be learned
    learned = [turn for turn in turns if turn.role == "assistant" and turn.learned]
    return tuple(turns) if learned and all(turn.text.strip() for turn in learned) else None


def first_fault(error: ValidationError) -> str:
    """'messages[1].content: int, where text or a list of its parts is wanted'."""
    fault = error.errors(include_url=False)[0]
    where = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in fault["loc"]).lstrip(".")
    said = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "missing":
        said = "missing; repair or remove the row"
    elif fault["type"] in WANTED:
        said = f"{type(fault['input']).__name__}, where {WANTED[fault['type']]} is wanted"
    return f"{where}: {said}" if where else said
