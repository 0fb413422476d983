"""A student's first weights that are no random ones: its teacher's, cut to its shape (`experiment/lineage.py`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from replication.model.decoder import layers_of


@torch.no_grad()
def from_teacher_layers(student: PreTrainedModel, teacher: PreTrainedModel, frozen: bool = False) -> PreTrainedModel:
    """The student, in place, with its teacher's attention in as many layers as it has (`lineage.FromTeacherLayers`).

    `frozen` embeddings get no gradient. ValueError, one line, naming what of the teacher does not fit.
    """
    refuse_misfit(student.config, teacher.config, frozen)
    mine, theirs = layers_of(student), layers_of(teacher)
    for layer, number in zip(mine, at_even_distances(len(mine), len(theirs)), strict=True):
        given = theirs[number].get_submodule("self_attn").state_dict()
        for name, weight in layer.get_submodule("self_attn").named_parameters():
            weight.copy_(cut(name, given[name], student.config, teacher.config))
    if student.config.hidden_size == teacher.config.hidden_size:
        # the input last: where the student has one matrix for both, it is its embeddings that are meant
        pairs = [(each.get_output_embeddings(), each.get_input_embeddings()) for each in (student, teacher)]
        for to, of in zip(*pairs, strict=True):
            classes = len(to.weight)  # the tokenizer's: a teacher's head may be padded beyond them
            to.weight.copy_(of.weight[:classes])
            if getattr(to, "bias", None) is not None:
                to.bias.copy_(of.bias[:classes])
    student.get_input_embeddings().weight.requires_grad_(not frozen)
    return student


def refuse_misfit(student: PretrainedConfig, teacher: PretrainedConfig, frozen: bool = False) -> None:
    mine, its = shape_of(student), shape_of(teacher)
    same = ["family", "heads", "key and value heads"]  # heads are neither split nor joined; of the rest a part is taken
    if frozen:
        same.append("width")  # a part of the embeddings, frozen, would be none
    wrong = [
        f"{what} ({mine[what]} of the student, {its[what]} of the teacher)"
        for what in mine
        if (mine[what] != its[what] if what in same or its[what] is None else mine[what] > its[what])
    ]
    if wrong:
        raise ValueError(
            f"Initial FromTeacherLayers: the teacher does not fit in {', '.join(wrong)}. Give a student of its family "
            f"and heads, {'as wide' if frozen else 'no wider'} and no deeper, or leave initial out."
        )


def shape_of(config: PretrainedConfig) -> dict[str, Any]:
    """What the two must fit in; None of what the family does not state."""
    names = {
        "family": "model_type", "heads": "num_attention_heads", "key and value heads": "num_key_value_heads",
        "layers": "num_hidden_layers", "width": "hidden_size", "classes": "vocab_size",
    }  # fmt: skip
    return {what: getattr(config, name, None) for what, name in names.items()} | {"head width": head_width(config)}


def at_even_distances(layers: int, of: int) -> list[int]:
    """Which of so many layers the student's are; every other one of twice as many."""
    return [place * of // layers for place in range(layers)]


def ends_of_parts(layers: int, of: int) -> list[int]:
    """Which of so many layers stand for the student's where states are compared: the last of as many equal parts."""
    return [(place + 1) * of // layers - 1 for place in range(layers)]


def cut(name: str, given: Tensor, student: PretrainedConfig, teacher: PretrainedConfig) -> Tensor:
    """An attention weight of the teacher in the student's shape: of each head, the first inputs and first outputs."""
    heads, shared = teacher.num_attention_heads, teacher.num_key_value_heads
    width, of_head = student.hidden_size, head_width(student)
    if "norm" in name:  # of each query and key of a head (Qwen3)
        return given[:of_head]
    if name in ("o_proj.weight", "dense.weight"):  # [D, heads * head width]; the others begin with the heads
        return given.unflatten(1, (heads, -1))[:width, :, :of_head].flatten(1)
    if name in ("o_proj.bias", "dense.bias"):
        return given[:width]
    heads = {"k_": shared, "v_": shared, "qk": heads + 2 * shared}.get(name[:2], heads)  # Phi-3 keeps all three in one
    by_head = given.unflatten(0, (heads, -1))[:, :of_head]
    return (by_head[..., :width] if given.ndim == 2 else by_head).flatten(0, 1)


def head_width(config: PretrainedConfig) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
