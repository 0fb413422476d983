"""The files of the set-up agree (pyproject, lock, conda, Makefile, README, CI); the set-up refuses and resumes."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from tests.make_targets import make, makefile_targets, makes, needs_make, patterns
from tools import setup_environment
from tools.write_lock import canonical, closure, stated

ROOT = Path(__file__).resolve().parent.parent
PAPERS = ("rskd", "tad", "sekd", "salt")


def pins(lines: list[str]) -> dict[str, str]:
    """Canonical name -> exact version, of lines such as 'torch==2.13.0'."""
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert all(str(requirement.specifier).startswith("==") for requirement in requirements)
    return {canonical(requirement.name): str(requirement.specifier)[2:] for requirement in requirements}


def locked() -> dict[str, str]:
    return pins((ROOT / "requirements.lock").read_text().splitlines())


def test_pyproject_admits_what_the_lock_pins() -> None:
    lock = locked()
    assert [str(each) for each in stated() if not each.specifier.contains(lock.get(canonical(each.name), "0"))] == []


def test_conda_names_the_same_packages_at_the_same_versions() -> None:
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())
    from_pip = next(entry["pip"] for entry in conda["dependencies"] if isinstance(entry, dict))
    lock = locked()
    assert pins(from_pip) == {canonical(each.name): lock[canonical(each.name)] for each in stated()}
    assert "python=3.11" in conda["dependencies"]


def test_the_lock_is_complete() -> None:
    """Everything that the stated packages need here is pinned; on the lock's own platform nothing else is."""
    needed = set(closure(stated()))
    assert sorted(needed - set(locked())) == []
    if sys.version_info[:2] == (3, 11) and sys.platform == "linux" and os.uname().machine == "x86_64":
        assert sorted(set(locked()) - needed) == ["appnope"]


def test_the_tests_run_on_what_is_locked() -> None:
    installed = {name: version(name).partition("+")[0] for name in locked() if name not in ("appnope", "torch")}
    assert installed == {name: pin for name, pin in locked().items() if name in installed}


@needs_make
def test_help_lists_every_target_with_one_line() -> None:
    targets = makefile_targets()
    assert [name for name, line in targets.items() if not line] == []
    printed = make()
    assert [name for name in targets if f"  {name} " not in printed] == []
    assert [name for name, line in targets.items() if line not in printed] == []
    assert len(patterns()) == 3 * 9
    assert [name for name in patterns() if f"  {name.replace('%', 'N')} " not in printed] == []


@needs_make
def test_every_kind_of_exhibit_has_its_targets() -> None:
    for paper in PAPERS:
        prefix = "" if paper == "rskd" else f"{paper}-"
        for kind in ("table", "figure"):
            assert makes(f"{prefix}{kind}-1") and makes(f"replicate-{prefix}{kind}-1")


@needs_make
@pytest.mark.parametrize(
    ("target", "commands"),
    [
        (
            "replicate-table-6",
            ["workflow rskd/table06 --scale smoke --seeds 0 1", "analysis table rskd/table06 --scale smoke"],
        ),
        (
            "replicate-figure-2a",
            ["workflow rskd/figure02a --scale smoke", "analysis figure rskd/figure02a --scale smoke"],
        ),
        (
            "replicate-sekd-table-16",
            ["workflow sekd/table16 --scale smoke", "analysis table sekd/table16 --scale smoke"],
        ),
        ("table-12", ["analysis table rskd/table12 --scale smoke"]),
        ("figure-5", ["analysis figure rskd/figure05 --scale smoke"]),
        ("tad-table-3", ["analysis table tad/table03 --scale smoke"]),
        ("salt-figure-1", ["analysis figure salt/figure01 --scale smoke"]),
        ("figure-frontier", [f"analysis figure ours/figure{number} --scale smoke" for number in ("09", "10", "11")]),
        ("plan-table-6", ["replication plan rskd/table06 --scale smoke --seeds 0 1"]),
        ("record", ["workflow rskd/table06 --scale smoke --seeds 0 1 --record"]),
    ],
)
def test_targets_call(target: str, commands: list[str]) -> None:
    printed = [line for line in make("--dry-run", "SCALE=smoke", "SEEDS=0 1", target).splitlines() if " -m " in line]
    assert len(printed) == len(commands)
    for line, command in zip(printed, commands, strict=True):
        assert line.startswith(f".venv/bin/python -m {command}")


@needs_make
def test_a_cluster_is_not_told_the_cores_of_this_machine() -> None:
    here, there = (make("--dry-run", f"PROFILE={profile}", "replicate-table-6") for profile in ("local", "slurm"))
    assert re.search(r"--profile local --cores \d+\n", here)
    assert "--profile slurm\n" in there and "--cores" not in there


@needs_make
def test_a_python_of_ones_own_builds_nothing() -> None:
    assert "setup_environment" in make("--dry-run", "table-6")
    own = make("--dry-run", "PY=python", "table-6")
    assert "setup_environment" not in own and own.startswith("python -m analysis")


def test_ci_runs_the_tests_of_the_readme() -> None:
    run = ROOT / ".ci" / "run"
    assert os.access(run, os.X_OK)
    assert run.read_text().splitlines()[-1] == "make test"


@needs_make
def test_the_readme_names_commands_that_exist() -> None:
    readme = ROOT / "README.md"
    if not readme.exists():
        pytest.skip("README.md is not written yet")
    commands = re.findall(r"(?:^|`)make ([a-z][\w-]*)", readme.read_text(), flags=re.MULTILINE)
    assert {"test", "replicate-table-6"} <= set(commands)
    assert [target for target in commands if not makes(target)] == []


def test_license_and_citation() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text and "Version 2.0, January 2004" in text and "END OF TERMS AND CONDITIONS" in text
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["license"] == "Apache-2.0"
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert [f"paper_tables/{paper}" for paper in PAPERS] == [
        each["notes"].split()[-1] for each in citation["references"]
    ]
    assert all(each["title"] and each["authors"] and each["type"] for each in citation["references"])


def finished(folder: Path, digest: str, torch_index: str = "") -> Path:
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").touch()
    (folder / "made-from.json").write_text(json.dumps({"lock": digest, "torch_index": torch_index}))
    return folder


def test_the_environment_is_current_until_the_lock_changes(tmp_path: Path) -> None:
    folder = finished(tmp_path / "venv", "abc", "https://index.example")
    assert setup_environment.is_current(folder, "abc", "")
    assert setup_environment.is_current(folder, "abc", "https://index.example")
    assert not setup_environment.is_current(folder, "abc", "https://another.example")
    assert not setup_environment.is_current(folder, "def", "")
    (folder / "bin" / "python").unlink()
    assert not setup_environment.is_current(folder, "abc", "")
    assert not setup_environment.is_current(tmp_path / "none", "abc", "")


@needs_make
def test_an_old_or_missing_python_is_refused(tmp_path: Path) -> None:
    old = tmp_path / "python3.6"
    old.write_text("#!/bin/sh\n[ $1 = --version ] && echo Python 3.6.9 || exit 1\n")
    old.chmod(0o755)
    with pytest.raises(subprocess.CalledProcessError) as error:
        make("environment", f"PYTHON={old}")
    assert "Python 3.11 or newer is needed" in error.value.stderr and "(Python 3.6.9)" in error.value.stderr


def test_a_python_without_ensurepip_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="without ensurepip.*install the package python3-venv"):
        setup_environment.refuse_crippled_python()


def test_a_foreign_environment_is_left_alone(tmp_path: Path) -> None:
    foreign = tmp_path / "venv"
    (foreign / "bin").mkdir(parents=True)
    with pytest.raises(SystemExit, match="was not made by this suite. Move it away or delete it"):
        setup_environment.refuse_foreign_environment(foreign)
    (foreign / "unfinished").touch()
    setup_environment.refuse_foreign_environment(foreign)


@pytest.mark.parametrize(("status", "pip_calls"), [(0, 0), (1, 1)])
def test_pip_takes_over_when_uv_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, pip_calls: int
) -> None:
    uv = tmp_path / "bin" / "uv"
    uv.parent.mkdir()
    uv.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/called\nexit {status}\n')
    uv.chmod(0o755)
    calls: list[tuple[str, ...]] = []
    monkeypatch.setattr(setup_environment, "VENV", tmp_path)
    monkeypatch.setattr(setup_environment, "PIP", (sys.executable, "-m", "pip"))
    monkeypatch.setattr(setup_environment, "pip", lambda *arguments: calls.append(arguments))
    monkeypatch.setenv("PIP_INDEX_URL", "https://index.example")
    setup_environment.install_others(tmp_path / "requirements.txt")
    assert "--no-deps --default-index https://index.example --requirement" in (tmp_path / "called").read_text()
    assert calls == [("install", "--no-deps", "--requirement", str(tmp_path / "requirements.txt"))] * pip_calls
