"""The whole path on real text at a tiny scale: teacher, cache, student, record, and what can go wrong on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from replication.__main__ import main
from replication.axes.targets.base import SparseTarget
from replication.axes.targets.sampled import RandomSampling
from replication.execution.execute import execute
from replication.experiment.recipe import parse
from replication.experiment.run import Run
from replication.experiment.scale import load_scale
from replication.machine.device import Machine, this_machine
from replication.model.decoder import to_width
from replication.planning.plan import plan
from replication.training.loop import train
from replication.training.needs import Need
from replication.training.run_data import data_for
from replication.training.supervision import FromCache, FromTeacher, drawn
from replication.training.teacher_pass import build
from replication.training.training import Training, supervision_of
from replication.training.weights import model_folder, teacher_for
from tests.small import write_scale

ROOT = Path(__file__).parent.parent
METHODS = {
    "topk": {"target": {"name": "TopK", "k": 5}},
    "topp": {"target": {"name": "TopP", "p": 0.9, "cap": 20}},
    "naive": {"target": {"name": "NaiveFix", "k": 5}},
    "smooth": {"target": {"name": "SmoothedTopK", "k": 5}},
    "ghost": {"target": {"name": "TopK", "k": 5}, "divergence": "GhostToken"},
    "sampling": {"target": {"name": "RandomSampling", "draws": 12}},
    "proposal": {"target": {"name": "RandomSampling", "draws": 12, "exponent": 0.8}},
    "many draws": {"target": {"name": "RandomSampling", "draws": 200}},
    "online": {"target": {"name": "RandomSampling", "draws": 12}, "delivery": "online"},
    "other context": {
        "target": {"name": "RandomSampling", "draws": 12},
        "alignment": {"name": "Different", "teacher_length": "1024"},
    },
    "hard": {"target": {"name": "RandomSampling", "draws": 12}, "positions": {"name": "HardTokens"},
             "schedule": {"name": "Constant", "kd_weight": 0.9, "ce_weight": 0.1}},
    "TAD": {"target": "Full", "divergence": "TailAware", "schedule": {"name": "Constant", "ce_weight": 1.0}},
    "SE-KD": {"target": "Full", "positions": "TopFraction"},
    "GLS": {"target": "Full", "positions": {"name": "GlobalThreshold", "queue": 150}},
    "RandomPos": {"target": {"name": "RandomSampling", "draws": 12}, "positions": "RandomFraction"},
    "SALT": {"target": {"name": "Full", "exponent": 0.25}, "schedule": "TwoStage"},
    "reverse": {"target": "Full", "divergence": "ReverseKL"},
    "samples": {"target": "OneHot", "samples": {"name": "RandomSamples", "keep": 0.5}},
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Machine]:
    """A folder with text and scale, and a machine whose results and artifacts lie there; the teacher is trained."""
    folder = tmp_path_factory.mktemp("suite")
    machine = this_machine(folder / "results", folder / "artifacts")
    machine = machine.at(load_scale(str(write_scale(folder))).precision)
    train(teacher_run(folder), machine)
    return folder, machine


def run_of(folder: Path, stated: dict[str, object], seed: int = 0) -> Run:
    return Run(parse(stated), load_scale(str(folder / "small.toml")), seed)


def teacher_run(folder: Path) -> Run:
    teacher = run_of(folder, {}).teacher
    assert teacher is not None
    return teacher


def summary(record_folder: Path) -> dict[str, object]:
    return json.loads((record_folder / "summary.json").read_text())


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_from_what_it_needs(place: tuple[Path, Machine], name: str) -> None:
    folder, machine = place
    run = run_of(folder, METHODS[name])
    if run.recipe.cached:
        build([Need(run)], machine)
    found = summary(train(run, machine).folder)
    metrics = found["metrics"]
    assert not found["diverged"]
    assert 3 < metrics["lm_loss"] < 6.5  # log 320 = 5.8: a student that learned nothing, or the wrong thing, is above
    assert 0 < metrics["acceptance"] <= 1
    losses = [json.loads(line)["loss"] for line in (machine.results / "small" / run.id / "metrics.jsonl").open()]
    assert len(losses) == 10 and np.isfinite(losses).all()
    curve = found["curves"]["by_step"]
    assert curve["step"] == [6, 12] and curve["lm_loss"][0] > curve["lm_loss"][1] == metrics["lm_loss"]
    assert (curve["accuracy"][1], curve["ece"][1]) == (metrics["accuracy"], metrics["ece"])


def test_a_cached_draw_is_the_draw_made_online(place: tuple[Path, Machine]) -> None:
    folder, machine = place
    run = run_of(folder, METHODS["sampling"])
    build([Need(run)], machine)
    data, teacher = data_for(run, machine.artifacts), teacher_for(run, machine)
    cached = supervision_of(run, data, teacher, machine)
    assert isinstance(cached, FromCache)
    beside = FromTeacher(teacher, run.recipe.target, data.tokenizer.vocabulary, run.seed, len(data.train), machine)
    indices_B = np.array([7, 2, 30])
    rows = torch.from_numpy(data.train.rows(indices_B))
    given = indices_B, np.zeros(3, int), rows[:, :-1], rows[:, 1:]
    from_cache, online = (source(*given).target for source in (cached, beside))
    assert torch.equal(from_cache.dense(data.tokenizer.vocabulary), online.dense(data.tokenizer.vocabulary))


def test_a_teacher_without_weight_is_not_asked(place: tuple[Path, Machine]) -> None:
    """SALT's second stage: as many calls as steps of the first (36 / 208 of 12, begun ones counted)."""
    folder, machine = place
    run = run_of(folder, METHODS["SALT"], seed=3)
    training = Training(run, data_for(run, machine.artifacts), teacher_for(run, machine), machine)
    asked, supervision = [], training.supervision

    def counting(*given: object) -> object:
        asked.append(training.step)
        return supervision(*given)  # type: ignore[arg-type]

    training.supervision = counting  # type: ignore[assignment]
    while training.step < run.steps:
        training.advance()
    assert asked == [0, 1, 2] and run.steps == 12


def test_each_sequence_has_its_own_stream(place: tuple[Path, Machine]) -> None:
    logits_BLV, labels_BL = torch.zeros(2, 3, 50), torch.zeros(2, 3, dtype=torch.long)
    both, second = (
        drawn(RandomSampling(20), logits_BLV[rows], labels_BL[rows], np.array([4, 9])[rows], seed=1)
        for rows in (slice(0, 2), slice(1, 2))
    )
    assert isinstance(both, SparseTarget)
    assert torch.equal(both.dense(50)[3:], second.dense(50))
    assert not torch.equal(both.dense(50)[:3], second.dense(50))


def test_a_student_loads_as_a_hugging_face_checkpoint_and_predicts_the_same(place: tuple[Path, Machine]) -> None:
    folder, machine = place
    saved = model_folder(teacher_run(folder), machine)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(saved), AutoTokenizer.from_pretrained(saved)
    ids = tokenizer("def heappush(heap, item):", return_tensors="pt").input_ids
    own = data_for(teacher_run(folder), machine.artifacts).tokenizer.encode_batch(["def heappush(heap, item):"])[0]
    assert ids[0].tolist() == own.tolist()
    assert model(input_ids=ids).logits.shape[-1] == model.config.vocab_size


def test_one_batch_order_and_one_set_of_weights_for_all_methods(place: tuple[Path, Machine]) -> None:
    folder, machine = place
    configs = [
        json.loads((train(run, machine).folder / "config.json").read_text())
        for run in (run_of(folder, METHODS["SE-KD"]), run_of(folder, METHODS["TAD"]))
    ]
    first, second = (config["inputs"] for config in configs)
    assert first == second and set(first) == {"tokenizer", "packing", "teacher"}
    other_seed = data_for(run_of(folder, METHODS["TAD"], seed=1), machine.artifacts).train.fingerprint
    assert other_seed != first["packing"]


def test_the_same_run_twice_gives_the_same_summary(place: tuple[Path, Machine], tmp_path: Path) -> None:
    folder, machine = place
    run = run_of(folder, METHODS["SALT"])
    first = summary(train(run, machine).folder)
    again = summary(train(run, Machine(machine.device, machine.autocast, tmp_path, machine.artifacts)).folder)
    assert {**first, "machine": 0} == {**again, "machine": 0}


def test_a_run_killed_at_any_step_resumes_to_the_identical_end(place: tuple[Path, Machine], tmp_path: Path) -> None:
    folder, machine = place
    run = run_of(folder, METHODS["samples"])
    whole = train(run, machine)
    weights = (model_folder(run, machine) / "model.safetensors").read_bytes()
    (tmp_path / "recipe.toml").write_text('target = "OneHot"\nsamples = { name = "RandomSamples", keep = 0.5 }\n')
    environment = {
        **os.environ, "RESULTS": str(tmp_path / "results"), "ARTIFACTS": str(tmp_path / "artifacts"), "DIE_AFTER": "7",
    }  # fmt: skip
    # the teacher is there already: what is killed is the student
    subprocess.run(["cp", "-r", str(machine.artifacts), str(tmp_path / "artifacts")], check=True)
    subprocess.run(["rm", "-r", str(tmp_path / "artifacts/small/models" / run.id)], check=True)
    (tmp_path / "results/small").mkdir(parents=True)
    teacher = teacher_run(folder).id
    subprocess.run(["cp", "-r", str(machine.results / "small" / teacher), str(tmp_path / "results/small")], check=True)
    script = (
        "import os, signal, sys, torch\n"
        "step, left = torch.optim.AdamW.step, int(os.environ['DIE_AFTER'])\n"
        "def dying(*given, **named):\n"
        "    global left\n"
        "    left -= 1\n"
        "    if left < 0: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return step(*given, **named)\n"
        "torch.optim.AdamW.step = dying\n"
        "from replication.__main__ import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    arguments = ["run", str(tmp_path / "recipe.toml"), "--scale", str(folder / "small.toml")]
    killed = subprocess.run([sys.executable, "-c", script, *arguments], env=environment, cwd=ROOT, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "results/small" / run.id / "summary.json").exists()
    assert [step.name for step in (tmp_path / "artifacts/small/checkpoints" / run.id).iterdir()] == ["000000006"]
    del environment["DIE_AFTER"]
    subprocess.run([sys.executable, "-m", "replication", *arguments], env=environment, cwd=ROOT, check=True)
    assert {**summary(tmp_path / "results/small" / run.id), "machine": 0} == {**summary(whole.folder), "machine": 0}
    assert (tmp_path / "artifacts/small/models" / run.id / "model.safetensors").read_bytes() == weights
    steps = [json.loads(line)["step"] for line in (tmp_path / "results/small" / run.id / "metrics.jsonl").open()]
    assert steps == [*range(1, 9), 10, 12]


@pytest.mark.parametrize("name", ["GLS", "RandomPos"])
def test_what_a_policy_has_learnt_or_drawn_is_that_of_a_run_never_stopped(
    place: tuple[Path, Machine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Stopped in its eighth step of twelve, it goes on from the sixth; the queue holds one step and a half."""
    folder, machine = place
    run = run_of(folder, METHODS[name], seed=1)
    if run.recipe.cached:
        build([Need(run)], machine)
    machine = replace(machine, results=tmp_path)
    step, taken = torch.optim.AdamW.step, []

    def stopping(self: torch.optim.AdamW) -> object:
        taken.append(step)
        if len(taken) == 8:
            raise KeyboardInterrupt
        return step(self)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(torch.optim.AdamW, "step", stopping)
        train(run, machine)
    resumed = train(run, machine)
    weights = (model_folder(run, machine) / "model.safetensors").read_bytes()
    whole = train(run, replace(machine, results=tmp_path / "whole"))
    assert {**summary(resumed.folder), "machine": 0} == {**summary(whole.folder), "machine": 0}
    assert (model_folder(run, machine) / "model.safetensors").read_bytes() == weights


def test_random_positions_are_the_same_however_a_batch_is_split(place: tuple[Path, Machine]) -> None:
    folder, machine = place
    run = run_of(folder, {"target": "OneHot", "positions": "RandomFraction"})
    data = data_for(run, machine.artifacts)
    whole, parts = (Training(run, data, None, replace(machine, autocast=False, at_once=size)) for size in (None, 1))
    for _ in range(2):
        assert whole.advance()[0] == pytest.approx(parts.advance()[0], rel=1e-5)


def test_a_global_threshold_refuses_a_batch_in_parts(place: tuple[Path, Machine]) -> None:
    folder, machine = place
    run = run_of(folder, {"target": "OneHot", "positions": "GlobalThreshold"})
    training = Training(run, data_for(run, machine.artifacts), None, replace(machine, at_once=2))
    with pytest.raises(ValueError, match="GlobalThreshold compares all positions of a batch"):
        training.advance()


def test_caching_cut_off_between_batches_resumes_to_the_same_bytes(
    place: tuple[Path, Machine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, machine = place
    need = Need(run_of(folder, METHODS["many draws"], seed=5))
    elsewhere = Machine(machine.device, machine.autocast, machine.results, tmp_path / "artifacts")
    subprocess.run(["cp", "-r", str(machine.artifacts), str(elsewhere.artifacts)], check=True)
    build([need], machine)
    calls = 0

    def failing(*given: object) -> object:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise KeyboardInterrupt
        return drawn(*given)  # type: ignore[arg-type]

    monkeypatch.setattr("replication.training.teacher_pass.drawn", failing)
    with pytest.raises(KeyboardInterrupt):
        build([need], elsewhere)
    monkeypatch.undo()
    build([need], elsewhere)
    files = sorted(path.name for path in need.folder(machine).iterdir())
    assert files == sorted(path.name for path in need.folder(elsewhere).iterdir())
    for name in files:
        assert (need.folder(machine) / name).read_bytes() == (need.folder(elsewhere) / name).read_bytes(), name


def test_probes_measure_against_the_fullkd_student(place: tuple[Path, Machine]) -> None:
    folder, machine = place
    execute(run_of(folder, {}), machine)
    everything = run_of(folder, {"target": {"name": "TopK", "k": 320}, "probe": "gradients"})
    few = run_of(folder, {"target": {"name": "TopK", "k": 2}, "probe": "gradients"})
    exact, rough = (summary(execute(run, machine).folder) for run in (everything, few))
    assert exact["metrics"]["angle"] < 0.1 and abs(exact["metrics"]["norm_ratio"] - 1) < 1e-3
    assert rough["metrics"]["angle"] > 10 * exact["metrics"]["angle"] + 1
    assert rough["curves"]["by_tokens"]["tokens"] == [4 * 24, 8 * 24]
    counted = [
        summary(
            execute(
                run_of(folder, {"target": {"name": "RandomSampling", "draws": n}, "probe": "draws"}), machine
            ).folder
        )
        for n in (1, 20)
    ]
    assert counted[0]["metrics"]["unique_classes"] == 1 and 5 < counted[1]["metrics"]["unique_classes"] < 20


def test_storage_is_counted_from_the_files_of_the_cache(place: tuple[Path, Machine]) -> None:
    folder, machine = place
    run = run_of(folder, {**METHODS["topk"], "probe": "storage"})
    build([Need(run)], machine)
    metrics = summary(execute(run, machine).folder)["metrics"]
    on_disk = sum(path.stat().st_size for path in Need(run).folder(machine).iterdir())
    assert metrics["bytes_per_token"] == pytest.approx(on_disk / (48 * 24))
    assert metrics["unique_classes"] == 5


def test_a_cache_is_verified_against_its_teacher(place: tuple[Path, Machine]) -> None:
    folder, machine = place
    need = Need(run_of(folder, METHODS["sampling"]))
    build([need], machine)
    data, teacher = data_for(need.run, machine.artifacts), teacher_for(need.run, machine)
    assert need.problems(need.folder(machine), data, teacher, machine) == []
    with torch.no_grad():
        next(teacher.parameters()).mul_(1.5)
    with pytest.raises(
        ValueError, match="is sound, but it is another run's, .* teacher is .* This run's cache is not built"
    ):
        need.problems(need.folder(machine), data, teacher, machine)


def test_caches_stand_alone_on_the_command_line(
    place: tuple[Path, Machine],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, machine = place
    monkeypatch.setenv("RESULTS", str(machine.results))
    monkeypatch.setenv("ARTIFACTS", str(machine.artifacts))
    recipe, scale = tmp_path / "recipe.toml", ["--scale", str(folder / "small.toml")]
    recipe.write_text('target = { name = "TopK", k = 7 }\n')
    assert main(["cache", "build", str(recipe), *scale]) == 0
    cache = Path(capfd.readouterr().out.strip())
    assert main(["cache", "verify", str(cache), "--recipe", str(recipe), *scale]) == 0
    assert main(["cache", "stats", str(cache)]) == 0
    said = capfd.readouterr().out
    assert "no problem found" in said and "unique_classes               7.0" in said

    recipe.write_text('target = { name = "TopK", k = 6 }\n')
    assert main(["cache", "verify", str(cache), "--recipe", str(recipe), *scale]) == 2
    assert "target is TopK(k=7) in the cache but TopK(k=6) here" in capfd.readouterr().err
    shard = max(cache.iterdir(), key=lambda path: path.stat().st_size)
    damaged = bytearray(shard.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    shard.write_bytes(damaged)
    assert main(["cache", "verify", str(cache)]) == 2
    assert shard.name in capfd.readouterr().out


def test_output_widths_are_aligned_or_refused() -> None:
    """151,936 and 152,064 outputs over one tokenizer: what is no token is dropped, what lacks tokens is refused."""
    logits_BLV = torch.randn(1, 2, 152_064)
    narrow, wide = to_width(logits_BLV[..., :151_936], 151_669, "student"), to_width(logits_BLV, 151_669, "teacher")
    assert torch.equal(narrow, wide) and narrow.shape[-1] == 151_669
    with pytest.raises(ValueError, match="151936 output classes, but the tokenizer has 152000 tokens"):
        to_width(logits_BLV[..., :151_936], 152_000, "student")


def test_a_record_begun_with_other_settings_is_not_continued(place: tuple[Path, Machine], tmp_path: Path) -> None:
    folder, machine = place
    fresh = Machine(machine.device, machine.autocast, tmp_path, machine.artifacts)
    run = run_of(folder, METHODS["samples"])
    record = train(run, fresh)
    (record.folder / "summary.json").unlink()
    config = json.loads((record.folder / "config.json").read_text())
    config["settings"]["batch"] = 5
    (record.folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="begun with another settings"):
        train(run, fresh)


def test_a_loss_that_is_not_finite_is_recorded_as_diverged(place: tuple[Path, Machine], tmp_path: Path) -> None:
    folder, machine = place
    text = (folder / "small.toml").read_text().replace("peak_rate = 3e-3", "peak_rate = 1e30")
    (tmp_path / "small.toml").write_text(text)
    fresh = Machine(machine.device, machine.autocast, tmp_path, machine.artifacts)
    found = summary(train(Run(parse({"target": "OneHot"}), load_scale(str(tmp_path / "small.toml")), 3), fresh).folder)
    assert found["diverged"] and found["metrics"] == {"lm_loss": None}


def test_plans_share_equal_runs(place: tuple[Path, Machine]) -> None:
    folder, _ = place
    scale = load_scale(str(folder / "small.toml"))
    first, second = (plan([name], scale, [0]).runs for name in ("rskd/table01", "rskd/table06"))
    assert set(first) & set(second) >= {Run(parse({"target": "OneHot"}), scale, 0).id, Run(parse({}), scale, 0).id}


def test_ten_lines_with_a_checkpoint_of_ones_own(
    place: tuple[Path, Machine], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The practitioner's door: a Hugging Face checkpoint as teacher, a folder of text, one command."""
    folder, machine = place
    teacher = model_folder(teacher_run(folder), machine)
    (tmp_path / "recipe.toml").write_text(
        f'teacher = "{teacher}"\nstudent = "300M"\ntext = "path:{folder / "text"}"\ntokens = "960"\n'
        'target = { name = "RandomSampling", draws = 12 }\n'
    )
    environment = {**os.environ, "RESULTS": str(tmp_path / "results"), "ARTIFACTS": str(tmp_path / "artifacts")}
    command = [
        sys.executable,
        "-m",
        "replication",
        "run",
        str(tmp_path / "recipe.toml"),
        "--scale",
        str(folder / "small.toml"),
    ]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "lm_loss" in done.stdout and "acceptance" in done.stdout
    checkpoint = done.stdout.split("checkpoint")[1].strip()
    assert AutoModelForCausalLM.from_pretrained(checkpoint).config.vocab_size == 320


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('target = "GhostTok"', "Unknown target 'GhostTok'"),
        ('target = { name = "TopK" }', "TopK needs 'k'"),
        ('target = { name = "TopK", k = 0 }', "TopK.k is 0"),
        ('target = { name = "TopK", k = 2.5 }', "TopK.k is 2.5"),
        ('target = { name = "TopK", q = 5 }', "no field 'q'"),
        ('target = { name = "RandomSampling", draws = 0 }', "draws is 0"),
        ('target = { name = "TopK", k = 999 }', "give 1 to 320"),
        ('studnet = "300M"', "did you mean 'student'"),
        ('student = "7B"', "role '7B'"),
        ('tokens = "3T"', "token budget '3T'"),
        ('tokens = "10"', "less than one batch"),
        ('text = "path:no/such/folder"', "no/such/folder"),
        ('delivery = "cache"', "cannot be cached"),
        ('teacher = "none"', "needs a teacher"),
        ('teacher = "no/such-model"', "no/such-model"),
        ('target = { name = "TopK", k = 5 }\ndivergence = "ReverseKL"', "sparse target"),
        ("target = [", "recipe"),
    ],
)  # fmt: skip
def test_bad_recipes_end_in_one_line(
    place: tuple[Path, Machine], tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    text: str, wanted: str,
) -> None:  # fmt: skip
    folder, machine = place
    monkeypatch.setenv("RESULTS", str(machine.results))
    monkeypatch.setenv("ARTIFACTS", str(machine.artifacts))
    (tmp_path / "recipe.toml").write_text(text + "\n")
    assert main(["run", str(tmp_path / "recipe.toml"), "--scale", str(folder / "small.toml")]) == 2
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and wanted in errors[0], errors


def test_unknown_scale_seed_and_exhibit_end_in_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    for arguments, wanted in (
        (["plan", "rskd/table06", "--scale", "desktop"], "Known: "),
        (["plan", "rskd/table06", "--scale", "smoke", "--seeds", "one"], "whole numbers"),
        (["plan", "rskd/table99", "--scale", "smoke"], "rskd/table99"),
    ):
        assert main(arguments) == 2
        assert wanted in capfd.readouterr().err
