"""Corpus: documents in a fixed order, their fingerprint, and which of them are held out.

    stdlib                                          the Python standard library's own sources and texts
    package:<name>                                  the sources and texts of an installed Python package
    path:<folder or file>[#column]                  .txt, .jsonl, .parquet, each also as .gz
    hub:<name>[:config][#column][@revision]         a Hugging Face data set, split "train"

One .txt file is one document, so is one line of .jsonl and one row of .parquet. Columns default to "text".
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import io
import json
import os
import re
import sysconfig
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

HELD_OUT_ONE_IN = 64  # documents
COLUMN = "text"
KINDS = (".txt", ".jsonl", ".parquet")
HIDDEN = re.compile(r"\..*")
# Not the library's own: installed packages, caches, and what the build machine or the administrator wrote there.
FOREIGN = re.compile(
    r"site-packages|dist-packages|__pycache__|lib-dynload|config-.*|_sysconfigdata.*|(site|user)customize\.py|\..*"
)


@dataclass(frozen=True, eq=False)
class Corpus:
    """`bytes` counts UTF-8 bytes of the documents kept; `skipped` counts files or rows left out: empty, or (in the
    standard library only, whose tests hold broken encodings on purpose) not UTF-8."""

    name: str
    fingerprint: str  # 16 hex digits of the sha256 over the documents in order
    documents: list[str]
    bytes: int
    skipped: int

    @cached_property
    def held_out(self) -> np.ndarray:
        """[documents] bool. Decided by content alone: equal documents fall on one side, whatever the seed.

        A corpus too small to have a document on either side holds out the one with the smallest hash. Raises
        ValueError when all its documents are equal.
        """
        hashes = [content_hash(document) for document in self.documents]
        held_out = np.array([value % HELD_OUT_ONE_IN == 0 for value in hashes])
        if held_out.all() or not held_out.any():
            smallest = min(hashes)
            held_out = np.array([value == smallest for value in hashes])
        if held_out.all():
            raise ValueError(
                f"Corpus {self.name!r} has one distinct document, and training and validation need one each: split "
                f"the text into several .txt files or into lines of .jsonl."
            )
        return held_out

    @property
    def training_documents(self) -> list[str]:
        return [self.documents[index] for index in np.flatnonzero(~self.held_out)]


def content_hash(document: str) -> int:
    return int.from_bytes(hashlib.sha256(document.encode()).digest(), "big")


def is_validation(document: str) -> bool:
    """The rule; `Corpus.held_out` adds what happens when it leaves a side empty."""
    return content_hash(document) % HELD_OUT_ONE_IN == 0


def open_corpus(spec: str) -> Corpus:
    """Read a corpus into memory.

    Raises ValueError, one line, for an unknown spec, an empty corpus, and any file that cannot be read as what its
    name says; for .jsonl with the line's number.
    """
    kind, _, rest = spec.partition(":")
    if spec == "stdlib":
        return collect("stdlib", sources(Path(sysconfig.get_paths()["stdlib"])))
    if kind == "package" and rest:
        return collect(spec, sources(package(rest)))
    if kind == "path" and rest:
        place, column = path_and_column(rest)
        name = f"path:{place.resolve().name}" + (f"#{column}" if column != COLUMN else "")
        return collect(name, folder_documents(place, column))
    if kind == "hub" and rest:
        return collect(*hub_documents(rest))
    raise ValueError(
        f"Unknown corpus {spec!r}. Known: 'stdlib', 'package:<name>', 'path:<folder or file>[#column]', "
        f"'hub:<name>[:config][#column][@revision]'."
    )


def collect(name: str, texts: Iterable[str | None]) -> Corpus:
    """None stands for a file or row that held no text."""
    documents: list[str] = []
    skipped = total = 0
    digest = hashlib.sha256()
    for text in texts:
        if text is None or not text.strip():
            skipped += 1
            continue
        content = text.encode()
        digest.update(len(content).to_bytes(8, "big"))  # so that "ab", "c" is not "a", "bc"
        digest.update(content)
        total += len(content)
        documents.append(text)
    if not documents:
        raise ValueError(f"Corpus {name!r} is empty: {skipped} files or rows, none with text. {READABLE}")
    return Corpus(name, digest.hexdigest()[:16], documents, total, skipped)


READABLE = "A corpus needs .txt, .jsonl or .parquet files (also .gz) with text in them."


def package(name: str) -> Path:
    found = importlib.util.find_spec(name) if name.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        raise ValueError(f"No package {name!r} with sources in this Python. Name one that is installed.")
    return Path(found.submodule_search_locations[0])


def sources(root: Path) -> Iterator[str | None]:
    for path in files_under(root, unwanted=FOREIGN):
        if path.suffix in (".py", ".txt", ".rst"):
            try:
                yield path.read_bytes().decode("utf-8-sig")
            except UnicodeDecodeError:
                yield None


def path_and_column(rest: str) -> tuple[Path, str]:
    place, hash_sign, column = rest.rpartition("#")
    if not hash_sign or Path(rest).expanduser().exists():
        return Path(rest).expanduser(), COLUMN
    return Path(place).expanduser(), column


def folder_documents(place: Path, column: str) -> Iterator[str | None]:
    if place.is_dir():
        paths = [path for path in files_under(place) if kind_of(path) in KINDS]
    elif kind_of(place) in KINDS:
        paths = [place]
    elif place.exists():
        raise ValueError(f"Cannot read {place}: unknown kind of file. {READABLE}")
    else:
        raise ValueError(f"No file or folder {place}. Give an existing one, as in 'path:my_texts'.")
    for path in paths:
        yield from READERS[kind_of(path)](path, column)


def files_under(root: Path, unwanted: re.Pattern[str] = HIDDEN) -> list[Path]:
    """Sorted by relative POSIX path. Links are kept, broken ones too: reading them complains."""
    paths: list[Path] = []
    seen: set[str] = set()
    for folder, folders, names in os.walk(root, followlinks=True, onerror=cannot_list):
        folders[:] = sorted(name for name in folders if not unwanted.fullmatch(name))
        if os.path.realpath(folder) in seen:  # linked folders may go in circles
            folders.clear()
            continue
        seen.add(os.path.realpath(folder))
        paths += [Path(folder, name) for name in names if not unwanted.fullmatch(name)]
    return sorted(paths, key=lambda path: path.relative_to(root).as_posix())


def cannot_list(error: OSError) -> None:
    raise ValueError(f"Cannot read {error.filename}: {error.strerror}. Make it readable or move it away.")


def kind_of(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).suffix


def content(path: Path) -> bytes:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ValueError(f"Cannot read {path}: {error.strerror}. Make it readable or move it away.") from None
    if path.suffix != ".gz":
        return raw
    try:
        return gzip.decompress(raw)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"Cannot read {path}: corrupt gzip ({error}). Fetch or compress it again.") from None


def text_file(path: Path, column: str) -> Iterator[str | None]:
    try:
        yield content(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 (byte {error.start}). Convert it, or move it away.") from None


def json_lines(path: Path, column: str) -> Iterator[str | None]:
    for number, line in enumerate(io.BytesIO(content(path)), start=1):
        if line.strip():
            yield json_text(line, column, f"{path}, line {number}")


def json_text(line: bytes, column: str, place: str) -> str | None:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except ValueError as error:  # not UTF-8, or not JSON
        raise ValueError(f"{place}: not a line of JSON ({error}). Repair or remove it.") from None
    if not isinstance(row, dict) or column not in row:
        came = f"columns {', '.join(row)}" if isinstance(row, dict) else type(row).__name__
        raise ValueError(f"{place}: no column {column!r}, but {came}. Name one, as in 'path:my_texts#column'.")
    return checked_text(row[column], column, place)


def parquet_rows(path: Path, column: str) -> Iterator[str | None]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(io.BytesIO(content(path)) if path.suffix == ".gz" else path)
        if column not in file.schema_arrow.names:
            raise ValueError(
                f"{path}: no column {column!r}, but {', '.join(file.schema_arrow.names)}. Name one, as in "
                f"'path:my_texts#column'."
            )
        row = 0
        for batch in file.iter_batches(columns=[column]):
            for value in batch.column(0).to_pylist():
                row += 1
                yield checked_text(value, column, f"{path}, row {row}")
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"Cannot read {path} as parquet: {first_line(error)}. Fetch or write it again.") from None


def checked_text(value: Any, column: str, place: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError(f"{place}: column {column!r} holds {type(value).__name__}, not text. Name a text column.")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # JSON can spell half a surrogate pair
        raise ValueError(f"{place}: column {column!r} is not valid Unicode ({error.reason}). Repair it.") from None
    return value


def first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0].rstrip(".")


READERS = {".txt": text_file, ".jsonl": json_lines, ".parquet": parquet_rows}

HUB_SPEC = re.compile(r"(?P<name>[^:#@]+)(:(?P<config>[^#@]+))?(#(?P<column>[^@]+))?(@(?P<revision>.+))?")


def hub_documents(rest: str) -> tuple[str, Iterable[str | None]]:
    """(name with the resolved revision, texts). The name is itself a spec: it opens the same documents again."""
    recorded, rows, column = hub_rows(rest)
    name = rest.partition("@")[0].partition("#")[0].partition(":")[0]
    if column not in rows.column_names:
        raise ValueError(
            f"Data set {name!r} has no column {column!r}, but {', '.join(rows.column_names)}. Name one, as in "
            f"'hub:{name}#column'."
        )
    texts = (checked_text(row[column], column, f"{name}, row {index}") for index, row in enumerate(rows, start=1))
    return recorded, texts


def hub_rows(rest: str) -> tuple[str, Any, str]:
    """(name with the resolved revision, a `datasets.Dataset`, the column that is named).

    The data set is downloaded and stored once by `datasets`; a stream shuffled or resumed there would lose rows. All
    its text then lies in memory: name a config of a size that fits.
    """
    found = HUB_SPEC.fullmatch(rest)
    if found is None:
        raise ValueError(f"Cannot read 'hub:{rest}'. Write 'hub:<name>[:config][#column][@revision]'.")
    name, config, revision = found["name"], found["config"], found["revision"]
    column = found["column"] or COLUMN
    local = Path(name).is_dir()
    import datasets
    import huggingface_hub

    try:
        if not local:  # a branch or a tag is pinned to the commit it stands for today
            revision = huggingface_hub.HfApi().dataset_info(name, revision=revision).sha
        rows = datasets.load_dataset(name, config, split="train", revision=None if local else revision)
    except Exception as error:  # the two libraries raise many kinds; each is the user's to repair
        raise ValueError(
            f"Cannot load data set {name!r} from the hub: {first_line(error)}. Check its name, config, revision and "
            f"your connection, or use 'path:' with files of your own."
        ) from None
    recorded = f"hub:{Path(name).resolve().name if local else name}" + (f":{config}" if config else "")
    recorded += (f"#{column}" if column != COLUMN else "") + (f"@{revision}" if revision else "")
    return recorded, rows, column
