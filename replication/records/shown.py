"""A summary for a reader: numbers with their units, rounded, with their intervals and what they mean."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

SHARE, NATS = "%", "nats a token"
# metric -> (unit, what it is); a share is recorded as a fraction
WORDS = {
    "lm_loss": (NATS, "loss on held-out text; lower is better"),
    "accuracy": (SHARE, "of its first guesses are the next token"),
    "ece": (SHARE, "between its confidence and its accuracy, on average (calibration error); lower is better"),
    "full_ece": (SHARE, "the same over the probabilities of all classes"),
    "brier": ("of 2", "squared distance of its probabilities from what came; lower is better"),
    "agreement": (SHARE, "of its first guesses are the teacher's"),
    "acceptance": (SHARE, "of its drafts the teacher would accept (speculative decoding)"),
    "kl": (NATS, "KL divergence of its distribution from the teacher's; lower is better"),
    "loss_times_5": (NATS, "what the fitted law foretells at 5 times the largest budget"),
    "loss_times_50": (NATS, "at 50 times"),
    "loss_times_500": (NATS, "at 500 times"),
    "law_floor": (NATS, "what no budget goes below, by that law"),
    "foretold_off": (NATS, "what it foretold of a larger budget less what was measured there"),
    "petaflops_per_million": ("PFLOPs", "of all that the method runs for a million tokens"),
    "unique_classes": ("classes", "kept of the teacher's distribution at a position, on average"),
    "parameters": ("", "weights of the student"),
    "tokens_per_parameter": ("", "tokens trained on for each weight"),
    "response_loss": (NATS, "loss on held-out responses; lower is better"),
    "response_loss_before": (NATS, "the same before tuning"),
    "average": (SHARE, "mean over the tasks"),
    "angle": ("degrees", "between the gradient and that of the full teacher"),
    "bytes_per_token": ("bytes", "of the cache for each position"),
    "bytes_per_class": ("bytes", "of the cache for each class kept"),
    "terabytes_per_100B_tokens": ("TB", "a cache of 100 billion tokens"),
    "tokens_per_second": ("tokens/s", "trained on"),
    "peak_gigabytes": ("GB", "of memory at most"),
    "mfu": (SHARE, "of the machine's own rate of products"),
    "decoded_acceptance": (SHARE, "of the drafts were accepted by the teacher"),
    "decoded_agreement": (SHARE, "of the drafts were the teacher's first choice"),
}
AROUND = ("_low", "_high")  # the ends of an interval, where they are metrics


def shown(summary: dict[str, Any], settings: dict[str, Any]) -> Iterator[str]:
    """A line for each metric: name, value and unit, 95 % interval, meaning. What was not measured has no line."""
    metrics = summary["metrics"]
    intervals = summary["curves"].get("intervals", {})
    if intervals:
        yield (
            f"on held-out text, up to {settings['evaluation_sequences']:,} rows of {settings['length']:,} tokens; "
            "in brackets 95 % intervals over rows"
        )
    for name in sorted(metrics, key=[*WORDS, *metrics].index):
        value = metrics[name]
        if name.endswith(AROUND) and name.rpartition("_")[0] in metrics:
            continue
        unit, meaning = WORDS.get(name, ("", ""))
        ends = intervals.get(name) or [metrics.get(f"{name}{end}") for end in AROUND]
        between = "" if None in ends else f"[{', '.join(number(end, unit) for end in ends)}]"
        yield f"{name:24} {f'{number(value, unit)} {unit}':20} {between:18} {explained(name, value, meaning)}".rstrip()


def number(value: float | None, unit: str) -> str:
    """Two digits behind the point of a percentage (one of a tiny one), four digits of anything else, all of a count."""
    if value is None:
        return "not finite"
    if unit == SHARE:
        return f"{100 * value:.2f}" if value == 0 or abs(value) >= 1e-4 else f"{100 * value:.1g}"
    if abs(value) >= 1e4 or float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:#,.4g}".rstrip(".") if abs(value) >= 1e-4 else f"{value:.3g}"


def explained(name: str, value: float | None, meaning: str) -> str:
    if value is None:
        return "the loss diverged: a smaller peak_rate in the scale's file often mends it"
    if name == "lm_loss":
        return f"{meaning}; as if among {number(round(math.exp(min(value, 700.0)), 1), '')} equally likely tokens"
    return meaning
