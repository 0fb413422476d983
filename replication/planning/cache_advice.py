"""Cache advice: which draws reach a wanted gradient error at a teacher's positions, and what their caches weigh."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from replication.axes.targets.base import SparseTarget, Target
from replication.axes.targets.kept import TopK
from replication.cost.error_for_bytes import FAMILIES, REFERENCE, Size, error_of, least, size_of
from replication.experiment.identity import plain, without_defaults
from replication.planning.estimate_table import si, three
from replication.seeds import generator

if TYPE_CHECKING:
    from rich.console import Console

COUNT = re.compile(r"([0-9][0-9_]*(?:\.[0-9]+)?)([kMBT]?)")
# positions that are looked at, unless said otherwise: so many, fewer where they have more classes than so many in all
MOST, NUMBERS, FEWEST = 4096, 2**25, 64
SPREAD = 4  # then one of so many at most, so that they come from more sequences
SIZES = {"": 1.0, "k": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}


@dataclass(frozen=True)
class Wanted:
    """An error of the logits' gradient at one position: its expected square, summed over classes."""

    error: float
    absolute: bool  # or in units of RS-KD's with 50 draws

    def __post_init__(self) -> None:
        if not 0 < self.error < float("inf"):
            raise ValueError(f"The wanted error is {self.error}; give a positive number: 1 is RS-KD's with 50 draws.")


@dataclass(frozen=True)
class Point:
    """A target over some positions; means."""

    target: Target
    error: float  # in closed form
    classes: float  # of one draw
    size: Size  # of the same


@dataclass(frozen=True)
class Advice:
    """What every draw needs for the wanted error (None: more than its codec takes), beside RS-KD and top-K."""

    wanted: float
    reference: Point
    points: dict[str, Point | None]
    top_k: Point  # of as many classes as the reference
    overtaken: float  # tokens of a batch beyond which top-K's error is the larger one
    positions: int


def look_at(positions: int | None, vocabulary: int) -> tuple[int, int]:
    """How many positions to look at, and every how many of a text; fewer where the vocabulary is large.

    A class of a position takes 0.2 microseconds of a core, so that the advice takes some seconds. Some positions of a
    sequence say more than all of fewer sequences.
    """
    if positions is not None:
        return positions, 1
    found = max(FEWEST, min(MOST, NUMBERS // vocabulary))
    return found, min(SPREAD, MOST // found)


def advice(wanted: Wanted, probs_NV: Tensor, length: int, frequencies_V: NDArray[np.int64]) -> Advice:
    """Over sequences of this length. `frequencies_V`: how often each class occurs in the text."""

    def point(target: Target) -> Point:
        stream = generator(0, "offer")
        if probs_NV.device.type != "cpu":
            stream = torch.Generator(probs_NV.device).manual_seed(stream.initial_seed())
        kept = target(probs_NV.log(), probs_NV.new_zeros(len(probs_NV), dtype=torch.int64), stream)
        assert isinstance(kept, SparseTarget)
        classes = float((kept.weights_NK > 0).sum(1).double().mean())
        return Point(target, error_of(target, probs_NV), classes, size_of(target, kept, length, frequencies_V))

    reference = point(REFERENCE)
    error = wanted.error if wanted.absolute else wanted.error * reference.error
    points: dict[str, Point | None] = {}
    with tqdm(desc="weighing draws", unit=" looks", mininterval=0.5) as bar:
        for name, family in FAMILIES.items():
            bar.set_postfix_str(name)
            target = least(family, error, probs_NV, bar.update)
            points[name] = None if target is None else point(target)
    top_k = TopK(max(1, round(reference.classes)))
    biased = point(top_k)
    # what top-K's gradient is off by is much the same everywhere: it adds up, where unbiased errors average out
    kept = top_k.keep(probs_NV.log())
    bias_V = (probs_NV * kept.weights_NK.sum(1, keepdim=True)).mean(0)
    bias_V = bias_V.index_add(0, kept.ids_NK.flatten(), -kept.weights_NK.flatten() / len(probs_NV))
    overtaken = 1 + (reference.error - biased.error) / float(bias_V.square().sum().clamp_min(1e-30))
    return Advice(error, reference, points, biased, max(1.0, overtaken), len(probs_NV))


def tokens(words: str) -> float:
    """'15T', '100B' or a plain number: tokens as they are, whatever the scale. ValueError for anything else."""
    found = COUNT.fullmatch(words)
    if found is None or float(found[1]) == 0:
        raise ValueError(f"{words!r} tokens? Give a number, such as 15T, 100B or 5_000_000.")
    return float(found[1]) * SIZES[found[2]]


def show(given: Advice, cached_tokens: str, title: str, console: Console) -> None:
    from rich import box
    from rich.table import Table

    number = tokens(cached_tokens)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left", title_style="bold")
    for head in ("Draw", "target ="):
        table.add_column(head)
    for head in ("Error / RS-KD 50", "Classes", "Bytes, packed", "Bytes, coded", cached_tokens, "Of RS-KD 50"):
        table.add_column(head, justify="right")
    found = {name: one for name, one in given.points.items() if one is not None}
    for name, one in sorted(found.items(), key=lambda item: item[1].size.coded):
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
        f"{one.size.packed:.1f}",
        f"{one.size.coded:.1f}",
        si(one.size.coded * number, "B"),
        f"{one.size.coded / reference.size.packed:.0%}",
    ]


def stated(target: Target) -> str:
    """As a recipe states it, in TOML, without what is so by default."""
    fields = without_defaults(plain(target), type(target))
    return "{ " + ", ".join(f"{key} = {json.dumps(value)}" for key, value in fields.items()) + " }"


def remarks(given: Advice) -> list[str]:
    missed = [name for name, one in given.points.items() if one is None]
    told = [
        f"Wanted: an error of {given.wanted:.3g} at a position (squared, summed over classes), which is that of the "
        f"gradient in its logits; RS-KD with 50 draws has {given.reference.error:.3g}. Relative to a batch's gradient "
        "it falls with the root of the tokens.",
        "Top-K's does not fall: what it leaves out adds up. In the gradient of the output's biases it is the larger "
        f"one in batches of more than {three(given.overtaken)} tokens.",
        f"Errors in closed form over {given.positions:,} positions; classes and bytes of one draw there. Packed: as "
        "RS-KD stores them (--compression none), to which the last column compares. Coded: ids against the text's "
        "unigram law (--compression unigram) where there is one. A shard's index comes on top.",
    ]
    return told + ([f"Not within what their codecs hold: {', '.join(missed)}."] if missed else [])
