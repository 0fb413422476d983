"""Digests of the source text behind a record: a hint of how the code was written, shown and never compared.

`code` covers what every run of the kind goes through; each method has a digest of its own. So a new or a mended method
leaves the digests of all others as they were.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

HERE = Path(__file__).parents[1]  # replication/
AXES = tuple(
    HERE / f"{name}.py"
    for name in (
        *(
            "axes/targets/base",
            "axes/targets/kept",
            "axes/targets/sampled",
            "axes/targets/arrivals",
            "axes/targets/water_filling",
            "axes/targets/storage",
            "axes/targets/closed_form",
            "axes/targets/drawing",
            "axes/targets/blocks",
        ),
        *(
            "axes/divergences",
            "axes/hidden",
            "axes/objectives",
            "axes/signals",
            "axes/calibrated_thresholds",
            "axes/positions",
            "axes/samples",
            "axes/schedules",
        ),
    )
)


@dataclass(frozen=True)
class Digests:
    """16 hex digits each; comments, docstrings, annotations and layout do not count."""

    code: str
    methods: dict[str, str]


def digests(files: Sequence[Path], methods: Iterable[str]) -> Digests:
    """Of `files` and what they use of the axis files; and of each method, with what it uses there."""
    whole = [bare(path) for path in files if path not in AXES]
    used = reached(name for tree in whole for name in names(tree))
    return Digests(digest([*whole, *used]), {name: digest(reached([name])) for name in sorted(set(methods))})


def digest(trees: Iterable[ast.AST]) -> str:
    found = hashlib.sha256()
    for tree in trees:
        found.update(ast.dump(tree).encode())
    return found.hexdigest()[:16]


def reached(wanted: Iterable[str]) -> list[ast.AST]:
    """The definitions of the axis files that these names lead to, in the order of their names."""
    parts, found, waiting = definitions(), set(), list(wanted)
    while waiting:
        name = waiting.pop()
        if name in parts and name not in found:
            found.add(name)
            waiting += names(parts[name])
    return [parts[name] for name in sorted(found)]


@cache
def definitions() -> dict[str, ast.AST]:
    """Top-level classes, functions and constants of the axis files by name."""
    found: dict[str, ast.AST] = {}
    for node in (node for path in AXES if path.exists() for node in bare(path).body):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found[node.name] = node
        elif isinstance(node, ast.Assign):
            found |= {target.id: node for target in node.targets if isinstance(target, ast.Name)}
    return found


def names(tree: ast.AST) -> list[str]:
    return [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]


def bare(path: Path) -> ast.Module:
    """The file's code without docstrings and annotations."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.FunctionDef):
            node.returns = None
        elif isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(value="")
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ):
            body[0].value = ast.Constant(value="")
    return tree
