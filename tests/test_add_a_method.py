"""ARCHITECTURE.md's "Add a method in 20 lines", carried out on a copy: two files each, and the suite's tests pass."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_layers import OURS

ROOT = Path(__file__).resolve().parent.parent
COPIED = (*OURS, "pyproject.toml")  # all that a test may import
# "`path`:" and the code that goes there
BLOCK = re.compile(r"^`(?P<path>[\w/]+\.py)`:\n\n```python\n(?P<code>.*?)^```", flags=re.MULTILINE | re.DOTALL)
# "NAME = (..., new)": what stands there stays, and the new comes behind it
GROWN = re.compile(r"^(?P<name>[A-Z_]+) = [({]\.\.\., (?P<new>.+)[)}]$", flags=re.MULTILINE)


def section(title: str) -> str:
    """The text under a heading of the third level."""
    return (ROOT / "ARCHITECTURE.md").read_text().partition(f"\n### {title}\n")[2].partition("\n#")[0]


def grown(source: str, code: str) -> str:
    """`source` with the block `code`: its collection grows, and the rest of it stands above that collection."""
    found = GROWN.search(code)
    assert found, f"no line NAME = (..., new) in:\n{code}"
    (statement,) = [each for each in ast.parse(source).body if name_of(each) == found["name"]]
    lines = source.splitlines(keepends=True)
    first, last = statement.lineno - 1, statement.end_lineno or 0
    old = "".join(lines[first:last]).rstrip()
    new = f"{old[:-1].rstrip().rstrip(',')}, {found['new']}{old[-1]}\n"
    # what explains the collection stays with it
    while lines[first - 1].startswith("#"):
        first -= 1
    above = code[: found.start()].strip() + "\n\n\n" if found.start() else ""
    comment = "".join(lines[first : statement.lineno - 1])
    return "".join(lines[:first]) + above + comment + new + "".join(lines[last:])


def name_of(statement: ast.stmt) -> str:
    """Of what is assigned here; "" of any other statement."""
    if isinstance(statement, ast.AnnAssign):
        return ast.unparse(statement.target)
    return ast.unparse(statement.targets[0]) if isinstance(statement, ast.Assign) else ""


def copy_with(title: str, folder: Path) -> Path:
    """A copy of the suite in which the section's method is added."""
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    blocks = BLOCK.findall(section(title))
    assert [path for path, _ in blocks][1:] == ["tests/oracle.py"], "two files, the second of which is the oracle"
    for path, code in blocks:
        place = folder / path
        place.write_text(grown(place.read_text(), code))
    return folder


def own_tests(folder: Path, chosen: str, *files: str) -> tuple[int, str]:
    """(exit status, what was printed) of the copy's own tests whose names have one of the words."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", chosen]
    paths = [f"tests/test_{name}.py" for name in files]
    done = subprocess.run([*command, *paths], cwd=folder, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_a_position_signal(tmp_path: Path) -> None:
    """It is rehearsed with the policies: a signal of its own has no entry."""
    folder = copy_with("A position signal", tmp_path)
    status, printed = own_tests(
        folder, "student_doubt or asks or every_component", "positions", "samples", "rehearsals"
    )
    assert status == 0, printed


def test_a_draw(tmp_path: Path) -> None:
    folder = copy_with("A draw", tmp_path)
    files = "targets", "sampled", "draws", "codec", "expectations", "frontier"
    status, printed = own_tests(folder, "Antithetic", *files)
    assert status == 0, printed
    status, printed = own_tests(folder, "Antithetic or every_component", "rehearsals")
    assert status == 1 and "No rehearsal of target.Antithetic" in printed, printed
    assert "target.Antithetic@1 has no entry in tests/rehearsals.json: `make rehearsals` adds it." in printed, printed


@pytest.mark.parametrize(("title", "lines"), [("A position signal", 4), ("A draw", 20)])
def test_the_section_is_as_short_as_it_says(title: str, lines: int) -> None:
    """The method's own lines: those that are not blank, the collection's among them."""
    (_, code), _ = BLOCK.findall(section(title))
    assert len([line for line in code.splitlines() if line.strip()]) <= lines


def test_a_block_goes_above_its_collection() -> None:
    source = "A = (1,)\n\n\n# both\nB: tuple[int, ...] = (\n    2,\n)\nC = {}\n"
    assert grown(source, "def f() -> None: ...\n\n\nB = (..., f)\n") == (
        "A = (1,)\n\n\ndef f() -> None: ...\n\n\n# both\nB: tuple[int, ...] = (\n    2, f)\nC = {}\n"
    )
    assert grown('D = {\n    "a": 1,\n}\n', 'D = {..., "b": 2}\n') == 'D = {\n    "a": 1, "b": 2}\n'
