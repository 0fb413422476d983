"""What a cache costs on disk, everything included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from replication.cache.manifest import read_manifest


def stats(directory: Path | str) -> dict[str, Any]:
    """Sizes in bytes and terabytes (10 ** 12 bytes); `unique_classes` is the mean number of classes per position."""
    directory = Path(directory)
    manifest = read_manifest(directory)
    total = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
    bytes_per_token = total / manifest.positions
    return {
        "codec": manifest.codec,
        "compression": manifest.compression,
        "sequences": manifest.sequences,
        "positions": manifest.positions,
        "classes": manifest.classes,
        "unique_classes": manifest.classes / manifest.positions,
        "bytes": total,
        "bytes_per_token": bytes_per_token,
        "bytes_per_class": total / manifest.classes,
        "terabytes_per_100B_tokens": bytes_per_token * 100e9 / 1e12,
    }
