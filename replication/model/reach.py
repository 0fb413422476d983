"""Reach: how many tokens a model reads at once, whatever its family calls that number."""

from __future__ import annotations

from transformers import PretrainedConfig

# as of transformers 5; most families map their own name to the first
NAMES = (
    *("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "seq_length"),
    *("model_max_length", "max_target_positions", "n_ctx"),
)
# recurrent, so that they read any length; what they state is the length of their training
RECURRENT = ("rwkv",)
# their table of positions begins with those of the padding token, so that fewer are left to read with
BEHIND_PADDING = (
    *("roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "camembert", "data2vec-text", "xmod"),
)


def reach_of(config: PretrainedConfig) -> int | None:
    """The most tokens of one text; None where nothing limits them (Mamba, BLOOM). If it also sees, of its text.

    Behind it a table of positions ends (GPT-2, OPT, MPT), or the model goes on where it was never trained (Llama).
    """
    text = config.get_text_config(decoder=True)
    if text.model_type in RECURRENT:
        return None
    stated = (getattr(text, name, None) for name in NAMES)
    most = next((number for number in stated if isinstance(number, int) and number > 0), None)  # XLNet says -1
    if most is not None and text.model_type in BEHIND_PADDING:
        most -= (text.pad_token_id or 0) + 1
    return most
