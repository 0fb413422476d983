"""Text prepared by real processes: stopped by a key, killed, or two at once, it is there whole or not at all."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from replication.machine.files import ROOT, TEMPORARY
from tests.small import write_text

# Many small writes, so that there is time to be stopped.
JOB = """
import sys
from pathlib import Path
from replication.data import packing
from replication.data.corpus import open_corpus
from replication.data.tokenizer import open_tokenizer
packing.BATCH = 2000
corpus, folder = open_corpus(sys.argv[1]), Path(sys.argv[2])
found = packing.pack(corpus, open_tokenizer("bpe:300", corpus, folder), 0, 64, folder)
print(found.rows([3, 1]).tolist())
"""


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Enough to be read for about a second."""
    folder = write_text(tmp_path_factory.mktemp("text") / "text")
    for path in list(folder.iterdir()):
        path.write_text(path.read_text() * 4)
    return f"path:{folder}"


def started(text: str, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", JOB, text, str(folder)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True)


def ended(process: subprocess.Popen[str]) -> str:
    """What it says last: bars have come before it."""
    said, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return said.splitlines()[-1]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.endswith(TEMPORARY)}


def in_the_middle(folder: Path, process: subprocess.Popen[str]) -> None:
    """Until a part of the tokens lies on the disk, or it is too late."""
    for _ in range(6000):
        if process.poll() is not None or any(path.stat().st_size for path in folder.glob(f"tokens-*{TEMPORARY}")):
            return
        time.sleep(0.01)
    raise AssertionError("nothing was written within a minute")


def stop_in_the_middle(text: str, folder: Path, how: signal.Signals) -> None:
    """On a busy machine a look may come when all is written already: then once more, from the beginning."""
    for _ in range(10):
        process = started(text, folder)
        in_the_middle(folder, process)
        process.send_signal(how)
        _, errors = process.communicate(timeout=60)
        if process.returncode == -how:
            return
        assert process.returncode == 0, errors
        for path in folder.iterdir():
            path.unlink()
    raise AssertionError("it was done ten times before it could be stopped")


@pytest.fixture(scope="module")
def undisturbed(text: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, bytes]]:
    folder = tmp_path_factory.mktemp("undisturbed")
    return ended(started(text, folder)), contents(folder)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_tokenising_that_is_stopped_is_done_by_the_next(
    how: signal.Signals, text: str, undisturbed: tuple[str, dict[str, bytes]], tmp_path: Path
) -> None:
    said, files = undisturbed
    stop_in_the_middle(text, tmp_path, how)
    left = contents(tmp_path)
    assert list(left) == [name for name in files if name.startswith("bpe")]
    assert how == signal.SIGKILL or not list(tmp_path.glob(f"*{TEMPORARY}"))
    assert ended(started(text, tmp_path)) == said and contents(tmp_path) == files


def test_two_processes_prepare_one_text(text: str, undisturbed: tuple[str, dict[str, bytes]], tmp_path: Path) -> None:
    """One is held in the middle until the other, which began later, is done."""
    said, files = undisturbed
    first = started(text, tmp_path)
    in_the_middle(tmp_path, first)
    first.send_signal(signal.SIGSTOP)
    assert ended(started(text, tmp_path)) == said and contents(tmp_path) == files
    first.send_signal(signal.SIGCONT)
    assert ended(first) == said and contents(tmp_path) == files
    assert not list(tmp_path.glob(f"*{TEMPORARY}"))
