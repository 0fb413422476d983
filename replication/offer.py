"""Offer: which draws reach a wanted gradient error on a teacher's own positions, and what their caches would weigh."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from replication.frontier import FAMILIES, REFERENCE, Point, least, point
from replication.invoice import si, three
from replication.recipe import plain, without_defaults
from replication.target import Target
from replication.targets import TopK

if TYPE_CHECKING:
    from rich.console import Console

COUNT = re.compile(r"([0-9][0-9_]*(?:\.[0-9]+)?)([kMBT]?)")
SIZES = {"": 1.0, "k": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}


@dataclass(frozen=True)
class Wanted:
    """An error of the logits' gradient at one position: its expected square, summed over classes."""

    error: float
    absolute: bool  # or in units of RS-KD's with 50 draws

    def __post_init__(self) -> None:
        if not 0 < self.error < float("inf"):
            raise ValueError(f"The wanted error is {self.error}; give a positive number: 1 is RS-KD's with 50 draws.")

    def value(self, reference: Point) -> float:
        return self.error if self.absolute else self.error * reference.error


@dataclass(frozen=True)
class Offer:
    """What every draw needs for the wanted error (None: more than its codec takes), beside RS-KD and top-K."""

    wanted: float
    reference: Point
    points: dict[str, Point | None]
    top_k: Point  # of as many classes as the reference
    overtaken: float  # tokens of a batch beyond which top-K's error is the larger one
    positions: int


def offer(wanted: Wanted, probs_NV: Tensor) -> Offer:
    reference = point(REFERENCE, probs_NV)
    error = wanted.value(reference)
    points = {name: least(family, error, probs_NV) for name, family in FAMILIES.items()}
    k = min(round(reference.classes) or 1, probs_NV.shape[1])
    # what top-K leaves out is left out everywhere: it adds up, where unbiased errors average out
    left_out_V = (probs_NV.sum(0) - largest_alone(probs_NV, k).sum(0)) / len(probs_NV)
    overtaken = reference.error / float(left_out_V.square().sum().clamp_min(1e-30))
    return Offer(error, reference, points, point(TopK(k), probs_NV), overtaken, len(probs_NV))


def largest_alone(probs_NV: Tensor, k: int) -> Tensor:
    """The k largest probabilities of each position and zeros."""
    found = probs_NV.topk(k, dim=1)
    return torch.zeros_like(probs_NV).scatter_(1, found.indices, found.values)


def tokens(words: str) -> float:
    """'15T', '100B' or a plain number: tokens as they are, whatever the scale. ValueError for anything else."""
    found = COUNT.fullmatch(words)
    if found is None or float(found[1]) == 0:
        raise ValueError(f"{words!r} tokens? Give a number, such as 15T, 100B or 5_000_000.")
    return float(found[1]) * SIZES[found[2]]


def show(given: Offer, cached_tokens: str, title: str, console: Console) -> None:
    from rich import box
    from rich.table import Table

    number = tokens(cached_tokens)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left", title_style="bold")
    for head in ("Draw", "target ="):
        table.add_column(head)
    for head in ("Error / RS-KD 50", "Classes", "Bytes a token", f"{cached_tokens} tokens", "Of RS-KD 50's bytes"):
        table.add_column(head, justify="right")
    found = {name: one for name, one in given.points.items() if one is not None}
    for name, one in sorted(found.items(), key=lambda item: item[1].bytes):
        table.add_row(name, *cells(one, given.reference, number))
    table.add_section()
    table.add_row("RS-KD, 50 draws", *cells(given.reference, given.reference, number), style="dim")
    table.add_row("Top-K (biased)", *cells(given.top_k, given.reference, number), style="dim")
    console.print(table)
    for told in remarks(given):
        console.print(f"- {told}", style="dim", markup=False, highlight=False)


def cells(one: Point, reference: Point, number: float) -> list[str]:
    return [
        stated(one.target),
        f"{one.error / reference.error:.2f}",
        f"{one.classes:.1f}",
        f"{one.bytes:.1f}",
        si(one.bytes * number, "B"),
        f"{one.bytes / reference.bytes:.0%}",
    ]


def stated(target: Target) -> str:
    """As a recipe states it, in TOML, without what is so by default."""
    fields = without_defaults(plain(target), type(target))
    return "{ " + ", ".join(f"{key} = {json.dumps(value)}" for key, value in fields.items()) + " }"


def remarks(given: Offer) -> list[str]:
    missed = [name for name, one in given.points.items() if one is None]
    told = [
        f"Wanted: an error of {given.wanted:.3g} at a position (squared, summed over classes), which is that of the "
        f"gradient in its logits; RS-KD with 50 draws has {given.reference.error:.3g}. Relative to a batch's gradient "
        "it falls with the root of the tokens.",
        "Top-K's does not fall: what it leaves out adds up. In the gradient of the output's biases it is the larger "
        f"one in batches of more than {three(given.overtaken)} tokens.",
        f"Expected values over {given.positions:,} positions, not measured draws. Bytes: packed codes, without the few "
        "of a shard's index and of compression's gain.",
    ]
    return told + ([f"Not within what their codecs hold: {', '.join(missed)}."] if missed else [])
