"""An image set of a hundred classes: CIFAR-100 from where it lies, or one of our own where it is not at hand.

    cifar-100-python.tar.gz     the official archive, verified; or the folder that it unpacks to
    a folder of parquet files   the Hugging Face copy: image bytes and `fine_label`, names beginning with train and test
    a .npz, or its folder       x_train, y_train, x_test, y_test; pixels uint8 [N, 32, 32, 3]
    "procedural"                toy/shapes.py

The environment's IMAGES says which; without it the first of PLACES that exists, else "procedural".
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
import zipfile
import zlib
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np

from replication.machine.files import ROOT
from toy import archive, shapes

CLASSES, SIDE = 100, 32
PLACES = ("data/cifar-100-python.tar.gz", "data/cifar-100-python", "data/cifar100", "../shared/data/cifar100_subset")
PROCEDURAL = "procedural"
PROCEDURAL_SIZES = {"train": 25_000, "test": 5_000}
KEYS = ("x_train", "y_train", "x_test", "y_test")
BROKEN = (SyntaxError, EOFError, MemoryError, struct.error, zlib.error, zipfile.BadZipFile)
COLUMNS = ("img", "image")  # what copies of the parquet files call their pixels


@dataclass(frozen=True, eq=False)
class Images:
    """Pixels [N, 32, 32, 3] uint8 and labels [N] int64, below 100. Raises ValueError, one line, for anything else."""

    name: str
    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray

    def __post_init__(self) -> None:
        for split, pixels, labels in self.splits:
            if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != (SIDE, SIDE, 3) or not len(pixels):
                raise ValueError(
                    f"{self.name}: {split} images are {pixels.dtype} {list(pixels.shape)}, not uint8 [N, 32, 32, 3]."
                )
            if labels.shape != (len(pixels),) or labels.dtype.kind not in "iu":
                raise ValueError(
                    f"{self.name}: {split} labels are {labels.dtype} {list(labels.shape)} for {len(pixels)} images."
                )
            if labels.min() < 0 or labels.max() >= CLASSES:
                raise ValueError(
                    f"{self.name}: {split} labels go from {labels.min()} to {labels.max()}, not 0 to {CLASSES - 1}."
                )

    @property
    def splits(self) -> tuple[tuple[str, np.ndarray, np.ndarray], ...]:
        return ("train", self.train, self.train_labels), ("test", self.test, self.test_labels)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over pixels and labels in order: equal for one set, whatever file it came in."""
        digest = hashlib.sha256()
        for _, pixels, labels in self.splits:
            digest.update(len(pixels).to_bytes(8, "big"))
            digest.update(np.ascontiguousarray(pixels).data)
            digest.update(labels.astype(np.uint8).tobytes())
        return digest.hexdigest()[:16]

    @property
    def corpus(self) -> dict[str, str]:
        """What a record says of it."""
        return {"name": f"{self.name}, {len(self.train)} + {len(self.test)} images", "fingerprint": self.fingerprint}


def images() -> Images:
    """The set that this machine has. Raises ValueError, one line, when IMAGES names none or what is there is broken."""
    wanted = os.environ.get("IMAGES", "")
    if wanted and wanted != PROCEDURAL and not Path(wanted).exists():
        raise ValueError(f"IMAGES is {wanted!r}, and nothing is there. Give a path, or {PROCEDURAL!r}.")
    found = [str(ROOT / place) for place in PLACES if (ROOT / place).exists()]
    return opened(wanted or (found[0] if found else PROCEDURAL))


@cache
def opened(place: str) -> Images:
    """`place`: a path, or "procedural"."""
    return procedural() if place == PROCEDURAL else read(Path(place))


def read(path: Path) -> Images:
    """The set in a file or folder, of whichever of the known forms. Raises ValueError, one line, for none of them."""
    if path.name.endswith(".tar.gz"):
        return of(f"CIFAR-100, {archive.NAME}", archive.from_archive(path))
    if path.suffix == ".npz":
        return from_npz(path)
    for inner in (path, path / archive.NAME):
        if all((inner / split).is_file() for split in archive.SPLITS):
            return of(f"CIFAR-100, {archive.NAME}", archive.from_folder(inner))
    if (path / f"{archive.NAME}.tar.gz").exists():
        return read(path / f"{archive.NAME}.tar.gz")
    if any(path.rglob("*.parquet")):
        return from_parquet(path)
    if len(packed := sorted(path.glob("*.npz"))) == 1:
        return from_npz(packed[0])
    raise ValueError(
        f"{path} holds no image set that is known: {archive.NAME}.tar.gz or what it unpacks to, the parquet files of "
        "the Hugging Face copy, or one .npz."
    )


def of(name: str, splits: tuple[archive.Split, archive.Split]) -> Images:
    (train, train_labels), (test, test_labels) = splits
    return Images(name, train, train_labels, test, test_labels)


def from_npz(path: Path) -> Images:
    """Raises ValueError, one line, for a broken file, a missing key, and pickled objects, which are never loaded."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            x_train, y_train, x_test, y_test = (stored[key] for key in KEYS)
    except KeyError as error:
        raise ValueError(f"{path.name}: {error.args[0]} Wanted: {', '.join(KEYS)}.") from None
    except (ValueError, TypeError, AttributeError, OSError, *BROKEN) as error:
        raise ValueError(f"{path.name} is no .npz of plain arrays: {' '.join(str(error).split())[:200]}") from None
    return Images(f"npz {path.stem}", x_train, y_train, x_test, y_test)


def from_parquet(folder: Path) -> Images:
    """The Hugging Face copy. Raises ValueError, one line, for missing columns or images that are no 32 x 32 PNG."""
    train, test = (parquet_split(folder, split) for split in archive.SPLITS)
    return of("CIFAR-100, parquet", (train, test))


def parquet_split(folder: Path, split: str) -> archive.Split:
    import pyarrow
    import pyarrow.parquet as parquet

    paths = [
        path
        for path in sorted(folder.rglob("*.parquet"))
        if path.relative_to(folder).parts[-1].startswith(split) or path.parent.name == split
    ]
    if not paths:
        raise ValueError(f"{folder} has no parquet file whose name begins with {split!r}.")
    pixels, labels = [], []
    for path in paths:
        try:
            file = parquet.ParquetFile(path)
            column = next((name for name in COLUMNS if name in file.schema_arrow.names), COLUMNS[0])
            rows = file.read([column, "fine_label"]).to_pydict()
            pixels += [decoded(row["bytes"]) for row in rows[column]]
            labels += rows["fine_label"]
        # a broken PNG is a SyntaxError or whatever its bytes lead to
        except (pyarrow.ArrowException, OSError, LookupError, TypeError, ValueError, *BROKEN) as error:
            raise ValueError(f"{path.name}: {' '.join(str(error).split())[:200]}") from None
    return np.stack(pixels), np.array(labels, np.int64)


def decoded(content: bytes) -> np.ndarray:
    from PIL import Image

    with Image.open(io.BytesIO(content), formats=["PNG"]) as picture:
        if picture.size != (SIDE, SIDE):  # before a pixel is decoded
            raise ValueError(f"an image has {picture.size[0]} x {picture.size[1]} pixels, not 32 x 32.")
        return np.asarray(picture.convert("RGB"))


def procedural() -> Images:
    parts = [part.numpy() for split, images in PROCEDURAL_SIZES.items() for part in shapes.split(split, images)]
    return Images("procedural shapes, not CIFAR-100", *parts)
