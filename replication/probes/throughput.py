"""What a training step costs: tokens per second, arithmetic and memory of the real step (RS-KD Section 5.4, Table 4).

Nothing is learnt, so nothing needs to have been: `stand_in.py` gives text, teacher and cache. The cache's positions
keep 12 classes of 50 draws on average, as RS-KD's do.
"""

from __future__ import annotations

import copy
import math
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from tqdm import tqdm

from replication.axes.targets.kept import OneHot
from replication.cost.flops import Cost, Work
from replication.experiment.recipe import Recipe
from replication.experiment.run import Run
from replication.machine.device import Machine
from replication.machine.memory import forget_peak_memory, peak_memory
from replication.model.decoder import compile_layers
from replication.probes.stand_in import cache_of, random_text, untrained
from replication.training.run_data import Data
from replication.training.student import Student
from replication.training.supervision import FromCache, FromText, Supervision, from_teacher
from replication.training.training import Training

WARM_UP = 3
BATCHES = 4  # of text and of cache, gone through again and again
SIDE = {"cpu": 1024, "cuda": 8192}  # of the matrices whose product is the machine's rate
TOKENS = 2**16  # of a step, at most: they fill any GPU, and more would only take longer
ROOM = 0.9  # of the memory: the allocator, and what the cost model leaves out, take the rest


def throughput(run: Run, data: Data, machine: Machine) -> tuple[dict[str, float], dict[str, Any]]:
    """The run's steps in turns with plain ones of the same student, so that whatever slows the machine slows both.

    `tokens_per_second`, and `relative`: a plain step's time over that of the run's beside it. Both are medians over the
    repetitions, with the 95 % interval of the median (`_low`, `_high`); the curve has every repetition. Plain training
    is its own reference, so its `relative` is one, and what its pairs measure, `again`, says how well pairs measure.
    `teraflops` counts the student alone, as RS-KD prints them; `mfu` counts the teacher beside it too, as a share of
    `matrix_teraflops`, which this machine reaches on a bare square product in the precision of training, measured in
    between. `peak_gigabytes` of a step: of the GPU, else of the process, PyTorch itself included.
    """
    plain = Training(plain_run(run), data, None, machine)
    taken: dict[str, list[float]] = {"seconds": [], "plain_seconds": [], "matrix_seconds": []}
    with tempfile.TemporaryDirectory() as folder:
        training = beside(plain, run, supervision_of(run, data, Path(folder), machine))
        with training.reading_ahead():
            for _ in range(WARM_UP):
                plain.advance()
                training.advance()
            forget_peak_memory()
            training.advance()
            peak = peak_memory()
            pair = [("seconds", training), ("plain_seconds", plain)]
            for _ in tqdm(range(run.scale.timed_turns), desc=run.id, unit="turn", mininterval=2.0):
                for name, each in pair:
                    taken[name].append(seconds_of(each.advance))
                taken["matrix_seconds"].append(product_seconds(machine))
                pair.reverse()
    seconds, plain_seconds = np.array(taken["seconds"]), np.array(taken["plain_seconds"])
    rate = 2 * SIDE[machine.device.type] ** 3 / np.median(taken["matrix_seconds"])
    cost = Cost(run)
    metrics = {
        **median("tokens_per_second", training.tokens / seconds),
        "relative": 1.0,
        **median("again" if training.run.recipe == plain.run.recipe else "relative", plain_seconds / seconds),
        "teraflops": cost.own_step.flops / np.median(seconds) / 1e12,
        "mfu": cost.step.flops / np.median(seconds) / rate,
        "matrix_teraflops": rate / 1e12,
        "peak_gigabytes": peak / 1e9,
    }
    if isinstance(training.supervision, FromCache):
        manifest = training.supervision.reader.manifest
        metrics["unique_classes"] = manifest.classes / manifest.positions
    curves = {"repetitions": {name: [round(value, 6) for value in values] for name, values in taken.items()}}
    return {name: float(value) for name, value in metrics.items()}, curves


def material(run: Run, machine: Machine) -> tuple[Run, Data]:
    """The run in batches that fit, and random text."""
    fitted = fitting(run, machine)
    return fitted, random_text(fitted, BATCHES * fitted.role.optimiser.batch)


def work(cost: Cost) -> Work:
    capped = Cost(in_batches_of(TOKENS // cost.run.length, cost.run))
    return (capped.step + capped.own_step) * (WARM_UP + cost.run.scale.timed_turns)


def fitting(run: Run, machine: Machine) -> Run:
    """The run with as many sequences in a batch as this machine holds, equally many for every method.

    ValueError where it does not hold one.
    """
    run = in_batches_of(TOKENS // run.length, run)
    cost, memory = Cost(run), memory_of(machine)
    held = cost.held_bytes + (0 if cost.asks_teacher else cost.teacher_bytes)
    if held + cost.sequence_bytes > ROOM * memory:
        raise ValueError(
            f"A step of {run.recipe.student!r} beside {run.recipe.teacher!r} takes "
            f"{(held + cost.sequence_bytes) / 1e9:.0f} GB at scale {run.scale.name!r}, and this machine has "
            f"{memory / 1e9:.0f} GB. Take a smaller scale or a larger machine."
        )
    return in_batches_of(2 ** math.floor(math.log2((ROOM * memory - held) / cost.sequence_bytes)), run)


def in_batches_of(sequences: int, run: Run) -> Run:
    """At most."""
    role = run.role
    optimiser = role.optimiser.model_copy(update={"batch": max(1, min(role.optimiser.batch, sequences))})
    roles = {**run.scale.roles, run.recipe.student: role.model_copy(update={"optimiser": optimiser})}
    return replace(run, scale=run.scale.model_copy(update={"roles": roles}))


def memory_of(machine: Machine) -> int:
    """Bytes."""
    if machine.device.type == "cuda":
        return torch.cuda.get_device_properties(machine.device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def plain_run(run: Run) -> Run:
    """Plain training of the same student on the same text."""
    recipe = run.recipe
    sizes = recipe.student, recipe.teacher, recipe.tokens, recipe.text
    return replace(run, recipe=Recipe(*sizes, target=OneHot(), probe=recipe.probe))


def beside(plain: Training, run: Run, supervision: Supervision) -> Training:
    """A training by another recipe of the same weights with the same moments: memory holds one student."""
    training = copy.copy(plain)
    training.run, training.supervision = run, supervision
    training.student = Student(plain.student.model, run.recipe, plain.data.tokenizer.vocabulary)
    return training


def supervision_of(run: Run, data: Data, folder: Path, machine: Machine) -> Supervision:
    if not run.recipe.uses_teacher:
        return FromText()
    if run.recipe.cached:
        assert run.recipe.target.stored is not None
        reader = cache_of(run.recipe.target.stored, data, run, folder, machine)
        return FromCache(reader, run.recipe.target, np.arange(len(data.train)))
    teacher = untrained(run.recipe.teacher, run, machine)
    if machine.compiled:
        compile_layers(teacher)
    return from_teacher(teacher, run.recipe.target, data.tokenizer.vocabulary, run.seed, len(data.train), machine)


def seconds_of(step: Callable[[], object]) -> float:
    """Of something that ends with numbers on the CPU, so that nothing of it is still under way on a GPU."""
    began = time.perf_counter()
    step()
    return time.perf_counter() - began


def product_seconds(machine: Machine) -> float:
    """Of one square matrix product in the precision of training."""
    side, kind = SIDE[machine.device.type], torch.bfloat16 if machine.autocast else torch.float32
    left, right = torch.ones(2, side, side, dtype=kind, device=machine.device)
    float(left[0] @ right[0])  # the GPU has nothing else to do now
    return seconds_of(lambda: float((left @ right)[0, 0]))


def median(name: str, values_R: ArrayLike) -> dict[str, float]:
    """The median, and the 95 % interval of it that the order of the values gives, whatever their distribution."""
    ordered_R = np.sort(np.asarray(values_R))
    n = len(ordered_R)
    chances = np.cumsum([math.comb(n, k) / 2**n for k in range(n)])  # that at most k values lie below the true median
    cut = max(int((chances <= 0.025).sum()) - 1, 0)
    return {name: float(np.median(ordered_R)), f"{name}_low": ordered_R[cut], f"{name}_high": ordered_R[n - 1 - cut]}
