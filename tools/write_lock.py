"""Write requirements.lock: what pyproject.toml names and everything that needs, as installed here.

To change a version: edit pyproject.toml, install it into .venv with pip, then `make lock`, then edit environment.yml
(a test compares the three).
"""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
HEADER = """\
# Every package of the environment, exact. Made by `make lock` (Python 3.11, Linux, CPU); edit pyproject.toml instead.
# torch is installed with its own dependencies (CUDA packages where its build needs them), the rest without.
"""
# Needed on macOS only, so it cannot be read off a Linux environment.
ELSEWHERE = ('appnope==1.0.0; sys_platform == "darwin"',)
# Which of these a machine has depends on its build of torch.
BUILD_OF_TORCH = ("nvidia-", "cuda-", "triton")


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def stated() -> list[Requirement]:
    """What pyproject.toml names, tools for developers included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [Requirement(text) for text in [*project["dependencies"], *project["optional-dependencies"]["dev"]]]


def closure(requirements: list[Requirement]) -> dict[str, str]:
    """Canonical name -> installed version (without a build's '+cpu') of all that these need on this machine.

    Raises ValueError if one of them is not installed.
    """
    versions: dict[str, str] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = list(requirements)
    while waiting:
        requirement = waiting.pop()
        name, extras = canonical(requirement.name), frozenset(requirement.extras)
        if (name, extras) in seen or name.startswith(BUILD_OF_TORCH):
            continue
        seen.add((name, extras))
        try:
            installed = distribution(name)
        except PackageNotFoundError:
            raise ValueError(f"{requirement} is not installed here. Install it into .venv with pip first.") from None
        versions[name] = installed.version.partition("+")[0]
        for text in installed.requires or []:
            needed = Requirement(text)
            environments = [{"extra": extra} for extra in ("", *extras)]
            if needed.marker is None or any(needed.marker.evaluate(environment) for environment in environments):
                waiting.append(needed)
    return versions


if __name__ == "__main__":
    pins = [f"{name}=={version}" for name, version in closure(stated()).items()]
    (ROOT / "requirements.lock").write_text(HEADER + "".join(f"{pin}\n" for pin in sorted([*pins, *ELSEWHERE])))
    print(f"requirements.lock: {len(pins)} packages.")
