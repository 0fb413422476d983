"""What a model writes: rows together as each alone, prompts, ends; the same after a kill, in any split of a batch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from replication.axes.writing import MiniLLM, OnPolicy
from replication.data.corpus import open_corpus
from replication.data.tokenizer import open_tokenizer
from replication.execution.execute import execute
from replication.experiment.recipe import parse
from replication.experiment.run import Run
from replication.experiment.scale import load_scale
from replication.machine.device import Machine
from replication.model.decoder import build, load, logits_of
from replication.planning.plan import Plan
from replication.records.record import record_of
from replication.training.authors import FromRollouts, FromStudent, FromTeacherTexts
from replication.training.prompts import Prompts, chances, prompts_of
from replication.training.run_data import data_for
from replication.training.teacher_texts import teacher_texts
from replication.training.training import Training
from replication.training.weights import model_folder, teacher_for
from replication.training.writing import Stop, Writers
from tests.rehearsal_stage import Stage, of_default

CLASSES, ROWS, WIDTH, END = 11, 6, 13, 0
NEVER = Stop(end_of_text=CLASSES)  # which is read, and never written: a class beyond the tokenizer's


def model(family: str = "300M", seed: int = 0) -> PreTrainedModel:
    """Sharp, so that what it writes depends on what it has read."""
    fresh = build(load_scale("smoke").role(family), CLASSES + 1, WIDTH, END, seed).double()
    with torch.no_grad():
        fresh.lm_head.weight.mul_(30)
    return fresh


def given(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    rows = torch.randint(CLASSES, (ROWS, WIDTH), generator=random)
    return rows, torch.tensor([1, 3, 4, 6, 8, 12]), torch.rand(ROWS, WIDTH, generator=random, dtype=torch.float64)


@pytest.mark.parametrize("family", ["300M", "Qwen/Qwen3-1.7B", "google/gemma-2-9b", "microsoft/phi-2"])
def test_rows_are_written_together_as_each_alone(family: str) -> None:
    writers = Writers([model(family)], CLASSES, Stop(END), temperature=0.7, top_p=0.9)
    rows, begin, chance = given()
    together = writers.write(rows, begin, chance)
    for row in range(ROWS):
        one = slice(row, row + 1)
        for part, whole in zip(writers.write(rows[one], begin[one], chance[one]), together, strict=True):
            assert torch.equal(part[0], whole[row])


def test_each_token_is_the_one_that_its_chance_falls_on() -> None:
    """Read whole and without a cache: the class whose stretch of the running sum holds the number."""
    student, (rows, begin, chance) = model(), given()
    tokens, wrote = Writers([student], CLASSES, NEVER).write(rows, begin, chance)
    probs = logits_of(student.eval(), tokens, CLASSES).softmax(-1).detach().numpy()
    for row in range(ROWS):
        for place in range(int(begin[row]), WIDTH):
            running = np.cumsum(probs[row, place - 1])
            assert int(tokens[row, place]) == int(np.searchsorted(running, float(chance[row, place]), side="right"))
    assert torch.equal(wrote, torch.arange(WIDTH) >= begin[:, None])
    assert torch.equal(tokens[~wrote], rows[~wrote])


def test_a_mixture_draws_from_the_mean_of_both() -> None:
    both, shares = [model(seed=0), model(seed=1)], (0.8, 0.2)
    rows, begin, chance = given()
    tokens, _ = Writers(both, CLASSES, NEVER, shares).write(rows, begin, chance)
    mixed = sum(s * logits_of(m.eval(), tokens, CLASSES).softmax(-1) for m, s in zip(both, shares, strict=True))
    assert isinstance(mixed, Tensor)
    running = mixed.detach().cumsum(-1)[0, :-1]
    wanted = torch.searchsorted(running, chance[0, 1:, None], right=True)[:, 0]
    assert torch.equal(tokens[0, 1:], wanted)


def test_a_model_that_never_stops_is_stopped_by_the_row_or_by_the_length() -> None:
    rows, begin, chance = given()
    _, wrote = Writers([model()], CLASSES, NEVER).write(rows, begin, chance)
    assert wrote[:, -1].all()
    tokens, wrote = Writers([model()], CLASSES, NEVER, most=2).write(rows, begin, chance)
    assert wrote.sum(1).tolist() == [2, 2, 2, 2, 2, 1]
    assert (tokens[0, 3:] == CLASSES).all()  # behind its end stand ends of text


def test_a_text_ends_with_its_end_which_is_written_still() -> None:
    rows, begin, chance = given()
    free, _ = Writers([model()], CLASSES, NEVER).write(rows, begin, chance)
    end = int(free[0, 4])
    tokens, wrote = Writers([model()], CLASSES, Stop(end)).write(rows, begin, chance)
    first = 1 + free[0, 1:].tolist().index(end)
    assert torch.equal(tokens[0, : first + 1], free[0, : first + 1]) and int(wrote[0].sum()) == first
    assert (tokens[0, first:] == end).all()


def test_the_model_keeps_its_mode_and_gets_no_gradient() -> None:
    student, (rows, begin, chance) = model().train(), given()
    tokens, _ = Writers([student], CLASSES, NEVER).write(rows, begin, chance)
    assert student.training and not tokens.requires_grad


def test_a_prompt_without_a_token_is_refused() -> None:
    rows, begin, chance = given()
    with pytest.raises(ValueError, match="each prompt needs one token at least"):
        Writers([model()], CLASSES, NEVER).write(rows, begin * 0, chance)


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Prompts]:
    corpus = open_corpus("sums:1600")
    tokenizer = open_tokenizer("bpe:320", corpus, tmp_path_factory.mktemp("sums"))
    return tokenizer, prompts_of(OnPolicy("questions"), tokenizer, torch.device("cpu"))


def prompt(found: Prompts, tokenizer: Any, text: str, chance: float) -> str:
    """What is shown of a text as a row."""
    row = torch.from_numpy(tokenizer.encode_batch([text])[0])[None]
    rows, begin = found.cut(row, torch.tensor([chance], dtype=torch.float64))
    return str(tokenizer.decode(rows[0, : int(begin[0])]))


def test_a_prompt_ends_behind_a_question_each_as_often(prompts: tuple[Any, Prompts]) -> None:
    tokenizer, found = prompts
    solved = "Q: 1 + 2 + {} = ?\n1 + 2 = 3\n3 + {} = 6\nA: 6\n\n"
    text = "".join(solved.format(n, n) for n in (3, 4, 5)) + "Q: 9 - 2"
    # the first question has too little before it, and each of the others is shown with a third of the row
    shown = [prompt(found, tokenizer, text, chance) for chance in (0.0, 0.49, 0.51, 0.99)]
    assert shown[0] == shown[1] != shown[2] == shown[3]
    for each, n in ((shown[0], 4), (shown[2], 5)):
        assert each.endswith(f"Q: 1 + 2 + {n} = ?\n") and text[: text.index(f"+ {n} = ?") + 8].endswith(each)
        assert len(tokenizer.encode_batch([each])[0]) == len(tokenizer.encode_batch([text])[0]) // 3
    # a row without a question, and one whose question is its end, are cut in the middle half
    for other in ("1 + 2 = 3\n3 + 3 = 6\nA: 6\n", "9 + 2 = 11\nA: 2\n\nQ: 1 + 2 + 3 = ?\n"):
        ids = tokenizer.encode_batch([other])[0]
        assert prompt(found, tokenizer, other, 0.0) == tokenizer.decode(ids[: len(ids) // 4])
        assert prompt(found, tokenizer, other, 0.999) == tokenizer.decode(ids[: 3 * len(ids) // 4])


def test_a_blank_line_ends_an_answer_and_no_other_text(prompts: tuple[Any, Prompts]) -> None:
    tokenizer, found = prompts
    ids = tokenizer.encode_batch(["A: 6\n\nQ"])[0].tolist()
    steps = [
        bool(found.stop.ended(torch.tensor([a]), torch.tensor([b]))[0]) for a, b in zip(ids, ids[1:], strict=False)
    ]
    assert sum(steps) == 1 and tokenizer.decode(ids[: steps.index(True) + 2]) == "A: 6\n\n"
    plain = prompts_of(OnPolicy(), tokenizer, torch.device("cpu")).stop
    assert not plain.ended(torch.tensor([ids[-3]]), torch.tensor([ids[-2]])).any()


@pytest.mark.parametrize("width", [2, 3, 5, 129])
def test_every_row_has_a_prompt_and_room_behind_it(prompts: tuple[Any, Prompts], width: int) -> None:
    found = prompts_of(MiniLLM(), prompts[0], torch.device("cpu"))
    _, begins = found.cut(torch.zeros(64, width, dtype=torch.long), torch.arange(64, dtype=torch.float64) / 64)
    assert 1 <= int(begins.min()) and int(begins.max()) <= width - 1


def test_each_visit_to_a_row_has_chances_of_its_own() -> None:
    rows, visits = np.array([3, 4, 3]), np.array([0, 0, 1])
    found = chances(0, rows, visits, 5, torch.device("cpu"))
    assert found.shape == (3, 6) and len({tuple(each) for each in found.tolist()}) == 3
    assert torch.equal(found[1:2], chances(0, rows[1:2], visits[1:2], 5, torch.device("cpu")))


def test_teacher_texts_are_written_once_and_a_kill_costs_one_file(tmp_path: Path) -> None:
    asked: list[int] = []

    def write(rows_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if len(asked) == 1 and rows_B[0] > 0 and not (tmp_path / "again").exists():
            raise KeyboardInterrupt
        asked.append(int(rows_B[0]))
        return np.repeat(rows_B[:, None], 4, 1), np.arange(4)[None].repeat(len(rows_B), 0) >= 2

    rows = np.array([5, 130, 140])
    with pytest.raises(KeyboardInterrupt):
        teacher_texts(tmp_path / "texts", rows, 200, write)
    (tmp_path / "again").touch()
    found = teacher_texts(tmp_path / "texts", rows, 200, write)
    assert asked == [0, 128]
    tokens, wrote = found.rows(np.array([140, 5]))
    assert tokens.tolist() == [[140] * 4, [5] * 4] and wrote.tolist() == [[False, False, True, True]] * 2
    assert teacher_texts(tmp_path / "texts", rows, 200, write) == found and len(asked) == 2
    assert teacher_texts(tmp_path / "texts", rows[:1], 200, write).fingerprint != found.fingerprint
    next((tmp_path / "texts").glob("*.npy")).write_bytes(b"")
    with pytest.raises(ValueError, match=r"is damaged\. Delete it; it is then written again\."):
        teacher_texts(tmp_path / "texts", rows, 200, write)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with of_default(torch.float64):
        yield Stage(tmp_path_factory.mktemp("writing") / "stage")


WRITTEN: dict[str, dict[str, Any]] = {
    "OnPolicy": {"writing": "OnPolicy", "divergence": "ReverseKL"},
    "SeqKD": {"writing": "SeqKD", "target": "OneHot"},
    "MiniLLM": {"writing": {"name": "MiniLLM", "batches": 2, "epochs": 2}},
}


def training(stage: Stage, name: str, machine: Machine) -> Training:
    run = stage.run(**WRITTEN[name])
    wanted = Plan()
    wanted.add(run)
    for teacher in wanted.teachers.values():
        execute(teacher, stage.machine)
    return Training(run, data_for(run, stage.machine.artifacts), teacher_for(run, stage.machine), machine)


@pytest.mark.parametrize("name", WRITTEN)
def test_a_killed_and_resumed_run_is_the_one_that_was_not(name: str, stage: Stage) -> None:
    """To the bit: steps, metrics, weights."""
    whole = training(stage, name, stage.machine)
    steps = [whole.advance()[:2] for _ in range(whole.run.steps)]
    run = whole.run
    stage.perform(**WRITTEN[name])  # killed at the 7th step, its checkpoint is of the 5th
    lines = (record_of(run, stage.machine).folder / "metrics.jsonl").read_text().splitlines()
    assert [(line["loss"], line["gradient_norm"]) for line in map(json.loads, lines)] == steps
    published = load(model_folder(run, stage.machine)).state_dict()
    assert all(torch.equal(published[name], weight) for name, weight in whole.model.state_dict().items())


@pytest.mark.parametrize("name", ["OnPolicy", "SeqKD"])
def test_no_split_of_a_batch_matters(name: str, stage: Stage) -> None:
    whole = training(stage, name, stage.machine).advance()
    parts = training(stage, name, Machine(**{**vars(stage.machine), "at_once": 1})).advance()
    assert parts[0] == pytest.approx(whole[0], rel=1e-9) and parts[1] == pytest.approx(whole[1], rel=1e-9)


def test_rollouts_want_the_whole_batch(stage: Stage) -> None:
    with pytest.raises(ValueError, match="MiniLLM compares all positions of a batch"):
        training(stage, "MiniLLM", Machine(**{**vars(stage.machine), "at_once": 1})).advance()


def test_only_what_was_written_is_trained_on(stage: Stage) -> None:
    for name, kind in (("OnPolicy", FromStudent), ("SeqKD", FromTeacherTexts)):
        made = training(stage, name, stage.machine)
        assert isinstance(made.supervision, kind)
        rows_B, visits_B, rows_BX = made.whole_step(0)
        batch = made.supervision(rows_B, visits_B, rows_BX[:, :-1], rows_BX[:, 1:])
        assert batch.mask_BL is not None and batch.mask_BL.any(1).all()
        before = (batch.labels_BL != rows_BX[:, 1:]) & ~batch.mask_BL
        assert not before[:, : rows_BX.shape[1] // 4 - 1].any()  # the prompt is the text's
        again = made.supervision(rows_B, visits_B + 1, rows_BX[:, :-1], rows_BX[:, 1:])
        assert torch.equal(again.labels_BL, batch.labels_BL) == (name == "SeqKD")


def test_a_turn_s_texts_are_those_of_the_student_that_began_it(stage: Stage) -> None:
    made = training(stage, "MiniLLM", stage.machine)
    source = made.supervision
    assert isinstance(source, FromRollouts)
    made.advance()
    first = {name: value.clone() for name, value in source.state.items()}
    for _ in range(3):
        made.advance()
        assert all(torch.equal(first[name], value) for name, value in source.state.items())
    made.advance()
    assert not torch.equal(first["tokens"], source.state["tokens"])


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        ({"writing": "OnPolicy", "teacher": "none", "target": "OneHot"}, "needs a teacher, and teacher is 'none'"),
        ({"writing": "OnPolicy", "target": "OneHot"}, "use another target, such as 'Full'"),
        ({"writing": "OnPolicy", "objective": "PrefixLM"}, "use objective 'NextToken', not 'PrefixLM'"),
        ({"writing": "SeqKD", "target": {"name": "TopK", "k": 3}, "delivery": "cache"}, "use delivery 'auto'"),
        ({"writing": "OnPolicy", "schedule": {"name": "Constant", "ce_weight": 1.0}}, "use a schedule of ce_weight 0"),
        ({"writing": "MiniLLM", "divergence": "ReverseKL"}, "MiniLLM is a loss of its own: leave target,"),
        ({"writing": {"name": "OnPolicy", "prompts": "end"}}, "Known: middle, questions"),
        ({"writing": {"name": "OnPolicy", "temperature": 0.0}}, "give a number above 0"),
        ({"writing": {"name": "SeqKD", "top_p": 0.0}}, r"in \(0, 1\]"),
        ({"writing": {"name": "MiniLLM", "epochs": 0}}, "give a whole number of at least 1"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(stated: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse(stated)


def test_a_student_in_parts_writes_nothing(stage: Stage) -> None:
    with pytest.raises(ValueError, match="run it with SHARDED=0"):
        training(stage, "OnPolicy", Machine(**{**vars(stage.machine), "sharded": True}))


def test_a_written_target_needs_no_cache() -> None:
    recipe = parse({"writing": "OnPolicy", "target": {"name": "TopK", "k": 3}})
    assert not recipe.cached and not Run(recipe, load_scale("smoke"), 0).recipe.reads_cache
