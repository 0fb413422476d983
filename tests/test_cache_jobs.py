"""Caching as independent jobs: whichever writes what, whenever it is killed, the bytes are those of one process.

The test runs this file as a script: one process that loads torch once and forks the jobs.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from replication.cache import ownership
from replication.cache.manifest import FILE, UNFINISHED
from replication.cache.part import WHOLE, Part, part
from replication.cache.shard import file_name
from replication.cache.verify import verify
from replication.cache.writer import Writer
from tests.small import write_scale
from tests.test_cache import IN_SHARD, SEQUENCES, build, files, fill, header, rows

if TYPE_CHECKING:
    from replication.machine.device import Machine
    from replication.training.needs import Need

ROOT = Path(__file__).parents[1]
JOBS = 4
REFUSED = 3


def test_parts_write_each_shard_once() -> None:
    assert part("2/4") == Part(2, 4) and part("1/1") == WHOLE
    owners = [[shard for shard in range(11) if Part(number, 4).owns(shard)] for number in (1, 2, 3, 4)]
    assert owners == [[0, 4, 8], [1, 5, 9], [2, 6, 10], [3, 7]]
    for wrong in ("0/4", "5/4", "0/0"):
        with pytest.raises(ValueError, match=rf"no part {wrong}; give 1/"):
            part(wrong)
    for wrong in ("2", "2/", "-1/4", "a/b", "1/2/3", ""):
        with pytest.raises(ValueError, match="is no part of the work; give its number and how many there are"):
            part(wrong)


@pytest.mark.parametrize("order", [[1, 2, 3], [3, 3, 2], [2]])
@pytest.mark.parametrize("workers", [0, 1])
def test_the_whole_finds_what_parts_wrote(tmp_path: Path, order: list[int], workers: int) -> None:
    directory = tmp_path / "parts"
    for number in order:
        build(directory, part=Part(number, 3), workers=workers)
        assert (directory / UNFINISHED).exists() and not (directory / FILE).exists()
    with Writer(directory, header(), SEQUENCES, IN_SHARD) as cache:
        left = sorted({number - 1 for number in (1, 2, 3)} - {number - 1 for number in order})
        wanted = [sequence for sequence in range(SEQUENCES) if sequence // IN_SHARD % 3 in left]
        assert [sequence for span in cache.missing() for sequence in span] == wanted
        fill(cache)
    assert files(directory) == files(build(tmp_path / "once"))
    build(directory, part=Part(1, 3))  # late, and nothing is left to do
    assert files(directory) == files(tmp_path / "once")


def test_a_part_keeps_to_its_shards(tmp_path: Path) -> None:
    with Writer(tmp_path, header(), SEQUENCES, IN_SHARD, part=Part(2, 3)) as cache:
        assert cache.missing() == [range(4, 8), range(16, 20)]
        with pytest.raises(ValueError, match="Sequence 0 is cached already or another part's; put only what missing"):
            cache.put(0, *rows(header(), range(4)))
        fill(cache)
    assert sorted(path.name for path in tmp_path.glob("*.bin")) == [file_name(1), file_name(4)]
    with pytest.raises(ValueError, match="lacks 2 of 22 sequences"):
        build(tmp_path, part=Part(3, 3), batch=4, stop_after=4)


def test_parts_write_side_by_side_and_the_whole_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job's drafts stay; the whole sweeps what the killed left, and only when it is alone."""
    monkeypatch.setattr(ownership, "PATIENCE", 0.1)
    with Writer(tmp_path / "parts", header(), SEQUENCES, IN_SHARD, part=Part(1, 2)) as first:
        draft = tmp_path / "parts" / (file_name(1) + ".0123.tmp")
        draft.write_bytes(b"a neighbour is writing this")
        with Writer(tmp_path / "parts", header(), SEQUENCES, IN_SHARD, part=Part(2, 2)) as second:
            fill(second)
        with pytest.raises(ValueError, match="Another process is writing the cache in .*; wait for it, or end it"):
            Writer(tmp_path / "parts", header(), SEQUENCES, IN_SHARD)
        assert draft.exists()
        fill(first)
    with Writer(tmp_path / "parts", header(), SEQUENCES, IN_SHARD) as whole:
        assert whole.missing() == [] and not draft.exists()
        with pytest.raises(ValueError, match="Another process is writing"):
            Writer(tmp_path / "parts", header(), SEQUENCES, IN_SHARD, part=Part(1, 2))
    assert files(tmp_path / "parts") == files(build(tmp_path / "once"))


def test_a_part_of_another_cache_is_refused(tmp_path: Path) -> None:
    build(tmp_path, part=Part(1, 2))
    with pytest.raises(ValueError, match="seed is 0 in the cache but 1 here"):
        Writer(tmp_path, header(seed=1), SEQUENCES, IN_SHARD, part=Part(2, 2))
    with pytest.raises(ValueError, match="begun with shard_sequences = 4, not 5"):
        Writer(tmp_path, header(), SEQUENCES, 5, part=Part(2, 2))


def test_many_jobs_may_begin_at_once(tmp_path: Path) -> None:
    """One plan stays; a job that locked a plan which the finished cache has removed looks again."""
    with pytest.raises(ValueError, match="lacks"):
        build(tmp_path / "plan", stop_after=0)
    with Writer(tmp_path / "plan", header(), SEQUENCES, IN_SHARD) as cache:
        plan = cache.plan
        fill(cache)
    for round_ in range(20):
        directory = tmp_path / str(round_)
        barrier, locks = threading.Barrier(8), []

        def begin(directory: Path = directory, barrier: threading.Barrier = barrier, locks: list = locks) -> None:
            barrier.wait()
            locks.append(ownership.claim(directory, plan, alone=False))

        threads = [threading.Thread(target=begin) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {os.fstat(lock).st_ino for lock in locks} == {(directory / UNFINISHED).stat().st_ino}
        assert [path.name for path in directory.iterdir()] == [UNFINISHED]
        for lock in locks:
            os.close(lock)


def test_a_plan_that_goes_while_it_is_locked_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between reading the plan and locking it, the cache is finished by another process."""
    build(tmp_path / "finished")
    build(tmp_path / "parts", part=Part(1, 2))
    real = ownership.locked

    def overtaken(path: Path, alone: bool) -> int:
        lock = real(path, alone)
        for file in (tmp_path / "finished").iterdir():
            shutil.copy(file, tmp_path / "parts")
        ownership.settle(path.parent)
        return lock

    monkeypatch.setattr(ownership, "locked", overtaken)
    with Writer(tmp_path / "parts", header(), SEQUENCES, IN_SHARD, part=Part(2, 2)) as cache:
        assert cache.missing() == [] and cache.lock is None
    assert files(tmp_path / "parts") == files(tmp_path / "finished")


def test_four_jobs_one_of_them_killed(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TQDM_DISABLE": "1"}
    subprocess.run([sys.executable, __file__, str(tmp_path)], cwd=ROOT, env=environment, check=True, timeout=300)


def four_jobs(folder: Path) -> None:
    """A teacher, two caches of it by one process, and the same by four of which one is killed between two shards."""
    from replication.__main__ import main
    from replication.experiment import identity
    from replication.experiment.recipe import parse
    from replication.experiment.run import Run
    from replication.experiment.scale import load_scale
    from replication.machine.device import this_machine
    from replication.training import teacher_pass
    from replication.training.loop import train
    from replication.training.needs import Need

    teacher_pass.SHARD = 32
    path = write_scale(folder)
    path.write_text(path.read_text().replace('"10B" = 1152', '"10B" = 7_680'))
    scale = load_scale(str(path))
    once, jobs = (this_machine(folder / name, folder / name).at("float32") for name in ("once", "jobs"))
    runs = [
        Run(parse({"target": target}), scale, 0) for target in ({"name": "RandomSampling"}, {"name": "TopK", "k": 5})
    ]
    assert runs[0].teacher is not None
    train(runs[0].teacher, once)
    shutil.copytree(once.artifacts, jobs.artifacts)  # the same teacher
    needs = [Need(run) for run in runs]
    teacher_pass.build(needs, once)
    assert all(len(files(need.folder(once))) == 1 + 10 for need in needs), "ten shards and a manifest"

    def job(number: int, pause: float = 0) -> int:
        child = os.fork()
        if child:
            return child
        put = teacher_pass.put
        teacher_pass.put = lambda *arguments: (time.sleep(pause), put(*arguments))  # type: ignore[assignment]
        teacher_pass.build(needs, jobs, Part(number, JOBS))
        os._exit(0)

    children = {number: job(number, pause=0.1 if number == 2 else 0.01) for number in (1, 2, 3, 4)}
    for need in needs:
        wait_for(need.folder(jobs) / file_name(1))  # of part 2's shards 1, 5, 9
    os.kill(children[2], signal.SIGKILL)
    statuses = {number: os.waitpid(child, 0)[1] for number, child in children.items()}
    assert statuses == {1: 0, 2: signal.SIGKILL, 3: 0, 4: 0}
    there = [[(need.folder(jobs) / file_name(index)).exists() for index in range(10)] for need in needs]
    assert there == [[index not in (5, 9) for index in range(10)]] * 2
    assert not any((need.folder(jobs) / FILE).exists() for need in needs)
    assert not os.waitpid(job(2), 0)[1]
    (needs[0].folder(jobs) / file_name(3)).unlink()  # lost: the whole computes it again

    recipe = folder / "recipe.toml"
    os.environ["ARTIFACTS"] = str(jobs.artifacts)
    for run in runs:
        stated = ", ".join(f"{key} = {value!r}" for key, value in identity.plain(run.recipe.target).items())
        recipe.write_text(f"target = {{ {stated} }}\n".replace("'", '"'))
        assert main(["cache", "build", str(recipe), "--scale", str(path), "--part", "3/3"]) == 0
        assert main(["cache", "build", str(recipe), "--scale", str(path)]) == 0
    for need in needs:
        assert files(need.folder(jobs)) == files(need.folder(once))
        assert verify(need.folder(jobs)) == []

    two = this_machine(folder / "two", folder / "two").at("float32")
    shutil.copytree(once.artifacts, two.artifacts, ignore=shutil.ignore_patterns("caches"))
    statuses = sorted(os.waitpid(child, 0)[1] for child in [builder(needs, two), builder(needs, two)])
    assert [os.waitstatus_to_exitcode(status) for status in statuses] == [0, REFUSED]
    for need in needs:
        assert files(need.folder(two)) == files(need.folder(once))


def builder(needs: list[Need], machine: Machine) -> int:
    """A process that builds the whole; slowly, so that another one comes while it does."""
    from replication.training import teacher_pass

    child = os.fork()
    if child:
        return child
    put = teacher_pass.put
    teacher_pass.put = lambda *arguments: (time.sleep(0.02), put(*arguments))  # type: ignore[assignment]
    ownership.PATIENCE = 0.1
    try:
        teacher_pass.build(needs, machine)
    except ValueError as error:
        os._exit(REFUSED if "Another process is writing the cache in" in str(error) else 1)
    os._exit(0)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.01)


def test_the_order_of_batches_feeds_every_worker() -> None:
    from replication.cache.writer import BATCH, SHARD
    from replication.training.teacher_pass import in_turn

    starts = [start for start in range(0, 10 * SHARD, BATCH) if start // SHARD % 2]  # the shards of part 2/2
    assert in_turn(starts, 0) == in_turn(starts, 1) == starts
    order = in_turn(starts, 2)
    assert sorted(order) == starts
    assert [start // SHARD for start in order[:4]] == [1, 3, 1, 3]
    begun_at_once = [len(begun) for begun in gathering(order, SHARD // BATCH)]
    assert max(begun_at_once) == 2


def gathering(order: list[int], batches: int) -> list[set[int]]:
    """The shards that are begun and not complete, after each batch."""
    seen: dict[int, int] = {}
    states = []
    for start in order:
        shard = start // (16 * batches)
        seen[shard] = seen.get(shard, 0) + 1
        states.append({shard for shard, number in seen.items() if number < batches})
    return states


if __name__ == "__main__":
    four_jobs(Path(sys.argv[1]))
