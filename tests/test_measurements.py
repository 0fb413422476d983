"""Each probe is declared once, and what its entry names is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from replication import probes
from replication.experiment.measurements import PROBES
from replication.experiment.recipe import Recipe
from replication.probes.module import deed_of, module_of
from replication.records.numerics import SHARED, numerics_of

HELPERS = {"__init__", "completions", "module", "stand_in"}  # files of the folder that are no probe


@pytest.mark.parametrize("probe", PROBES)
def test_an_entry_names_a_deed_and_parts_that_are_there(probe: str) -> None:
    assert callable(deed_of(probe)) and deed_of(probe).__module__ == module_of(probe).__name__
    assert set(PROBES[probe].numerics) <= SHARED.keys()
    found = numerics_of(Recipe(probe=probe), module_of(probe))
    assert {*PROBES[probe].numerics, f"probe.{probe}"} <= found.keys()


def test_every_file_of_the_folder_is_a_probe_or_known_to_be_none() -> None:
    files = {path.stem for path in Path(str(probes.__file__)).parent.glob("*.py")}
    assert files == HELPERS | {asked.module for asked in PROBES.values()}


def test_a_training_has_no_entry() -> None:
    assert Recipe().measurement is None and "train" not in PROBES
    assert numerics_of(Recipe()).keys() > SHARED.keys()
