"""Students that begin with their teacher's layers: which weights they take and which not, and what does not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pytest
import torch
from transformers import PreTrainedModel

from replication.execution.execute import execute
from replication.experiment.recipe import parse
from replication.experiment.run import Run
from replication.experiment.scale import Role, load_scale
from replication.machine.device import this_machine
from replication.model.decoder import build, fingerprint, load
from replication.model.initialise import at_even_distances, from_teacher_layers
from replication.planning.plan import Plan
from replication.records.record import record_of
from replication.training.run_data import data_for
from replication.training.weights import model_folder, starting_point, teacher_for
from tests.small import write_scale

CLASSES = 40
TAKEN = {"initial": "FromTeacherLayers", "student": "half of 3B"}


def role(**shape: Any) -> Role:
    sizes = {"family": "llama", "layers": 4, "width": 24, "ffn": 40, "heads": 4, "kv_heads": 2, **shape}
    return load_scale("smoke").role("3B").model_copy(update=sizes)


def model(seed: int, classes: int = CLASSES, **shape: Any) -> PreTrainedModel:
    return build(role(**shape), classes, 8, 0, seed)


def pair(**shape: Any) -> tuple[PreTrainedModel, PreTrainedModel, PreTrainedModel]:
    """A student of this shape before and after, and its teacher."""
    sizes = {"layers": 2, "width": 16, "ffn": 32, **shape}
    family = {"family": sizes.get("family", "llama")}
    teacher = model(1, **family)
    for weight in teacher.parameters():  # qwen2's offsets begin at zero
        torch.nn.init.normal_(weight, generator=torch.Generator().manual_seed(weight.numel()))
    return model(0, **sizes), from_teacher_layers(model(0, **sizes), teacher), teacher


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_attention_is_the_teacher_s_truncated_for_each_head(family: str) -> None:
    _, student, teacher = pair(family=family)
    for place, number in enumerate((0, 2)):
        mine = student.base_model.layers[place].self_attn.state_dict()
        its = teacher.base_model.layers[number].self_attn.state_dict()
        for name, weight in mine.items():
            heads = 2 if name[0] in "kv" else 4
            given = its[name].double().numpy()
            if name == "o_proj.weight":
                meant = oracle.cut_projection(given.T, heads, 4, 16).T
            elif name.endswith("weight"):
                meant = oracle.cut_projection(given, heads, 4, 16)
            else:
                meant = oracle.cut_projection(given[:, None], heads, 4, 1)[:, 0]
            np.testing.assert_array_equal(weight.double().numpy(), meant, err_msg=name)
    assert ("q_proj.bias" in mine) == (family == "qwen2")


def test_everything_else_is_as_random_as_before() -> None:
    before, student, _ = pair()
    for (name, one), other in zip(before.named_parameters(), student.parameters(), strict=True):
        assert torch.equal(one, other) == ("self_attn" not in name), name


def test_a_student_of_the_teacher_s_width_takes_its_embeddings_and_head() -> None:
    before, student, teacher = pair(width=24)
    for (name, one), (_, other), (_, fresh) in zip(
        ((n, p) for n, p in student.named_parameters() if "layers" not in n),
        ((n, p) for n, p in teacher.named_parameters() if "layers" not in n),
        ((n, p) for n, p in before.named_parameters() if "layers" not in n),
        strict=True,
    ):
        assert torch.equal(one, fresh if name == "model.norm.weight" else other), name


@pytest.mark.parametrize("tied", [False, True])
def test_frozen_embeddings_get_no_gradient_nor_does_a_head_that_is_they(tied: bool) -> None:
    teacher = model(1, tied=tied)
    for frozen in (False, True):
        student = from_teacher_layers(model(0, width=24, layers=2, tied=tied), teacher, frozen)
        still = [name for name, weight in student.named_parameters() if not weight.requires_grad]
        assert still == (["model.embed_tokens.weight"] if frozen else [])
        assert student.get_output_embeddings().weight.requires_grad == (not (frozen and tied))
    with pytest.raises(
        ValueError, match=r"fit in width \(16 of the student, 24 of the teacher\).* as wide and no deep"
    ):
        from_teacher_layers(model(0, width=16, layers=2), teacher, frozen=True)
    with pytest.raises(ValueError, match=r"Unknown embeddings of FromTeacherLayers 'forzen' \(did you mean 'frozen'\?"):
        parse({"initial": {"name": "FromTeacherLayers", "embeddings": "forzen"}})


def test_a_head_padded_beyond_the_tokenizer_is_cut_and_one_matrix_for_both_is_the_embeddings() -> None:
    teacher = model(1, classes=48)
    student = from_teacher_layers(model(0, width=24, tied=True), teacher)
    assert student.get_input_embeddings().weight is student.get_output_embeddings().weight
    assert torch.equal(student.get_input_embeddings().weight, teacher.get_input_embeddings().weight[:CLASSES])


@pytest.mark.parametrize(
    ("layers", "of", "which"),
    [
        (2, 4, [0, 2]),
        (18, 36, list(range(0, 36, 2))),
        (2, 5, [0, 2]),
        (3, 3, [0, 1, 2]),
        (14, 42, list(range(0, 42, 3))),
    ],
)
def test_layers_stand_at_even_distances(layers: int, of: int, which: list[int]) -> None:
    assert at_even_distances(layers, of) == which


@pytest.mark.parametrize(
    ("shape", "misfit"),
    [
        (
            {"width": 32, "heads": 2, "kv_heads": 2},
            r"heads \(2 of the student, 4 of the teacher\), .*, head width \(16 of .*\)",
        ),
        ({"layers": 5}, r"layers \(5 of the student, 4 of the teacher\)"),
        ({"width": 32}, r"width \(32 of the student, 24 of the teacher\), head width \(8 of .*, 6 of the teacher\)"),
        ({"width": 12, "heads": 2, "kv_heads": 2}, r"heads \(2 of the student, 4 of the teacher\)"),
        ({"kv_heads": 4}, r"key and value heads \(4 of the student, 2 of the teacher\)"),
        ({"family": "qwen2"}, r"family \(qwen2 of the student, llama of the teacher\)"),
        ({"classes": 41}, r"classes \(41 of the student, 40 of the teacher\)"),
    ],
)
def test_what_does_not_fit_is_named_in_one_line(shape: dict[str, Any], misfit: str) -> None:
    with pytest.raises(ValueError, match=rf"the teacher does not fit in {misfit}\. Give a student") as error:
        from_teacher_layers(model(0, **shape), model(1))
    assert "\n" not in str(error.value)


def test_it_needs_a_teacher() -> None:
    with pytest.raises(ValueError, match=r"Initial FromTeacherLayers needs a teacher, and teacher is 'none'\."):
        parse({**TAKEN, "teacher": "none", "target": "OneHot"})


def test_a_run_begins_with_its_teacher_and_its_record_names_what_it_began_with(tmp_path: Path) -> None:
    """With the term on hidden states, whose student is as wide as its teacher: TAD's students, trained for a moment."""
    machine = replace(this_machine(tmp_path / "results", tmp_path / "artifacts"), autocast=False)
    write_scale(tmp_path)
    scale = load_scale(str(tmp_path / "small.toml"))
    shallow = scale.role("3B").model_copy(update={"ffn": 32})
    scale = scale.model_copy(update={"roles": {**scale.roles, "half of 3B": shallow}})
    frozen = {"name": "FromTeacherLayers", "embeddings": "frozen"}
    stated = {**TAKEN, "initial": frozen, "hidden": "Cosine", "schedule": {"name": "Constant", "ce_weight": 1}}
    run, wanted = Run(parse(stated), scale, 0), Plan()
    wanted.add(run)
    for each in [*wanted.teachers.values(), run]:
        assert execute(each, machine).done
    begun = starting_point(run, data_for(run, machine.artifacts), machine)
    teacher, ended = teacher_for(run, machine), load(model_folder(run, machine))
    for student in (begun, ended):
        assert torch.equal(student.base_model.embed_tokens.weight, teacher.base_model.embed_tokens.weight)
    assert not torch.equal(begun.lm_head.weight, ended.lm_head.weight)
    text = (record_of(run, machine).folder / "config.json").read_text()
    assert f'"start": "{fingerprint(begun)}"' in text and f'"teacher": "{fingerprint(teacher)}"' in text
    assert "cosine" in run.id and "fromteacherlayers" in run.id
    elsewhere = replace(run, recipe=replace(run.recipe, student=str(tmp_path)))
    with pytest.raises(ValueError, match="both say where the student begins"):
        starting_point(elsewhere, data_for(run, machine.artifacts), machine)
