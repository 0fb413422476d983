"""What a model makes of answers: the harness's log-likelihoods, with what several answers share computed once.

The harness reads a context again with every choice, one prompt after the other; here it is read once, beside others of
equal length, so that nothing is padded on the left and no mask is needed. `tests/test_at_hand.py` compares the two.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedModel

from replication.axes.targets.base import precise

ROOM = {"cpu": 2**23, "cuda": 2**29}  # bytes of the logits of one batch: about what a CPU's caches hold


@dataclass(frozen=True)
class Likelihood:
    """Of one answer: its log-probability in nats, whether greedy decoding writes it, and for each of its tokens how
    probable the likeliest one was, and whether it was this one."""

    nats: float
    greedy: bool
    confidence_T: Tensor
    correct_T: Tensor


@dataclass(frozen=True)
class Question:
    """A context and its answers, in tokens."""

    context: tuple[int, ...]
    answers: list[tuple[int, ...]] = field(default_factory=list)

    @property
    def width(self) -> int:
        return max(map(len, self.answers))


Pair = tuple[Sequence[int], Sequence[int]]
Found = dict[tuple[tuple[int, ...], tuple[int, ...]], Likelihood]


def likelihoods(model: PreTrainedModel, pairs: Sequence[Pair], reach: int) -> list[Likelihood]:
    """Of (context, answer) pairs of tokens, in their order. A context loses its beginning where the two are longer
    than the model reads; of an answer that is so by itself only what the model reads is judged."""
    asked = [(tuple(context), tuple(answer[:reach])) for context, answer in pairs]
    found: Found = {}
    for batch in batches(asked, reach, ROOM[model.device.type] // (4 * model.config.vocab_size)):
        found |= judged(model, batch, reach)
    return [found[pair] for pair in asked]


def judged(model: PreTrainedModel, batch: list[Question], reach: int) -> Found:
    width = max(question.width for question in batch)
    pairs = [(question.context, answer) for question in batch for answer in question.answers]
    owner_A = torch.tensor([row for row, question in enumerate(batch) for _ in question.answers]).to(model.device)
    answers_AT = torch.tensor([[*answer, *[0] * (width - len(answer))] for _, answer in pairs]).to(model.device)
    context_QC = torch.tensor([read(question, reach) for question in batch]).to(model.device)
    logits_ATV = predicted(model, context_QC, owner_A, answers_AT)
    best, total_AT = logits_ATV.max(-1), logits_ATV.logsumexp(-1)
    nats_AT = (logits_ATV.gather(-1, answers_AT[..., None])[..., 0] - total_AT).cpu()
    confidence_AT, correct_AT = (best.values - total_AT).exp().cpu(), (best.indices == answers_AT).cpu()
    found = {}
    for row, pair in enumerate(pairs):
        own = slice(len(pair[1]))
        nats, correct_T = float(nats_AT[row, own].sum()), correct_AT[row, own]
        found[pair] = Likelihood(nats, bool(correct_T.all()), confidence_AT[row, own], correct_T)
    return found


@torch.no_grad()
def predicted(model: PreTrainedModel, context_QC: Tensor, owner_A: Tensor, answers_AT: Tensor) -> Tensor:
    """[A, T, V] logits of the answers' tokens, each behind its own context and what it has of itself."""
    last = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
    seen = model(input_ids=context_QC, use_cache=True, **last)
    first_A1V = seen.logits[:, -1:][owner_A]
    if answers_AT.shape[1] == 1:
        return precise(first_A1V)
    memory = getattr(seen, "past_key_values", None)
    if memory is None or not hasattr(
        memory, "batch_select_indices"
    ):  # a model that keeps no keys and values reads all of it again
        whole_AX = torch.cat([context_QC[owner_A], answers_AT[:, :-1]], 1)
        return precise(model(input_ids=whole_AX, use_cache=False).logits[:, context_QC.shape[1] - 1 :])
    memory.batch_select_indices(owner_A)
    rest_ATV = model(input_ids=answers_AT[:, :-1], past_key_values=memory, use_cache=True).logits
    return precise(torch.cat([first_A1V, rest_ATV], 1))


def read(question: Question, reach: int) -> tuple[int, ...]:
    """The end of the context that fits before the longest answer, of which the last token is only predicted."""
    return question.context[-(reach + 1 - question.width) :]


def batches(
    asked: Sequence[tuple[tuple[int, ...], tuple[int, ...]]], reach: int, room: int
) -> Iterator[list[Question]]:
    """Every different pair once, in questions that are read equally far: `room` tokens of answers at once, or one
    question. What is asked behind a single token shares too little to be one question."""
    together: dict[tuple[int, ...], Question] = {}
    questions = []
    for context, answer in dict.fromkeys(asked):
        if len(context) == 1:
            questions.append(Question(context, [answer]))
        else:
            together.setdefault(context, Question(context)).answers.append(answer)
    by_length: dict[int, list[Question]] = defaultdict(list)
    for question in [*together.values(), *questions]:
        by_length[len(read(question, reach))].append(question)
    for length in sorted(by_length):
        batch: list[Question] = []
        count = 0
        for question in sorted(by_length[length], key=lambda each: each.width):
            if batch and (count + len(question.answers)) * question.width > room:
                yield batch
                batch, count = [], 0
            batch.append(question)
            count += len(question.answers)
        if batch:
            yield batch
