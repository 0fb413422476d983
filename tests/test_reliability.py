"""What a machine does to a run: stopped anywhere, a full or forbidden disk, a clock that jumps, files cut or replaced.

Each loses nothing and says in one line what to do; here it is done.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from replication.__main__ import main
from replication.cache import ownership
from replication.cache.manifest import FILE
from replication.cache.shard import file_name
from replication.cache.verify import verify
from replication.experiment.recipe import parse, read
from replication.experiment.run import Run
from replication.experiment.scale import load_scale
from replication.machine.alone import alone
from replication.machine.device import Machine, this_machine
from replication.records.record import EVALUATIONS, STEPS, Record, record_of
from replication.training import teacher_pass
from replication.training.needs import Need
from replication.training.weights import model_folder
from tests.small import write_scale
from tests.test_cache import files
from tests.test_cache_mend import flip

ROOT = Path(__file__).parents[1]
RECIPE = 'target = { name = "RandomSampling", draws = 12 }\n'


@dataclass(frozen=True)
class Place:
    """A recipe, and folders of its own for what comes of it."""

    recipe: Path
    scale: Path
    machine: Machine

    def run(self, *words: str) -> int:
        return main([*words, "--scale", str(self.scale)])

    @property
    def a_run(self) -> int:
        return self.run("run", str(self.recipe))

    @property
    def build(self) -> int:
        return self.run("cache", "build", str(self.recipe))

    def follow(self, said: str, recipe: Path | None = None) -> int:
        """Type what a message says."""
        (command,) = re.findall(r"python -m replication (cache build [^,\n]+)", said)
        words = command.replace("RECIPE", str(recipe or self.recipe)).split()
        return main(words) if "--scale" in words else self.run(*words)

    @property
    def student(self) -> Run:
        return Run(parse(read(self.recipe)), load_scale(str(self.scale)), 0)

    @property
    def record(self) -> Record:
        return record_of(self.student, self.machine)

    @property
    def cache(self) -> Path:
        return Need(self.student).folder(self.machine)

    @property
    def outcome(self) -> dict[str, Any]:
        """Everything that a run leaves, but for seconds and bytes of memory."""
        lines = {name: [dict(line, seconds=0) for line in self.record.lines(name)] for name in (STEPS, EVALUATIONS)}
        summary = json.loads((self.record.folder / "summary.json").read_text())
        weights = (model_folder(self.student, self.machine) / "model.safetensors").read_bytes()
        return {**lines, "summary": {**summary, "machine": 0}, "weights": weights, "cache": files(self.cache)}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A finished run whose cache has three shards."""
    folder = tmp_path_factory.mktemp("once")
    (folder / "recipe.toml").write_text(RECIPE)
    place = Place(folder / "recipe.toml", write_scale(folder), this_machine(folder / "results", folder / "artifacts"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(teacher_pass, "SHARD", 16)
        at(place.machine, patched)
        assert place.a_run == 0
        yield place


def at(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESULTS", str(machine.results))
    monkeypatch.setenv("ARTIFACTS", str(machine.artifacts))


@pytest.fixture
def place(small: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """The same run in folders of its own, which it may spoil."""
    found = copied(small, tmp_path)
    at(found.machine, monkeypatch)
    return found


def copied(small: Place, folder: Path) -> Place:
    shutil.copytree(small.machine.results, folder / "results")
    shutil.copytree(small.machine.artifacts, folder / "artifacts")
    shutil.copy(small.recipe, folder / "recipe.toml")
    return Place(folder / "recipe.toml", small.scale, this_machine(folder / "results", folder / "artifacts"))


def undo(place: Place, cache: bool = False) -> None:
    """As before the student was trained or, with `cache`, as before its cache was built."""
    shutil.rmtree(place.record.folder)
    shutil.rmtree(model_folder(place.student, place.machine))
    if cache:
        shutil.rmtree(place.cache)


Said = pytest.CaptureFixture[str]


def last_line(capfd: Said) -> str:
    """What a command says that does not end well: one line below its progress, and no traceback."""
    said = capfd.readouterr().err
    assert "Traceback" not in said
    return re.split("[\r\n]", said.rstrip("\n"))[-1]


def test_a_damaged_shard_is_named_wherever_the_cache_is_opened(place: Place, small: Place, capfd: Said) -> None:
    damaged, others = place.cache / file_name(1), [place.cache / file_name(index) for index in (0, 2)]
    flip(damaged)
    undo(place)
    inodes = [path.stat().st_ino for path in others]
    probe = place.recipe.with_name("storage.toml")
    probe.write_text(RECIPE + 'probe = "storage"\n')
    commands = (
        lambda: place.a_run,
        lambda: main(["cache", "stats", str(place.cache)]),
        lambda: place.run("run", str(probe)),
        lambda: main(["cache", "verify", str(place.cache)]),
    )
    capfd.readouterr()
    for command in commands:
        assert command() == 2
        said = capfd.readouterr()
        assert f"{damaged} is damaged: its checksum differs" in said.out + said.err
        assert "Traceback" not in said.err and "cache build RECIPE" in said.err.splitlines()[-1]
    assert place.follow(said.err) == 0
    assert f"{damaged} is damaged" in capfd.readouterr().err
    assert [path.stat().st_ino for path in others] == inodes and verify(place.cache) == []
    assert place.a_run == 0  # on from where it was refused
    assert place.outcome == small.outcome


def test_verify_ends_in_three_ways(place: Place, capfd: Said, tmp_path: Path) -> None:
    other, before = tmp_path / "other.toml", files(place.cache)
    other.write_text('target = { name = "TopK", k = 6 }\n')

    def ending(folder: Path, recipe: Path) -> str:
        assert place.run("cache", "verify", str(folder), "--recipe", str(recipe)) == 2
        return last_line(capfd)

    nowhere = ending(tmp_path / "nowhere", place.recipe)
    assert f"There is no cache in {tmp_path / 'nowhere'}: it is no folder. Give a cache's folder" in nowhere
    assert f"{tmp_path}: it holds no manifest.json" in ending(tmp_path, place.recipe)
    another = ending(place.cache, other)
    assert f"{place.cache} is sound, but it is another run's, RandomSampling(draws=12" in another
    assert "but TopK(k=6) here" in another and "This run's cache is not built; to build it as" in another
    assert place.follow(another, other) == 0
    built = ending(place.cache, other)
    assert "problem" not in built and re.search(r"This run's cache is \S*/topk-k6\S*\.$", built)
    for index in (0, 2):
        flip(place.cache / file_name(index))
    said = ending(place.cache, place.recipe)
    assert f"2 files are missing or damaged in {place.cache}; to write that again, and nothing else:" in said
    assert place.follow(said) == 0
    assert files(place.cache) == before
    assert place.run("cache", "verify", str(place.cache), "--recipe", str(place.recipe)) == 0
    other.write_text('target = "Full"\n')
    assert "needs no cache" in ending(place.cache, other)


def test_after_the_teacher_changed_the_advice_builds_a_cache(place: Place, capfd: Said, tmp_path: Path) -> None:
    teacher = place.student.teacher
    assert teacher is not None
    mine = shutil.copytree(model_folder(teacher, place.machine), tmp_path / "teacher")
    place.recipe.write_text(f'teacher = "{mine}"\n{RECIPE}')
    assert place.build == 0
    before = files(place.cache)
    weights = load_file(mine / "model.safetensors")
    name = max(weights, key=lambda key: weights[key].numel())
    save_file({**weights, name: weights[name] + 0.01}, mine / "model.safetensors", {"format": "pt"})
    assert place.a_run == 2
    said = last_line(capfd)
    assert "teacher is" in said and "(the other one is kept beside it)" in said
    assert place.follow(said) == 0
    assert "teacher is" in (told := capfd.readouterr().err) and f"replaced/{place.cache.name}-1" in told
    assert files(place.cache.parent / "replaced" / f"{place.cache.name}-1") == before
    assert files(place.cache)[FILE] != before[FILE] and verify(place.cache) == []
    assert place.a_run == 0


def from_scratch(small: Place, folder: Path) -> Place:
    """The recipe and its tokenised text."""
    folder.mkdir(exist_ok=True)
    shutil.copytree(small.machine.artifacts / "text", folder / "artifacts" / "text")
    shutil.copy(small.recipe, folder / "recipe.toml")
    return Place(folder / "recipe.toml", small.scale, this_machine(folder / "results", folder / "artifacts"))


# where, and before which of its calls
STAGES = {
    "a step of the teacher": ("torch.optim.AdamW.step", 5),
    "its checkpoint": ("torch.distributed.checkpoint.filesystem.FileSystemWriter.write_data", 1),
    "its publication": ("replication.training.loop.publish", 1),
    "its record": ("replication.records.record.Record.finish", 1),
    "the plan of the cache": ("replication.cache.ownership.write_plan", 1),
    "the teacher pass": ("replication.training.teacher_pass.put", 2),
    "a shard": ("replication.cache.shard.note", 1),
    "the manifest": ("replication.cache.writer.write_manifest", 1),
    "the end of the cache": ("replication.cache.writer.settle", 1),
    "a step of the student": ("torch.optim.AdamW.step", 8),
    "a later one": ("torch.optim.AdamW.step", 5),
    "the evaluation": ("replication.training.loop.evaluate", 1),
    "the publication": ("replication.data.tokenizer.Tokenizer.save", 1),
    "the summary": ("replication.records.record.write", 1),
}


def test_ctrl_c_at_every_stage_and_a_clock_that_jumps(
    small: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Said
) -> None:
    """One run, stopped at each stage in turn; between two of them all files are of another day, past or to come."""
    place, chance = from_scratch(small, tmp_path), random.Random(0)
    at(place.machine, monkeypatch)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        for stage in STAGES:
            with monkeypatch.context() as patched:
                left = before(patched, stage, lambda: signal.raise_signal(signal.SIGINT))  # to the main thread
                assert place.a_run == 130, stage
            assert left[0] <= 0, stage
            assert last_line(capfd) == "stopped; the same command goes on from what is saved", stage
            for path in place.recipe.parent.rglob("*"):
                os.utime(path, (0, chance.uniform(0, 4e9)))
            monkeypatch.setattr("time.time", lambda: chance.uniform(0, 4e9))
    finally:
        signal.signal(signal.SIGINT, handler)
    assert place.a_run == 0
    assert place.outcome == small.outcome
    assert not any(path.suffix == ".tmp" or path.parent.name == "running" for path in tmp_path.rglob("*"))


def before(monkeypatch: pytest.MonkeyPatch, stage: str, deed: Callable[[], object]) -> list[int]:
    """Do something at a stage; the list says how many calls are left until then."""
    name, call = STAGES[stage]
    owner, _, attribute = name.rpartition(".")
    real, left = getattr(resolve_name(owner), attribute), [call]

    def doing(*given: Any, **named: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            deed()
        return real(*given, **named)

    monkeypatch.setattr(name, doing)
    return left


def test_ctrl_c_while_torch_loads(tmp_path: Path) -> None:
    """Nothing is begun yet: it ends, without a traceback of somebody else's imports."""
    command = [sys.executable, "-m", "replication", "run", str(tmp_path / "recipe.toml")]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, preexec_fn=default_sigint) as process:
        while "libtorch" not in Path(f"/proc/{process.pid}/maps").read_text():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.communicate()[1] == b"" and process.returncode == -signal.SIGINT


def default_sigint() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs are started to ignore it


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a small file system takes the right to mount one: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_at_every_stage(small: Place, disk: Path, monkeypatch: pytest.MonkeyPatch, capfd: Said) -> None:
    """One run, whose disk fills at each stage in turn, and is cleared each time."""
    place, ballast = from_scratch(small, disk), disk / "ballast"
    at(place.machine, monkeypatch)
    for stage in STAGES:
        with monkeypatch.context() as patched:
            left = before(patched, stage, lambda: fill_up(ballast))
            assert place.a_run == 2, stage
        said = last_line(capfd)
        assert left[0] <= 0, stage
        assert re.search("disk (is )?full.*free some space and run the same command again", said, re.I), (stage, said)
        assert str(disk) in said and not list(disk.rglob("*.tmp")), (stage, said)
        ballast.unlink()
    assert place.a_run == 0
    assert place.outcome == small.outcome


def fill_up(ballast: Path) -> None:
    with suppress(OSError):  # a thread may write at the same time
        ballast.write_bytes(bytes(shutil.disk_usage(ballast.parent).free))


def test_results_that_cannot_be_written_are_noticed_first(
    place: Place, disk: Path, monkeypatch: pytest.MonkeyPatch, capfd: Said
) -> None:
    """What is finished is still shown, verified and built upon; what is not is refused before any work."""
    on_disk = copied(place, disk)
    at(on_disk.machine, monkeypatch)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    assert on_disk.a_run == on_disk.build == 0
    assert on_disk.run("cache", "verify", str(on_disk.cache), "--recipe", str(on_disk.recipe)) == 0
    assert main(["cache", "stats", str(on_disk.cache)]) == 0
    monkeypatch.setattr("replication.__main__.execute", pytest.fail)
    other = place.recipe.with_name("other.toml")
    other.write_text('target = { name = "TopK", k = 6 }\n')
    assert place.run("run", str(other)) == 2
    assert "Read-only file system. Allow it there, or let RESULTS and ARTIFACTS name other folders" in last_line(capfd)
    assert place.run("cache", "build", str(other)) == 2
    assert "Read-only file system" in last_line(capfd)
    monkeypatch.undo()
    at(place.machine, monkeypatch)  # folders that can be written
    assert place.run("run", str(other)) == 0


@pytest.mark.parametrize("name", ["RESULTS", "ARTIFACTS"])
@pytest.mark.parametrize("below", ["", "below"])
def test_a_file_where_a_folder_has_to_be_is_noticed_first(
    place: Place, monkeypatch: pytest.MonkeyPatch, capfd: Said, name: str, below: str
) -> None:
    undo(place)
    file = place.recipe.with_name("file")
    file.touch()
    with monkeypatch.context() as patched:
        patched.setattr("replication.__main__.execute", pytest.fail)
        patched.setenv(name, str(file / below))
        assert place.a_run == 2
    assert "there is a file where a folder has to be. Move it, or let RESULTS and" in last_line(capfd)


def test_two_processes_at_one_piece_of_work(place: Place, monkeypatch: pytest.MonkeyPatch, capfd: Said) -> None:
    """The second is told of the first; afterwards the same command finds the work done, or goes on."""
    undo(place, cache=True)
    lock = place.machine.artifacts / "small" / "running" / place.student.id
    with alone(lock):
        assert place.a_run == 2
        assert f"Another process is at {place.student.id}; wait for it, or end it." in last_line(capfd)
    shutil.rmtree(place.cache)
    monkeypatch.setattr(ownership, "PATIENCE", 0.1)
    with pytest.raises(KeyboardInterrupt), monkeypatch.context() as patched:
        patched.setattr(teacher_pass, "put", second(place, capfd))
        teacher_pass.build([Need(place.student)], place.machine)
    assert place.a_run == 0


def second(place: Place, capfd: Said) -> Callable[..., None]:
    """While one builds, another one wants to."""

    def put(*given: Any) -> None:
        assert place.build == 2
        assert (
            f"Another process is writing the cache in {place.cache}; wait for it, or end it." in capfd.readouterr().err
        )
        raise KeyboardInterrupt

    return put


def half_way(place: Place, monkeypatch: pytest.MonkeyPatch, steps: int = 8) -> None:
    """Stopped after so many of the student's 12 steps; its checkpoint is of a few before."""
    undo(place)
    with monkeypatch.context() as patched:
        left, step = [steps], torch.optim.AdamW.step

        def stopping(*given: Any, **named: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return step(*given, **named)

        patched.setattr("torch.optim.AdamW.step", stopping)
        assert place.a_run == 130


def test_a_deleted_record_begins_anew(place: Place, small: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refusals advise it where an input was replaced: weights that had read the old one must not go on."""
    half_way(place, monkeypatch)
    (checkpoint,) = (place.machine.artifacts / "small" / "checkpoints" / place.student.id).iterdir()
    assert checkpoint.name == "000000006"
    shutil.rmtree(place.record.folder)
    taken, step = [], torch.optim.AdamW.step
    monkeypatch.setattr("torch.optim.AdamW.step", lambda *given, **named: taken.append(1) or step(*given, **named))
    assert place.a_run == 0 and len(taken) == place.student.steps
    assert place.outcome == small.outcome


@pytest.mark.parametrize(
    "tail", [b'{"step": 9, "tok', b'{"step": 8, "loss": {"a": 1}', b"\0\0\0\0", b'{"step"\xff\n12}\n']
)
def test_cut_lines_are_written_again(place: Place, small: Place, monkeypatch: pytest.MonkeyPatch, tail: bytes) -> None:
    half_way(place, monkeypatch)
    for name in (STEPS, EVALUATIONS):
        with open(place.record.folder / name, "ab") as file:
            file.write(tail)
    assert place.a_run == 0
    assert place.outcome == small.outcome


@pytest.mark.parametrize("name", [STEPS, EVALUATIONS])
def test_a_hole_in_what_was_logged_is_not_passed_over(
    place: Place, small: Place, monkeypatch: pytest.MonkeyPatch, capfd: Said, name: str
) -> None:
    half_way(place, monkeypatch)
    path = place.record.folder / name
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(b'"step": 6') + 20])
    assert place.a_run == 2
    said = last_line(capfd)
    assert f"{path} has no whole line of step 6" in said and f"or delete {place.record.folder} to run it again" in said
    path.write_bytes(whole)  # restored
    assert place.a_run == 0
    assert place.outcome == small.outcome


def test_a_damaged_checkpoint_or_config_is_told(place: Place, monkeypatch: pytest.MonkeyPatch, capfd: Said) -> None:
    half_way(place, monkeypatch)
    (checkpoint,) = (place.machine.artifacts / "small" / "checkpoints" / place.student.id).iterdir()
    (checkpoint / ".metadata").write_bytes(b"")
    assert place.a_run == 2
    said = last_line(capfd)
    assert f"The checkpoint {checkpoint} cannot be read" in said and "Delete it" in said
    config = place.record.folder / "config.json"
    config.write_bytes(config.read_bytes()[:100])
    assert place.a_run == 2
    said = last_line(capfd)
    assert f"{config} is damaged" in said and f"Delete {place.record.folder} to run it again" in said
    shutil.rmtree(place.record.folder)
    assert place.a_run == 0
