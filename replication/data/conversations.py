"""Where conversations come from. A corpus whose documents are conversations, as JSON.

    stdlib                               the Python standard library: a definition, and what its docstring says of it
    path:<file or folder>                .jsonl, also as .gz
    hub:<name>[:config][@revision]       a Hugging Face data set, split "train"

`chat.conversation` says which columns a row may have.
"""

from __future__ import annotations

import ast
import io
import json
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from replication.data.chat import Conversation, Turn, conversation
from replication.data.corpus import FOREIGN, Corpus, collect
from replication.data.hub import hub_rows
from replication.data.text_files import content, files_under, kind_of

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
UNWANTED = {"test", "tests", "idle_test"}  # they document little


def open_conversations(spec: str) -> Corpus:
    """Raises ValueError, one line, for an unknown spec, no conversation at all, and any row that is none."""
    kind, _, rest = spec.partition(":")
    if spec == "stdlib":
        return collect("stdlib docstrings", written(docstrings(Path(sysconfig.get_paths()["stdlib"]))))
    if kind == "path" and rest:
        place = Path(rest).expanduser()
        return collect(f"path:{place.resolve().name}", written(of_files(place)))
    if kind == "hub" and rest:
        name, rows, _ = hub_rows(rest)
        return collect(name, written(conversation(row, f"{name}, row {n}") for n, row in enumerate(rows, start=1)))
    raise ValueError(
        f"Unknown conversations {spec!r}. Known: 'stdlib', 'path:<file or folder>', 'hub:<name>[:config][@revision]'."
    )


def written(conversations: Iterable[Conversation | None]) -> Iterator[str | None]:
    for turns in conversations:
        yield None if turns is None else json.dumps([asdict(turn) for turn in turns])


def read(document: str) -> Conversation:
    return tuple(Turn(**turn) for turn in json.loads(document))


def of_files(place: Path) -> Iterator[Conversation | None]:
    paths = [path for path in files_under(place) if kind_of(path) == ".jsonl"] if place.is_dir() else [place]
    if not paths or not all(path.exists() and kind_of(path) == ".jsonl" for path in paths):
        raise ValueError(f"No conversations in {place}: give a .jsonl or .jsonl.gz file, or a folder of them.")
    for path in paths:
        for number, row in json_rows(path):
            yield conversation(row, f"{path}, line {number}")


def json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of each line that is not blank."""
    for number, line in enumerate(io.BytesIO(content(path)), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8-sig"))
        except ValueError as error:  # not UTF-8, or not JSON
            raise ValueError(f"{path}, line {number}: not a line of JSON ({error}). Repair or remove it.") from None
        if not isinstance(row, dict):
            raise ValueError(f"{path}, line {number}: {type(row).__name__}, where an object is wanted.")
        yield number, row


def docstrings(root: Path) -> Iterator[Conversation]:
    """One for each documented function and class; the first paragraph is what it does."""
    for path in files_under(root, unwanted=FOREIGN):
        if path.suffix != ".py" or UNWANTED & set(path.relative_to(root).parts):
            continue
        try:
            with warnings.catch_warnings(action="ignore"):  # of escapes in old strings
                tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):  # files that are broken on purpose
            continue
        for node in definitions(tree.body):
            said = (ast.get_docstring(node) or "").partition("\n\n")[0]
            if said:
                yield Turn("user", f"What is this?\n{heading(node)}"), Turn("assistant", " ".join(said.split()))


def definitions(body: Iterable[ast.stmt]) -> Iterator[Definition]:
    """Those of a module and of its classes; what lies within functions is nobody's to use."""
    for node in body:
        if isinstance(node, Definition):
            yield node
        if isinstance(node, ast.ClassDef | ast.If | ast.Try):
            yield from definitions(node.body)


def heading(node: Definition) -> str:
    """'class Chain', 'def heappush(heap, item)'."""
    if isinstance(node, ast.ClassDef):
        return f"class {node.name}"
    return f"def {node.name}({ast.unparse(node.args)})"
