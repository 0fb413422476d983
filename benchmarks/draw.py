"""Drawing, and whole targets, timed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace

from benchmarks import memory
from benchmarks.draws import LOGSUMEXP, METHODS, RANDOM, READ, TARGETS, Sizes, logits, step, step_on
from benchmarks.effort import Effort
from benchmarks.memory import touch
from benchmarks.race import Contender
from benchmarks.result import Group


def groups(effort: Effort) -> Iterator[Group]:
    """Draws from logits, with the counts of each class."""
    base = effort.drawn
    names = [LOGSUMEXP, READ, *METHODS]
    series = [("", base, 20)]
    series += [("classes", replace(base, classes=base.classes * 2**power // 16), 4) for power in (0, 2, 4, 5)]
    series += [("draws", replace(base, draws=count), 4) for count in (10, 50, 200)]
    for varied, sizes, seconds in series:
        logits_NV = logits(sizes)
        yield Group(
            "draws",
            "growth" if varied else "draws",
            asdict(sizes),
            LOGSUMEXP,
            varied=varied,
            seconds=effort.race(
                [Contender(name, step_on(name, logits_NV, sizes.draws)) for name in names],
                seconds,
                settle=touch(3 * 4 * logits_NV.numel()),
            ),
        )
    logits_NV = logits(base)
    yield Group(
        "draws",
        "targets",
        asdict(base),
        RANDOM,
        seconds=effort.race(
            [Contender(name, step_on(name, logits_NV, base.draws)) for name in TARGETS],
            20,
            settle=touch(3 * 4 * logits_NV.numel()),
        ),
    )
    peaks = memory.peaks(step, {name: ((name, Sizes(4, 64, 4)), (name, base)) for name in names})
    yield Group("draws", "memory", asdict(base), LOGSUMEXP, values=peaks)
