"""Shape: a decoder in numbers, and the FLOPs that follow from them.

FLOPs are those of matrix products, two for a multiply and an add: 2 per matrix weight and token, the head's included
and the embedding's not (it is looked up), and 4 x length x width of all heads per layer and token for attention, the
masked half included, as Megatron counts and so RS-KD's Table 4. Backward costs twice forward: 6 per weight and token.
Softmax, norms, optimiser and draws are no FLOPs here; `planning/machine_speed.py` gives them time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from replication.experiment.scale import Role, Scale


@dataclass(frozen=True)
class Shape:
    parameters: int
    matrices: int  # weights that every token is multiplied with, the head's included
    head: int  # of them
    layers: int
    width: int
    heads: int
    attention: int  # width of its scores' products: that of all heads together

    def forward(self, length: int) -> int:
        """FLOPs per token of a sequence of this length."""
        return 2 * self.matrices + 4 * self.layers * self.attention * length

    def training(self, length: int) -> int:
        return 3 * self.forward(length)

    @property
    def classes(self) -> int:
        return self.head // self.width

    @property
    def saved(self) -> float:
        """Bytes per token that forward leaves for backward under bfloat16 autocast, the head's aside; about.

        transformers' Llama keeps, in each layer, 34 bytes for each of its width and 8 for each of its feed-forward
        width: residual and norms in float32, and one cast for each product that reads them.
        """
        layer = (self.matrices - self.head) / self.layers
        ffn = (layer - 4 * self.width**2) / (3 * self.width)
        return self.layers * (34 * self.width + 8 * ffn)


def shape_of(name: str, scale: Scale, tokenizer: str) -> Shape:
    """A role of the scale over the classes of a tokenizer (`Run.tokenizer`), or any causal LM by its name or path."""
    if name not in scale.roles:
        return shape_of_checkpoint(name)
    return shape_of_role(scale.roles[name], scale.roles[name].vocabulary or classes_of(tokenizer, scale))


def classes_of(tokenizer: str, scale: Scale) -> int:
    if tokenizer == scale.tokenizer:
        return scale.classes
    ready = scale.roles.get(tokenizer)
    return (ready.vocabulary if ready else None) or shape_of_checkpoint(tokenizer).classes


def shape_of_role(role: Role, classes: int) -> Shape:
    """As `decoder.build` makes it, over `classes` unless the role states its own."""
    table = (role.vocabulary or classes) * role.width
    inner, shared = role.heads * role.of_head, role.kv_heads * role.of_head
    # Phi's feed-forward has no gate
    layer = 2 * role.width * (inner + shared) + (2 if role.family == "phi" else 3) * role.width * role.ffn
    return Shape(
        parameters=role.layers * (layer + vectors(role)) + table * (1 if role.tied else 2) + at_the_end(role, classes),
        matrices=role.layers * layer + table,
        head=table,
        layers=role.layers,
        width=role.width,
        heads=role.heads,
        attention=inner,
    )


def vectors(role: Role) -> int:
    """Weights of a layer that belong to no matrix: norms and biases."""
    products = (role.heads + 2 * role.kv_heads) * role.of_head  # of queries, keys and values
    match role.family:
        case "llama" | "phi3":
            return 2 * role.width
        case "qwen2":
            return 2 * role.width + products
        case "qwen3":
            return 2 * role.width + 2 * role.of_head
        case "gemma2":
            return 4 * role.width
        case "phi":  # one norm, with an offset, and a bias of every product
            return 2 * role.width + products + role.width + role.ffn + role.width


def at_the_end(role: Role, classes: int) -> int:
    """Weights of the last norm; of Phi also its offset, and a bias of the head."""
    return 2 * role.width + (role.vocabulary or classes) if role.family == "phi" else role.width


def shape_of_checkpoint(name: str) -> Shape:
    """From the configuration alone. ValueError, one line, where it cannot be had."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM  # takes seconds; a plan over roles needs none of it

    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(name, trust_remote_code=False))
        return shape_of_model(model)
    except Exception as error:  # as many kinds as there are families
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise ValueError(f"The size of the model {name!r} cannot be had: {reason} Give a role of the scale.") from None


def shape_of_model(model: Any) -> Shape:
    import torch

    text = model.config.get_text_config(decoder=True)
    head = model.get_output_embeddings().weight.numel()
    looked_up = {id(table.weight) for table in model.modules() if isinstance(table, torch.nn.Embedding)}
    inside = [weight for weight in model.base_model.parameters() if weight.dim() == 2 and id(weight) not in looked_up]
    text = model.config.get_text_config(decoder=True)
    heads = getattr(text, "num_attention_heads", 0)  # recurrent ones have none
    of_head = getattr(text, "head_dim", None) or (text.hidden_size // heads if heads else 0)
    return Shape(
        parameters=sum(weight.numel() for weight in model.parameters()),
        matrices=sum(weight.numel() for weight in inside) + head,
        head=head,
        layers=text.num_hidden_layers,
        width=text.hidden_size,
        heads=heads,
        attention=heads * of_head,
    )
