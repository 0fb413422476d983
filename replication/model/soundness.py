"""Whether a checkpoint is what it seems: each kind that would be read wrongly, in silence, is refused in one line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel
from transformers.utils import logging

from replication.data.text_files import first_line

# of other heads and of buffers that are computed: no logit of a causal LM depends on them
HARMLESS = re.compile(
    r"(^|\.)(inv_freq|masked_bias|position_ids|pooler\..*|seq_relationship\..*|v_head\..*|value_head\..*|score\..*"
    r"|attn\.bias|attention\.bias)$"
)
SHOWN = 3  # names in a message
# how far a prediction may move, of the largest logit, when a later token is another: rounding only
ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-5}
ROUNDING_OF_HALF = 2e-2


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Without its warnings."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def refuse_adapter(name: str) -> None:
    """ValueError for an adapter's weights (PEFT), and for a whole model beside which there is one."""
    if (Path(name) / "adapter_config.json").exists():
        raise ValueError(
            f"The model {name!r} is an adapter (PEFT, LoRA), or has one beside it that would be left out: merge it "
            "into its base by merge_and_unload(), and give the folder that save_pretrained then writes."
        )


def refuse_quantised(name: str, config: PretrainedConfig) -> None:
    """ValueError for weights that cannot be trained, and that are read by libraries which this suite does not have."""
    stated = getattr(config, "quantization_config", None)
    if stated:
        method = (stated if isinstance(stated, dict) else stated.to_dict()).get("quant_method", "unknown")
        raise ValueError(
            f"The model {name!r} is quantised (method {getattr(method, 'value', method)}): give the weights that it "
            "was made from, or what its dequantize() and save_pretrained() write."
        )


def refuse_incomplete(name: str, report: dict[str, Any]) -> None:
    """ValueError where weights are missing, of another shape, or left over; `report` is transformers' own."""
    if wrong := sorted(report["mismatched_keys"]):
        weight, found, wanted = wrong[0]
        raise ValueError(
            f"The model {name!r} does not fit its config.json: {weight} is {tuple(found)}, should be {tuple(wanted)}. "
            "Give the config.json that was saved with these weights."
        )
    missing = sorted(report["missing_keys"])
    left = sorted(weight for weight in report["unexpected_keys"] if not HARMLESS.search(weight))
    if missing:
        raise ValueError(
            f"The model {name!r} lacks {counted(missing)}, which would be random numbers. {why_missing(missing, left)}"
        )
    if left:
        raise ValueError(
            f"The model {name!r} has {counted(left)} for which its config.json has no place, so that they would be "
            "left out. Give the config.json that was saved with them; or, if nothing depends on them, what "
            "AutoModelForCausalLM.from_pretrained(...).save_pretrained() writes."
        )


def counted(names: list[str]) -> str:
    shown = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
    return f"{len(names)} weight{'s' if len(names) > 1 else ''} ({shown})"


def why_missing(missing: list[str], left: list[str]) -> str:
    """What probably happened, and what to do."""
    wrapped = next((weight for weight in left if weight.endswith(f".{missing[0]}")), None)
    if wrapped is not None:
        return (
            f"They are there, named {wrapped.removesuffix(missing[0])}...: a wrapper was saved (torch.compile's "
            "_orig_mod, DistributedDataParallel's module). Save the model inside, or take that word out of the names."
        )
    if all(re.search(r"\b(lm_head|head|embed_out|decoder|output)\.(weight|bias)$", weight) for weight in missing):
        return "It was saved without its output head, as AutoModel does: give what AutoModelForCausalLM has saved."
    return "A file or a layer is lost, or config.json is of another model: give the whole checkpoint."


@torch.no_grad()
def refuse_unfit(name: str, model: PreTrainedModel) -> None:
    """ValueError for a model that does not read plain text, or that predicts a token by looking at it."""
    try:
        classes = len(model.get_input_embeddings().weight)
        tokens_BL = torch.arange(4, device=model.device).repeat(2, 1) + classes // 2  # words, and no padding
        tokens_BL[1, -1] -= 4
        one_LV, other_LV = model.eval()(input_ids=tokens_BL).logits[:, :-1]
        moved, most = float((one_LV - other_LV).abs().max()), float(one_LV.abs().max())
    except Exception as error:  # of each family's own
        raise ValueError(
            f"The model {name!r} ({type(model).__name__}) does not read plain text: {first_line(error)}. Give a causal "
            "language model that needs input_ids only."
        ) from None
    if moved > ROUNDING.get(one_LV.dtype, ROUNDING_OF_HALF) * most:
        raise ValueError(
            f"The model {name!r} ({type(model).__name__}) sees the tokens that it should predict: another last token "
            f"changes logits before it by {moved:.2g}. Give a causal language model (of BERT's kin: is_decoder = true "
            "in its config.json, if it was trained so)."
        )
