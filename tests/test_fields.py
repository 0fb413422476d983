"""The gradient fields against the oracle's equations, where they end, and their records against the exhibit's rows."""

from __future__ import annotations

import itertools
import json
import shutil
from typing import Any

import numpy as np
import pytest
import torch
from oracle import (
    expected_over_counts,
    forward_reverse_kl,
    ghost,
    ghost_gradient,
    kl,
    kl_gradient,
    l1,
    mse,
    naive_fix,
    numerical_gradient,
    reverse_kl,
    sampled,
    smoothed_top_k,
    softmax,
    tad,
    tad_gradient,
    tail_growth,
    top_k,
)

from analysis import figures
from analysis.load import frame, records
from analysis.matching import by_cell
from analysis.plots.phase import in_words, lattice
from paper_tables import spec
from replication.axes.divergences import (
    L1,
    MSE,
    Divergence,
    ForwardKL,
    ForwardReverseKL,
    GhostToken,
    ReverseKL,
    TailAware,
)
from replication.axes.targets.base import Target
from replication.axes.targets.kept import Full, NaiveFix, OneHot, SmoothedTopK, TopK, TopP
from replication.axes.targets.sampled import RandomSampling
from replication.seeds import generator
from toy import __main__ as command
from toy import descent, fields
from toy.fields import Setting
from toy.outcomes import outcomes
from toy.study import stated_run

EXHIBIT = "ours/figure03"
FIVE = "0.4 0.25 0.2 0.1 0.05"
P3, P5 = np.array([0.6, 0.3, 0.1]), np.array([0.4, 0.25, 0.2, 0.1, 0.05])
ROUNDING = 2e-7  # of a float32 target


def mean_gradient(setting: Setting, logits_MV: np.ndarray) -> np.ndarray:
    given = outcomes(setting.target, setting.logits_V, setting.teacher_V)
    by_outcome_MOV = fields.gradients(torch.tensor(logits_MV), given, setting.divergence)
    return torch.einsum("o,mov->mv", given.chances_O, by_outcome_MOV).numpy()


def some_students(classes: int) -> np.ndarray:
    return np.random.default_rng(classes).normal(0, 2, (6, classes))


def of(loss: Any, target: np.ndarray, *more: Any) -> Any:
    return lambda student: numerical_gradient(lambda x: loss(target, x, *more), student)


ORACLE: list[tuple[Target, Divergence, Any]] = [
    (Full(), ForwardKL(), lambda p: lambda x: softmax(x) - p),
    (TopK(2), ForwardKL(), lambda p: of(kl, top_k(p, 2))),
    (SmoothedTopK(1), ForwardKL(), lambda p: of(kl, smoothed_top_k(p, 1))),
    (TopK(1), GhostToken(), lambda p: of(ghost, top_k(p, 1))),
    (TopK(2), GhostToken(), lambda p: lambda x: ghost_gradient(top_k(p, 2), x)),
    (Full(), TailAware(1, 2.0), lambda p: of(tad, p, 1, 2 / (1 - p[0]))),
    (Full(), TailAware(2, 5.0), lambda p: lambda x: tad_gradient(p, x, 2, 5 / (1 - p[0] - p[1]))),
    (Full(), ReverseKL(), lambda p: of(reverse_kl, p)),
    (Full(), ForwardReverseKL(0.3), lambda p: of(forward_reverse_kl, p, 0.3)),
    (Full(), L1(), lambda p: of(l1, p)),
    (Full(), MSE(), lambda p: of(mse, p)),
    (TopK(2), MSE(), lambda p: of(mse, top_k(p, 2))),
    (OneHot(), ForwardKL(), lambda p: lambda x: softmax(x) - p),
    (
        NaiveFix(1),
        ForwardKL(),
        lambda p: lambda x: sum(p[y] * kl_gradient(naive_fix(p, 1, y), x) for y in range(len(p))),
    ),
    (
        RandomSampling(3),
        ForwardKL(),
        lambda p: lambda x: expected_over_counts(p, 3, lambda c: kl_gradient(sampled(p, c, 1.0, True), x)),
    ),
]


@pytest.mark.parametrize(("target", "divergence", "wanted"), ORACLE, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("teacher", ("0.6 0.3 0.1", FIVE))
def test_the_field_is_the_papers(target: Target, divergence: Divergence, wanted: Any, teacher: str) -> None:
    probs = np.array([float(word) for word in teacher.split()])
    students = some_students(len(probs))
    found = mean_gradient(Setting(target, divergence, teacher), students)
    largest = max(1.0, float(np.abs(found).max()))
    assert np.allclose(found, [wanted(probs)(x) for x in students], atol=ROUNDING * largest, rtol=0)


@pytest.mark.parametrize(("target", "divergence"), [row[:2] for row in ORACLE], ids=lambda value: type(value).__name__)
def test_closed_forms_agree_with_automatic_differentiation(target: Target, divergence: Divergence) -> None:
    metrics, _ = fields.run(Setting(target, divergence, steps=2), 0)
    assert metrics["closed_form_error"] < 1e-12


def test_a_wrong_closed_form_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fields.GRADIENTS, ForwardKL, lambda p, w, _: p - w)  # Eq. 1 where Eq. 2 is due
    assert fields.run(Setting(Full(), steps=2), 0)[0]["closed_form_error"] < 1e-12
    assert fields.run(Setting(TopK(1), steps=2), 0)[0]["closed_form_error"] > 0.1


@pytest.mark.parametrize(("draws", "teacher"), ((1, FIVE), (4, "0.6 0.3 0.1"), (4, FIVE), (3, "zipf 12")))
def test_enumerated_draws_are_those_that_are_made(draws: int, teacher: str) -> None:
    target, setting = RandomSampling(draws), Setting(RandomSampling(draws), teacher=teacher)
    given, classes = outcomes(target, setting.logits_V, setting.teacher_V), len(setting.logits_V)
    assert float(given.chances_O.sum()) == pytest.approx(1, abs=1e-6)
    assert torch.allclose(given.mean(classes), setting.teacher_V, atol=1e-12 if classes == 3 else 1e-7)
    rounds = 4000
    made = target(setting.logits_V.expand(rounds, -1), torch.zeros(rounds, dtype=torch.long), generator(0, "test"))
    known = {tuple(np.round(row, 6)): i for i, row in enumerate(given.dense(classes).tolist())}
    counts = np.zeros(len(known))
    for row in made.dense(classes).tolist():
        counts[known[tuple(np.round(row, 6))]] += 1
    chances = given.chances_O.numpy()
    assert np.all(np.abs(counts - rounds * chances) < 5 * np.sqrt(rounds * chances) + 3)


@pytest.mark.parametrize("target", (RandomSampling(4), OneHot()))
def test_random_targets_have_the_gradient_of_full_distillation(target: Target) -> None:
    metrics, _ = fields.run(Setting(target, steps=600), 0)
    draws = target.draws if isinstance(target, RandomSampling) else 1
    assert metrics["gradient_bias"] < 1e-10 and metrics["head_bias"] < 1e-10
    assert metrics["gradient_noise"] == pytest.approx(np.sqrt((1 - (P3**2).sum()) / draws), abs=1e-6)
    assert metrics["distance"] < 1e-6 and metrics["rest_gradient"] < 1e-10


ENDS: list[tuple[Target, Divergence, float, float]] = [  # distance to the teacher, scale of the most probable class
    (Full(), ForwardKL(), 0.0, 1.0),
    (SmoothedTopK(1), ForwardKL(), 1 / 3, 1.1 / 0.9),
    (NaiveFix(1), ForwardKL(), 2 * 0.6 * 0.4, 1.4),
    (Full(), TailAware(1, 5.0), 0.0, 1.0),
    (Full(), ReverseKL(), 0.0, 1.0),
    (Full(), ForwardReverseKL(), 0.0, 1.0),
]


@pytest.mark.parametrize(("target", "divergence", "distance", "scale"), ENDS, ids=lambda value: type(value).__name__)
def test_descent_ends_where_the_gradient_is_zero(
    target: Target, divergence: Divergence, distance: float, scale: float
) -> None:
    metrics, curves = fields.run(Setting(target, divergence, steps=1800, starts=4), 0)
    assert metrics["distance"] == pytest.approx(distance, abs=1e-6)
    assert metrics["upscaling"] == pytest.approx(scale, abs=1e-6)
    assert max(metrics[name] for name in ("spread", "rest_distance", "residual")) < 1e-6
    assert metrics["rest_gradient"] < 1e-7
    assert ("time_to_teacher" in metrics) == (distance == 0)
    assert np.allclose(curves["ends"]["end"], curves["ends"]["rest"], atol=1e-6)


@pytest.mark.parametrize("k", (1, 2))
def test_top_k_scales_up_and_its_tail_dies_as_one_over_the_time(k: int) -> None:
    """Eq. 2 near its optimum: each of the m classes outside K has p left, and the K others t_j / a - m p / K.

    There dx = -a p outside and a m p / K within, so d log p = -a p (1 + m / K): 1 / p grows with the time.
    """
    setting = Setting(TopK(k), steps=1600, step=0.5, starts=2)
    metrics, curves = fields.run(setting, 0)
    kept, rest = P3[:k].sum(), 3 - k
    time = sum(descent.size(setting.step, setting.steps, taken) for taken in range(setting.steps))
    left = rest / (kept * (1 + rest / k) * time)
    assert metrics["rest_distance"] == pytest.approx(2 * left, rel=0.1)
    assert metrics["upscaling"] == pytest.approx(1 / kept - left / k / P3[0], abs=left / 10)
    assert metrics["rest_gradient"] < 1e-12
    assert np.allclose(curves["ends"]["rest"], [*(P3[:k] / kept), *[0.0] * rest], atol=ROUNDING)
    assert "time_to_teacher" not in metrics


def test_a_ghost_token_leaves_the_tail_free() -> None:
    metrics, _ = fields.run(Setting(TopK(2), GhostToken(), FIVE, head=2, step=1.0, steps=1200), 0)
    assert metrics["head_bias"] < ROUNDING and metrics["upscaling"] == pytest.approx(1, abs=1e-6)
    assert metrics["rest_distance"] < 1e-6 and metrics["residual"] < 1e-6 and metrics["spread"] > 0.05
    # any sharing of the tail is a point of rest
    for tail in ((0.3, 0.04, 0.01), (0.001, 0.001, 0.348)):
        student = np.log([[0.4, 0.25, *tail]])
        assert np.abs(mean_gradient(Setting(TopK(2), GhostToken(), FIVE), student)).max() < ROUNDING


@pytest.mark.parametrize("beta", (0.4, 2.0, 5.0))
def test_the_tail_under_a_heavy_head_is_the_oracles(beta: float) -> None:
    metrics, curves = fields.run(Setting(Full(), TailAware(1, beta), steps=2), 0)
    states = [
        np.array([p1, p2, 1 - p1 - p2]) for p1, p2 in zip(curves["field"]["p1"], curves["field"]["p2"], strict=True)
    ]
    heavy = [np.log(p) for p in states if p[0] > 0.6]
    scale = beta / 0.4
    own = [np.linalg.norm(tad_gradient(P3, x, 1, scale)[1:]) for x in heavy]
    fulls = [np.linalg.norm(softmax(x)[1:] - P3[1:]) for x in heavy]
    assert metrics["tail_push"] == pytest.approx(np.mean(own) / np.mean(fulls), rel=1e-3)
    stronger = np.mean([a >= b * (1 - 1e-4) for a, b in zip(own, fulls, strict=True)])
    assert metrics["tail_stronger"] == pytest.approx(stronger)
    assert metrics["tail_rises"] == pytest.approx(np.mean([tail_growth(P3, x, 1, scale) > 0 for x in heavy]))
    if beta == 0.4:  # beta(X) = 1
        assert metrics["gradient_bias"] < ROUNDING


def test_velocities_are_how_the_probabilities_move() -> None:
    metrics, curves = fields.run(Setting(Full(), steps=2), 0)
    field = {name: np.array(values) for name, values in curves["field"].items()}
    tiny = 1e-6
    for place in range(0, len(field["p1"]), 17):
        probs = np.array([field["p1"][place], field["p2"][place], 1 - field["p1"][place] - field["p2"][place]])
        moved = softmax(np.log(probs) - tiny * (probs - P3))
        assert np.allclose((moved - probs)[:2] / tiny, [field["v1"][place], field["v2"][place]], atol=1e-4)
    assert len(field["p1"]) == (fields.GRID + 1) * (fields.GRID + 2) // 2


def test_a_teacher_so_sure_that_no_head_is_heavier_leaves_nothing_to_say_of_one() -> None:
    metrics, _ = fields.run(Setting(Full(), teacher="0.999 0.0006 0.0004", steps=2), 0)
    assert not {"tail_push", "tail_stronger", "tail_rises"} & set(metrics) and "gradient_bias" in metrics


def test_steps_die_out_over_the_last_quarter() -> None:
    setting = Setting(Full(), steps=1000, step=0.5)
    assert {descent.size(setting.step, setting.steps, taken) for taken in range(750)} == {0.5}
    assert descent.size(0.5, 1000, 1000) == pytest.approx(0.5e-6)
    assert descent.size(0.5, 1000, 875) == pytest.approx(0.5e-3)


def test_l1_needs_the_steps_to_die_out() -> None:
    metrics, _ = fields.run(Setting(Full(), L1(), step=0.2, steps=1500, starts=2), 3)
    assert metrics["distance"] < 1e-5 and metrics["residual"] > 0.01


@pytest.mark.parametrize(
    "setting", (Setting(RandomSampling(2), steps=30), Setting(TopK(2), GhostToken(), FIVE, steps=30))
)
def test_a_seed_says_it_all(setting: Setting) -> None:
    assert fields.run(setting, 1) == fields.run(setting, 1)
    assert fields.run(setting, 1) != fields.run(setting, 2)


def test_only_a_random_target_leaves_a_sampled_path() -> None:
    for target, drawn in ((Full(), False), (TopK(1), False), (NaiveFix(1), True), (RandomSampling(3), True)):
        _, curves = fields.run(Setting(target, steps=2), 0)
        assert ("sampled" in curves) == drawn
    _, curves = fields.run(Setting(Full(), teacher=FIVE, steps=2), 0)
    assert set(curves) == {"ends"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"teacher": "0.3 0.6 0.1"}, "give falling probabilities"),
        ({"teacher": "0.6 0.3"}, "give falling probabilities"),
        ({"teacher": "zipf one"}, "give falling probabilities"),
        ({"teacher": "zipf 1"}, "give falling probabilities"),
        ({"teacher": "1.0"}, "give falling probabilities"),
        ({"teacher": "1.0 0.0"}, "give falling probabilities"),
        ({"teacher": ""}, "give falling probabilities"),
        ({"teacher": 3}, "Setting.teacher is 3"),
        ({"head": 3}, "no class left for a tail"),
        ({"head": 0}, "head is 0"),
        ({"steps": 0}, "steps is 0"),
        ({"step": -1}, "step is -1.0"),
        ({"starts": 0}, "starts is 0"),
        ({"steps": 2, "target": {"name": "RandomSampling", "draws": 4, "exponent": 0.5}}, "at exponent 1 only"),
        ({"teacher": "zipf 100", "target": {"name": "RandomSampling", "draws": 4}}, "outcomes; give at most"),
        ({"target": {"name": "TopK", "k": 4}}, "the teacher has 3 classes"),
        ({"target": "OneHot", "divergence": "ReverseKL"}, "compares all classes"),
        ({"divergence": "KL"}, "Unknown divergence"),
        ({"divergence": {"name": "TailAware", "k": 3}}, "no tail is left"),
    ],
)
def test_bad_settings_are_refused_in_a_line(words: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        stated_run({"toy": "fields", "target": "Full", **words}, "laptop", 0).execute()
    assert "\n" not in str(refused.value)


def test_another_random_target_is_refused() -> None:
    class Dice(TopP):
        def __call__(self, teacher_logits_NV: Any, labels_N: Any, generator: Any) -> Any:
            return RandomSampling(2)(teacher_logits_NV, labels_N, generator)

    with pytest.raises(ValueError, match="only RandomSampling"):
        fields.run(Setting(Dice(0.9, 2)), 0)


# the exhibit


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The exhibit with few steps and starts, run for two seeds through the command line."""
    folder = tmp_path_factory.mktemp("fields")
    shutil.copytree(spec.ROOT, folder / "tables", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    path = folder / "tables" / f"{EXHIBIT}.toml"
    text = path.read_text()
    path.write_text(text.replace("steps = 3000", "steps = 20").replace("starts = 24", "starts = 2"))
    assert path.read_text() != text
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spec, "ROOT", folder / "tables")
        patch.setattr("replication.records.provenance.commit", lambda: "")  # git takes longer than a run
        for module, name, size in ((fields, "GRID", 7), (fields, "STATES", 20), (descent, "SAMPLED", 5)):
            patch.setattr(module, name, size)
        assert command.main([EXHIBIT, "--scale", "smoke", "--seeds", "0,1", "--results", str(folder / "results")]) == 0
        yield spec.load(EXHIBIT), folder / "results" / "smoke"


def test_records_fill_the_exhibit(small: Any) -> None:
    exhibit, folder = small
    found = records(folder)
    assert len(found) == 2 * len(exhibit.rows)
    cells = by_cell(exhibit, found)
    for row, column in itertools.product(exhibit.rows, exhibit.columns):
        assert [record.seed for record in cells[row.label, column.key]] == [0, 1], row.label
    table = frame(exhibit, found, "yours")
    assert table.attrs["notes"] == []
    told = table[table["row"] == "FullKD"]["column"].unique()
    assert set(told) == {column.key for column in exhibit.columns} - {"time_to_teacher"}
    config = json.loads(next(folder.glob("fields-topk-k1-ghosttoken-s0-*/config.json")).read_text())
    assert config["recipe"]["divergence"] == {"name": "GhostToken"} and config["recipe"]["toy"] == "fields"


def test_every_claim_can_be_decided(small: Any) -> None:
    from analysis.claims import judge

    exhibit, folder = small
    table = frame(exhibit, records(folder), "yours")
    exact = {"eq1", "eq2", "a5", "tad-eq6", "ghost-head", "tad-head", "sampling-unbiased", "sampling-halves-the-noise"}
    for claim in exhibit.claims:
        verdict = judge(claim, exhibit, table)
        assert verdict.state != "untested" or claim.column == "time_to_teacher", claim.id
        assert verdict.state == "holds" or claim.id not in exact, claim.id


def test_the_portrait_shows_every_row_of_three_classes(small: Any) -> None:
    exhibit, folder = small
    found = {"logged": [], "yours": records(folder)}
    frames = {voice: frame(exhibit, own, voice) for voice, own in found.items()}
    drawn = figures.inline(exhibit, frames, found)
    assert drawn is not None
    body = drawn.split("</desc>")[1]
    shown = [row.label for row in exhibit.rows if "20 classes" not in row.label]
    assert all(f">{label}</text>" in body for label in shown) and "20 classes" not in body
    assert set(exhibit.plot["says"]) == set(shown)
    few = exhibit.model_copy(update={"rows": exhibit.rows[2:4]})
    assert figures.inline(few, frames, found) == figures.inline(few, frames, found) != drawn


def test_the_portrait_says_where_the_paths_end() -> None:
    teacher = np.array([0.6, 0.3, 0.1])
    free = np.array([[0.6, 0.4, 0.0], [0.6, 0.1, 0.3]])
    assert in_words(np.stack([teacher, teacher]), teacher)[0] == "ends at the teacher"
    assert in_words(np.array([[0.667, 0.333, 0.0]] * 2), teacher)[0] == "ends at 0.67, 0.33, 0.00"
    assert in_words(free, teacher)[0] == "class 1 at 0.60, the others anywhere"
    assert np.allclose(lattice().sum(1), 1) and lattice().min() > 0
