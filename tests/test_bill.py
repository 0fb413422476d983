"""How long a plan takes and how its bill reads: planted records, totals, units, and the papers' own computations."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from transformers import LlamaConfig

from analysis.load import frame, shown_at
from paper_tables import spec
from replication.__main__ import main
from replication.cost.flops import Cost, Work
from replication.execution.execute import execute
from replication.experiment.identity import changed, resolved
from replication.experiment.run import Run
from replication.experiment.scale import load_scale
from replication.machine.device import this_machine
from replication.planning import estimate_table
from replication.planning.estimate import Line, estimate
from replication.planning.hardware import least
from replication.planning.machine_speed import CPU, Pace, calibrated, gpu, slowness
from replication.planning.past_runs import kept, past_runs
from replication.planning.plan import plan
from replication.probes.module import refuse_unready
from tests.planted import plant
from tests.test_cost import PAPER, draws, run

# Pace


def test_gpu_hours_are_flops_over_the_stated_rate() -> None:
    h100 = gpu("H100")
    assert h100.seconds(Work(flops=0.4 * 989.4e12 * 3600)) == pytest.approx(3600)
    assert gpu("a100").seconds(Work(flops=1e18)) > h100.seconds(Work(flops=1e18))
    assert gpu("h200").memory > h100.memory == 80e9
    with pytest.raises(ValueError, match=r"Unknown GPU 'h300'. Known: h100, h200, a100."):
        gpu("h300")


def planted(folder: Path, given: Run, tokens_per_second: float, hardware: dict[str, Any] | None = None) -> None:
    """A finished run of the given speed."""
    place = plant(
        folder, given.id, changed(given.recipe), given.seed, {"unique_classes": 21.5}, scale=given.scale.name,
        settings=given.settings(), recipe=resolved(given.recipe),
    )  # fmt: skip
    summary = json.loads((place / "summary.json").read_text())
    summary["machine"] = {"tokens_per_second": tokens_per_second, "seconds": 1.0}
    (place / "summary.json").write_text(json.dumps(summary))
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps({**config, "hardware": hardware}))


def test_one_finished_run_says_how_slow_the_machine_is(tmp_path: Path) -> None:
    given, other = run("laptop"), run("laptop", student="1B", target="Full")
    known = Cost(given).tokens / CPU.seconds(Cost(given).training)
    planted(tmp_path / "laptop", given, known / 2.5)
    past = past_runs(given.scale, tmp_path, tmp_path / "none")
    slow = calibrated(CPU, past)
    assert slow is not None and "1 finished run" in slow.about
    for each in (given, other):
        assert slow.seconds(Cost(each).training) == pytest.approx(2.5 * CPU.seconds(Cost(each).training))
    assert slowness(slow, given, known / 2.5) == pytest.approx(1)
    assert calibrated(gpu("h100"), past) is None and calibrated(CPU, []) is None


def test_a_gpu_is_paced_by_its_own_records_only(tmp_path: Path) -> None:
    given = run("h100")
    planted(tmp_path / "h100", given, 50_000, {"gpu": "NVIDIA H100 80GB HBM3"})
    past = past_runs(given.scale, tmp_path, tmp_path / "none")
    measured = calibrated(gpu("h100"), past)
    assert measured is not None and measured.seconds(Cost(given).training) == pytest.approx(Cost(given).tokens / 50_000)
    assert calibrated(CPU, past) is None and calibrated(gpu("a100"), past) is None


def test_history_prefers_this_machine_and_leaves_out_what_no_longer_means_the_same(tmp_path: Path) -> None:
    given, target = run("laptop", **draws(50)), run("laptop", **draws(50, student="1B"))
    local, logged = tmp_path / "local", tmp_path / "logged"
    planted(logged / "laptop", given, 1000)
    assert len(past_runs(given.scale, local, logged)) == 1
    planted(local / "laptop", target, 500)
    past = past_runs(given.scale, local, logged)
    assert [each.run.id for each in past] == [target.id] and kept(past, given) == 21.5
    assert kept(past, run("laptop", **draws(49))) is None and kept([], given) is None
    path = next(local.glob("*/*/config.json"))
    path.write_text(path.read_text().replace('"tokens": 409600', '"tokens": 409601'))
    assert [each.run.id for each in past_runs(given.scale, local, logged)] == [given.id]
    plant(local / "laptop", "toy", {}, 0, {}, recipe={"toy": "zipf"})
    plant(local / "laptop", "gone", {}, 0, {}, recipe={"target": "OneHot", "student": "30B"})
    assert [each.run.id for each in past_runs(given.scale, local, logged)] == [given.id]


# Bills


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("ARTIFACTS", str(tmp_path / "artifacts"))
    return tmp_path


def lines(exhibit: str, scale: str = "paper", seeds: tuple[int, ...] = (0,)) -> list[Line]:
    given = load_scale(scale)
    return estimate(plan([exhibit], given, seeds), this_machine(), [])


def test_five_caches_are_one_teacher_pass_and_each_seed_one_more(place: Path) -> None:
    one, two = lines("rskd/table06"), lines("rskd/table06", seeds=(0, 1))
    kinds = [[line.kind for line in found] for found in (one, two)]
    assert [found.count("pass") for found in kinds] == [1, 2]
    assert [found.count("cache") for found in kinds] == [5, 10]
    assert [found.count("teacher") for found in kinds] == [1, 1]
    (only,) = (line for line in one if line.kind == "pass")
    assert only.tokens == 10_485_760_000 and only.note == "fills 5 caches"
    twelve = next(line for line in one if "draws50" in line.name)
    assert (
        twelve.disk == pytest.approx(36 * 10_485_760_000, rel=0.001) and "12.0 classes a token, by law" in twelve.note
    )
    online = [line for line in one if line.beside]
    assert [line.name.startswith("full") for line in online] == [True]


def test_what_is_done_is_marked_and_left_out_of_what_is_to_do(place: Path) -> None:
    first = lines("rskd/table03", "laptop")
    done = next(line for line in first if line.kind == "run")
    (place / "results/laptop" / done.name).mkdir(parents=True)
    (place / "results/laptop" / done.name / "summary.json").write_text("{}")
    again = lines("rskd/table03", "laptop")
    assert [line.name for line in again if line.done] == [done.name]
    text = shown(again, "laptop")
    assert "run done" in text and text.count("run to do") == len([line for line in again if line.kind == "run"]) - 1


def shown(found: list[Line], scale: str = "paper", pace: Pace | None = None) -> str:
    console = Console(width=220, record=True, file=io.StringIO())
    estimate_table.show(found, "title", load_scale(scale), pace, console)
    return console.export_text()


def test_an_invoice_has_units_everywhere_and_hours_only_where_something_says_them(place: Path) -> None:
    found = lines("rskd/table06")
    text = shown(found, pace=gpu("h100"))
    sizes = ("2.30 ZFLOP", "378 GB", "1.48 TB", "10.5 B", "13.7 GB", "41.2 GB more", "400 GB tokenised")
    for wanted in (*sizes, "H100 time", "1 teacher, 1 pass, 5 caches, 7 runs", "40% (assumed) of 989.4 TFLOP/s"):
        assert wanted in text, wanted
    student = next(line for line in found if line.name.startswith("onehot"))
    assert f": {int((80e9 - student.held) / student.each)} at once" in text
    assert "does not fit" in shown(found, pace=Pace("tiny", "", 1e12, memory=1e9))
    assert " time" not in shown(found).partition("\n\n")[0] and "GPU=h100" in shown(found)


def test_totals_are_sums(place: Path) -> None:
    found = lines("rskd/table06")
    whole = estimate_table.total(found)
    assert whole.work.flops == pytest.approx(sum(line.work.flops for line in found))
    assert whole.disk == pytest.approx(sum(line.disk for line in found))
    trained = {"teacher": 100_000_000_000 // (4096 * 1024) * 4096 * 1024, "run": 7 * 10_485_760_000}
    assert whole.tokens == sum(trained.values())


@pytest.mark.parametrize(
    ("value", "wanted"),
    [(0, ""), (999, "999 B"), (2.56e12, "2.56 TB"), (999.96e9, "1.00 TB"), (1e13, "10.0 TB"), (1234e24, "1,234 YB")],
)
def test_sizes_are_written_with_decimal_prefixes(value: float, wanted: str) -> None:
    assert estimate_table.si(value, "B") == wanted


def test_counts_and_durations() -> None:
    assert [estimate_table.count(value) for value in (0, 409_600, 10_485_760_000)] == ["", "409,600", "10.5 B"]
    times = (0, 5, 90, 7200, 3600 * 1613)
    assert [estimate_table.duration(value) for value in times] == ["", "5.00 s", "1.50 min", "2.00 h", "1,613 h"]


def test_every_exhibit_that_runs_has_a_bill_at_every_scale_that_it_runs_at(place: Path) -> None:
    for name in spec.names():
        exhibit = spec.load(name)
        if exhibit.status == "published":
            continue
        for scale in exhibit.scales:
            for line in lines(name, scale):
                assert math.isfinite(line.work.flops) and line.disk >= 0, (name, line)


def test_plan_on_the_command_line(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "rskd/table06", "--scale", "paper", "--gpu", "h100"]) == 0
    assert "H100 time" in capfd.readouterr().out
    assert main(["plan", "sekd/table06"]) == 0  # asked for at laptop, computed at the paper's sizes
    assert "Scale paper" in capfd.readouterr().out
    (place / "recipe.toml").write_text('target = "Full"\n')
    assert main(["plan", str(place / "recipe.toml"), "--scale", "laptop"]) == 0
    assert "with its teacher beside it" in capfd.readouterr().out
    for arguments, wanted in (
        (["plan", "rskd/table06", "--scale", "paper", "--gpu", "b200"], "Unknown GPU 'b200'. Known: h100, h200, a100."),
        (["plan", "rskd/figure02a"], "needs no teacher, cache or text"),
    ):
        assert main(arguments) == 2
        said = capfd.readouterr().err
        assert wanted in said and said.count("\n") == 1


# The papers' own computations


def test_shapes_of_another_tokenizer_are_costed_and_never_trained() -> None:
    with pytest.raises(ValueError, match="256,000 classes of another tokenizer"):
        refuse_unready(run(student="2.8B", teacher="1.5B"))
    refuse_unready(run(student="2.8B", teacher="1.5B", probe="cost"))


@pytest.mark.parametrize("name", ["salt/table20", "sekd/table06"])
def test_a_computed_table_stands_beside_the_published_one(place: Path, name: str) -> None:
    exhibit = spec.load(name)
    planned = plan([name], PAPER, [0])
    assert not planned.teachers and not planned.needs
    for each in planned.runs.values():
        execute(each, this_machine())
    found = frame(exhibit, shown_at("laptop", place / "results"), "yours").set_index(["row", "column"])["value"]
    if name == "salt/table20":
        assert found["BASELINE, 208K steps", "savings"] == 0
        for row in exhibit.rows[1:]:
            ratio = found[row.label, "step_ratio"]
            n_kd = float(row.published["n_kd"])  # type: ignore[arg-type]
            assert found[row.label, "savings"] == pytest.approx(100 * (1 - (146 - n_kd + n_kd * ratio) / 208))
            assert 1 < found[row.label, "step_ratio_recomputed"] < ratio < 4 / 3  # App. J: the teacher is the smaller
    else:
        for row in exhibit.rows:
            for column in ("terabytes_u12", "terabytes_u64"):
                printed = 0.4 if row.label == "Vanilla CE" else float(row.published[column])  # type: ignore[arg-type]
                assert found[row.label, column] == pytest.approx(printed, rel=0.003)  # V is 100,278, not 100,000


# What does not fit


LARGE = Line("run", "large", False, work=Work(flops=1e21), held=100e9, each=1e9, shared=90e9, gathered=8e9, sequences=8)


@pytest.mark.parametrize(
    ("held", "sequences", "wanted"),
    [
        (70e9, 8, "1 A100"),
        (100e9, 8, "1 H200"),
        (200e9, 8, "2 H200 (SHARDED=1)"),  # 10 whole, half of 190, 8 gathered, a sequence: 114
        (300e9, 8, "4 H200 (SHARDED=1)"),
        (300e9, 2, "no GPU on file"),  # 2 processes need 164 each, and more would have no sequence of their own
    ],
)
def test_the_least_hardware_is_the_fewest_gpus_that_hold_a_step(held: float, sequences: int, wanted: str) -> None:
    assert least(replace(LARGE, held=held, shared=held - 10e9, sequences=sequences)) == wanted
    assert least(replace(LARGE, held=200e9, shared=0)) == "no GPU on file"  # a teacher is whole in each


def test_what_does_not_fit_has_no_hours(place: Path) -> None:
    small = Line("run", "small", False, work=Work(flops=0.4 * 989.4e12 * 7200), held=1e9, each=1e9)
    text = shown([LARGE, small], pace=gpu("h100"))
    large, fitting, every = (
        next(row for row in text.splitlines() if word in row) for word in ("large", "small", "all ")
    )
    assert "does not fit; 1 H200 would do" in large and " h " not in large
    assert "2.00 h" in fitting and "2.00 h" in every
    assert "does not fit into 80.0 GB (1 run)" in text
    assert " h " in next(row for row in shown([LARGE], pace=gpu("h200")).splitlines() if "large" in row)


def test_a_student_beside_a_teacher_from_elsewhere_has_its_classes(place: Path) -> None:
    LlamaConfig(vocab_size=50_257, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2
                ).save_pretrained(place / "teacher")  # fmt: skip
    assert Cost(run("laptop", teacher=str(place / "teacher"))).student.classes == 50_257
    assert Cost(run("laptop")).student.classes == 2048
