"""Runs spread over processes: the same losses as one process, checkpoints that any number of processes goes on from."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from replication.__main__ import main
from replication.machine.device import this_machine
from replication.machine.processes import World
from tests.small import write_scale

ROOT = Path(__file__).parent.parent
RECIPES = {
    "sampling": 'target = { name = "RandomSampling", draws = 12 }\n',
    "chosen": (
        'target = { name = "TopK", k = 5 }\nschedule = { name = "TwoStage", until = 0.5 }\n'
        'samples = { name = "ChallengingSamples", until = 0.5, early = 0.5, pool = "10B" }\n'
    ),
    "TAD": 'target = "Full"\ndivergence = "TailAware"\nschedule = { name = "Constant", ce_weight = 1.0 }\n',
    "frozen": 'student = "3B"\ntarget = "Full"\nhidden = { name = "Cosine", layers = "every" }\n'
    'initial = { name = "FromTeacherLayers", embeddings = "frozen" }\n'
    'schedule = { name = "Constant", ce_weight = 1.0 }\n',
}


def environment(folder: Path, **settings: str) -> dict[str, str]:
    return {
        **os.environ, "RESULTS": str(folder / "results"), "ARTIFACTS": str(folder / "artifacts"),
        "OMP_NUM_THREADS": "1", "AUTOCAST": "0", **settings,
    }  # fmt: skip


def arguments(folder: Path, name: str) -> list[str]:
    (folder / f"{name}.toml").write_text(RECIPES[name])
    return ["-m", "replication", "run", str(folder / f"{name}.toml"), "--scale", str(folder / "small.toml")]


def torchrun(processes: int) -> list[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    endpoint = ["--rdzv-backend", "static", "--master-addr", "127.0.0.1", "--master-port", str(port)]
    return ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), *endpoint]


def record(folder: Path) -> tuple[list[float], dict[str, float]]:
    """Logged losses and metrics of the folder's one student."""
    (student,) = [path for path in (folder / "results/small").iterdir() if not path.name.startswith("teacher")]
    losses = [json.loads(line)["loss"] for line in (student / "metrics.jsonl").open()]
    return losses, json.loads((student / "summary.json").read_text())["metrics"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each recipe's folder after one process has trained teacher and student in it."""
    folders = {}
    for name in RECIPES:
        folders[name] = tmp_path_factory.mktemp(name)
        write_scale(folders[name])
        run = [sys.executable, *arguments(folders[name], name)]
        subprocess.run(run, env=environment(folders[name]), cwd=ROOT, check=True, capture_output=True)
    return folders


@pytest.mark.parametrize(
    ("name", "sharded"), [("sampling", "0"), ("sampling", "1"), ("TAD", "1"), ("chosen", "0"), ("frozen", "1")]
)
def test_two_processes_have_the_losses_of_one(alone: dict[str, Path], tmp_path: Path, name: str, sharded: str) -> None:
    write_scale(tmp_path)
    run = [sys.executable, *torchrun(2), *arguments(tmp_path, name)]
    subprocess.run(run, env=environment(tmp_path, SHARDED=sharded), cwd=ROOT, check=True, capture_output=True)
    (losses, metrics), (meant, meant_metrics) = record(tmp_path), record(alone[name])
    np.testing.assert_allclose(losses, meant, rtol=2e-5)
    assert metrics["lm_loss"] == pytest.approx(meant_metrics["lm_loss"], rel=2e-5)
    assert metrics["parameters"] == meant_metrics["parameters"]


def test_a_run_killed_in_two_processes_goes_on_in_one(alone: dict[str, Path], tmp_path: Path) -> None:
    """At step 7 of 12, sharded; the checkpoint of step 6 is gone on from by a single process."""
    write_scale(tmp_path)
    script = tmp_path / "dying.py"
    script.write_text(
        "import os, signal, sys\n"
        "from replication.training.training import Training\n"
        "advance = Training.advance\n"
        "def dying(self):\n"
        "    if self.step == 7 and self.run.recipe.teacher != 'none':\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return advance(self)\n"
        "Training.advance = dying\n"
        "from replication.__main__ import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    given = arguments(tmp_path, "sampling")
    settings = environment(tmp_path, SHARDED="1", PYTHONPATH=str(ROOT))
    killed = subprocess.run(
        [sys.executable, *torchrun(2), str(script), *given[2:]], env=settings, cwd=ROOT, capture_output=True
    )
    assert killed.returncode != 0
    (left,) = (tmp_path / "artifacts/small/checkpoints").iterdir()
    assert [step.name for step in left.iterdir() if step.name.isdigit()] == ["000000006"]
    subprocess.run([sys.executable, *given], env=environment(tmp_path), cwd=ROOT, check=True, capture_output=True)
    losses, metrics = record(tmp_path)
    meant, meant_metrics = record(alone["sampling"])
    np.testing.assert_allclose(losses, meant, rtol=2e-5)
    assert metrics["lm_loss"] == pytest.approx(meant_metrics["lm_loss"], rel=2e-5)


def test_a_batch_in_parts_has_the_losses_of_the_whole(
    alone: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_scale(tmp_path)
    for name, word in environment(tmp_path, AT_ONCE="2").items():
        monkeypatch.setenv(name, word)
    assert main(arguments(tmp_path, "TAD")[2:]) == 0
    np.testing.assert_allclose(record(tmp_path)[0], record(alone["TAD"])[0], rtol=2e-5)


def test_what_cannot_be_shared_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"^A batch of 4 sequences cannot be shared by 3 processes"):
        World(0, 3).share(np.arange(4))
    assert World(1, 2).share(np.arange(4)).tolist() == [2, 3]
    for name, word in {"AT_ONCE": "0", "SHARDED": "yes"}.items():
        with monkeypatch.context() as patch:
            patch.setenv(name, word)
            with pytest.raises(ValueError, match=rf"^{name} is '{word}'; give"):
                this_machine()


@pytest.mark.parametrize(
    ("recipe", "at_once", "words"),
    [
        ('teacher = "none"\ntarget = "OneHot"\n', "3", "AT_ONCE is 3, which does not divide"),
        ('teacher = "none"\ntarget = "OneHot"\npositions = "HardTokens"\n', "2", "HardTokens compares all positions"),
    ],
)
def test_a_batch_that_cannot_be_parted_is_refused(
    recipe: str, at_once: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    write_scale(tmp_path)
    (tmp_path / "recipe.toml").write_text(recipe)
    for name, word in environment(tmp_path, AT_ONCE=at_once).items():
        monkeypatch.setenv(name, word)
    assert main(["run", str(tmp_path / "recipe.toml"), "--scale", str(tmp_path / "small.toml")]) == 2
    assert words in capsys.readouterr().err
