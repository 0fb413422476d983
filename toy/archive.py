"""The official CIFAR-100 archive `cifar-100-python`, read in memory: nothing is extracted, nothing it names is run."""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

NAME = "cifar-100-python"
SPLITS = ("train", "test")
# what www.cs.toronto.edu/~kriz/cifar.html gives for the archive; the other two are those of its members
MD5 = {
    f"{NAME}.tar.gz": "eb9058c3a382ffc7106e4002c42a8d85",
    "train": "16019d7e3df5f24257cddd939b257f8d",
    "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
}
LARGEST = 1 << 28  # bytes; the archive has 169 MB, its largest member 155 MB

Split = tuple[np.ndarray, np.ndarray]


def from_archive(path: Path) -> tuple[Split, Split]:
    """Train and test, each as pixels [N, 32, 32, 3] uint8 and fine labels [N] int64.

    Raises ValueError, one line, for a file that is not the official one, and, should its md5 be right all the same,
    for one that is cut off, has a member outside its folder, or names anything but numbers.
    """
    content = verified(path, f"{NAME}.tar.gz")
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
            members = {member.name: member for member in archive if within_its_folder(path, member)}
            found = [extracted(archive, members.get(f"{NAME}/{split}")) for split in SPLITS]
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise ValueError(f"{path.name} is no readable .tar.gz: {error}.") from None
    if missing := [split for split, data in zip(SPLITS, found, strict=True) if data is None]:
        raise ValueError(f"{path.name} has no file {NAME}/{missing[0]} of at most {LARGEST} bytes.")
    train, test = (unpickled(data or b"", split) for split, data in zip(SPLITS, found, strict=True))
    return train, test


def from_folder(folder: Path) -> tuple[Split, Split]:
    """The same from the unpacked archive: a folder with `train` and `test`, verified by their own md5."""
    train, test = (unpickled(verified(folder / split, split), split) for split in SPLITS)
    return train, test


def verified(path: Path, name: str) -> bytes:
    size = path.stat().st_size
    content = path.read_bytes() if size <= LARGEST else b""
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if md5 != MD5[name]:
        raise ValueError(
            f"{path} is not the official {name} of CIFAR-100: it has {size} bytes and md5 {md5}, not {MD5[name]}. "
            "A download that was cut off looks like this; load it again."
        )
    return content


def within_its_folder(path: Path, member: tarfile.TarInfo) -> bool:
    """True, or ValueError for a member that no honest copy has: a link, a device, a way out of the folder."""
    place = PurePosixPath(member.name)
    if place.is_absolute() or ".." in place.parts or not (member.isfile() or member.isdir()):
        raise ValueError(f"{path.name} has a member {member.name!r} that is no plain file in its folder; not read.")
    return True


def extracted(archive: tarfile.TarFile, member: tarfile.TarInfo | None) -> bytes | None:
    file = archive.extractfile(member) if member is not None and member.size <= LARGEST else None
    return None if file is None else file.read()


class Kind:
    """Stands in for numpy's dtype while a pickle is read: unsigned bytes are the only kind."""

    def __init__(self, code: Any, *_: Any) -> None:
        if code not in (b"u1", "u1"):
            raise pickle.UnpicklingError(f"an array of {code!r}")

    def __setstate__(self, state: Any) -> None:
        """Byte order and alignment: nothing that a single byte has."""


class Array:
    """Stands in for numpy's array while a pickle is read: takes bytes and a shape, runs no code of the pickle's choice.

    numpy's own reconstruction trusts the pickle's description of memory, so it is not let near a file.
    """

    def __init__(self, *_: Any) -> None:
        self.values = np.zeros(0, np.uint8)

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, column_major, data = state
        if not isinstance(kind, Kind) or not isinstance(data, bytes) or column_major:
            raise pickle.UnpicklingError("an array that is not rows of bytes")
        self.values = np.frombuffer(data, np.uint8).reshape(shape)


class Numbers(pickle.Unpickler):
    """Admits arrays of bytes and plain containers, text and numbers; refuses every other name before it is imported."""

    ADMITTED = {
        ("numpy.core.multiarray", "_reconstruct"): Array,
        ("numpy._core.multiarray", "_reconstruct"): Array,
        ("numpy", "ndarray"): Array,
        ("numpy", "dtype"): Kind,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ADMITTED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, and only arrays and plain containers are read")
        return self.ADMITTED[module, name]


def unpickled(content: bytes, split: str) -> Split:
    """Pixels and fine labels of one split, from what Python 2 pickled. Raises ValueError, one line, for all else."""
    try:
        batch = Numbers(io.BytesIO(content), encoding="bytes").load()
        rows, labels = batch[b"data"].values, batch[b"fine_labels"]
        # each image is its red plane, then green, then blue
        pixels = np.ascontiguousarray(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        return pixels, np.array([int(label) for label in labels], np.int64)
    except Exception as error:  # a broken pickle raises whatever its bytes happen to spell
        said = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"The file {split!r} of {NAME} is not what it should be: {said[:200]}.") from None
