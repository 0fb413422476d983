"""What the probes take, for a plan."""

from __future__ import annotations

from replication.cache.writer import BATCH
from replication.cost.flops import Cost, Work
from replication.probes.martingale import COMPLETIONS, PREFIXES
from replication.probes.throughput import REPETITIONS, TOKENS, WARM_UP, in_batches_of


def work(cost: Cost) -> Work:
    """Of the run's probe; none for one that only counts or computes."""
    scale, length = cost.run.scale, cost.run.length
    match cost.run.recipe.probe:
        case "gradients":  # the student forward once and backward twice: from the sparse target, and from the full one
            rows = scale.probe_sequences
            return cost.read_by(cost.student, rows) * 5 + cost.read_by(cost.teacher, rows)
        case "frontier":
            return cost.read_by(cost.teacher, scale.probe_sequences)
        case "draws":
            return cost.read_by(cost.teacher, BATCH)
        case "martingale":
            known = {s for word in PREFIXES for s in (scale.length(word) - 1, scale.length(word)) if s <= length}
            rows = scale.completed_sequences * COMPLETIONS
            written = sum(1 - prefix / length for prefix in known)
            return cost.read_by(cost.teacher, rows * written) + cost.read_by(cost.student, rows * len(known))
        case "throughput":
            capped = Cost(in_batches_of(TOKENS // length, cost.run))
            return (capped.step + capped.own_step) * (WARM_UP + REPETITIONS)
    return Work()
