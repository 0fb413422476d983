"""What a cache says of itself: which target of which teacher over which packing, and the checksum of every shard."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, ValidationError, model_serializer

from replication.cache.bits import Bits
from replication.cache.choose import codec_for, codec_named
from replication.cache.codec import Codec, SetCodec
from replication.cache.law import FILE as LAW
from replication.cache.law import read_law
from replication.cache.planes import Planes
from replication.cache.shard import BUILD, MEND, checksum
from replication.cache.unigram import Unigram
from replication.machine import files

FORMAT = 1
FILE = "manifest.json"
Compression = Literal["none", "zstd", "unigram"]
NEW = (("compression", "none"), ("law", ""))  # what older caches do not say, and mean
UNFINISHED = "unfinished.json"  # stands from the first moment until the manifest replaces it
ANEW = f"to build the cache anew and keep this one beside it: {BUILD}"


class Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Target(Entry):
    """A target's class name and every one of its fields."""

    name: str
    fields: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{key}={value}' for key, value in self.fields.items())})"


class Header(Entry):
    """What makes one cache another cache. Fingerprints are compared, never read."""

    teacher: str
    tokenizer: str
    packing: str  # of the sequences: corpus, tokenizer, order, length
    target: Target
    seed: int
    vocabulary: int
    length: int  # positions per sequence

    @property
    def codec(self) -> Codec:
        return codec_for(self.target.name, self.target.fields, self.vocabulary)


class Plan(Entry):
    """A header and how it is laid out in files: what an unfinished cache knows of itself."""

    format: int = FORMAT
    header: Header
    sequences: int
    shard_sequences: int
    codec: str
    codec_parameters: dict[str, Any]
    compression: Compression = "none"
    law: str = ""  # fingerprint of what ids are coded against; "" where they are not

    @model_serializer(mode="wrap")
    def without_what_is_new(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Caches without what is new are written as they were before it: a digest covers the text."""
        found = handler(self)
        return {key: value for key, value in found.items() if (key, value) not in NEW}

    @property
    def coder(self) -> Codec:
        return codec_named(self.codec, self.header.vocabulary, self.codec_parameters)

    def layout(self, directory: Path) -> Bits | Planes | Unigram:
        """How the codes lie in the files. Raises ValueError where the law that they need is missing or damaged."""
        codec = self.coder
        if self.compression == "unigram":
            assert isinstance(codec, SetCodec)
            return Unigram(codec, read_law(directory, self.law), self.header.length)
        return codec.bits if self.compression == "none" else codec.planes

    @property
    def shard_count(self) -> int:
        return -(-self.sequences // self.shard_sequences)

    def shard_range(self, index: int) -> range:
        """The sequences of a shard."""
        first = index * self.shard_sequences
        return range(first, min(first + self.shard_sequences, self.sequences))


class ShardEntry(Entry):
    file: str
    first: int  # sequence
    sequences: int
    bytes: int
    sha256: str

    def damage(self, directory: Path, every_byte: bool = True) -> str:
        """What is wrong with the file, "" where nothing is; without `every_byte` only what its size shows."""
        path, which = directory / self.file, f"sequences {self.first} to {self.first + self.sequences - 1}"
        if not path.exists():
            return f"{path} is missing ({which})"
        if (found := path.stat().st_size) != self.bytes:
            return f"{path} has {found} bytes instead of {self.bytes} ({which})"
        if every_byte and checksum(path) != self.sha256:
            return f"{path} is damaged: its checksum differs ({which})"
        return ""


class Manifest(Plan):
    shards: list[ShardEntry]
    classes: int  # kept, over all positions
    positions: int
    digest: str = ""  # sha256 of this manifest without the digest

    def damage(self, directory: Path) -> dict[Path, str]:
        """What is wrong with the files beside the manifest, by file. Reads every byte."""
        found = {directory / entry.file: entry.damage(directory) for entry in self.shards}
        try:
            self.layout(directory)
        except ValueError as error:
            found[directory / LAW] = str(error).removesuffix(f"; {MEND}.")
        return {path: words for path, words in found.items() if words}


def write_plan(directory: Path, plan: Plan) -> None:
    """The first plan stays, whoever else writes one."""
    files.create(directory / UNFINISHED, [plan.model_dump_json(indent=1).encode()])


def read_plan(directory: Path) -> Plan:
    path = directory / UNFINISHED
    return parsed(Plan, path.read_bytes(), path)


def write_manifest(directory: Path, manifest: Manifest) -> None:
    files.write(directory / FILE, [rendered(manifest)])


def read_manifest(directory: Path) -> Manifest:
    """Raises ValueError where there is none, or where one bit of it has changed."""
    path = directory / FILE
    if not path.exists():
        if (directory / UNFINISHED).exists():
            raise ValueError(f"The cache in {directory} is unfinished; to resume: {BUILD}.")
        what = f"holds no {FILE}" if directory.is_dir() else "is no folder"
        raise ValueError(f"There is no cache in {directory}: it {what}. Give a cache's folder, or build one: {BUILD}.")
    raw = path.read_bytes()
    manifest = parsed(Manifest, raw, path)
    # compared as text, so that a changed space or an added zero is found too
    if raw != rendered(manifest):
        raise ValueError(f"{path} does not match its digest: it was changed or damaged; {ANEW}.")
    return manifest


def rendered(manifest: Manifest) -> bytes:
    bare = manifest.model_copy(update={"digest": ""})
    digest = hashlib.sha256(bare.model_dump_json(indent=1).encode()).hexdigest()
    return manifest.model_copy(update={"digest": digest}).model_dump_json(indent=1).encode()


Kind = TypeVar("Kind", bound=Plan)


def parsed(kind: type[Kind], raw: bytes, path: Path) -> Kind:
    try:
        return kind.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ValueError(f"{path} is damaged at {place}: {first['msg']}; {ANEW}.") from None


@dataclass(frozen=True)
class Expected:
    """What a cache must be. None is not compared: leave out the packing only for a deliberate misalignment.

    A teacher may go by several fingerprints, of which a cache has one: those of newer and of older versions.
    """

    teacher: str | tuple[str, ...] | None = None
    tokenizer: str | None = None
    packing: str | None = None
    target: Target | None = None
    seed: int | None = None
    vocabulary: int | None = None
    length: int | None = None


WORDS = {"packing": "packing (order or length of the sequences)", "length": "sequence length"}


def differences(plan: Plan, expected: Expected) -> list[str]:
    """What of a cache is not as expected, with both values, one phrase each."""
    wrong = []
    for key in Expected.__dataclass_fields__:
        wanted, found = getattr(expected, key), getattr(plan.header, key)
        known = wanted if isinstance(wanted, tuple) else (wanted,)
        if wanted is not None and found not in known:
            wrong.append(f"{WORDS.get(key, key)} is {found} in the cache but {known[0]} here")
    if plan.format != FORMAT:
        wrong.append(f"format is {plan.format} in the cache but {FORMAT} here")
    return wrong


def check(plan: Plan, expected: Expected) -> None:
    """Raises ValueError, one line, naming everything that differs with both values."""
    if wrong := differences(plan, expected):
        raise ValueError(
            f"This is another cache: {'; '.join(wrong)}. Name the right one, or build a cache for this run (the other "
            f"one is kept beside it): {BUILD}."
        )
