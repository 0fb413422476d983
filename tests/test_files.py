"""A file is there completely or as it was before; the cache's own tests kill writers and fill disks."""

from __future__ import annotations

from pathlib import Path

import pytest

from replication.machine.files import create, replace_text, replacing


def test_a_broken_block_leaves_what_was_there(tmp_path: Path) -> None:
    replace_text(tmp_path / "new" / "place.txt", "before")
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "new" / "place.txt") as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert {path.name: path.read_text() for path in (tmp_path / "new").iterdir()} == {"place.txt": "before"}


def test_only_a_whole_file_has_the_name(tmp_path: Path) -> None:
    with replacing(tmp_path / "place") as file:
        file.write(b"all of it")
        assert not (tmp_path / "place").exists()
    assert (tmp_path / "place").read_bytes() == b"all of it"


def test_what_was_created_first_stays(tmp_path: Path) -> None:
    for part in (b"first", b"second"):
        create(tmp_path / "place", [part])
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"first"]
