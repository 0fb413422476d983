"""The path to a GPU, walked on a CPU: what is rehearsed, cut, killed and judged; and what is run first on one."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from replication import __main__ as command_line
from replication.cost.flops import Cost
from replication.experiment.recipe import parse
from replication.experiment.run import Run
from replication.experiment.scale import load_scale
from replication.machine.device import this_machine
from replication.planning.plan import plan
from replication.training.training import Training
from tests.rehearsal_stage import Killed
from tests.small import write_scale
from workflow import gpu_first, rehearse
from workflow.child import Outcome, outcome_of
from workflow.gpu_first import Part, carry_out, parts
from workflow.peaks import beside_the_first, peak
from workflow.rehearsed_scale import BATCH, STEPS, rehearsed, tokenizer, write

H100 = load_scale("h100")
NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}

# A command in a process of its own


def test_a_command_s_output_seconds_and_memory_are_known(tmp_path: Path) -> None:
    code = "import sys; print('said'); x = bytearray(300_000_000); sys.exit(3)"
    found = outcome_of((sys.executable, "-c", code), tmp_path / "a/log", {})
    assert found.status == 3 and 3e8 < found.memory < 4e9 and 0 < found.seconds < 60
    assert (tmp_path / "a/log").read_text() == "said\n"


@pytest.mark.parametrize("how", ["time", "word"])
def test_it_is_killed_with_all_that_it_has_started_when_time_is_over_or_a_file_is_there(
    tmp_path: Path, how: str
) -> None:
    flag, after = tmp_path / "flag", tmp_path / "after"
    touch = "pathlib.Path({!r}).touch()".format
    child = f"import time, pathlib; {touch(str(flag))}; time.sleep(3); {touch(str(after))}"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    bound: dict[str, Any] = {"stop": flag.exists} if how == "word" else {"seconds": 0.8}
    found = outcome_of((sys.executable, "-c", code), tmp_path / "log", {}, **bound)
    assert found.status == -signal.SIGKILL and found.seconds < 3
    # its child held the log open too: where it lived on, it would still write
    assert not after.exists()


# What is rehearsed


def test_every_kind_of_run_of_tables_1_3_4_and_6_is_there_once() -> None:
    found = rehearse.kinds(H100)
    assert list(found) == ["student, plain", "student, cached", "student, online", "gradients", "throughput, online"]
    assert all(run.recipe.student == "300M" and run.recipe.teacher == "3B" for _, run in found.values())


def test_the_rehearsed_scale_keeps_shapes_classes_and_lengths_and_has_little_of_everything_else(tmp_path: Path) -> None:
    path = tmp_path / "h100-rehearsed.toml"
    small = rehearsed(H100, path, {"3B": 5}, "stdlib", rehearse.lengths(rehearse.kinds(H100)))
    write(small, path)
    assert load_scale(str(path)) == small
    for name, role in H100.roles.items():
        its = small.roles[name]
        assert its.model_copy(update={"optimiser": role.optimiser, "layers": role.layers}) == role
        assert (its.layers, its.optimiser.batch) == (5 if name == "3B" else role.layers, BATCH)
    assert (small.classes, small.lengths, small.precision) == (100_278, H100.lengths, "bfloat16")
    for _, run in rehearse.kinds(H100).values():
        mine = replace(run, scale=small)
        assert mine.steps == STEPS and mine.teacher is not None and mine.teacher.steps == STEPS
    assert tokenizer(1000).get_vocab_size() == 1000


def test_what_does_not_fit_is_cut_in_layers_and_no_further_than_it_must(tmp_path: Path) -> None:
    path = tmp_path / "h100-rehearsed.toml"
    kinds = rehearse.kinds(H100)
    acts = rehearse.acts(kinds, rehearse.fitted(H100, kinds, path, 30e9, "stdlib"), path)
    assert acts[0].run.role.layers == 24
    small = rehearse.fitted(H100, kinds, path, 20.5e9, "stdlib")
    assert small.roles["3B"].layers < 24 == small.roles["300M"].layers
    assert max(act.bytes for act in rehearse.acts(kinds, small, path)) <= 20.5e9
    more = small.model_copy(update={"roles": {**small.roles, "3B": deeper(small.roles["3B"])}})
    assert max(act.bytes for act in rehearse.acts(kinds, more, path)) > 20.5e9
    assert rehearse.fitted(H100, kinds, path, 15e9, "stdlib").roles["300M"].layers < 24
    with pytest.raises(
        ValueError, match=r"^Even with one layer in each model '.*' takes [0-9.]+ GB, and 1.0 GB are left"
    ):
        rehearse.fitted(H100, kinds, path, 1e9, "stdlib")


def deeper(role: Any) -> Any:
    return role.model_copy(update={"layers": role.layers + 1})


def in_this_process(
    command: Sequence[str],
    log: Path,
    environment: Mapping[str, str],
    seconds: float = 0.0,
    stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """The same command without a process of its own, of which there would be nine. Two processes are one here."""
    words = list(command[command.index("replication") + 1 :]) if "replication" in command else []
    advance = Training.advance

    def watched(training: Training) -> tuple[float, float, float]:
        if stop():
            raise Killed
        return advance(training)

    with pytest.MonkeyPatch.context() as patch:
        for name, word in environment.items():
            patch.setenv(name, word)
        patch.setattr(Training, "advance", watched)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()
        try:
            return Outcome(command_line.main(words) if words else 0, 1.0, 10**9)
        except Killed:
            return Outcome(-signal.SIGKILL, 1.0, 10**9)


def test_a_rehearsal_runs_everything_and_says_what_it_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearse, "outcome_of", in_this_process)
    scale, said = load_scale(str(write_scale(tmp_path))), list[str]()
    well = rehearse.rehearse(scale, tmp_path / "here", 20, 5, f"path:{tmp_path / 'text'}", said.append)
    names = ["program and text", "teacher", "caches", *rehearse.kinds(scale), "student, sharded"]
    assert [line.partition("  ")[0] for line in said[: len(names)]] == [
        "student, cached, killed" if name == "student, cached" else name for name in names
    ]
    assert all("on an H100" in line for line in said[1 : len(names) - 1])
    assert "at once" in said[1] and "predicted" in said[1]  # a step's memory there
    # planted: 1 GB, whatever was predicted of these few weights
    assert not well and len(said) > len(names) and "more than 10%" in said[-1]
    ended = {path.parent.name for path in (tmp_path / "here/results/small-rehearsed").glob("*/summary.json")}
    assert len(ended) == 7 and not (tmp_path / "here/artifacts").exists()


def test_the_memory_that_was_measured_once_is_what_is_predicted(tmp_path: Path) -> None:
    """The CE student of scale h100, 514M weights, without a teacher, three steps of two sequences: 13.44 GB in all,
    of which the program and its text were 0.47."""
    small = rehearsed(H100, tmp_path / "x.toml", {}, "stdlib", rehearse.lengths(rehearse.kinds(H100)))
    run = Run(parse({"teacher": "none", "target": "OneHot"}), small, 0)
    assert Cost(run).student.parameters == pytest.approx(514e6, rel=0.001)
    assert 0.47e9 + peak(run) == pytest.approx(13.44e9, rel=rehearse.OFF)
    # over two processes each has half of the weights, gradients and moments
    assert beside_the_first(run) < peak(run, 2) < peak(run)


# What comes first where there is a GPU


def test_the_parts_are_in_the_order_of_their_worth_and_each_run_is_in_one(tmp_path: Path) -> None:
    found = parts("h100", "h100-sweep", this_machine(tmp_path, tmp_path), tmp_path)
    assert [part.name for part in found] == [
        "tests on the device", "bench loss", "bench draws", "rskd/table04 probes", "rskd/table03 teachers",
        "rskd/table03 students", "rskd/table03 probes", "rskd/table06 caches", "rskd/table06 students",
        "rskd/table01 caches", "rskd/table01 students",
    ]  # fmt: skip
    runs = [
        word for part in found if "--runs" in part.command for word in part.command[part.command.index("--runs") + 1 :]
    ]
    assert len(set(runs)) == len(runs)
    sweep = load_scale("h100-sweep")
    for exhibit in ("rskd/table01", "rskd/table03", "rskd/table06"):
        assert set(plan([exhibit], sweep, [0]).runs) <= set(runs)
    timed = plan(["rskd/table04"], H100, [0]).runs
    assert set(runs) & set(timed) == {name for name, run in timed.items() if run.recipe.student == "300M"}
    for part in found:
        if part.command[2] == "replication":
            command_line.parser().parse_args(part.command[3:])
            assert part.expected > 0


def test_a_part_that_has_ended_is_kept_and_one_that_is_cut_off_is_what_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    count, long = tmp_path / "count", tmp_path / "long"
    add = f"open({str(count)!r}, 'a').write('x')"
    wait = f"import pathlib, time; pathlib.Path({str(long)!r}).exists() or time.sleep(60)"
    given = [
        Part("first", (sys.executable, "-c", add)),
        Part("a/long one", (sys.executable, "-c", wait)),
        Part("last", (sys.executable, "-c", add)),
    ]
    times = iter([0.0, 0.0, 60.0 - gpu_first.LEAST, 59.0])
    monkey = pytest.MonkeyPatch()
    monkey.setattr(gpu_first, "outcome_of", lambda *words, seconds: outcome_of(*words, seconds=min(seconds, 1.0)))
    assert not carry_out(given, 1, tmp_path / "out", clock=lambda: next(times))
    monkey.undo()
    said = capsys.readouterr().out
    assert (
        "a/long one: " in said
        and "cut off. The same command goes on" in said
        and "last and what comes after: no time" in said
    )
    assert count.read_text() == "x" and [path.name for path in sorted((tmp_path / "out").glob("*.json"))] == [
        "01-first.json"
    ]
    long.touch()
    assert carry_out(given, 1, tmp_path / "out")
    assert count.read_text() == "xx" and "first: done before" in capsys.readouterr().out
    assert json.loads((tmp_path / "out/02-a-long-one.json").read_text())["status"] == 0


def test_a_part_that_fails_is_said_and_the_others_are_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [
        Part("wrong", (sys.executable, "-c", "raise SystemExit('no such thing')")),
        Part("right", (sys.executable, "-c", "")),
    ]
    assert not carry_out(given, 1, tmp_path)
    said = capsys.readouterr().out
    assert "wrong: " in said and "no such thing" in said and (tmp_path / "02-right.json").exists()
    assert not (tmp_path / "01-wrong.json").exists()


def test_without_a_gpu_it_says_what_it_would_run_and_runs_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert gpu_first.main(["--build", str(tmp_path / "none")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: No GPU is at hand") and said.count("\n") == 1
    assert gpu_first.main(["--dry", "--build", str(tmp_path / "none")]) == 0
    assert "rskd/table04 probes" in capsys.readouterr().out and not (tmp_path / "none").exists()
    assert gpu_first.main(["--minutes", "0"]) == 2
    assert "MINUTES is 0; give more than 0." in capsys.readouterr().err
