"""Where conversations come from. A corpus whose documents are conversations, as JSON.

    stdlib                                 the Python standard library: a definition, and what its docstring says of it
    path:<file or folder>[#ignore=...]     .jsonl and .parquet, each also as .gz
    hub:<name>[:config][#ignore=...][@revision]     a Hugging Face data set, split "train"

`chat_rows.py` says which columns a row may have. Another that says something is refused, unless it is named as ignored:
`#ignore=score,rating`.
"""

from __future__ import annotations

import ast
import json
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

from replication.data.chat import Conversation, Turn
from replication.data.chat_rows import conversation
from replication.data.corpus import FOREIGN, Corpus, collect
from replication.data.hub import hub_rows
from replication.data.text_files import ROWS, files_under, kind_of

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
UNWANTED = {"test", "tests", "idle_test"}  # they document little
IGNORE = "#ignore="
ANSWERED = "Conversations need a turn of the assistant that says something and is learned."


def open_conversations(spec: str) -> Corpus:
    """Raises ValueError, one line, for an unknown spec, no conversation at all, and any row that is none."""
    kind, _, rest = spec.partition(":")
    if spec == "stdlib":
        return collect("stdlib docstrings", written(docstrings(Path(sysconfig.get_paths()["stdlib"]))))
    before, sign, after = rest.partition(IGNORE)
    ignored = frozenset(after.partition("@")[0].split(",")) if sign else frozenset()
    if kind == "path" and before:
        place = Path(before).expanduser()
        return collect(f"path:{place.resolve().name}{sign}{after}", written(of_files(place, ignored)), ANSWERED)
    if kind == "hub" and before and "#" not in before:
        name, rows, _ = hub_rows(rest)
        found = (conversation(row, f"{name}, row {number}", ignored) for number, row in enumerate(rows, start=1))
        return collect(name, written(found), ANSWERED)
    raise ValueError(
        f"Unknown conversations {spec!r}. Known: 'stdlib', 'path:<file or folder>[{IGNORE}<column>,...]', "
        f"'hub:<name>[:config][{IGNORE}<column>,...][@revision]'."
    )


def written(conversations: Iterable[Conversation | None]) -> Iterator[str | None]:
    for turns in conversations:
        yield None if turns is None else json.dumps([fields(turn) for turn in turns])


def fields(turn: Turn) -> dict[str, str | bool]:
    """As it is stored. What all turns have in common is not: these words are a corpus's fingerprint."""
    return {"role": turn.role, "text": turn.text} | ({} if turn.learned else {"learned": False})


def read(document: str) -> Conversation:
    return tuple(Turn(**turn) for turn in json.loads(document))


def of_files(place: Path, ignored: frozenset[str]) -> Iterator[Conversation | None]:
    paths = [path for path in files_under(place) if kind_of(path) in ROWS] if place.is_dir() else [place]
    if not paths or not all(path.exists() and kind_of(path) in ROWS for path in paths):
        raise ValueError(f"No conversations in {place}: give a .jsonl or .parquet (also .gz), or a folder of them.")
    for path in paths:
        for where, row in ROWS[kind_of(path)](path):
            yield conversation(row, where, ignored)


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
