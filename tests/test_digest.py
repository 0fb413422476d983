"""A record's digests change with the code that decided its numbers, and with nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from replication.records import source_hint
from replication.records.source_hint import digests


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The axis files and the loss, copied to where they may be changed."""
    axes = tuple(Path(shutil.copy(path, tmp_path)) for path in source_hint.AXES if path.exists())
    shutil.copy(source_hint.HERE / "axes" / "loss.py", tmp_path)
    monkeypatch.setattr(source_hint, "AXES", axes)
    source_hint.definitions.cache_clear()
    yield tmp_path
    source_hint.definitions.cache_clear()


def found(here: Path) -> source_hint.Digests:
    source_hint.definitions.cache_clear()
    return digests([here / "loss.py"], ["TopK", "SmoothedTopK", "ForwardKL"])


def replaced(path: Path, old: str, new: str) -> None:
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_a_new_method_a_comment_or_an_annotation_changes_nothing(here: Path) -> None:
    before = found(here)
    with open(here / "kept.py", "a") as file:
        file.write('\n\nclass Another(Target):\n    """A new method."""\n\n\nTARGETS["Another"] = Another\n')
    replaced(here / "positions.py", "Positions = AllPositions", "Positions = Policy | AllPositions")
    replaced(here / "loss.py", "kd_weight: float", "kd_weight: int  # a comment\n    ")
    replaced(here / "kept.py", "The k largest probabilities", "The k smallest probabilities")
    assert found(here) == before


def test_a_method_s_own_code_changes_its_digest_and_no_other(here: Path) -> None:
    before = found(here)
    replaced(here / "kept.py", "spread_N=residual(kept)", "spread_N=2 * residual(kept)")
    after = found(here)
    assert after.code == before.code
    assert {name for name in after.methods if after.methods[name] != before.methods[name]} == {"SmoothedTopK"}


def test_what_a_method_uses_counts_as_its_own(here: Path) -> None:
    before = found(here)
    replaced(here / "kept.py", ".clamp_min(0)", ".clamp_min(1)")  # residual, which SmoothedTopK uses
    after = found(here)
    assert {name for name in after.methods if after.methods[name] != before.methods[name]} == {"SmoothedTopK"}


def test_what_every_run_goes_through_changes_the_code(here: Path) -> None:
    before = found(here)
    replaced(here / "loss.py", ".mean()", ".sum()")
    after = found(here)
    assert after.code != before.code and after.methods == before.methods
    replaced(here / "divergences.py", "logits_NV.float()", "logits_NV.half().float()")  # precise, which the loss uses
    assert found(here).code != after.code and found(here).methods["ForwardKL"] != after.methods["ForwardKL"]
