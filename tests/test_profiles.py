"""The workflow's profiles: Snakemake knows every word of them, and a job's command needs nothing but itself."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

from replication.experiment.scale import load_scale
from replication.machine.device import this_machine
from replication.planning.plan import plan
from tests.small import write_scale
from workflow.__main__ import FOLDER, main, profile_folder, snakemake, with_our_plugins
from workflow.steps import before, write_steps

ROOT = Path(__file__).parent.parent
EXHIBIT = "rskd/table16"
PROFILES = sorted(path.parent.name for path in (FOLDER / "profiles").glob("*/config.yaml"))


def test_there_is_one_for_each_kind_of_machine() -> None:
    assert PROFILES == ["kubernetes", "local", "slurm"]


@pytest.mark.parametrize("name", PROFILES)
def test_snakemake_knows_every_word(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FOLDER / "plugins")
    from snakemake.cli import get_argument_parser
    from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry

    options = get_argument_parser(profiles=[str(profile_folder(name))]).parse_args([])
    plugin = ExecutorPluginRegistry().get_plugin(options.executor)
    settings = plugin.get_settings(options)
    if name == "kubernetes":
        [volume] = settings.persistent_volumes
        assert (volume.name, str(volume.path)) == ("distillation", "/distillation")
        assert options.container_image == "python:3.11"
        assert not plugin.common_settings.implies_no_shared_fs
    rules = re.findall(r"^rule (\w+):", (FOLDER / "Snakefile").read_text(), flags=re.MULTILINE)
    stated = yaml.safe_load((profile_folder(name) / "config.yaml").read_text()).get("set-threads", {})
    assert set(stated) == (set() if name == "local" else set(rules) - {"all"})


def test_a_profile_of_ones_own_decides_gpus_parts_and_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHARDED", "1")
    monkeypatch.setenv("AUTOCAST", "0")
    settings = yaml.safe_load((FOLDER / "profiles/slurm/config.yaml").read_text())
    settings |= {"default-resources": {"gpu": 4, "slurm_partition": "fast"}, "set-scatter": {"cache": 3}}
    settings |= {"set-resources": {"cache_part": {"gpu": 1}}, "set-threads": {"teacher": 7}}
    (tmp_path / "own").mkdir()
    (tmp_path / "own/config.yaml").write_text(yaml.safe_dump(settings))
    machine = this_machine(tmp_path / "my results", tmp_path / "artifacts")
    scale = load_scale(str(write_scale(tmp_path)))
    written = write_steps(plan([EXHIBIT], scale, [0, 1]), scale, machine, [EXHIBIT, "--seeds", "0,1"], None)
    command = snakemake(written, tmp_path / "own", 8)
    assert command[-2:] == ["--quiet", "rules"]
    dry = [*command[:-2], "--dry-run", "--printshellcmds"]
    answer = subprocess.run(dry, cwd=ROOT, env=with_our_plugins(), capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    places = f"RESULTS='{machine.results}' ARTIFACTS={machine.artifacts} AUTOCAST=0 SHARDED=1"
    python = re.escape(sys.executable)
    call = re.escape(f"cd {ROOT} && {places} ") + rf"OMP_NUM_THREADS=(\d) {python} (.*)-m replication (\S+ \S+)"
    jobs = Counter(re.findall(call, answer.stdout))
    torchrun = "-m torch.distributed.run --standalone --nproc-per-node 4 "
    assert jobs == {
        ("7", torchrun, f"step {EXHIBIT}"): 1,
        ("1", torchrun, f"step {EXHIBIT}"): 10,
        ("2", "", "cache build"): 3,
        ("1", "", "cache build"): 1,
    }
    parts = re.findall(r"--part (\S+)", answer.stdout)
    assert sorted(parts) == ["1/3", "2/3", "3/3"]


def test_a_run_waits_for_what_it_reads(tmp_path: Path) -> None:
    scale = load_scale(str(write_scale(tmp_path)))
    waits = {}
    for exhibit in ("rskd/table03", EXHIBIT):
        found = plan([exhibit], scale, [0])
        [teacher] = found.teachers
        for run in found.runs.values():
            needed = before(run, found)
            waits[run.id[:-12]] = len(set(needed["runs"]) - {teacher}), needed["caches"]
            assert teacher in needed["runs"]
    # the gradients are taken at FullKD's student; an online student reads no cache
    assert waits["gradients-randomsampling"] == (1, False) and waits["full"] == (0, False)
    assert waits["randomsampling"] == (0, True) and waits["randomsampling-online"] == (0, False)


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["rskd/table06", "--profile", "pbs"], "Known: kubernetes, local, slurm; or give the path of a folder"),
        (["rskd/figure02a", "--profile", "slurm"], "is a toy study, which runs on this machine: leave out PROFILE"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], wanted: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*arguments, "--scale", "smoke"]) == 2
    said = capsys.readouterr().err
    assert wanted in said and said.count("\n") == 1
