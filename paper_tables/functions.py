"""What may follow from what: the arithmetic of the audit, by name.

Each function takes plain numbers in the order of the relation's `of` and returns the number that should be printed.
Each is monotone in every argument, which is what `audit.follows` needs to find what rounding allows.
"""

from __future__ import annotations

import math
from collections.abc import Callable


def mean(*values: float) -> float:
    return sum(values) / len(values)


def weighted_mean(*values: float, weights: list[float]) -> float:
    return sum(value * weight for value, weight in zip(values, weights, strict=True)) / sum(weights)


def total(*values: float) -> float:
    return sum(values)


def difference(a: float, b: float) -> float:
    return a - b


def product(*values: float) -> float:
    return math.prod(values)


def ratio(a: float, b: float) -> float:
    return a / b


def percent(a: float, b: float) -> float:
    """a as a percentage of b."""
    return 100 * a / b


def percent_change(a: float, b: float) -> float:
    """From b to a, in percent of b."""
    return 100 * (a - b) / b


def percent_saved(a: float, b: float) -> float:
    """What a saves of b, in percent of b."""
    return 100 * (b - a) / b


def gap_closed(value: float, start: float, end: float) -> float:
    """How much of the way from start to end the value has gone, in percent."""
    return 100 * (value - start) / (end - start)


def log_change(a: float, b: float) -> float:
    """100 ln(a / b): TAD's relative change (Section 3.2.1, after Tornqvist et al.)."""
    return 100 * math.log(a / b)


def mean_log_change(*values: float) -> float:
    """Mean of 100 ln(a / b) over tasks: the first half of the values are a, the second half b."""
    half = len(values) // 2
    return mean(*map(log_change, values[:half], values[half:]))


def cosine(degrees: float) -> float:
    return math.cos(math.radians(degrees))


def wall_clock_saved(steps: float, kd_steps: float, kd_cost: float, budget: float) -> float:
    """Percent of `budget` steps saved by `steps` steps of which `kd_steps` cost `kd_cost` each (SALT, App. J)."""
    return 100 * (1 - (steps - kd_steps + kd_steps * kd_cost) / budget)


def llama_parameters(layers: float, width: float, ffn: float, heads: float, kv_heads: float, embedding: float) -> float:
    """Parameters of a LLaMA-style decoder in millions; `embedding`: parameters of all embedding tables, in millions.

    Attention width (1 + kv_heads / heads) x 2 x width, a gated feed-forward layer, two norms a layer and a last one.
    """
    layer = 2 * width * width * (1 + kv_heads / heads) + 3 * width * ffn + 2 * width
    return (layers * layer + width) / 1e6 + embedding


def mean_log10_change(*values: float) -> float:
    """The same with decimal logarithms, which is what TAD's Tables 1, 2 and 4 print."""
    return mean_log_change(*values) / math.log(10)


def relative_lead(*values: float) -> float:
    """By how many percent one method's mean log change exceeds another's (TAD, caption of Table 1).

    Three equally long parts: the method over the tasks, the other method, what both are measured against.
    """
    third = len(values) // 3
    method, other, base = values[:third], values[third : 2 * third], values[2 * third :]
    return percent_change(mean_log_change(*method, *base), mean_log_change(*other, *base))


def gpu_hours(hours: float, gpus: float, tokens: float, budget: float) -> float:
    """GPU hours for `budget` tokens at the rate of a run of `hours` on `gpus` devices over `tokens` (TAD, App. A.1)."""
    return hours * gpus * budget / tokens


def decoder_parameters(
    layers: float,
    width: float,
    ffn: float,
    matrices: float,
    kv_share: float,
    vocabulary: float,
    tables: float,
    unit: float,
) -> float:
    """Parameters of a decoder (TAD, Table 9) in `unit`: `matrices` of width x ffn a layer, `tables` of embeddings.

    `kv_share`: key and value heads per query head, 1 without grouping.
    """
    layer = 2 * width * width * (1 + kv_share) + matrices * width * ffn + 2 * width
    return (layers * layer + width + tables * vocabulary * width) / unit


def mean_percent(*values: float) -> float:
    """The mean of fractions, in percent: a benchmark from its thirds (SALT, Tables 24 to 26)."""
    return 100 * mean(*values)


def wall_clock_steps(steps: float, kd_steps: float, kd_cost: float) -> float:
    """`steps` steps of which `kd_steps` cost `kd_cost` each, in plain steps (SALT, App. J)."""
    return steps - kd_steps + kd_steps * kd_cost


def rule_of_three(a: float, b: float, c: float) -> float:
    """What goes with a, if c goes with b: rates of one workload in two units (RS-KD, Table 4)."""
    return c * a / b


def share_of_way(value: float, start: float, other: float, share: float) -> float:
    """How far the value has gone on a way whose end is not printed, if `other` has gone `share` (RS-KD, Table 16)."""
    return share * (value - start) / (other - start)


def chord(degrees: float) -> float:
    """Relative error between two vectors of equal norm at this angle."""
    return 2 * math.sin(math.radians(degrees) / 2)


def binary_logarithm(value: float) -> float:
    """Bits of an index into so many entries."""
    return math.log2(value)


def percent_of_gain(value: float, base: float, large: float, small: float) -> float:
    """What `value` gains over `base`, in percent of what `large` gains over `small` (SALT, Remark 5.1)."""
    return 100 * (value - base) / (large - small)


FUNCTIONS: dict[str, Callable[..., float]] = {
    "mean": mean,
    "weighted_mean": weighted_mean,
    "sum": total,
    "difference": difference,
    "product": product,
    "ratio": ratio,
    "percent": percent,
    "percent_change": percent_change,
    "percent_saved": percent_saved,
    "gap_closed": gap_closed,
    "mean_log_change": mean_log_change,
    "cosine": cosine,
    "wall_clock_saved": wall_clock_saved,
    "llama_parameters": llama_parameters,
    "mean_log10_change": mean_log10_change,
    "relative_lead": relative_lead,
    "gpu_hours": gpu_hours,
    "decoder_parameters": decoder_parameters,
    "mean_percent": mean_percent,
    "wall_clock_steps": wall_clock_steps,
    "rule_of_three": rule_of_three,
    "share_of_way": share_of_way,
    "chord": chord,
    "binary_logarithm": binary_logarithm,
    "percent_of_gain": percent_of_gain,
}
# Printed things compared with each other rather than with what follows from them.
COMPARISONS = {
    "equal": "the same quantity, printed more than once",
    "above": "the first is said to be above each of the others",
    "below": "the first is said to be below each of the others",
    "marked": "the best (and second best) rows of each column are the ones marked so",
}
