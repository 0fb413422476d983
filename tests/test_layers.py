"""The arrow of ARCHITECTURE.md, held over the imports; and nothing of one machine or one registry in a tracked file."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OURS = ("paper_tables", "replication", "toy", "analysis", "workflow", "tools", "benchmarks", "tests")
AXES = (
    *("target", "targets", "sampled", "arrivals", "filling", "storage", "expected", "draws", "blocks"),
    *("divergences", "signals", "calibrated_thresholds", "positions", "samples", "schedules", "loss"),
)
# What each package may import of ours, itself aside.
ARROW = {
    "paper_tables": (),
    "replication": ("paper_tables",),
    "toy": (
        "paper_tables",
        "replication.digest",
        "replication.numerics",
        "replication.record",
        "replication.recipe",
        "replication.scale",
        *(f"replication.{axis}" for axis in AXES),
    ),
    "analysis": ("paper_tables",),
    # which nothing imports in turn
    "benchmarks": ("paper_tables", "replication", "toy", "analysis"),
}
# What `replication` may load on import, the standard library aside; the rest belongs inside the function that needs it.
LIGHT = {"torch", "transformers", "tokenizers", "numpy", "pydantic", "tqdm"}
TORCH = {"torch", "transformers", "tokenizers", "torchmetrics", "lm_eval"}


@dataclass(frozen=True)
class Import:
    """One imported thing, dotted in full ('replication.targets.TopK'); `at_load`: it happens when the module loads."""

    name: str
    line: int
    at_load: bool

    @property
    def package(self) -> str:
        return self.name.partition(".")[0]


def imports(source: str, module: str, is_package: bool = False) -> list[Import]:
    """Every import of `source`, the code of the dotted `module`."""
    found: list[Import] = []

    def visit(node: ast.AST, at_load: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name, node.lineno, at_load) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = absolute(node, module, is_package)
            found.extend(Import(f"{origin}.{alias.name}", node.lineno, at_load) for alias in node.names)
        inside_function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for_types_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in ast.iter_child_nodes(node):
            visit(child, at_load and not inside_function and not for_types_only)

    visit(ast.parse(source), True)
    return found


def absolute(node: ast.ImportFrom, module: str, is_package: bool) -> str:
    if node.level == 0:
        return node.module or ""
    parts = module.split(".")
    base = parts[: len(parts) - node.level + is_package]
    return ".".join([*base, node.module] if node.module else base)


def against_the_arrow(package: str, found: list[Import]) -> list[Import]:
    allowed = (package, *ARROW[package])
    return [
        each
        for each in found
        if each.package in OURS and not any(each.name == name or each.name.startswith(f"{name}.") for name in allowed)
    ]


def heavy_at_load(found: list[Import]) -> list[Import]:
    known = LIGHT | set(OURS) | sys.stdlib_module_names
    return [each for each in found if each.at_load and each.package not in known]


def imports_of(package: str) -> dict[Path, list[Import]]:
    """All imports of a package, by file (relative to the repository)."""
    by_file: dict[Path, list[Import]] = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        module = ".".join(parts[:-1] if is_package else parts)
        by_file[path.relative_to(ROOT)] = imports(path.read_text(), module, is_package)
    return by_file


def listed(by_file: dict[Path, list[Import]]) -> list[str]:
    return [f"{path}:{each.line} imports {each.name}" for path, found in by_file.items() for each in found]


@pytest.mark.parametrize("package", ARROW)
def test_imports_follow_the_arrow(package: str) -> None:
    by_file = imports_of(package)
    assert by_file, f"{package}/ has no Python file"
    assert listed({path: against_the_arrow(package, found) for path, found in by_file.items()}) == []


def test_analysis_never_needs_torch() -> None:
    by_file = imports_of("analysis")
    assert listed({path: [each for each in found if each.package in TORCH] for path, found in by_file.items()}) == []


def test_replication_loads_light() -> None:
    assert listed({path: heavy_at_load(found) for path, found in imports_of("replication").items()}) == []


WRONG = """
from __future__ import annotations
from typing import TYPE_CHECKING
import numpy as np
import pandas
from replication import targets, train
from . import record
from ..analysis.tables import show
if TYPE_CHECKING:
    import pyarrow
def late():
    import scipy.stats
    from replication.train import run
"""


def test_the_checks_see_what_is_wrong() -> None:
    found = imports(WRONG, "toy.study")
    names = [each.name for each in against_the_arrow("toy", found)]
    assert names == ["replication.train", "analysis.tables.show", "replication.train.run"]
    assert [each.name for each in heavy_at_load(found)] == ["pandas"]
    assert imports("from . import spec", "paper_tables", is_package=True)[0].name == "paper_tables.spec"
    assert imports("from .spec import load", "paper_tables.audit")[0].name == "paper_tables.spec.load"


# Joined here, so that this file does not name what it forbids.
HOSTS = [".".join(parts) for parts in (("pypi", "org"), ("pythonhosted", "org"), ("download", "pytorch", "org"))]
HOSTS += [".".join(parts) for parts in (("npmjs", "org"), ("conda", "anaconda", "org"), ("deb", "debian", "org"))]
MACHINE_PATH = re.compile(r"(?<![\w.~/-])/(?:" + "|".join(("work", "root", "home", "Users", "opt", "mnt")) + r")/\w")


def slips(text: str) -> list[str]:
    """Registry hosts and absolute paths of one machine in `text`."""
    return [host for host in HOSTS if host in text] + MACHINE_PATH.findall(text)


def repository_files() -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: nothing says which files are the repository's")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in answer.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_registry_host_and_no_path_of_one_machine() -> None:
    files = repository_files()
    assert len(files) > 10
    found = [(str(path.relative_to(ROOT)), slip) for path in files for slip in slips(path.read_text(errors="ignore"))]
    assert found == []


def test_slips_are_seen() -> None:
    assert slips("--index-url https://" + HOSTS[0] + "/simple") == [HOSTS[0]]
    assert len(slips('root = "/' + 'home/me/data"')) == 1
    assert slips("results/local/smoke and ~/texts/x and https://github.com/home/repo") == []
