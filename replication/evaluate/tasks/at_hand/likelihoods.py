"""What a model makes of answers: the harness's log-likelihoods, with what several answers share computed once.

The harness reads a context again with every choice, one prompt after the other; here it is read once, beside others of
equal length, so that nothing is padded on the left and no mask is needed. `tests/test_at_hand.py` compares the two.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

ROOM = 2**26  # bytes of the logits of one batch


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
    context: list[int]
    answers: list[list[int]]
    places: list[int]  # of the answers, among all that were asked


def likelihoods(model: PreTrainedModel, encoded: Sequence[tuple[list[int], list[int]]], reach: int) -> list[Likelihood]:
    """Of (context, answer) pairs of tokens, in their order. A context loses its beginning where the two are longer
    than the model reads; of an answer that is so by itself only what the model reads is judged."""
    found: list[Likelihood | None] = [None] * len(encoded)
    for batch in batches(encoded, reach, ROOM // (4 * model.config.vocab_size)):
        width = max(len(answer) for question in batch for answer in question.answers)
        answers = [answer for question in batch for answer in question.answers]
        owner_A = torch.tensor([row for row, question in enumerate(batch) for _ in question.answers])
        answers_AT = torch.tensor([answer + [0] * (width - len(answer)) for answer in answers]).to(model.device)
        context_QC = torch.tensor([question.context for question in batch]).to(model.device)
        logits_ATV = predicted(model, context_QC, owner_A.to(model.device), answers_AT)
        best, total_AT = logits_ATV.max(-1), logits_ATV.logsumexp(-1)
        nats_AT = (logits_ATV.gather(-1, answers_AT[..., None])[..., 0] - total_AT).cpu()
        confidence_AT, correct_AT = (best.values - total_AT).exp().cpu(), (best.indices == answers_AT).cpu()
        places = [place for question in batch for place in question.places]
        for row, (place, answer) in enumerate(zip(places, answers, strict=True)):
            length = len(answer)
            correct_T = correct_AT[row, :length]
            found[place] = Likelihood(
                float(nats_AT[row, :length].sum()), bool(correct_T.all()), confidence_AT[row, :length], correct_T
            )
    return [each for each in found if each is not None]


@torch.no_grad()
def predicted(model: PreTrainedModel, context_QC: Tensor, owner_A: Tensor, answers_AT: Tensor) -> Tensor:
    """float32 [A, T, V] logits of the answers' tokens, each behind its own context and what it has of itself."""
    cached = model(input_ids=context_QC, use_cache=True)
    memory = getattr(cached, "past_key_values", None)
    first_A1V = cached.logits[:, -1:][owner_A].float()
    if answers_AT.shape[1] == 1:
        return first_A1V
    if not hasattr(memory, "batch_select_indices"):  # a model that keeps no keys and values reads all of it again
        whole_AX = torch.cat([context_QC[owner_A], answers_AT[:, :-1]], 1)
        return model(input_ids=whole_AX, use_cache=False).logits[:, context_QC.shape[1] - 1 :].float()
    memory.batch_select_indices(owner_A)
    rest = model(input_ids=answers_AT[:, :-1], past_key_values=memory, use_cache=True).logits
    return torch.cat([first_A1V, rest.float()], 1)


def batches(encoded: Sequence[tuple[list[int], list[int]]], reach: int, room: int) -> Iterator[list[Question]]:
    """Questions whose contexts are equally long; `room` tokens of answers at once, or one question."""
    asked: dict[tuple[int, ...], Question] = {}
    for place, (context, answer) in enumerate(encoded):
        question = asked.setdefault(tuple(context), Question(context, [], []))
        question.answers.append(answer[:reach])
        question.places.append(place)
    by_length: dict[int, list[Question]] = defaultdict(list)
    for question in asked.values():
        most = reach + 1 - max(map(len, question.answers))  # at least 1
        context = question.context[-most:]
        by_length[len(context)].append(Question(context, question.answers, question.places))
    for length in sorted(by_length, reverse=True):
        batch: list[Question] = []
        width = count = 0
        for question in by_length[length]:
            wider = max(width, *map(len, question.answers))
            if batch and (count + len(question.answers)) * wider + len(batch) * length > room:
                yield batch
                batch, count, wider = [], 0, max(map(len, question.answers))
            batch.append(question)
            width, count = wider, count + len(question.answers)
        if batch:
            yield batch
