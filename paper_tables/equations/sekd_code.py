"""SE-KD's own code beside its paper: what the released version computes where the paper says something else.

Read at github.com/almogtavor/SE-KD3x, commit 08b2763 of 2026-02-03. The printed side is the code's rule.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import math
from fractions import Fraction

import numpy as np

from paper_tables.equations.calculus import softmax
from paper_tables.equations.draws import expectation
from paper_tables.equations.equation import Array, Equation
from paper_tables.equations.sekd import corrected, share

ENTROPIES = (
    {"student": (2.0, 1.0, 0.1), "teacher": (2.0, 1.0, 0.1)},
    {"student": (2.0, 1.0, 0.1), "teacher": (0.3, 1.5, 0.9)},
)
DRAWN = tuple({"weights": (2.0, 1.0, 0.1), "losses": (1.0, 2.0, 4.0), "draws": draws} for draws in (1, 2))
LENGTHS = (
    {"lengths": (511, 511), "keep": 0.2},
    {"lengths": (511, 100), "keep": 0.2},
    {"lengths": (30, 4), "keep": 0.2},
)
CROSS_ENTROPIES = {"of_student": (2.0, 0.5, 3.0), "of_teacher": (1.0, 0.2, 2.5)}
RANKED = tuple(
    {**CROSS_ENTROPIES, "entropies": entropies, "vocabulary": 151_936}
    for entropies in ((1.5, 1.0, 4.0), (3.0, 0.2, 3.5))
)
TAIL = tuple({"tail": tail, "draws": draws} for tail in ((0.1, 0.06, 0.04), (0.05, 0.05, 0.05)) for draws in (1, 2))


def ceilings(lengths: Array, keep: float) -> list[int]:
    """Eq. 6: ceil(k (L - 1)) positions of each sequence; `lengths` are the numbers of its predictions."""
    return [math.ceil(Fraction(str(keep)) * int(length)) for length in lengths]


def by_mean_length(lengths: Array, keep: float) -> list[int]:
    """As many of each sequence as of one of the batch's mean length, or all that it has."""
    budget = math.ceil(keep * float(lengths.mean()))
    return [min(int(length), budget) for length in lengths]


def floors(lengths: Array, keep: float) -> list[int]:
    return [int(keep * int(length)) for length in lengths]


def order(scores: Array) -> Array:
    """Positions by falling score."""
    return np.argsort(-scores, kind="stable")


def switched(stated: Array) -> list[bool]:
    """Whether a `store_true` switch whose default is True is on: left out, or stated."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--switch", action="store_true", default=True)
    return [bool(parser.parse_args(["--switch"] * int(said)).switch) for said in stated]


def without_replacement(tail: Array, draws: int) -> float:
    """The mean over all that can be drawn, none twice, of the mean of -log p: each draw counts as if by q alone."""
    q, total = share(tail), 0.0
    for drawn in itertools.permutations(range(len(tail)), draws):
        chance, left = 1.0, 1.0
        for i in drawn:
            chance, left = chance * q[i] / left, left - q[i]
        total += chance * float(np.mean([-np.log(tail[i]) for i in drawn]))
    return float(tail.sum()) * total


def keys(rows: Array) -> int:
    """How many keys the rows of a batch get, each hashed over the memory that it is a view of."""
    return len({hashlib.sha1(np.ascontiguousarray(row.base).tobytes()).hexdigest() for row in rows})


def own_keys(rows: Array) -> int:
    return len({hashlib.sha1(row.tobytes()).hexdigest() for row in rows})


EQUATIONS = (
    Equation(
        "sekd",
        "code-proposal",
        "The authors' code (trainer.py, Pos RS-KD) beside Section 5",
        "a position is drawn with probability H(q_t) / sum H(q_j), H the student's entropy",
        lambda student, teacher: softmax(teacher),
        lambda student, teacher: share(student),
        ENTROPIES,
        meant="the shares themselves, of the student's entropies: the code draws from a softmax of the teacher's",
        mended=lambda student, teacher: share(student),
    ),
    Equation(
        "sekd",
        "code-corrected",
        "The authors' code (POS_RS_MATCH_FULL_KD) beside App. A",
        "the corrected loss is on average that of Full KD",
        lambda weights, losses, draws: expectation(
            lambda drawn: np.mean([losses[t] / share(weights)[t] for t in drawn]), share(weights), draws
        ),
        lambda weights, losses, draws: losses.mean(),
        DRAWN,
        meant="over N as well: the code's mean of L / q is N times the loss, and so is its learning rate",
        mended=corrected,
    ),
    Equation(
        "sekd",
        "code-random-count",
        "The authors' code (random positions) beside Eq. 6",
        "random positions are as many as selected ones, ceil(k (L - 1))",
        floors,
        ceilings,
        LENGTHS,
        meant="rounded up: of a short sequence the code trains nothing",
        mended=ceilings,
    ),
    Equation(
        "sekd",
        "code-length",
        "The authors' code (normalize_topk_by_length, always on) beside Eq. 6",
        "of each sequence ceil(k (L - 1)) positions are selected",
        by_mean_length,
        ceilings,
        LENGTHS,
        meant="of each its own share: the code takes as many of a short sequence as of one of mean length",
        mended=ceilings,
    ),
    Equation(
        "sekd",
        "code-gls-switch",
        "The authors' code (--normalize_topk_by_length) beside Section 5, GLS",
        "selection by a global threshold can be switched on: it runs where the switch is off",
        switched,
        lambda stated: stated,
        ({"stated": (0, 1)},),
        meant="a switch whose default is False: this one is on whether it is stated or not",
        mended=lambda stated: stated,
    ),
    Equation(
        "sekd",
        "code-ratio-entropy",
        "The authors' code (ce_ratio_plus_entropy) beside Table 1",
        "positions are ranked by r(t) + H(q_t)",
        lambda of_student, of_teacher, entropies, vocabulary: order(
            of_student / (of_teacher + 1e-6) + entropies / np.log(vocabulary)
        ),
        lambda of_student, of_teacher, entropies, vocabulary: order(of_student / of_teacher + entropies),
        RANKED,
        meant="the entropy itself: over log V it is a twelfth of that",
        mended=lambda of_student, of_teacher, entropies, vocabulary: order(of_student / of_teacher + entropies),
    ),
    Equation(
        "sekd",
        "code-counts",
        "The authors' code (offline cache) beside Section 7.1 and RS-KD App. D.1",
        "a class drawn x times of U is read back with weight x / U",
        lambda counts, draws: np.round(counts / draws * 127) / 127,
        lambda counts, draws: counts / draws,
        ({"counts": (1, 2, 30), "draws": 64}, {"counts": (1, 49), "draws": 50}),
        meant="the count itself fits into 7 bits up to U = 127, and is exact",
        mended=lambda counts, draws: counts / draws,
    ),
    Equation(
        "sekd",
        "code-ids",
        "The authors' code (offline cache) beside Section 5 (Qwen3, 151,936 classes)",
        "an id is read back as it was written",
        lambda ids: ids & (2**17 - 1),
        lambda ids: ids,
        ({"ids": (0, 50_000, 131_071)}, {"ids": (131_072, 151_935)}),
        meant="18 bits, which 151,936 classes take",
        mended=lambda ids: ids & (2**18 - 1),
    ),
    Equation(
        "sekd",
        "code-tail-entropy",
        "The authors' code (entropy_utils.py, head and sampled tail)",
        "the tail's share of the entropy, drawn in proportion to p, is on average -sum p log p",
        without_replacement,
        lambda tail, draws: -(tail * np.log(tail)).sum(),
        TAIL,
        meant="drawn with replacement, as it is averaged: without, likely classes are drawn first and count too little",
        mended=lambda tail, draws: (
            tail.sum() * expectation(lambda drawn: np.mean([-np.log(tail[i]) for i in drawn]), share(tail), draws)
        ),
    ),
    Equation(
        "sekd",
        "code-cache-key",
        "The authors' code (offline cache): the key of a sequence",
        "different sequences have different keys",
        lambda rows: keys(rows),
        lambda rows: own_keys(rows),
        ({"rows": ((1, 2, 3), (4, 5, 6))},),
        meant="a hash over the row, not over the memory of the batch that it is a view of",
        mended=lambda rows: own_keys(rows),
    ),
)
