"""Checkpoints that are not what they seem are refused in one line; its advice, followed, makes them right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaForCausalLM, PreTrainedModel

from replication.model.decoder import load, logits_of
from replication.model.trainable import cut_to, trainable
from tests.families import EXPERTS, LLAMA, TOKENS, Family

TOKENS_BL = torch.arange(8)[None]


def saved(folder: Path, kind: str = "llama", **settings: Any) -> PreTrainedModel:
    model = Family("any", kind, {**LLAMA, "num_hidden_layers": 2}).model(**settings)
    model.save_pretrained(folder)
    return model.eval()


def rewritten(folder: Path, change: Any) -> None:
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


def stated(folder: Path, **settings: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def refused(folder: Path, match: str) -> str:
    with pytest.raises(ValueError, match=match) as error:
        load(folder)
    assert "\n" not in str(error.value) and str(folder) in str(error.value)
    return str(error.value)


def without(word: str) -> Any:
    return lambda weights: {name: weight for name, weight in weights.items() if word not in name}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (without("lm_head"), r"lacks 1 weight \(lm_head\.weight\), which .* It was saved without its output head"),
        (without("layers.1."), r"lacks 9 weights \(model\.layers\.1\.input_layernorm.*A file or a layer is lost"),
        (without("q_proj"), r"lacks 2 weights .*A file or a layer is lost"),
    ],
)
def test_missing_weights_are_refused_and_never_random(change: Any, match: str, tmp_path: Path) -> None:
    saved(tmp_path)
    rewritten(tmp_path, change)
    refused(tmp_path, match)


def test_a_model_without_its_head_is_refused_unless_the_head_is_its_embeddings(tmp_path: Path) -> None:
    saved(tmp_path / "own").model.save_pretrained(tmp_path / "headless")
    stated(tmp_path / "headless", architectures=["LlamaForCausalLM"])
    refused(tmp_path / "headless", r"lacks 1 weight \(lm_head\.weight\).*saved without its output head")
    tied = saved(tmp_path / "tied", tie_word_embeddings=True)
    tied.model.save_pretrained(tmp_path / "of tied")
    assert torch.equal(load(tmp_path / "of tied")(TOKENS_BL).logits, tied(TOKENS_BL).logits)


@pytest.mark.parametrize("word", ["_orig_mod.", "module."])
def test_the_weights_of_a_wrapper_are_refused_until_the_model_inside_is_saved(word: str, tmp_path: Path) -> None:
    model = saved(tmp_path)
    rewritten(tmp_path, lambda weights: {word + name: weight for name, weight in weights.items()})
    refused(tmp_path, rf"They are there, named {word}\.\.\.: a wrapper was saved")
    rewritten(tmp_path, lambda weights: {name.removeprefix(word): weight for name, weight in weights.items()})
    assert torch.equal(load(tmp_path)(TOKENS_BL).logits, model(TOKENS_BL).logits)


@pytest.mark.parametrize(
    "settings", [{"num_hidden_layers": 1}, {"attention_bias": False}], ids=["a layer less", "no biases"]
)
def test_weights_that_would_be_left_out_are_refused(settings: dict[str, Any], tmp_path: Path) -> None:
    saved(tmp_path / "given", attention_bias=True)
    stated(tmp_path / "given", **settings)
    refused(tmp_path / "given", r"has \d+ weights \(model\.layers\..*for which its config\.json has no place")
    meant = AutoModelForCausalLM.from_pretrained(tmp_path / "given")
    meant.save_pretrained(tmp_path / "again")
    assert torch.equal(load(tmp_path / "again")(TOKENS_BL).logits, meant(TOKENS_BL).logits)


def test_another_heads_weights_and_computed_buffers_do_no_harm(tmp_path: Path) -> None:
    model = saved(tmp_path)
    more = {"v_head.summary.weight": torch.ones(1, 32), "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}
    rewritten(tmp_path, lambda weights: {**weights, **more})
    assert torch.equal(load(tmp_path)(TOKENS_BL).logits, model(TOKENS_BL).logits)


def test_a_configuration_of_another_shape_is_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    stated(tmp_path, intermediate_size=64)
    refused(tmp_path, r"does not fit its config\.json: model\.layers\.0\.mlp\.down_proj.* is .*48.* should be .*64")


def test_an_adapter_is_refused_alone_and_beside_its_base(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "base"}')
    refused(tmp_path, r"is an adapter .*merge it into its base by merge_and_unload\(\)")
    saved(tmp_path)
    refused(tmp_path, r"or has one beside it")
    (tmp_path / "adapter_config.json").unlink()
    load(tmp_path)


def test_quantised_weights_are_refused_by_their_method(tmp_path: Path) -> None:
    saved(tmp_path)
    stated(tmp_path, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    refused(tmp_path, r"is quantised \(method bitsandbytes\): give the weights that it was made from")


def test_a_model_that_needs_more_than_text_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(self: PreTrainedModel, input_ids: torch.Tensor, token_type_ids: torch.Tensor | None = None) -> None:
        raise ValueError("token_type_ids are required.\nSee the documentation.")

    saved(tmp_path)
    monkeypatch.setattr(LlamaForCausalLM, "forward", forward)
    refused(tmp_path, r"\(LlamaForCausalLM\) does not read plain text: token_type_ids are required\. Give a causal")


def test_half_precision_is_the_teachers_own_and_a_student_is_trained_in_float32(tmp_path: Path) -> None:
    saved(tmp_path).half().save_pretrained(tmp_path)
    plain, teacher = AutoModelForCausalLM.from_pretrained(tmp_path), load(tmp_path)
    assert plain.dtype == teacher.dtype == torch.float16
    assert torch.equal(logits_of(teacher, TOKENS_BL, TOKENS), plain(TOKENS_BL).logits[..., :TOKENS])
    student = trainable(load(tmp_path), TOKENS)
    student.save_pretrained(tmp_path / "student")
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "student")
    assert student.dtype == found.dtype == torch.float32
    torch.testing.assert_close(found(TOKENS_BL).logits, plain.float()(TOKENS_BL).logits[..., :TOKENS])


def test_a_tied_head_that_was_resized_is_read_as_it_is(tmp_path: Path) -> None:
    model = saved(tmp_path, tie_word_embeddings=True)
    model.resize_token_embeddings(128, mean_resizing=False)
    model.save_pretrained(tmp_path)
    found = trainable(load(tmp_path), TOKENS).eval()
    assert found.get_output_embeddings().weight is found.get_input_embeddings().weight
    torch.testing.assert_close(found(TOKENS_BL).logits, model(TOKENS_BL).logits[..., :TOKENS])


def test_a_head_that_only_claims_to_be_tied_is_not_lost_when_it_is_cut(tmp_path: Path) -> None:
    """transformers reads both tables where they differ, whatever config.json says, and would tie them when resizing."""
    model = saved(tmp_path)
    stated(tmp_path, tie_word_embeddings=True)
    torch.testing.assert_close(load(tmp_path)(TOKENS_BL).logits, model(TOKENS_BL).logits)
    found = trainable(load(tmp_path), TOKENS).eval()
    torch.testing.assert_close(found(TOKENS_BL).logits, model(TOKENS_BL).logits[..., :TOKENS])
    found.save_pretrained(tmp_path / "cut")
    torch.testing.assert_close(load(tmp_path / "cut")(TOKENS_BL).logits, found(TOKENS_BL).logits)


def test_a_router_that_asks_for_a_loss_of_its_own_is_refused_as_a_student(tmp_path: Path) -> None:
    saved(tmp_path, "mixtral", **EXPERTS, output_router_logits=True)
    load(tmp_path)  # as a teacher it only predicts
    with pytest.raises(ValueError, match=r"auxiliary loss on its router.*set output_router_logits = false"):
        trainable(load(tmp_path), TOKENS)
    stated(tmp_path, output_router_logits=False)
    trainable(load(tmp_path), TOKENS)


def test_a_student_has_a_class_for_each_token_and_no_other(tmp_path: Path) -> None:
    model = saved(tmp_path, pad_token_id=95)
    found = cut_to(load(tmp_path), TOKENS).eval()
    torch.testing.assert_close(found(TOKENS_BL).logits, model(TOKENS_BL).logits[..., :TOKENS])
    found.save_pretrained(tmp_path / "cut")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "cut")  # whose embedding has no 95
    assert again.config.vocab_size == TOKENS and again(TOKENS_BL).logits.shape[-1] == TOKENS
    assert cut_to(again, 200) is again and again.config.vocab_size == TOKENS  # a narrower one is refused elsewhere
