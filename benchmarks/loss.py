"""Head and loss: what is measured of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace

import torch

from benchmarks import losses, memory
from benchmarks.effort import Effort
from benchmarks.memory import touch
from benchmarks.race import Contender
from benchmarks.result import Group
from replication.machine.device import has_bfloat16

SAME = [losses.PRODUCTS, losses.CROSS_ENTROPY, losses.LISTED, losses.LIGER, losses.CUT, losses.RSKD, losses.ONE_HOT]
OTHER = [losses.CROSS_ENTROPY, losses.FULL, losses.LISTED_FULL, losses.GHOST, losses.TAD, losses.SEKD]
EVERY = [*SAME, *OTHER[1:]]
CHUNKED = [losses.CROSS_ENTROPY, losses.LINEAR_CROSS_ENTROPY, losses.LISTED, losses.RSKD]
GROWING = [losses.CROSS_ENTROPY, losses.LISTED, losses.RSKD]


def runnable(names: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Those that run here, and why the others do not."""
    why = {name: reason for name in names if (reason := losses.missing(name))}
    return [name for name in names if name not in why], why


def groups(effort: Effort) -> Iterator[Group]:
    """Head and loss, forward and backward."""
    for precision, positions in itertools.product(("float32", "bfloat16"), effort.positions):
        sizes = replace(effort.loss, positions=positions, precision=precision)
        case = asdict(sizes)
        if precision == "bfloat16" and not has_bfloat16(torch.device("cuda" if torch.cuda.is_available() else "cpu")):
            missing = dict.fromkeys(EVERY, "this machine has no bfloat16 instructions")
            yield Group("loss", "step", case, losses.CROSS_ENTROPY, missing=missing)
            continue
        small = positions == effort.positions[0]
        given = losses.inputs(sizes, teacher=small)
        for kind, wanted in (("step", SAME), ("other losses", OTHER if small else [])):
            names, missing = runnable(wanted)
            if names:
                contenders = [Contender(name, losses.step_on(name, given)) for name in names]
                seconds = effort.race(
                    contenders,
                    seconds_for(sizes) if kind == "step" else 60,
                    settle=touch(3 * 4 * positions * sizes.classes),
                    warm=small,
                )
                yield Group("loss", kind, case, losses.CROSS_ENTROPY, seconds=seconds, missing=missing)
        del given
        if not small:
            names, missing = runnable(EVERY)
            yield Group("loss", "memory", case, losses.CROSS_ENTROPY, values=peaks(names, sizes), missing=missing)
    yield accuracy(replace(effort.loss, positions=64))
    yield from growing(effort)
    yield doubled(replace(effort.grown, positions=4 * effort.grown.positions))


def seconds_for(sizes: losses.Sizes) -> float:
    """Enough for ten rounds, so that the noise of a shared machine averages out; long steps get more time."""
    if sizes.positions < 2048:
        return 150
    return 240 if sizes.precision == "bfloat16" else 420


def peaks(names: Sequence[str], sizes: losses.Sizes) -> dict[str, dict[str, float]]:
    return memory.peaks(losses.step, {name: ((name, sizes.tiny), (name, sizes)) for name in names})


def accuracy(sizes: losses.Sizes) -> Group:
    """The larger of the relative errors of both gradients, to the same loss in float64 on full logits."""
    given = losses.inputs(sizes, teacher=False)
    exact = losses.doubled(given)
    pairs = {losses.RSKD: losses.LISTED, losses.ONE_HOT: losses.CROSS_ENTROPY}
    errors = {}
    for ours, theirs in pairs.items():
        losses.step_on(theirs, exact)()
        for name in (ours, theirs):
            losses.step_on(name, given)()
            errors[name] = losses.error(given, exact)
    return Group("loss", "accuracy", asdict(sizes), values={"relative_error": errors})


def growing(effort: Effort) -> Iterator[Group]:
    """Time and memory against one size, the others held."""
    base = effort.grown
    quarters = (1, 4, 16)
    series = [("positions", replace(base, positions=base.positions * each // 4)) for each in quarters]
    series += [("classes", replace(base, classes=base.classes * each // 4)) for each in quarters]
    series += [("kept", replace(base, kept=each)) for each in (4, 12, 50, 200)]
    for varied, sizes in series:
        # what takes a quarter of a minute at many classes is asked about positions only
        names, missing = runnable(CHUNKED if varied == "positions" else GROWING)
        given = losses.inputs(sizes, teacher=False)
        yield Group(
            "loss",
            "growth",
            asdict(sizes),
            losses.CROSS_ENTROPY,
            varied=varied,
            seconds=effort.race(
                [Contender(name, losses.step_on(name, given)) for name in names],
                4,
                settle=touch(3 * 4 * sizes.positions * sizes.classes),
            ),
            values={} if varied == "kept" else peaks(names, sizes),
            missing=missing,
        )


def doubled(sizes: losses.Sizes) -> Group:
    """The memory that twice as many positions take more, as a share of the logits that they add."""
    names, missing = runnable(CHUNKED)
    once, twice = (
        peaks(names, each).get("peak_bytes", {}) for each in (sizes, replace(sizes, positions=2 * sizes.positions))
    )
    added = 4 * sizes.positions * sizes.classes
    shares = {name: (twice[name] - once[name]) / added for name in once if name in twice}
    return Group("loss", "memory, N doubled", asdict(sizes), values={"logits_added": shares}, missing=missing)
