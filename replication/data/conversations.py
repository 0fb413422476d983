"""Where conversations come from. A corpus whose documents are conversations, as JSON.

    stdlib                                 the Python standard library: a definition, and what its docstring says of it
    stdlib#code, stdlib#said               the same with its code; whether something is said of it, yes or no
    sums:<n>                               problems with worked steps
    path:<file or folder>[#ignore=...]     .jsonl and .parquet, each also as .gz
    hub:<name>[:config][#ignore=...][@revision]     a Hugging Face data set, split "train"

`chat_rows.py` says which columns a row may have. Another that says something is refused, unless it is named as ignored:
`#ignore=score,rating`.
"""

from __future__ import annotations

import json
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

from replication.data.chat import Conversation, Turn
from replication.data.chat_rows import conversation
from replication.data.corpus import Corpus, collect
from replication.data.hub import hub_rows
from replication.data.made_conversations import is_it_said, said_of, said_of_code, worked_sums
from replication.data.text_files import ROWS, files_under, kind_of

OF_LIBRARY = {"stdlib": said_of, "stdlib#code": said_of_code, "stdlib#said": is_it_said}
IGNORE = "#ignore="
ANSWERED = "Conversations need a turn of the assistant that says something and is learned."


def open_conversations(spec: str) -> Corpus:
    """Raises ValueError, one line, for an unknown spec, no conversation at all, and any row that is none."""
    kind, _, rest = spec.partition(":")
    if spec in OF_LIBRARY:
        library = Path(sysconfig.get_paths()["stdlib"])
        return collect(f"stdlib docstrings{spec.removeprefix('stdlib')}", written(OF_LIBRARY[spec](library)))
    if kind == "sums" and rest.isdecimal():
        return collect(f"sums:{rest}", written(worked_sums(int(rest))))
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
        f"Unknown conversations {spec!r}. Known: {', '.join(map(repr, OF_LIBRARY))}, 'sums:<n>', "
        f"'path:<file or folder>[{IGNORE}<column>,...]', 'hub:<name>[:config][{IGNORE}<column>,...][@revision]'."
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
