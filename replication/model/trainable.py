"""A checkpoint from elsewhere made ready to be trained: float32, a class for each token, no loss of its own."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from replication.model.decoder import precise_weights


def trainable(model: PreTrainedModel, vocabulary: int) -> PreTrainedModel:
    """The model, in place. ValueError, one line, for one that cannot be trained as a recipe says."""
    if getattr(model.config.get_text_config(decoder=True), "output_router_logits", False):
        raise ValueError(
            f"The student {model.name_or_path!r} asks for an auxiliary loss on its router, which no recipe has: set "
            "output_router_logits = false in its config.json."
        )
    return cut_to(precise_weights(model), vocabulary).train()


@torch.no_grad()
def cut_to(model: PreTrainedModel, vocabulary: int) -> PreTrainedModel:
    """In place: without the classes beyond the tokenizer's, which are no token.

    Families pad their vocabulary. No target has mass on such a class, so that no gradient would reach it in a loss over
    the tokens, and the checkpoint of a fresh student would go on emitting what nothing decodes: a fifth of the mass in
    a tokenizer of 200 padded to 256. Without them the loss is that of the whole published model. Logits of tokens stay
    what they were. A narrower model is left, to be refused where its logits are used.
    """
    text = model.config.get_text_config(decoder=True)
    wide = text.vocab_size
    if wide <= vocabulary:
        return model
    if (text.pad_token_id or 0) >= vocabulary:
        text.pad_token_id = None  # an embedding refuses one that it does not have
    try:
        looked_up_VD, head_VD = tables_of(model)
        # transformers reads two tables where they differ, whatever is stated, and would tie them now
        model.config.tie_word_embeddings = text.tie_word_embeddings = head_VD is looked_up_VD
        before = [table_VD[:vocabulary].clone() for table_VD in (looked_up_VD, head_VD)]
        model.resize_token_embeddings(vocabulary, mean_resizing=False)
        kept = all(map(torch.equal, before, tables_of(model)))
        kept = kept and shapes_of(model) == shapes_as_stated(model)  # else the published one would not load
    except Exception:  # of each family's own
        kept = False
    if not kept:
        raise ValueError(
            f"The model {model.name_or_path!r} has {wide} classes, the tokenizer {vocabulary} tokens, and "
            f"transformers cannot take the others from {type(model).__name__}: give one of vocab_size {vocabulary}."
        )
    return model


def tables_of(model: Any) -> tuple[Tensor, Tensor]:
    return model.get_input_embeddings().weight, model.get_output_embeddings().weight


def shapes_of(model: nn.Module) -> dict[str, torch.Size]:
    return {name: weight.shape for name, weight in model.named_parameters(remove_duplicate=False)}


def shapes_as_stated(model: PreTrainedModel) -> dict[str, torch.Size]:
    """Those of a model of its configuration."""
    with torch.device("meta"):
        return shapes_of(type(model)(copy.deepcopy(model.config)))
