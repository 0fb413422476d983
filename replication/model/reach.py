"""Reach: how long a row a model can read."""

from __future__ import annotations

from transformers import PretrainedConfig

# as the families call it; a family without any of them reads on and on (recurrent ones, relative positions)
NAMES = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "n_ctx")


def reach_of(config: PretrainedConfig) -> int | None:
    """Tokens of the longest row that the model reads as it was made to; None where its configuration states no limit.

    Beyond it some families fail, and others go on silently at positions that they were never trained at.
    """
    text = config.get_text_config(decoder=True)
    stated = [getattr(text, name, None) for name in NAMES]
    return next((int(length) for length in stated if isinstance(length, int) and length > 0), None)
