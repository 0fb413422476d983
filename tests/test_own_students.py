"""Students from elsewhere through a whole run: with dropout, with a padded vocabulary, with capped logits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, Gemma2Config, GPT2Config

from replication.experiment.recipe import parse
from replication.experiment.run import Run
from replication.experiment.scale import load_scale
from replication.machine.device import Machine, this_machine
from replication.training.loop import train
from replication.training.needs import Need
from replication.training.run_data import data_for
from replication.training.teacher_pass import build
from replication.training.weights import model_folder
from tests.small import write_scale

TOKENS, CLASSES = 320, 384
GEMMA = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1, "head_dim": 8,
    "num_key_value_heads": 1, "max_position_embeddings": 32, "tie_word_embeddings": False, "pad_token_id": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Machine]:
    """A scale, and three models with its tokenizer."""
    folder = tmp_path_factory.mktemp("own")
    machine = this_machine(folder / "results", folder / "artifacts").at("float32")
    write_scale(folder)
    tokenizer = data_for(run_of(folder, {"target": "OneHot"}), machine.artifacts).tokenizer
    assert tokenizer.vocabulary == TOKENS
    configurations = {
        "dropout": GPT2Config(vocab_size=TOKENS, n_embd=16, n_layer=1, n_head=1, n_positions=32, resid_pdrop=0.3),
        "teacher": Gemma2Config(vocab_size=CLASSES, final_logit_softcapping=5.0, initializer_range=0.3, **GEMMA),
        "student": Gemma2Config(vocab_size=CLASSES, final_logit_softcapping=5.0, **GEMMA),
    }
    for name, configuration in configurations.items():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(configuration)
        if name == "student":
            torch.nn.init.zeros_(model.lm_head.weight)
        model.save_pretrained(folder / name)
        tokenizer.save(folder / name)
    return folder, machine


def run_of(folder: Path, stated: dict[str, object]) -> Run:
    return Run(parse(stated), load_scale(str(folder / "small.toml")), 0)


def test_dropout_is_the_same_twice_and_after_a_stop(
    place: tuple[Path, Machine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the global generators hold. Stopped in its eighth step, it goes on from the sixth."""
    folder, machine = place
    run = run_of(folder, {"student": str(folder / "dropout"), "teacher": "none", "target": "OneHot"})
    step, taken = torch.optim.AdamW.step, []

    def stopping(self: torch.optim.AdamW) -> object:
        taken.append(step)
        if len(taken) == 8:
            raise KeyboardInterrupt
        return step(self)

    found = []
    for name in ("once", "again", "stopped"):
        torch.manual_seed(len(found))
        here = replace(machine, results=tmp_path / name)
        if name == "stopped":
            with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
                patch.setattr(torch.optim.AdamW, "step", stopping)
                train(run, here)
            torch.manual_seed(99)
        lines = (train(run, here).folder / "metrics.jsonl").read_text().splitlines()
        losses = [json.loads(line)["loss"] for line in lines]
        found.append((losses, (model_folder(run, machine) / "model.safetensors").read_bytes()))
    assert found[0] == found[1] == found[2] and len(found[0][0]) == 10


def test_a_padded_student_with_capped_logits_is_published_as_it_was_trained(place: tuple[Path, Machine]) -> None:
    folder, machine = place
    wanted = {"student": str(folder / "student"), "teacher": str(folder / "teacher"), "tokens": "1152"}
    run = run_of(folder, {**wanted, "target": {"name": "TopK", "k": 100}})
    build([Need(run)], machine)
    record = train(run, machine)
    summary = json.loads((record.folder / "summary.json").read_text())
    published = AutoModelForCausalLM.from_pretrained(model_folder(run, machine)).eval()
    assert published.config.vocab_size == TOKENS

    data = data_for(run, machine.artifacts)
    rows = torch.from_numpy(data.validation.rows(np.arange(8)))
    teacher = AutoModelForCausalLM.from_pretrained(folder / "teacher").eval()
    with torch.no_grad():
        logits_BLV = published(input_ids=rows[:, :-1]).logits
        taught_BLV = teacher(input_ids=rows[:, :-1]).logits[..., :TOKENS].softmax(-1)
    assert logits_BLV.shape[-1] == TOKENS and float(logits_BLV.abs().max()) < 5
    metrics = summary["metrics"]
    meant = cross_entropy(logits_BLV.flatten(0, 1), rows[:, 1:].flatten())
    assert metrics["lm_loss"] == pytest.approx(float(meant), abs=1e-5)
    overlap = torch.minimum(logits_BLV.softmax(-1), taught_BLV).sum(-1).mean()
    assert metrics["acceptance"] == pytest.approx(float(overlap), abs=1e-5)
    assert metrics["parameters"] == sum(weight.numel() for weight in published.parameters())
    losses = [json.loads(line)["loss"] for line in (record.folder / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0]
