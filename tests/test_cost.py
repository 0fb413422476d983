"""What things cost, counted, against real modules, a real cache and the papers' own numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPT2Config, LlamaConfig

from paper_tables import spec
from replication.axes.targets.base import DenseTarget
from replication.axes.targets.sampled import RandomSampling
from replication.cache.manifest import Header
from replication.cache.manifest import Target as TargetEntry
from replication.cache.writer import Writer
from replication.cost.flops import Cost, bytes_per_token
from replication.cost.shape import shape_of_checkpoint, shape_of_role
from replication.experiment.identity import plain
from replication.experiment.recipe import parse
from replication.experiment.run import Run
from replication.experiment.scale import FOLDER, Role, load_scale
from replication.machine.device import this_machine
from replication.model.checkpoint import publish
from replication.model.decoder import build, parameters
from replication.probes import throughput as probe
from replication.probes.stand_in import random_text
from replication.training.supervision import drawn
from replication.training.training import Training
from replication.training.weights import model_folder
from tests.cases import EXAMPLES
from tests.small import write_scale

PAPER = load_scale("paper")
OPTIMISER = PAPER.role("300M").optimiser
ROLES = {
    "llama": Role(layers=2, width=64, ffn=160, heads=4, kv_heads=4, length="1024", optimiser=OPTIMISER),
    "grouped": Role(layers=3, width=96, ffn=256, heads=4, kv_heads=1, length="1024", optimiser=OPTIMISER),
    "qwen2, tied": Role(
        family="qwen2", layers=2, width=64, ffn=128, heads=4, kv_heads=2, tied=True, length="1024", optimiser=OPTIMISER
    ),
}


def run(scale: str = "paper", seed: int = 0, **stated: Any) -> Run:
    return Run(parse({"target": "OneHot", **stated}), load_scale(scale), seed)


def cost(scale: str = "paper", **stated: Any) -> Cost:
    return Cost(run(scale, **stated))


def draws(number: int, **other: Any) -> dict[str, Any]:
    return {"target": {"name": "RandomSampling", "draws": number}, **other}


# Shapes


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.toml")), ids=lambda path: path.stem)
def test_parameters_are_those_of_the_models_that_would_be_built(path: Path) -> None:
    scale = load_scale(path.stem)
    for name, role in scale.roles.items():
        with torch.device("meta"):
            model = build(role, role.vocabulary or scale.classes, scale.length(role.length), 0, 0)
        assert shape_of_role(role, scale.classes).parameters == parameters(model), name


def counted(model: torch.nn.Module, tokens_BL: torch.Tensor, backward: bool) -> int:
    """By torch's own counter, with attention as plain products, which it counts exactly."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        logits_BLV = model(input_ids=tokens_BL).logits
        if backward:
            logits_BLV.float().logsumexp(-1).sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("role", ROLES.values(), ids=ROLES)
def test_flops_are_those_that_torch_counts(role: Role) -> None:
    model = build(role, 320, 48, 0, 0)
    tokens_BL = torch.randint(0, 320, (3, 48))
    shape = shape_of_role(role, 320)
    assert shape.forward(48) * tokens_BL.numel() == pytest.approx(counted(model, tokens_BL, False), rel=0.001)
    assert shape.training(48) * tokens_BL.numel() == pytest.approx(counted(model, tokens_BL, True), rel=0.01)


def test_a_checkpoint_is_sized_by_its_configuration_alone(tmp_path: Path) -> None:
    GPT2Config(n_layer=2, n_embd=64, n_head=4, vocab_size=320, n_positions=64).save_pretrained(tmp_path / "gpt2")
    LlamaConfig(
        vocab_size=320, hidden_size=96, intermediate_size=256, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=1, tie_word_embeddings=False,
    ).save_pretrained(tmp_path / "llama")  # fmt: skip
    assert shape_of_checkpoint(str(tmp_path / "llama")) == shape_of_role(ROLES["grouped"], 320)
    shape = shape_of_checkpoint(str(tmp_path / "gpt2"))
    assert shape.matrices == 2 * 12 * 64**2 + 320 * 64 and shape.head == 320 * 64
    with pytest.raises(ValueError, match="no/such-model.*Give a role of the scale"):
        shape_of_checkpoint("no/such-model")


@pytest.mark.parametrize("role", [ROLES["llama"], ROLES["grouped"]], ids=["llama", "grouped"])
def test_memory_of_activations_is_what_autograd_saves(role: Role) -> None:
    model = build(role, 320, 64, 0, 0).train()
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage  # held, so that its address is not given out again
        return tensor

    tokens_BL = torch.randint(0, 320, (8, 64))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16):
        hidden = model.model(input_ids=tokens_BL).last_hidden_state
    shape = shape_of_role(role, 320)
    copies = 2 * (shape.matrices - shape.head)  # bfloat16 weights, which `held_bytes` counts
    saved = sum(storage.nbytes() for storage in kept.values()) - copies
    assert hidden.requires_grad and shape.saved * tokens_BL.numel() == pytest.approx(saved, rel=0.15)


# Work


POSITIONS = [
    "AllPositions",
    {"name": "TopFraction", "keep": 0.25},
    {"name": "TopFraction", "keep": 1},
    {"name": "RandomFraction", "keep": 0.25},
]


@pytest.mark.parametrize("positions", POSITIONS, ids=str)
@pytest.mark.parametrize("target", ["OneHot", "Full"])
def test_a_real_step_has_the_flops_that_are_counted(tmp_path: Path, target: str, positions: Any) -> None:
    """Student, fused loss and teacher, forward and backward, under torch's counter."""
    scale = load_scale(str(write_scale(tmp_path)))
    given = Run(parse({"target": target, "positions": positions}), scale, 0)
    of, data = Cost(given), random_text(given, 4)
    machine = replace(this_machine(tmp_path, tmp_path), autocast=False)
    training = Training(probe.plain_run(given), data, None, machine)
    training = probe.beside(training, given, probe.supervision_of(given, data, tmp_path / "cache", machine))
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        training.advance()
    assert counter.get_total_flops() == pytest.approx(of.step.flops, rel=0.01)


@pytest.mark.parametrize("tied", [False, True])
def test_frozen_embeddings_spare_the_gradient_of_a_head_that_is_they(tmp_path: Path, tied: bool) -> None:
    scale = load_scale(str(write_scale(tmp_path)))
    shallow = scale.role("3B").model_copy(update={"tied": tied, "ffn": 32})
    scale = scale.model_copy(update={"roles": {"3B": scale.role("3B"), "half": shallow}})
    initial = {"name": "FromTeacherLayers", "embeddings": "frozen"}
    given = Run(parse({"student": "half", "target": "OneHot", "initial": initial}), scale, 0)
    machine = replace(this_machine(tmp_path, tmp_path), autocast=False)
    data = random_text(given, 4)
    teacher = build(scale.role("3B"), data.tokenizer.vocabulary, given.length, data.tokenizer.end_of_text, 0)
    publish(teacher, data.tokenizer, model_folder(given.teacher, machine))  # type: ignore[arg-type]
    training = Training(given, data, None, machine)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        training.advance()
    assert counter.get_total_flops() == pytest.approx(Cost(given).step.flops, rel=0.01)


@pytest.mark.parametrize("scale", ["smoke", "laptop", "h100", "paper"])
def test_matched_budgets_of_tad_s_table_4_are_matched(scale: str) -> None:
    """Of a student alone as many steps as cost what those beside the teacher do, to the step."""
    exhibit, known = spec.load("tad/table04"), load_scale(scale)
    for name in ("Phi-2", "Qwen2.5-3B", "Gemma-2-9B"):
        alone, beside = (
            Cost(Run(parse(exhibit.recipe_of(exhibit.row(f"{name}, {row}")) or {}), known, 0))
            for row in ("CLM (Mat.)", "TAD (K = 10)")
        )
        assert alone.run.steps == round(beside.training.flops / alone.own_step.flops)


def test_training_is_six_and_a_teacher_two_per_weight_and_token() -> None:
    plain, online = cost(), cost(target="Full")
    weights, attention = plain.student.matrices, 24 * 1024 * 1024
    assert plain.training.flops == plain.tokens * (6 * weights + 12 * attention)
    assert plain.tokens == 10_485_760_000
    beside = online.training.flops - plain.training.flops
    assert online.teacher is not None
    assert beside == plain.tokens * (2 * online.teacher.matrices + 4 * 28 * 3072 * 1024)
    assert cost(**draws(50)).training == plain.training  # a cache costs no FLOPs while training
    assert cost(**draws(50), delivery="online").training == online.training
    assert cost(**draws(50)).teacher_pass.flops == beside


def test_a_teacher_is_asked_only_where_the_schedule_wants_it() -> None:
    assert cost(target="Full").taught == 10_000 and cost().taught == 0
    assert cost(target="Full", schedule={"name": "TwoStage", "until": 0.25}).taught == 2500


def test_rs_kd_table_4_in_flops() -> None:
    """Where both models use the same share of the GPU, the count alone says how much faster plain training is."""
    printed = {row.label: row.published for row in spec.load("rskd/table04").rows}
    for column, stated, tolerance in (
        ("tokens_3b", {"student": "3B", "teacher": "8B"}, 0.03),
        (
            "tokens_300m",
            {"student": "300M", "teacher": "3B"},
            0.20,
        ),  # the small student uses less of it than its teacher
    ):
        of = cost(target="Full", **stated)
        ratio = of.training.flops / cost(**stated).training.flops
        assert ratio == pytest.approx(float(printed["CE"][column]), rel=tolerance), column  # type: ignore[arg-type]


# Stores


def test_the_law_of_classes_goes_through_the_point_that_is_printed() -> None:
    by_draws = [RandomSampling(number).budget(100_278) for number in (1, 5, 50, 430, 10_000)]
    assert by_draws[0].mean == 1 and by_draws[2].mean == pytest.approx(12)
    assert all(few.mean < many.mean for few, many in zip(by_draws, by_draws[1:], strict=False))
    assert {each.known for each in by_draws} == {"by law"}
    assert RandomSampling(10**6).budget(2048).mean == 2048


@pytest.mark.parametrize("name", EXAMPLES)
def test_no_target_keeps_more_than_is_said(name: str) -> None:
    target, classes = EXAMPLES[name], 400
    said = target.budget(classes)
    logits_BLV = torch.randn(2, 64, classes, generator=torch.Generator().manual_seed(0))
    found = drawn(target.stored or target, logits_BLV, torch.zeros(2, 64, dtype=torch.long), np.arange(2), 0)
    kept_N = (found.dense(classes) > 0).sum(1) if isinstance(found, DenseTarget) else (found.weights_NK > 0).sum(1)
    if said.known == "exactly":
        assert (kept_N == said.mean).all()
    elif said.known == "at most":
        assert kept_N.max() <= said.mean < classes, f"say in {name}.budget how many classes it keeps at most"
    assert target.budget(5).mean <= 5


def test_three_bytes_a_class_and_a_terabyte_is_ten_to_the_twelve() -> None:
    """RS-KD Section 5.5: 12 classes of 24 bits, 3.6 TB of 100B tokens."""
    assert bytes_per_token(RandomSampling(50), 12, 100_278) == 36
    store = cost(**draws(50, tokens="100B"))
    assert store.stored_bytes(12) / 1e12 == pytest.approx(3.6, rel=0.001)
    assert cost(target="Full", tokens="100B").stored_bytes(100_278) / 1e12 == pytest.approx(10_028, rel=0.001)
    fifth = cost(**draws(50, tokens="100B", samples={"name": "RandomSamples", "keep": 0.2}))
    assert fifth.stored_bytes(12) == pytest.approx(store.stored_bytes(12) / 5, rel=0.001)


def test_a_store_is_as_large_as_a_cache_that_is_written(tmp_path: Path) -> None:
    scale = load_scale("laptop")
    given = Run(parse(draws(20, tokens="65_536")), scale, 0)
    sequences, length = 512, given.length
    stored = plain(given.recipe.target)
    header = Header(
        teacher="t", tokenizer="t", packing="p", target=TargetEntry(name=stored.pop("name"), fields=stored), seed=0,
        vocabulary=scale.classes, length=length,
    )  # fmt: skip
    random = np.random.default_rng(0)
    weights_BLK = np.zeros((sequences, length, 20))
    for slots_K in weights_BLK.reshape(-1, 20):
        counts = np.unique(random.zipf(1.7, 20), return_counts=True)[1]
        slots_K[: len(counts)] = counts / 20
    ids_BLK = np.broadcast_to(np.arange(20), weights_BLK.shape)
    kept_BL = (weights_BLK > 0).sum(-1)
    with Writer(tmp_path / "cache", header, sequences) as writer:
        writer.put(0, ids_BLK, weights_BLK, kept_BL)
    written = sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*") if path.is_file())
    assert Cost(given).tokens == sequences * length
    assert Cost(given).stored_bytes(float(kept_BL.mean())) == pytest.approx(written, rel=0.01)


def test_what_a_text_cannot_give_is_not_stored_twice() -> None:
    assert cost("laptop", **draws(50, tokens="100_000_000")).stored_tokens == load_scale("laptop").corpus_tokens
    assert cost("smoke", **draws(50, samples="RandomSamples")).stored_tokens == cost("smoke").tokens  # length unknown
    assert cost("laptop", **draws(50, text="path:mine", tokens="100_000_000")).stored_tokens == 99_999_744
    other = cost("laptop", **draws(50, alignment={"name": "Different", "teacher_length": "4096"}))
    assert other.stored_tokens == 2 * cost("laptop", **draws(50)).tokens
    assert other.stored_bytes(12) == pytest.approx(2 * cost("laptop", **draws(50)).stored_bytes(12))


@pytest.mark.parametrize("more", [{"tokens": "100B"}, {"student": "3B"}, {"target": "Full"}])
def test_more_is_more(more: dict[str, Any]) -> None:
    few, many = cost(), cost(**more)
    assert many.training.flops > few.training.flops
    assert many.held_bytes >= few.held_bytes and many.sequence_bytes >= few.sequence_bytes
