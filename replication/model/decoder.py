"""Models by role: transformers' own classes, built, saved, loaded, and brought to one output width."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Gemma2Config,
    LlamaConfig,
    Phi3Config,
    PhiConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from replication.data.text_files import first_line
from replication.experiment.scale import Role
from replication.machine.hub import located
from replication.model.soundness import (
    quiet_transformers,
    refuse_adapter,
    refuse_incomplete,
    refuse_quantised,
    refuse_unfit,
)

CONFIGURATIONS = {
    "llama": LlamaConfig,
    "qwen2": Qwen2Config,
    "qwen3": Qwen3Config,
    "gemma2": Gemma2Config,
    "phi": PhiConfig,
    "phi3": Phi3Config,
}
# settings that change no logit: where the model came from, what is kept beside the logits, which tokens end a text
UNDECISIVE = (
    *("_name_or_path", "architectures", "transformers_version", "dtype", "torch_dtype", "use_cache", "return_dict"),
    *("output_attentions", "output_hidden_states", "bos_token_id", "eos_token_id", "pad_token_id", "model_type"),
)


def build(role: Role, vocabulary: int, length: int, end_of_text: int, seed: int) -> PreTrainedModel:
    """A freshly initialised model of this shape; equal seeds give equal weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # transformers initialises from the global generator only
        return AutoModelForCausalLM.from_config(configured(role, vocabulary, length, end_of_text))


def configured(role: Role, vocabulary: int, length: int, end_of_text: int) -> PretrainedConfig:
    return CONFIGURATIONS[role.family](
        vocab_size=vocabulary,
        hidden_size=role.width,
        intermediate_size=role.ffn,
        num_hidden_layers=role.layers,
        num_attention_heads=role.heads,
        num_key_value_heads=role.kv_heads,
        max_position_embeddings=length,
        tie_word_embeddings=role.tied,
        bos_token_id=end_of_text,
        eos_token_id=end_of_text,
        pad_token_id=None,  # Gemma and Phi-3 name one, whose embedding would stay zero
        use_cache=False,
        **of_family(role),
    )


def of_family(role: Role) -> dict[str, Any]:
    """What a family's shape has beside the common one."""
    settings: dict[str, Any] = {}
    if role.head_width is not None or role.family in ("qwen3", "gemma2"):  # these two do not share the width out
        settings["head_dim"] = role.of_head
    if role.family == "gemma2":
        settings["query_pre_attn_scalar"] = role.of_head  # as Gemma-2-9B has it
    if role.family == "phi":
        settings["partial_rotary_factor"] = 0.4  # Phi-2's; its family's default is that of Phi-1
    return settings


def load(name_or_path: str | Path) -> PreTrainedModel:
    """A Hugging Face causal LM by name or path. ValueError, one line, if it cannot be had, or is not what it seems.

    Nothing else loads weights: transformers fills in random ones, in silence, where a checkpoint lacks some.
    """
    name = str(name_or_path)
    place = located(name)
    refuse_adapter(place)
    config = had(name, lambda: AutoConfig.from_pretrained(place, trust_remote_code=False))
    refuse_quantised(name, config)
    with quiet_transformers():  # whose report is told below, in one line
        model, report = had(
            name,
            lambda: AutoModelForCausalLM.from_pretrained(
                place,
                config=config,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                trust_remote_code=False,
            ),
        )
    refuse_incomplete(name, report)
    refuse_unfit(name, model)
    return model


def had(name: str, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except Exception as error:  # transformers and the hub raise many kinds; each is the user's to repair
        raise ValueError(
            f"Cannot load the model {name!r}: {first_line(error)}. Give a role of the scale, a folder written by "
            "save_pretrained, or a Hugging Face name that this machine can reach."
        ) from None


def precise_weights(model: PreTrainedModel) -> PreTrainedModel:
    """In place: float32, whatever the file holds, or float64 where it holds that."""
    return model if model.dtype == torch.float64 else model.float()


def fingerprint(model: PreTrainedModel) -> str:
    """16 hex digits over every weight and every setting that is not its family's default.

    Settings that no logit depends on do not count, so that another version of transformers changes nothing.
    """
    stated = model.config.to_diff_dict()
    decisive = {key: value for key, value in stated.items() if key not in UNDECISIVE}
    if any(hasattr(module, "create_position_ids_from_input_ids") for module in model.modules()):
        decisive["pad_token_id"] = model.config.pad_token_id  # RoBERTa and its kin count positions from it
    return digest_of({"model_type": model.config.model_type, **decisive}, model)


def first_fingerprint(model: PreTrainedModel) -> str:
    """What caches written before the second kind call their teacher: every weight, but few of the settings."""
    stated = model.config.to_dict()
    keys = ("model_type", "vocab_size", "num_hidden_layers", "rope_parameters")
    return digest_of({key: stated.get(key) for key in keys}, model)


def digest_of(settings: dict[str, Any], model: PreTrainedModel) -> str:
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def layers_of(model: PreTrainedModel) -> nn.ModuleList:
    """The stack of equal layers: what is compiled and what is sharded. ValueError for a model without one."""
    layers = getattr(model.base_model, "layers", None)
    if not isinstance(layers, nn.ModuleList):
        raise ValueError(
            f"{type(model).__name__} keeps its layers elsewhere than in .layers: run it with COMPILE=0 and SHARDED=0."
        )
    return layers


def compile_layers(model: PreTrainedModel) -> None:
    """In place; equal layers are compiled once."""
    for layer in layers_of(model):
        layer.compile()


def parameters(model: PreTrainedModel) -> int:
    return sum(weight.numel() for weight in model.parameters())


def logits_of(model: PreTrainedModel, tokens_BL: Tensor, vocabulary: int) -> Tensor:
    """[B, L, V] logits over exactly the tokenizer's classes, in the precision of the surrounding autocast."""
    found = model(input_ids=tokens_BL, use_cache=False)
    return to_width(found.logits, vocabulary, model.name_or_path or type(model).__name__)


def logits_and_states_of(model: PreTrainedModel, tokens_BL: Tensor, vocabulary: int) -> tuple[Tensor, list[Tensor]]:
    """Of one pass, for models whose logits are more than head times states: `logits_of` and `states_of`."""
    found = model(input_ids=tokens_BL, output_hidden_states=True, use_cache=False)
    name = model.name_or_path or type(model).__name__
    return to_width(found.logits, vocabulary, name), list(found.hidden_states[1:])


def to_width(logits_BLV: Tensor, vocabulary: int, whose: str) -> Tensor:
    """Logits over the tokenizer's classes.

    One family often pads its output to different widths (151,936 and 152,064 over one tokenizer). Classes beyond the
    tokenizer are no token and are dropped; a model that lacks tokens is refused. Nothing is ever padded with zeros,
    which would be probability mass.
    """
    width = logits_BLV.shape[-1]
    if width < vocabulary:
        raise ValueError(
            f"{whose} has {width} output classes, but the tokenizer has {vocabulary} tokens: it cannot predict "
            f"{vocabulary - width} of them. Use the tokenizer this model was trained with."
        )
    return logits_BLV[..., :vocabulary]
