"""Execute a run: train it, or measure what its probe measures."""

from __future__ import annotations

from replication.machine import Machine
from replication.probes.draws import draws
from replication.probes.gradients import gradients
from replication.probes.martingale import martingale
from replication.probes.storage import storage
from replication.record import Record
from replication.run import Run, data_for
from replication.train import open_record, record_of, train

PROBES = {"gradients": gradients, "storage": storage, "draws": draws, "martingale": martingale}


def execute(run: Run, machine: Machine) -> Record:
    """Leaves a complete record; does nothing where one stands already."""
    if run.recipe.probe == "train":
        return train(run, machine)
    record = record_of(run, machine)
    if machine.world.first and not record.done:  # a probe is one process's work
        data = data_for(run, machine.artifacts)
        open_record(record, run, data)
        record.finish(*PROBES[run.recipe.probe](run, data, machine))
    machine.world.wait()
    return record
