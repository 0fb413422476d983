"""What a student answers: sampled at temperature 1, kept as JSON lines, taken up where it was stopped."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import GenerationConfig, PreTrainedModel

from replication.data.chat import TEMPLATE, Turn, opening
from replication.data.tokenizer import Tokenizer
from replication.evaluate.judged.questions import Question
from replication.machine.files import replace_text
from replication.model.decoder import fingerprint
from replication.model.reach import reach_of
from replication.seeds import seed_for

SEEDS = 5  # answers to each question (RS-KD App. E.3)
BATCH = 64  # questions answered together, under one seed: decides the answers
LONGEST = 512  # tokens of an answer; not stated there


@dataclass(frozen=True)
class Answer:
    number: int  # of the question
    instruction: str
    truth: tuple[str, ...]
    answer: str
    ended: bool  # by the student, not by the length
    cut: bool  # the prompt lost its beginning


def folder_of(student: PreTrainedModel, place: Path) -> Path:
    """Named after all that decides the answers but the questions: other weights never share a folder."""
    words = json.dumps([fingerprint(student), TEMPLATE, BATCH, LONGEST])
    return place / hashlib.sha256(words.encode()).hexdigest()[:16]


def answers(
    student: PreTrainedModel, tokenizer: Tokenizer, name: str, asked: Sequence[Question], seed: int, folder: Path
) -> list[Answer]:
    """One answer to each question; those that lie in `folder` already are not made again."""
    told = hashlib.sha256(json.dumps([asdict(each) for each in asked]).encode()).hexdigest()[:8]
    path = folder / f"{name}-{told}-s{seed}.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    # whole batches only: each draws from a random stream of its own
    done = len(lines) if len(lines) == len(asked) and complete(lines[-1]) else len(lines) // BATCH * BATCH
    while done and not complete(lines[done - 1]):
        done = (done - 1) // BATCH * BATCH
    replace_text(path, "".join(f"{line}\n" for line in lines[:done]))
    for start in range(done, len(asked), BATCH):
        with torch.random.fork_rng():
            # transformers draws from the global generator only
            torch.manual_seed(seed_for(seed, "answers", name, start) % 2**63)
            made = answered(student, tokenizer, asked[start : start + BATCH], start)
        with open(path, "a") as file:
            file.write("".join(json.dumps(asdict(each)) + "\n" for each in made))
            file.flush()
            os.fsync(file.fileno())
    rows = map(json.loads, path.read_text().splitlines())
    return [Answer(**{**row, "truth": tuple(row["truth"])}) for row in rows]


def complete(line: str) -> bool:
    return line.endswith("}")  # a process that is killed leaves half of its last line


@torch.inference_mode()
def answered(student: PreTrainedModel, tokenizer: Tokenizer, asked: Sequence[Question], first: int) -> list[Answer]:
    """From the whole distribution. An answer gets at most half of what the model reads, its prompt the rest."""
    reach = reach_of(student.config) or 2 * LONGEST
    new = min(LONGEST, reach // 2)
    prompts = [
        torch.from_numpy(ids)
        for ids in tokenizer.encode_batch([opening([Turn("user", each.instruction)]) for each in asked])
    ]
    read = [prompt[-(reach - new) :] for prompt in prompts]
    longest, end = max(map(len, read)), tokenizer.end_of_text
    tokens_BL = torch.full((len(read), longest), end)
    seen_BL = torch.zeros_like(tokens_BL)
    for row, prompt in enumerate(read):
        tokens_BL[row, longest - len(prompt) :] = prompt
        seen_BL[row, longest - len(prompt) :] = 1
    settings = GenerationConfig(
        do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=new, eos_token_id=end, pad_token_id=end,
        use_cache=True,
    )  # fmt: skip
    student.generation_config = GenerationConfig()  # its own would fill in what is not said here
    made_BL = student.generate(
        tokens_BL.to(student.device), attention_mask=seen_BL.to(student.device), generation_config=settings
    )[:, longest:].cpu()
    found = []
    for row, (each, prompt) in enumerate(zip(asked, prompts, strict=True)):
        ends = (made_BL[row] == end).nonzero()
        said = made_BL[row, : int(ends[0])] if len(ends) else made_BL[row]
        text = tokenizer.decode(said.numpy())
        found.append(
            Answer(first + row, each.instruction, each.answers, text, bool(len(ends)), len(prompt) > len(read[row]))
        )
    return found


def rouge_l(found: Sequence[Answer]) -> float:
    """Mean F-measure of the longest common subsequence with the nearest true answer, stemmed (Lin 2004)."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    return sum(scorer.score_multi(each.truth, each.answer)["rougeL"].fmeasure for each in found) / len(found)
