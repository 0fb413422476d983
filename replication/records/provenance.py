"""Which code made a record, on what: recorded with every run, never part of its id."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from replication.machine.files import ROOT
from replication.records.source_hint import digest_of

FORMAT = 2
LIBRARIES = ("torch", "transformers", "tokenizers", "numpy")
CODE = (ROOT / "replication",)


def provenance(folders: Sequence[Path] = CODE) -> dict[str, Any]:
    """By which code, on what: recorded with every run, never part of its id and never compared.

    `source` digests the Python files in `folders`.
    """
    source = {"code": digest_of(folders), "commit": commit()}
    return {"format": FORMAT, "source": source, "versions": versions(), "hardware": hardware()}


def commit() -> str:
    """The commit, with '+' if tracked files differ from it; '' outside a git checkout."""
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        state = subprocess.run(["git", "diff", "--quiet", "HEAD"], cwd=ROOT, capture_output=True).returncode
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head.strip()[:12] + ("+" if state else "")


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"machine": platform.machine(), "cores": os.cpu_count(), "gpu": gpu, "threads": torch.get_num_threads()}
