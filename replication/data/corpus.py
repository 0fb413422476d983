"""Corpus: documents in a fixed order, their fingerprint, and which of them are held out.

    stdlib                                          the Python standard library's own sources and texts
    package:<name>                                  the sources and texts of an installed Python package
    path:<folder or file>[#column]                  .txt, .jsonl, .parquet, each also as .gz
    hub:<name>[:config][#column][@revision]         a Hugging Face data set, split "train"
    sums:<n>[:<largest>]                            n problems with worked steps, made here (sums.py)
    <one> + <another>                               the documents of both

One .txt file is one document, so is one line of .jsonl and one row of .parquet. Columns default to "text".
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from replication.data.hub import hub_documents
from replication.data.sums import sums
from replication.data.text_files import COLUMN, READABLE, files_under, folder_documents

HELD_OUT_ONE_IN = 64  # documents
JOINED = r" \+ (?=stdlib|package:|path:|hub:|sums:)"
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
    parts = parts_of(spec)
    if len(parts) > 1:
        return collect(spec, (text for part in parts for text in open_corpus(part).documents))
    kind, _, rest = spec.partition(":")
    if spec == "stdlib":
        return collect("stdlib", sources(Path(sysconfig.get_paths()["stdlib"])))
    if kind == "package" and rest:
        return collect(spec, sources(package(rest)))
    if kind == "path" and rest:
        place, column = path_and_column(rest)
        name = f"path:{place.resolve().name}" + (f"#{column}" if column != COLUMN else "")
        return collect(name, folder_documents(place, column))
    if kind == "sums" and all(number.isdecimal() for number in rest.split(":", 1)):
        return collect(spec, sums(*map(int, rest.split(":", 1))))
    if kind == "hub" and rest:
        return collect(*hub_documents(rest))
    raise ValueError(
        f"Unknown corpus {spec!r}. Known: 'stdlib', 'package:<name>', 'path:<folder or file>[#column]', "
        f"'hub:<name>[:config][#column][@revision]', 'sums:<n>[:<largest>]', and several of them joined by ' + '."
    )


def parts_of(spec: str) -> list[str]:
    """Of a text that is joined from several; a ' + ' before anything else belongs to a path."""
    return re.split(JOINED, spec)


def at_hand(spec: str) -> None:
    """ValueError now for a folder, file or package that is not there; nothing is read."""
    for part in parts_of(spec):
        kind, _, rest = part.partition(":")
        if kind == "path" and rest and not path_and_column(rest)[0].exists():
            there = path_and_column(rest)[0]
            raise ValueError(f"No file or folder {there}. Give an existing one, as in 'path:my_texts'.")
        if kind == "package" and rest:
            package(rest)


def files_of(spec: str) -> list[Path]:
    """The files that a corpus is read from, or more; none where it lies elsewhere, or is not there any more."""
    if len(parts := parts_of(spec)) > 1:
        return [file for part in parts for file in files_of(part)]
    kind, _, rest = spec.partition(":")
    if spec == "stdlib":
        return files_under(Path(sysconfig.get_paths()["stdlib"]), unwanted=FOREIGN)
    if kind == "package" and rest:
        return files_under(package(rest), unwanted=FOREIGN)
    place = path_and_column(rest)[0] if kind == "path" else Path(re.split("[:#@]", rest)[0])
    if kind not in ("path", "hub") or not place.exists():
        return []
    return files_under(place) if place.is_dir() else [place]


def collect(name: str, texts: Iterable[str | None], wanted: str = READABLE) -> Corpus:
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
        raise ValueError(f"Corpus {name!r} is empty: {skipped} files or rows, none of use. {wanted}")
    return Corpus(name, digest.hexdigest()[:16], documents, total, skipped)


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
