"""The Slurm profile against a real Slurm of one node, on loopback: jobs die half-way, the numbers are this machine's.

Needs root and Debian's slurm-wlm and munge; .ci/run installs them.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from replication.__main__ import main as replication
from tests.small import SCALE, write_text
from tools import one_node_slurm
from workflow.__main__ import FOLDER

ROOT = Path(__file__).parent.parent
EXHIBIT = "rskd/table16"
# Two students that read a cache, and how each is interrupted: Slurm starts the first again, Snakemake the second.
DEATHS = {
    "randomsampling-s0": ["scontrol", "requeue"],
    "randomsampling-different-teacher-length4096-s0": ["scancel", "--full", "--signal=KILL"],
}


@pytest.fixture
def slurm() -> Iterator[None]:
    why = one_node_slurm.obstacle()
    if why:
        warnings.warn(f"SLURM WAS NOT TESTED: {why}", stacklevel=1)
        pytest.skip(f"SLURM WAS NOT TESTED: {why}")
    # a machine has one of them: another session's tests wait
    with (Path(tempfile.gettempdir()) / "one-node-slurm.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        already = one_node_slurm.pid("slurmctld") is not None
        one_node_slurm.start()
        yield
        if not already:
            one_node_slurm.stop()


def test_jobs_that_die_half_way_end_with_the_numbers_of_this_machine(
    slurm: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scale, here, there = longer_scale(tmp_path), tmp_path / "here", tmp_path / "there"
    run_here(scale, here, monkeypatch)
    names = [path.name for path in (here / "results/small").iterdir()]
    deaths = {next(name for name in names if name[:-9] == start): how for start, how in DEATHS.items()}

    # Teacher and three students are done; the caches and the two students that read them are left to Slurm.
    shutil.copytree(here, there)
    shutil.rmtree(there / "artifacts/small/caches")
    for name in deaths:
        shutil.rmtree(there / "results/small" / name)
        shutil.rmtree(there / "artifacts/small/models" / name)
    command = [sys.executable, "-m", "workflow", EXHIBIT, "--scale", str(scale), "--profile", str(profile(tmp_path))]
    log = tmp_path / "log.txt"
    with (
        log.open("w") as file,
        subprocess.Popen(command, cwd=ROOT, env=os.environ | places(there), stdout=file, stderr=file) as workflow,
    ):
        try:
            kept = interrupt(deaths, there, workflow)
            assert kept.keys() == deaths.keys() and all(kept.values()), log.read_text()
            assert workflow.wait(timeout=900) == 0, log.read_text()
        finally:
            workflow.terminate()

    assert "Trying to restart job" in log.read_text()  # Snakemake's doing, for the killed one
    assert sorted(path.name for path in (there / "results/small").iterdir()) == sorted(names)
    for name in names:
        assert outcome(there, name) == outcome(here, name), name
    for name, lines in kept.items():
        # with the seconds of its first life: it went on from its checkpoint
        assert (there / "results/small" / name / "metrics.jsonl").read_text().startswith(lines), name


def test_another_slurm_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign = tmp_path / "slurm.conf"
    foreign.write_text("ClusterName=production\n")
    monkeypatch.setattr(one_node_slurm, "CONFIGURATION", foreign)
    monkeypatch.setattr(one_node_slurm, "DAEMONS", ("sh",))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    for action in ("start", "stop"):
        assert one_node_slurm.main([action]) == 2
        assert f"{foreign} is another Slurm's" in capsys.readouterr().err
    assert foreign.read_text() == "ClusterName=production\n"


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(one_node_slurm, "DAEMONS", ("sh", "no-such-slurmd"))
    assert one_node_slurm.main(["start"]) == 2
    said = capsys.readouterr().err
    assert "no-such-slurmd not found" in said and "apt-get install slurm-wlm munge" in said and said.count("\n") == 1
    monkeypatch.setattr(one_node_slurm, "DAEMONS", ("sh",))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "only root" in one_node_slurm.obstacle()


def test_a_pid_file_of_the_past_is_nobodys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_node_slurm, "STATE", tmp_path)
    assert one_node_slurm.pid("slurmd") is None
    (tmp_path / "slurmd.pid").write_text(f"{os.getpid()}\n")
    assert one_node_slurm.pid("slurmd") is None


def longer_scale(folder: Path) -> Path:
    """The tests' scale, whose students here train for seconds: long enough to be caught half-way."""
    path = folder / "small.toml"
    longer = SCALE.replace('"10B" = 1152', '"10B" = 24_000').replace("checkpoint_every = 3", "checkpoint_every = 50")
    path.write_text(longer.format(text=write_text(folder / "text")))
    return path


def places(folder: Path) -> dict[str, str]:
    return {"RESULTS": str(folder / "results"), "ARTIFACTS": str(folder / "artifacts")}


def run_here(scale: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from replication.experiment.scale import load_scale
    from replication.planning.plan import plan

    for name, value in places(folder).items():
        monkeypatch.setenv(name, value)
    found = plan([EXHIBIT], load_scale(str(scale)), [0])
    for call in (
        ["step", EXHIBIT, "--runs", *found.teachers],
        ["cache", "build", EXHIBIT],
        ["step", EXHIBIT, "--runs", *found.runs],
    ):
        assert replication([*call, "--scale", str(scale)]) == 0


def profile(folder: Path) -> Path:
    """The Slurm profile, asking more often, with one thread for each job as everywhere in these tests."""
    settings = yaml.safe_load((FOLDER / "profiles/slurm/config.yaml").read_text())
    settings["slurm-init-seconds-before-status-checks"] = 1
    settings["set-threads"] = dict.fromkeys(settings["set-threads"], 1)
    (folder / "profile").mkdir()
    (folder / "profile/config.yaml").write_text(yaml.safe_dump(settings))
    return folder / "profile"


def interrupt(deaths: dict[str, list[str]], folder: Path, workflow: subprocess.Popen[bytes]) -> dict[str, str]:
    """End each run's job once it has left a checkpoint; give what it had logged by its first one."""
    kept: dict[str, str] = {}
    while len(kept) < len(deaths) and workflow.poll() is None:
        for name in deaths.keys() - kept.keys():
            if any((folder / "artifacts/small/checkpoints" / name).glob("0*")):
                lines = (folder / "results/small" / name / "metrics.jsonl").read_text().splitlines(keepends=True)
                kept[name] = "".join(line for line in lines if json.loads(line)["step"] <= 50)
                subprocess.run([*deaths[name], job_of(name)], check=True)
        time.sleep(0.02)
    return kept


def job_of(name: str) -> str:
    answer = subprocess.check_output(["squeue", "--noheader", "--format=%A %k"], text=True)
    return next(line.split()[0] for line in answer.splitlines() if line.endswith(f"_{name}"))


def outcome(folder: Path, name: str) -> dict[str, object]:
    summary = json.loads((folder / "results/small" / name / "summary.json").read_text())
    return {key: value for key, value in summary.items() if key != "machine"}
