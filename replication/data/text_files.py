"""Texts in files: .txt, .jsonl and .parquet, each also as .gz. Errors say which file, which line and what to do."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

COLUMN = "text"  # by default
Row = tuple[str, dict[str, Any]]  # where it stands, for whoever refuses it; its columns
HIDDEN = re.compile(r"\..*")
HALF = re.compile(rb"\\u[dD][89a-fA-F]")  # of a surrogate pair, as JSON spells it; both halves, as a rule
READABLE = "A corpus needs .txt, .jsonl or .parquet files (also .gz) with text in them."


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
        if kind_of(path) == ".txt":
            yield text_file(path)
            continue
        for where, row in ROWS[kind_of(path)](path, column):
            if column not in row:
                raise lacking(where, column, list(row))
            yield checked_text(row[column], column, where)


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
    """'.jsonl' of a.jsonl, a.jsonl.gz and A.JSONL.GZ."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def zipped(path: Path) -> bool:
    return path.suffix.lower() == ".gz"


def content(path: Path) -> bytes:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ValueError(f"Cannot read {path}: {error.strerror}. Make it readable or move it away.") from None
    if not zipped(path):
        return raw
    try:
        if not raw:  # the library calls that a whole file of nothing
            raise EOFError("it has no bytes")
        return gzip.decompress(raw)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"Cannot read {path}: corrupt gzip ({error}). Fetch or compress it again.") from None


def text_file(path: Path) -> str:
    try:
        text = content(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 (byte {error.start}). Convert it, or move it away.") from None
    if "\0" in text:  # which UTF-16 without its mark has beside every letter, and which UTF-8 allows
        raise ValueError(f"{path} is not text in UTF-8: it has null characters. Convert it, or move it away.")
    return text


def json_rows(path: Path, column: str | None = None) -> Iterator[Row]:
    """Each line that is not blank, with all of its columns."""
    for number, line in enumerate(io.BytesIO(content(path)), start=1):
        where = f"{path}, line {number}"
        try:
            text = line.decode("utf-8-sig")
            if not text.strip():
                continue
            row = json.loads(text)
            if HALF.search(line):
                json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError(f"{where}: half a surrogate pair is no Unicode. Repair or remove the line.") from None
        except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, or nested thousands deep
            raise ValueError(f"{where}: not a line of JSON ({error}). Repair or remove it.") from None
        if not isinstance(row, dict):
            raise ValueError(f"{where}: {type(row).__name__}, where an object is wanted. Write one a line.")
        yield where, row


def parquet_rows(path: Path, column: str | None = None) -> Iterator[Row]:
    """Each row, with this column alone or with all of them."""
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(io.BytesIO(content(path)) if zipped(path) else path)
        if column is not None and column not in file.schema_arrow.names:
            raise lacking(str(path), column, file.schema_arrow.names)
        number = 0
        for batch in file.iter_batches(columns=None if column is None else [column]):
            for row in batch.to_pylist():
                number += 1
                yield f"{path}, row {number}", row
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"Cannot read {path} as parquet: {first_line(error)}. Fetch or write it again.") from None


def lacking(where: str, column: str, names: list[str]) -> ValueError:
    return ValueError(
        f"{where}: no column {column!r}, but columns {', '.join(names)}. Name one, as in 'path:my_texts#column'."
    )


def checked_text(value: Any, column: str, place: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{place}: column {column!r} holds {type(value).__name__}, not text. Name a text column.")
    return value


def first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0].rstrip(".")


ROWS = {".jsonl": json_rows, ".parquet": parquet_rows}
KINDS = (".txt", *ROWS)
