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
# What each package may import of ours, itself aside.
ARROW = {
    "paper_tables": (),
    "replication": ("paper_tables",),
    "toy": (
        "paper_tables",
        "replication.axes",
        "replication.experiment",
        "replication.machine.files",
        "replication.records",
        "replication.seeds",
    ),
    "analysis": ("paper_tables",),
    # which nothing imports in turn
    "benchmarks": ("paper_tables", "replication", "toy", "analysis"),
}
# The rooms of `replication`, ground floor first, and what each may import of the others: only rooms that stand above it
# in this table, so that there is no circle. ARCHITECTURE.md says in one sentence what each is for.
ROOMS = {
    "seeds": "",
    "machine": "",
    "axes": "machine",
    "data": "machine",
    "cache": "machine axes",
    "experiment": "axes",
    "fused": "machine axes",
    "cost": "axes cache experiment fused",
    "model": "machine data experiment fused",
    "records": "machine experiment",
    "evaluate": "seeds machine axes data experiment fused model",
    "training": "seeds machine axes data cache experiment fused model records evaluate",
    "probes": "seeds machine axes data cache experiment cost model evaluate training",
    "execution": "machine experiment model records training probes",
    "planning": "seeds machine axes cache experiment cost records training probes",
    "__main__": "machine axes data cache experiment records evaluate training probes execution planning",
}
# What `replication` may load on import, the standard library aside; the rest belongs inside the function that needs it.
LIGHT = {"torch", "transformers", "tokenizers", "numpy", "pydantic", "tqdm"}
TORCH = {"torch", "transformers", "tokenizers", "torchmetrics", "lm_eval"}


@dataclass(frozen=True)
class Import:
    """One imported thing, dotted in full ('toy.study.Run'); `at_load`: it happens when the module loads."""

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
from replication import axes, training
from . import record
from ..analysis.tables import show
if TYPE_CHECKING:
    import pyarrow
def late():
    import scipy.stats
    from replication.training.loop import run
"""


def test_the_checks_see_what_is_wrong() -> None:
    found = imports(WRONG, "toy.study")
    names = [each.name for each in against_the_arrow("toy", found)]
    assert names == ["replication.training", "analysis.tables.show", "replication.training.loop.run"]
    assert [each.name for each in heavy_at_load(found)] == ["pandas"]
    assert imports("from . import spec", "paper_tables", is_package=True)[0].name == "paper_tables.spec"
    assert imports("from .spec import load", "paper_tables.audit")[0].name == "paper_tables.spec.load"


def room_of(name: str) -> str:
    """'replication.cache.part' -> 'cache'; 'replication.seeds' -> 'seeds'."""
    return name.split(".")[1]


def arrows(by_file: dict[Path, list[Import]]) -> dict[str, set[str]]:
    """Room -> the other rooms that its files import, at load or later."""
    found: dict[str, set[str]] = {}
    for path, imported in by_file.items():
        if path == Path("replication/__init__.py"):
            continue
        room = room_of(".".join(path.with_suffix("").parts))
        ours = {room_of(each.name) for each in imported if each.name.startswith("replication.")}
        found.setdefault(room, set()).update(ours - {room})
    return found


def not_in_the_table(found: dict[str, set[str]], table: dict[str, str]) -> list[str]:
    """Rooms and arrows that one has and the other lacks."""
    drawn = {(room, other) for room, others in found.items() for other in others}
    stated = {(room, other) for room, others in table.items() for other in others.split()}
    rooms = [f"{room} is no room of the table" for room in sorted(found.keys() - table.keys())]
    rooms += [f"{room} is in the table and has no file" for room in sorted(table.keys() - found.keys())]
    new = [f"{room} imports {other}, which the table does not allow" for room, other in sorted(drawn - stated)]
    return rooms + new + [f"{room} no longer imports {other}" for room, other in sorted(stated - drawn)]


def upwards(table: dict[str, str]) -> list[str]:
    """What a room may import although it stands below, or nowhere: the way into a circle."""
    floor = {room: place for place, room in enumerate(table)}
    return [
        f"{room} -> {other}"
        for room, others in table.items()
        for other in others.split()
        if floor.get(other, len(table)) >= floor[room]
    ]


def test_rooms_import_what_the_table_says() -> None:
    assert not_in_the_table(arrows(imports_of("replication")), ROOMS) == []


def test_rooms_make_no_circle_and_stay_few() -> None:
    assert upwards(ROOMS) == []
    depth: dict[str, int] = {}
    for room, others in ROOMS.items():
        depth[room] = 1 + max((depth[other] for other in others.split()), default=0)
    assert max(depth.values()) <= 10
    assert sum(len(others.split()) for others in ROOMS.values()) <= 70


def test_every_room_has_its_sentence() -> None:
    """The first line of its `__init__.py` (or of the one file that it is), as ARCHITECTURE.md lists it."""
    page = (ROOT / "ARCHITECTURE.md").read_text()
    for room in ROOMS:
        place = ROOT / "replication" / room
        source = (place / "__init__.py" if place.is_dir() else place.with_suffix(".py")).read_text()
        sentence = (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]
        assert sentence.endswith("."), room
        assert f"| {sentence} |" in page, f"ARCHITECTURE.md has no row for {room}: {sentence}"


def test_the_checks_of_rooms_see_what_is_wrong() -> None:
    table = {"seeds": "", "axes": "seeds", "cache": "axes"}
    late = {Path("replication/axes/loss.py"): imports("def late():\n    from replication import cache", "x")}
    files = {**late, Path("replication/cache/part.py"): [], Path("replication/seeds.py"): []}
    assert arrows(files) == {"axes": {"cache"}, "cache": set(), "seeds": set()}
    assert not_in_the_table(arrows(files), table) == [
        "axes imports cache, which the table does not allow",
        "axes no longer imports seeds",
        "cache no longer imports axes",
    ]
    assert not_in_the_table({"odd": set()}, {}) == ["odd is no room of the table"]
    assert upwards({**table, "seeds": "cache", "axes": "axes nowhere"}) == [
        "seeds -> cache",
        "axes -> axes",
        "axes -> nowhere",
    ]


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
