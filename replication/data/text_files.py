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
KINDS = (".txt", ".jsonl", ".parquet")
HIDDEN = re.compile(r"\..*")
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
