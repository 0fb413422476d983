"""What `make` can be asked for: the rules that the Makefile writes out, and those that it makes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def makefile_targets() -> dict[str, str]:
    """Target -> its help line ('' where it has none), of the rules that are written out."""
    rules = re.findall(r"^([a-z][\w-]*):(?!=)(?:[^#\n]*?## (.+))?", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    return dict(rules)


@cache
def patterns() -> list[str]:
    """The rules that `define rules` makes: 'replicate-tad-table-%'."""
    return re.findall(r"^([a-z][\w-]*-%): environment$", make("--print-data-base", "--dry-run", "help"), re.MULTILINE)


def makes(target: str) -> bool:
    return any(fnmatch(target, pattern.replace("%", "?*")) for pattern in (*makefile_targets(), *patterns()))


def make(*arguments: str) -> str:
    """What `make` prints, run with nothing of the make around us."""
    outer = "MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES SCALE SEEDS CORES EXHIBIT PROFILE PYTHON PY".split()
    environment = {name: value for name, value in os.environ.items() if name not in outer}
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
