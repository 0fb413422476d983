"""Model families that people bring, tiny and random: one line each. `test_families.py` goes through them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

CLASSES = 96  # of every model
TOKENS = 90  # of the tokenizer: six classes are padding

ENDS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
LLAMA = {
    "vocab_size": CLASSES, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "head_dim": 16,
    "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64, **ENDS,
}  # fmt: skip
GPT = {"vocab_size": CLASSES, "n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 64, **ENDS}
BERT = {**LLAMA, "is_decoder": True}
BART = {
    "vocab_size": CLASSES, "d_model": 32, "decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 48,
    "max_position_embeddings": 64, "is_decoder": True, "is_encoder_decoder": False, **ENDS,
}  # fmt: skip
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
GEMMA = {**LLAMA, "query_pre_attn_scalar": 16}
LATENT = {
    "num_key_value_heads": 2, "q_lora_rank": 16, "kv_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8,
    "v_head_dim": 8,
}  # fmt: skip
MAMBA = {"vocab_size": CLASSES, "hidden_size": 32, "state_size": 4, "num_hidden_layers": 1, **ENDS}


@dataclass(frozen=True)
class Family:
    """`head` is what the output head is found to be: plain, by a number, capped, other; or `refused` says why not."""

    name: str
    kind: str  # of its configuration
    settings: dict[str, Any]
    head: str = "plain"
    refused: str = ""

    def model(self, **more: Any) -> PreTrainedModel:
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(self.kind, **{**self.settings, **more}))


FAMILIES = [
    Family("Llama", "llama", LLAMA),
    Family("Llama, tied", "llama", {**LLAMA, "tie_word_embeddings": True}),
    Family("Llama, biases", "llama", {**LLAMA, "attention_bias": True, "mlp_bias": True}),
    Family("Mistral", "mistral", {**LLAMA, "sliding_window": 4}),
    Family("Mixtral", "mixtral", {**LLAMA, **EXPERTS}),
    Family("Qwen 2", "qwen2", LLAMA),
    Family("Qwen 2, tied", "qwen2", {**LLAMA, "tie_word_embeddings": True}),
    Family("Qwen 2 MoE", "qwen2_moe", {**LLAMA, **EXPERTS, "shared_expert_intermediate_size": 24}),
    Family("Qwen 3", "qwen3", LLAMA),
    Family("Qwen 3 MoE", "qwen3_moe", {**LLAMA, **EXPERTS}),
    Family("Gemma", "gemma", LLAMA),
    Family("Gemma 2, cap 30", "gemma2", {**GEMMA, "final_logit_softcapping": 30.0}, "capped"),
    Family("Gemma 2, cap 10", "gemma2", {**GEMMA, "final_logit_softcapping": 10.0}, "capped"),
    Family("Gemma 2, no cap", "gemma2", {**GEMMA, "final_logit_softcapping": None}),
    Family("Gemma 3", "gemma3_text", GEMMA),
    Family("Gemma 3, that also sees", "gemma3", {"text_config": GEMMA, "vision_config": {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1,
        "image_size": 28, "patch_size": 14}, "mm_tokens_per_image": 4}),
    Family("Granite, by 1/8", "granite", {**LLAMA, "logits_scaling": 8.0}, "by 0.125"),
    Family("Granite MoE, by 1/3", "granitemoe", {**LLAMA, **EXPERTS, "logits_scaling": 3.0}, "by 0.333333"),
    Family("Cohere", "cohere", {**LLAMA, "logit_scale": 0.0625}, "by 0.0625"),
    Family("Cohere 2", "cohere2", {**LLAMA, "logit_scale": 0.25}, "by 0.25"),
    Family("HyperCLOVA X", "hyperclovax", {**LLAMA, "logits_scaling": 0.5}, "by 0.5"),
    Family("Falcon H1", "falcon_h1", {**LLAMA, "lm_head_multiplier": 0.5, "mamba_d_ssm": 32, "mamba_n_heads": 2,
        "mamba_d_head": 16, "mamba_d_state": 4, "mamba_chunk_size": 8}, "by 0.5"),
    Family("MiniCPM 3", "minicpm3", {**LLAMA, "dim_model_base": 8, **LATENT}),
    Family("NanoChat", "nanochat", {**LLAMA, "final_logit_softcapping": 15.0}, "capped"),
    Family("RecurrentGemma", "recurrent_gemma", {**LLAMA, "num_hidden_layers": 3, "lru_width": 32,
        "attention_window_size": 8, "logits_soft_cap": 30.0}, "capped"),
    Family("GPT-2", "gpt2", GPT),
    Family("GPT-BigCode", "gpt_bigcode", GPT),
    Family("GPT-Neo", "gpt_neo", {"vocab_size": CLASSES, "hidden_size": 32, "num_layers": 1, "num_heads": 2,
        "attention_types": [[["global"], 1]], "max_position_embeddings": 64, **ENDS}),
    Family("GPT-NeoX (Pythia)", "gpt_neox", LLAMA),
    Family("GPT-J, biased head", "gptj", {**GPT, "rotary_dim": 8}),
    Family("GPT-OSS", "gpt_oss", {**LLAMA, **EXPERTS}),
    Family("CodeGen, biased head", "codegen", {**GPT, "n_head": 4, "rotary_dim": 4}),
    Family("OpenAI GPT", "openai-gpt", GPT),
    Family("CTRL", "ctrl", {**GPT, "dff": 48}),
    Family("OPT", "opt", {**LLAMA, "ffn_dim": 48, "word_embed_proj_dim": 32}),
    Family("OPT, states projected", "opt", {**LLAMA, "ffn_dim": 48, "word_embed_proj_dim": 16}),
    Family("Phi, biased head", "phi", LLAMA),
    Family("Phi 3", "phi3", LLAMA),
    Family("BLOOM", "bloom", {"vocab_size": CLASSES, "hidden_size": 32, "n_layer": 1, "n_head": 2, **ENDS}),
    Family("MPT", "mpt", {"vocab_size": CLASSES, "d_model": 32, "n_layers": 1, "n_heads": 2, "max_seq_len": 64}),
    Family("Falcon", "falcon", {"vocab_size": CLASSES, "hidden_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 2, "new_decoder_architecture": False, **ENDS}),
    Family("StableLM", "stablelm", LLAMA),
    Family("StarCoder 2", "starcoder2", LLAMA),
    Family("OLMo 2", "olmo2", LLAMA),
    Family("OLMoE", "olmoe", {**LLAMA, **EXPERTS}),
    Family("DeepSeek 3", "deepseek_v3", {**LLAMA, **LATENT, "n_routed_experts": 4, "n_group": 1, "topk_group": 1,
        "num_experts_per_tok": 2, "first_k_dense_replace": 0, "moe_intermediate_size": 24, "head_dim": 8}),
    Family("GLM", "glm", LLAMA),
    Family("SmolLM 3", "smollm3", LLAMA),
    Family("Helium", "helium", LLAMA),
    Family("Mamba", "mamba", MAMBA),
    Family("Mamba 2", "mamba2", {**MAMBA, "num_heads": 4, "head_dim": 16, "n_groups": 1, "chunk_size": 8}),
    Family("RWKV", "rwkv", {"vocab_size": CLASSES, "hidden_size": 32, "num_hidden_layers": 2, **ENDS}),
    Family("BERT, a decoder", "bert", BERT),
    Family("RoBERTa, a decoder", "roberta", BERT),
    Family("ModernBERT, a decoder", "modernbert-decoder", {**LLAMA, "local_attention": 8, "cls_token_id": 0,
        "sep_token_id": 0}),
    Family("BART's decoder", "bart", BART),
    Family("BioGPT", "biogpt", LLAMA),
    Family("XGLM", "xglm", {**LLAMA, "d_model": 32, "ffn_dim": 48, "num_layers": 1, "attention_heads": 2}),
    Family("BERT, no decoder", "bert", LLAMA, refused="sees the tokens that it should predict"),
    Family("XLNet", "xlnet", {"vocab_size": CLASSES, "d_model": 32, "n_layer": 1, "n_head": 2, "d_inner": 48, **ENDS},
        refused="sees the tokens that it should predict"),
    Family("Jamba", "jamba", {**LLAMA, **EXPERTS, "num_hidden_layers": 2, "attn_layer_period": 2,
        "attn_layer_offset": 1, "mamba_d_state": 4, "mamba_expand": 1, "use_mamba_kernels": False}),
    Family("Zamba 2", "zamba2", {**LLAMA, "num_hidden_layers": 2, "mamba_d_state": 4, "mamba_ngroups": 1,
        "n_mamba_heads": 2, "chunk_size": 8, "layers_block_type": ["mamba", "hybrid"], "hybrid_layer_ids": [1]}),
    Family("Gemma 3n", "gemma3n_text", {**GEMMA, "num_hidden_layers": 2, "layer_types": ["full_attention"] * 2,
        "num_kv_shared_layers": 0, "laurel_rank": 4, "vocab_size_per_layer_input": CLASSES,
        "hidden_size_per_layer_input": 4, "activation_sparsity_pattern": [0.0, 0.0]}, "capped"),
    Family("Whisper's decoder", "whisper", {"vocab_size": CLASSES, "d_model": 32, "decoder_layers": 1,
        "decoder_attention_heads": 2, "decoder_ffn_dim": 48, "max_target_positions": 64, **ENDS}),
    Family("ProphetNet, several streams", "prophetnet", {"vocab_size": CLASSES, "hidden_size": 32, "is_decoder": True,
        "num_decoder_layers": 1, "num_decoder_attention_heads": 2, "decoder_ffn_dim": 48, "max_position_embeddings": 64,
        **ENDS}, "other"),
    Family("XLM", "xlm", {"vocab_size": CLASSES, "emb_dim": 32, "n_layers": 1, "n_heads": 2, "pad_index": 0},
        refused="sees the tokens that it should predict"),
    Family("CPM-Ant", "cpmant", {"vocab_size": CLASSES, "hidden_size": 32, "num_attention_heads": 2, "dim_head": 16,
        "dim_ff": 48, "num_hidden_layers": 1}, refused="sees the tokens that it should predict"),
    Family("Marian's decoder", "marian", BART, refused="transformers cannot take the others from MarianForCausalLM"),
]  # fmt: skip
