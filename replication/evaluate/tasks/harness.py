"""The harness's own Hugging Face model, for students that read less than a task's prompts or answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from replication.model.reach import reach_of

UNLIMITED = 2048  # tokens at once of a model that reads any number, as in the harness
LOGITS = {"cpu": 2**26, "cuda": 2**31}  # bytes of the logits of one batch


def reader(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, autocast: bool) -> Any:
    """A `lm_eval` model. Prompts lose their beginning where they are too long, as always in the harness, and `cut`
    says which did; answers that are too long by themselves, which the harness refuses, are read piece by piece; and no
    answer is written that would leave less than half of what the model reads to its prompt.
    """
    from lm_eval.models.huggingface import HFLM

    class Reader(HFLM):
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            self.cut: set[tuple[str, ...]] = set()

        def _loglikelihood_tokens(self, requests: Any, *args: Any, **kwargs: Any) -> Any:
            parts, owners = [], []
            for owner, (words, context, answer) in enumerate(requests):
                if len(context) + len(answer) > self.max_length + 1:
                    self.cut.add(words)
                for part in pieces(context, answer, self.max_length):
                    parts.append((words, *part))
                    owners.append(owner)
            found = [(0.0, True)] * len(requests)
            for owner, (nats, greedy) in zip(
                owners, super()._loglikelihood_tokens(parts, *args, **kwargs), strict=True
            ):
                found[owner] = (found[owner][0] + nats, found[owner][1] and greedy)
            return found

        def generate_until(self, requests: Any, *args: Any, **kwargs: Any) -> Any:
            for request in requests:
                prompt, settings = request.args
                wanted = settings.get("max_gen_toks", self.max_gen_toks)
                settings["max_gen_toks"] = min(wanted, self.max_length // 2)
                if len(self.tok_encode(prompt)) > self.max_length - settings["max_gen_toks"]:
                    self.cut.add((prompt,))
            return super().generate_until(requests, *args, **kwargs)

    reach = reach_of(model.config) or UNLIMITED
    classes = model.config.get_text_config(decoder=True).vocab_size
    return Reader(
        pretrained=model,
        tokenizer=tokenizer,
        max_length=reach,
        batch_size=max(1, min(64, LOGITS[model.device.type] // (4 * reach * classes))),
        mixed_precision_dtype=torch.bfloat16 if autocast else None,
        softmax_dtype=torch.float32,  # a bf16 softmax loses its tail
        logits_cache=False,  # which takes one text in two splits into prompt and answer for one request
    )


def pieces(context: list[int], answer: list[int], reach: int) -> Iterator[tuple[list[int], list[int]]]:
    """(what comes before, what is scored) of an answer, in one piece where it fits in `reach` tokens.

    Else each piece is half as long, so that at least half of what the model reads comes before a token.
    """
    if len(answer) <= reach:
        yield context, answer
        return
    step = max(1, reach // 2)
    for start in range(0, len(answer), step):
        yield context + answer[:start], answer[start : start + step]
