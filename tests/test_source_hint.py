"""What counts in the hint of how a record's code was written."""

from __future__ import annotations

from pathlib import Path

from replication.records.source_hint import digest_of


def test_bytes_and_names_of_python_files_count_and_nothing_else(tmp_path: Path) -> None:
    here = tmp_path / "axes"
    (here / "targets").mkdir(parents=True)
    (here / "loss.py").write_text("A = 1\n")
    (here / "targets" / "kept.py").write_text("B = 2\n")
    before = digest_of([here])
    assert len(before) == 16

    (here / "notes.toml").write_text("c = 3\n")
    (tmp_path / "beside.py").write_text("D = 4\n")
    assert digest_of([here]) == before

    (here / "targets" / "kept.py").write_text("B = 2  # a comment\n")
    assert digest_of([here]) != before
    (here / "targets" / "kept.py").rename(here / "targets" / "other.py")
    (here / "targets" / "other.py").write_text("B = 2\n")
    assert digest_of([here]) != before
    (here / "targets" / "other.py").rename(here / "targets" / "kept.py")
    assert digest_of([here]) == before
