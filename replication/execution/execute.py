"""Execute a run: train it, or measure what its probe measures."""

from __future__ import annotations

from types import ModuleType

from replication.experiment.identity import changed, resolved
from replication.experiment.run import Run
from replication.machine.device import Machine
from replication.probes.module import deed_of, material, module_of, refuse_unready
from replication.records.numerics import numerics_of
from replication.records.provenance import provenance
from replication.records.record import NO_CORPUS, Record, record_of
from replication.training.inputs import inputs_of_probe
from replication.training.loop import open_record, train
from replication.training.replaced import settle


def execute(run: Run, machine: Machine) -> Record:
    """Leaves a complete record; does nothing where one stands already, of what is still there."""
    with machine.world.in_turn():
        settle([run], machine)
    if run.recipe.measurement is None:
        return train(run, machine)
    record = record_of(run, machine)
    if machine.world.first and not record.done:  # a probe is one process's work
        measure(run, record, machine.at(run.scale.precision))
    machine.world.wait()
    return record


def measure(run: Run, record: Record, machine: Machine) -> None:
    refuse_unready(run)
    probe, asked = run.recipe.probe, run.recipe.measurement
    assert asked is not None
    if asked.computed:
        open_computed(record, run, module_of(probe))
        record.finish(*deed_of(probe)(run))
    else:
        run, data = material(run, machine)
        open_record(record, run, data, inputs_of_probe(run, data, machine), machine, module_of(probe))
        record.finish(*deed_of(probe)(run, data, machine))


def open_computed(record: Record, run: Run, module: ModuleType) -> None:
    """Of a run that reads no text."""
    stated = {"recipe": resolved(run.recipe), "changed": changed(run.recipe), "settings": run.settings()}
    bound = {"corpus": NO_CORPUS, "numerics": numerics_of(run.recipe, module), "inputs": {}}
    known = {**provenance(), "run_id": run.id, "scale": run.scale.name, "seed": run.seed}
    record.open({**known, **stated, **bound})
