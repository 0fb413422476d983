"""Asking a judge through OpenAI's protocol: several ratings at a time, patiently, each into the log as it comes."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from json import JSONDecodeError
from typing import Any

from pydantic import BaseModel, Field, ValidationError
from tqdm import tqdm

from replication.data.text_files import first_line
from replication.evaluate.judged.judge import rating
from replication.evaluate.judged.ratings import Rating, Ratings
from replication.experiment.measurements import named_judge

LETTERS = 4  # of a token, about: before a judge is asked nobody knows its tokenizer
REPLY = 16  # tokens, at most


@dataclass(frozen=True)
class Judge:
    """A model behind an address. The `openai` client tries again by itself, later each time, where the network or the
    server fails or is busy; a reply that is no rating is asked for again here, at temperature 1, since at temperature
    0 it would come again."""

    url: str
    model: str
    key: str = "none"  # servers of one's own want none
    prices: tuple[float, float] | None = None  # dollars per million tokens read, written
    at_once: int = 16
    seconds: float = 120.0  # until a reply is given up
    retries: int = 8  # half a second later, then twice as late each time, up to eight
    replies: int = 6  # that may be malformed


def this_judge() -> Judge:
    """From JUDGE_URL, JUDGE_MODEL, OPENAI_API_KEY and JUDGE_PRICE. ValueError, one line, for what is none."""
    url, key = os.environ.get("JUDGE_URL", ""), os.environ.get("OPENAI_API_KEY") or "none"
    return Judge(url, named_judge(), key, prices(os.environ.get("JUDGE_PRICE", "")))


def prices(word: str) -> tuple[float, float] | None:
    """'0.9,2.5': dollars for a million tokens read, and for a million written."""
    parts = word.split(",")
    if not word:
        return None
    if len(parts) != 2 or not all(re.fullmatch(r"\d+(\.\d+)?", part.strip()) for part in parts):
        raise ValueError(f"JUDGE_PRICE is {word!r}; give dollars per million tokens read and written, as in 0.9,2.5.")
    return float(parts[0]), float(parts[1])


@dataclass(frozen=True)
class Errand:
    """What is still to be asked. Malformed replies will come on top."""

    ratings: int
    of: int
    letters: int  # of their prompts

    def __add__(self, other: Errand) -> Errand:
        return Errand(self.ratings + other.ratings, self.of + other.of, self.letters + other.letters)

    def cost(self, judge: Judge) -> str:
        """One line, to be read before anything is spent."""
        reads, writes = self.letters / LETTERS, REPLY * self.ratings
        line = f"{judge.model}: {self.ratings:,} of {self.of:,} ratings to ask for, about {reads:,.0f} tokens to read "
        line += f"and at most {writes:,} to write"
        if judge.prices is None:
            return line
        return f"{line}: about ${(judge.prices[0] * reads + judge.prices[1] * writes) / 1e6:,.2f}"


def errand(prompts: Mapping[str, str], log: Ratings) -> Errand:
    missing = [prompt for key, prompt in prompts.items() if key not in log.found]
    return Errand(len(missing), len(prompts), sum(map(len, missing)))


def ask(judge: Judge, prompts: Mapping[str, str], log: Ratings) -> None:
    """Have every prompt (by its key) rated that the log does not know yet.

    ValueError, one line, when the server is gone or refuses: what was rated until then is in the log, and the same
    call goes on from there.
    """
    import openai

    tqdm.write(errand(prompts, log).cost(judge))
    missing = [(key, prompt) for key, prompt in prompts.items() if key not in log.found]
    progress = tqdm(total=len(missing), desc=judge.model, unit="rating", mininterval=1.0)
    try:
        asyncio.run(ask_all(judge, iter(missing), log, progress))
    except BaseExceptionGroup as group:
        failed, other = group.split((openai.OpenAIError, NoCompletionError))
        if failed is None or other is not None:
            raise
        raise ValueError(
            f"The judge at {judge.url} failed: {first_line(first_of(failed))}. {len(log.found):,} ratings are in "
            f"{log.path}; the same command goes on from there."
        ) from None
    finally:
        progress.close()


def first_of(group: BaseException) -> BaseException:
    return first_of(group.exceptions[0]) if isinstance(group, BaseExceptionGroup) else group


async def ask_all(judge: Judge, missing: Iterator[tuple[str, str]], log: Ratings, progress: Any) -> None:
    import openai

    async def worker() -> None:
        for key, prompt in missing:  # shared: each takes the next
            log.add(await rated(client, judge, key, prompt))
            progress.update()

    async with openai.AsyncOpenAI(
        base_url=judge.url, api_key=judge.key, max_retries=judge.retries, timeout=judge.seconds
    ) as client:
        async with asyncio.TaskGroup() as group:
            for _ in range(judge.at_once):
                group.create_task(worker())


async def rated(client: Any, judge: Judge, key: str, prompt: str) -> Rating:
    replies: list[str] = []
    read = written = 0
    for attempt in range(judge.replies):
        try:
            reply = await client.chat.completions.create(
                model=judge.model,
                messages=[{"role": "user", "content": prompt}],
                temperature=0.0 if attempt == 0 else 1.0,
                max_tokens=REPLY,
                seed=attempt,
            )
            said = Completion.model_validate(reply, from_attributes=True)
        except (ValidationError, JSONDecodeError):
            continue
        replies.append(said.choices[0].message.content or "")
        if said.usage is not None:
            read, written = read + said.usage.prompt_tokens, written + said.usage.completion_tokens
        scores = rating(replies[-1])
        if scores is not None:
            return Rating(key, scores, replies, read, written)
    if not replies:  # a page of some other server, say: the judge has not been heard
        raise NoCompletionError("what it sends is no chat completion")
    return Rating(key, None, replies, read, written)


class NoCompletionError(Exception):
    """A server answered in another language than OpenAI's protocol."""


class Message(BaseModel):
    content: str | None


class Choice(BaseModel):
    message: Message


class Usage(BaseModel):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Completion(BaseModel):
    """What is read of a reply."""

    choices: list[Choice] = Field(min_length=1)
    usage: Usage | None = None
