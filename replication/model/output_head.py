"""The output head of any family: what it is given, and what becomes of its products.

Found by looking, not by names: the head is exchanged for a moment. What a stand-in is given are the hidden states,
whatever the family does to them first; what the model makes of a stand-in's products are the steps behind the head.
So the verdict depends on no weight, and is the same before the first step and after the last.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from replication.fused.head import PLAIN, Head, Scaling
from replication.model.decoder import logits_of

LOOK = (8, 2)  # sequences and tokens: fewer than any model reads


@contextmanager
def exchanged_head(model: PreTrainedModel, stand_in: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """While it lasts, the model calls `stand_in` where it would multiply states with its head."""
    head = model.get_output_embeddings()
    head.forward = stand_in  # of the object; its class keeps its own
    try:
        yield
    finally:
        del head.forward


def hidden_of(model: PreTrainedModel, tokens_BL: Tensor) -> Tensor:
    """[B, L, D] states that the output head is given; for models that have a `scaling_of`."""
    given: list[Tensor] = []

    def stand_in(states_BLD: Tensor) -> Tensor:
        given.append(states_BLD)
        return states_BLD.new_zeros(*states_BLD.shape[:-1], 1)

    with exchanged_head(model, stand_in):
        model(input_ids=tokens_BL, use_cache=False)
    return given[0]


def states_of(model: PreTrainedModel, tokens_BL: Tensor) -> list[Tensor]:
    """[B, L, D] states behind each layer, the last ones behind the final norm; for models that have a `scaling_of`."""

    def stand_in(states_BLD: Tensor) -> Tensor:
        return states_BLD.new_zeros(*states_BLD.shape[:-1], 1)

    with exchanged_head(model, stand_in):
        found = model(input_ids=tokens_BL, output_hidden_states=True, use_cache=False)
    return list(found.hidden_states[1:])


def head_of(model: PreTrainedModel, vocabulary: int, scaling: Scaling = PLAIN) -> Head:
    """The output head over exactly the tokenizer's classes; `scaling` is what `scaling_of` has found."""
    linear = model.get_output_embeddings()
    bias_V = getattr(linear, "bias", None)
    if len(linear.weight) == vocabulary:
        return Head(linear.weight, bias_V, scaling)
    return Head(linear.weight[:vocabulary], None if bias_V is None else bias_V[:vocabulary], scaling)


@torch.no_grad()
def scaling_of(model: PreTrainedModel, vocabulary: int) -> Scaling | None:
    """What the model does to the products of states and head, of which its logits are made, whatever its weights.

    None where that is something else: a mask, a learned step, several heads. Such models are used from their logits.
    ValueError for a model with fewer classes than the tokenizer.
    """
    head = model.get_output_embeddings()
    if type(head) is not nn.Linear:  # one that is adapted, quantised or parametrised is of a class of its own
        return None
    products_BLV, given = products_like(head.weight), []

    def stand_in(states_BLD: Tensor) -> Tensor:
        given.append(states_BLD.shape)
        torch.set_grad_enabled(True)  # from here on, so that what learns behind the head leaves its trace
        return products_BLV.clone()  # some change them in place

    tokens_BL = torch.arange(math.prod(LOOK), device=head.weight.device).view(LOOK) % vocabulary
    was_training = model.training
    model.eval()
    try:
        with exchanged_head(model, stand_in), torch.autocast(head.weight.device.type, enabled=False):
            logits_BLV = logits_of(model, tokens_BL, vocabulary)
    finally:
        model.train(was_training)
    if given != [(*LOOK, head.weight.shape[1])] or logits_BLV.requires_grad:
        return None
    return explained(products_BLV[..., :vocabulary], logits_BLV)


def products_like(weight_VD: Tensor) -> Tensor:
    """[B, L, V] of every size: the first so small that no cap bends them, the last so large that they reach any."""
    random = torch.Generator().manual_seed(0)
    sizes_N = torch.logspace(-12, 14, math.prod(LOOK), base=2.0)
    products_NV = sizes_N[:, None] * torch.randn(len(sizes_N), len(weight_VD), generator=random)
    products_NV[0], products_NV[-1] = 2.0**-20, 2.0**40
    precision = torch.float64 if weight_VD.dtype == torch.float64 else torch.float32
    return products_NV.view(*LOOK, -1).to(weight_VD.device, precision)


def explained(products_BLV: Tensor, logits_BLV: Tensor) -> Scaling | None:
    """The scaling by which these products become these logits; None where none does."""
    if logits_BLV.shape != products_BLV.shape:
        return None
    by, top = float(logits_BLV[0, 0, 0] / products_BLV[0, 0, 0]), float(logits_BLV[-1, -1, 0])
    by = 1.0 if abs(by - 1) < 1e-6 else by  # what is left of dividing by a cap and multiplying with it
    capped = not math.isclose(top, by * float(products_BLV[-1, -1, 0]), rel_tol=1e-5)
    found = Scaling(by, top if capped else None)
    return found if torch.allclose(found.apply_(products_BLV.clone()), logits_BLV, rtol=1e-5, atol=0.0) else None
