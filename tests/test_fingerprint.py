"""A teacher's fingerprint: whatever changes a logit changes it, with the same weights; what changes none does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from replication.model.decoder import fingerprint, load

SHAPE = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SHAPE |= {"num_key_value_heads": 2, "max_position_embeddings": 40, "head_dim": 8}
DECISIVE: list[tuple[str, dict[str, Any]]] = [
    ("granite", {"logits_scaling": 8.0}),
    ("granite", {"attention_multiplier": 0.3}),
    ("granite", {"residual_multiplier": 0.5}),
    ("cohere", {"logit_scale": 0.5}),
    ("llama", {"rms_norm_eps": 0.1}),
    ("llama", {"hidden_act": "gelu"}),
    ("llama", {"num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 4}),
    ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 7.0}}),
    ("mistral", {"sliding_window": 2}),
    ("gemma2", {"final_logit_softcapping": 0.5}),
    ("gemma2", {"attn_logit_softcapping": 0.01}),
    ("gemma2", {"query_pre_attn_scalar": 1}),
    ("gemma2", {"sliding_window": 2}),
    ("gpt_neox", {"use_parallel_residual": False}),
    ("gpt_neox", {"layer_norm_eps": 0.1}),
    ("roberta", {"pad_token_id": 3}),
]
HARMLESS: list[tuple[str, dict[str, Any]]] = [
    ("llama", {"bos_token_id": 3, "eos_token_id": 4, "pad_token_id": 5}),
    ("llama", {"use_cache": False, "architectures": ["LlamaModel"], "transformers_version": "4.0.0"}),
]


def both(family: str, changes: dict[str, Any], folder: Path) -> list[tuple[str, torch.Tensor]]:
    """(fingerprint, logits) of one set of weights under its own configuration and under another."""
    torch.manual_seed(0)
    settings = SHAPE | ({"is_decoder": True, "pad_token_id": 1} if family == "roberta" else {})
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **settings)).float()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.3 * torch.randn_like(weight))  # so that no bend of the curve is out of reach
    model.save_pretrained(folder)
    found = []
    path = folder / "config.json"
    for change in ({}, changes):
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
        loaded = load(folder).eval()
        with torch.no_grad():
            found.append((fingerprint(loaded), loaded(input_ids=torch.arange(6, 20)[None]).logits))
    return found


@pytest.mark.parametrize(("family", "changes"), DECISIVE)
def test_the_same_weights_under_another_configuration_are_another_teacher(
    family: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    (one, logits), (other, other_logits) = both(family, changes, tmp_path)
    assert (logits - other_logits).abs().max() > 1e-3  # else it tests nothing
    assert one != other


@pytest.mark.parametrize(("family", "changes"), HARMLESS)
def test_what_changes_no_logit_makes_no_other_teacher(family: str, changes: dict[str, Any], tmp_path: Path) -> None:
    (one, logits), (other, other_logits) = both(family, changes, tmp_path)
    assert torch.equal(logits, other_logits) and one == other
