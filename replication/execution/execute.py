"""Execute a run: train it, or measure what its probe measures."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from replication.experiment.identity import changed, resolved
from replication.experiment.recipe import methods_of
from replication.experiment.run import Run
from replication.experiment.suites import SUITES
from replication.machine.device import Machine
from replication.probes.answers import judged, of_answers
from replication.probes.cost import cost
from replication.probes.draws import draws
from replication.probes.frontier import frontier
from replication.probes.gradients import gradients
from replication.probes.martingale import martingale
from replication.probes.speculative import speculative
from replication.probes.stand_in import random_text
from replication.probes.storage import storage
from replication.probes.throughput import BATCHES, fitting, throughput
from replication.probes.zero_shot import zero_shot
from replication.records.numerics import numerics_of
from replication.records.provenance import provenance
from replication.records.record import NO_CORPUS, Record, record_of
from replication.training.inputs import inputs_of_probe
from replication.training.loop import open_record, train
from replication.training.run_data import data_for
from replication.training.scores import scored

PROBES: dict[str, Callable[..., Any]] = {
    "cost": cost,
    "throughput": throughput,
    "gradients": gradients,
    "frontier": frontier,
    "storage": storage,
    "draws": draws,
    "martingale": martingale,
    "speculative": speculative,
    "answers": of_answers,
    "judged": judged,
    **dict.fromkeys(SUITES, zero_shot),
}


def execute(run: Run, machine: Machine) -> Record:
    """Leaves a complete record; does nothing where one stands already."""
    if run.recipe.probe == "train":
        return train(run, machine)
    record = record_of(run, machine)
    if machine.world.first and not record.done:  # a probe is one process's work
        measure(run, record, machine.at(run.scale.precision))
    machine.world.wait()
    return record


def measure(run: Run, record: Record, machine: Machine) -> None:
    probe = PROBES[run.recipe.probe]
    module = sys.modules[probe.__module__]
    match run.recipe.probe:
        case "cost":
            open_computed(record, run, module)
            record.finish(*cost(run))
        case "throughput":
            fitted = fitting(run, machine)
            data = random_text(fitted, BATCHES * fitted.role.optimiser.batch)
            open_record(record, fitted, data, inputs_of_probe(fitted, data, machine), machine, module)
            record.finish(*throughput(fitted, data, machine))
        case _:
            data = scored(run, data_for(run, machine.artifacts), machine)
            open_record(record, run, data, inputs_of_probe(run, data, machine), machine, module)
            record.finish(*probe(run, data, machine))


def open_computed(record: Record, run: Run, module: ModuleType) -> None:
    """Of a run that reads no text."""
    stated = {"recipe": resolved(run.recipe), "changed": changed(run.recipe), "settings": run.settings()}
    bound = {"corpus": NO_CORPUS, "numerics": numerics_of(run.recipe, module), "inputs": {}}
    known = {**provenance(methods_of(run.recipe)), "run_id": run.id, "scale": run.scale.name, "seed": run.seed}
    record.open({**known, **stated, **bound})
