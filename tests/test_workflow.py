"""One make target's path: the workflow runs an exhibit, a second call finds nothing to do, the table is printed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.small import write_scale
from workflow.__main__ import main

ROOT = Path(__file__).parent.parent


def test_an_exhibit_runs_resumes_and_is_judged(tmp_path: Path) -> None:
    scale = write_scale(tmp_path)
    environment = {**os.environ, "RESULTS": str(tmp_path / "results/local"), "ARTIFACTS": str(tmp_path / "artifacts")}
    command = [sys.executable, "-m", "workflow", "rskd/table16", "--scale", str(scale), "--cores", "2"]
    first = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert first.returncode == 0, first.stderr[-3000:]
    done = sorted((tmp_path / "results/local/small").glob("*/summary.json"))
    assert len(done) == 6  # five students and their teacher
    written = {path: path.stat().st_mtime_ns for path in done}

    # as for another exhibit that shares some of these runs: its cache marker is newer than they are
    lost = next(path for path in done if path.parent.name.startswith("randomsampling-s0"))
    lost.unlink()
    for marker in (tmp_path / "artifacts/small/caches").glob("*.done"):
        marker.unlink()
    again = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert again.returncode == 0 and "1 still to do" in again.stdout
    assert {path for path in done if path.stat().st_mtime_ns != written[path]} == {lost}

    third = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert third.returncode == 0 and "0 still to do" in third.stdout

    show = [sys.executable, "-m", "analysis", "table", "rskd/table16", "--scale", "small"]
    folders = ["--results", str(tmp_path / "results"), "--build", str(tmp_path / "build")]
    table = subprocess.run([*show, *folders], cwd=ROOT, capture_output=True, text=True)
    assert table.returncode == 0, table.stderr
    own = json.loads(next(path for path in done if path.parent.name.startswith("onehot")).read_text())
    assert f"{own['metrics']['lm_loss']:.4f}" in table.stdout
    assert "INCONCLUSIVE" in table.stdout and "1 seed" in table.stdout
    assert {path.suffix for path in (tmp_path / "build/rskd").iterdir()} >= {".md", ".csv", ".tex"}


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["rskd/table99"], "No exhibit 'rskd/table99'"),
        (["rskd/table06", "--scale", "desktop"], "Unknown scale 'desktop'"),
        (["rskd/table06", "--seeds", "x"], "whole numbers"),
        (["rskd/table06", "--scale", "smoke", "--cores", "0"], "CORES is 0"),
        (["tad/table09", "--scale", "smoke"], "cannot be run yet"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], wanted: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert wanted in said and said.count("\n") == 1
