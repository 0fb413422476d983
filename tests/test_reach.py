"""How many tokens a model reads: every family's own name for it, and those that have none."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import CONFIG_MAPPING, AutoConfig

from replication.model.reach import reach_of

STATED: list[tuple[str, dict[str, Any], int | None]] = [
    ("llama", {"max_position_embeddings": 40}, 40),
    ("gpt2", {"n_positions": 40}, 40),
    ("openai-gpt", {"n_positions": 40}, 40),
    ("mpt", {"max_seq_len": 40}, 40),
    ("dbrx", {"max_seq_len": 40}, 40),
    ("opt", {"max_position_embeddings": 40}, 40),
    ("whisper", {"max_target_positions": 40}, 40),
    ("gemma3", {"text_config": {"max_position_embeddings": 40}}, 40),
    ("gemma3_text", {"max_position_embeddings": 40, "sliding_window": 8}, 40),
    ("roberta", {"max_position_embeddings": 40, "pad_token_id": 1}, 38),
    ("bloom", {}, None),
    ("mamba", {}, None),
    ("falcon_mamba", {}, None),
    ("rwkv", {"context_length": 40}, None),
    ("recurrent_gemma", {}, None),
    ("xlnet", {}, None),
]


@pytest.mark.parametrize(("family", "settings", "reach"), STATED, ids=[family for family, *_ in STATED])
def test_each_family_says_how_much_it_reads(family: str, settings: dict[str, Any], reach: int | None) -> None:
    assert family in CONFIG_MAPPING
    assert reach_of(AutoConfig.for_model(family, **settings)) == reach
