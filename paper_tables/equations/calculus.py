"""Softmax, divergences and derivatives, from their definitions. Every function of logits takes complex ones.

The last axis is the vocabulary; logits may have more axes before it, one row for each direction of a derivative.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from paper_tables.equations.equation import Array

STEP = 1e-20  # of a complex step, which has no cancellation: its error is STEP squared


def derivative(function: Callable[[Array], Array], point: Array) -> Array:
    """d function / d point[j], one row for each j; `function` must be analytic."""
    return np.imag(function(point + 1j * STEP * np.eye(len(point)))) / STEP


def slope(function: Callable[[complex], Array], point: float) -> Array:
    """The same for a function of one number."""
    return np.imag(function(point + 1j * STEP)) / STEP


def softmax(logits: Array) -> Array:
    powers = np.exp(logits - np.max(np.real(logits), axis=-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def kl(target: Array, logits: Array) -> Array:
    """sum t log(t / p) with 0 log 0 = 0; the target need not sum to one."""
    kept = target > 0
    return (target[kept] * np.log(target[kept] / softmax(logits)[..., kept])).sum(-1)


def cross_entropy(target: Array, logits: Array) -> Array:
    """-sum t log p."""
    kept = target > 0
    return -(target[kept] * np.log(softmax(logits)[..., kept])).sum(-1)


def entropy(probs: Array) -> Array:
    return -(probs * np.log(probs)).sum(-1)


def top(teacher: Array, k: int) -> Array:
    """Which classes are the k most probable ones; ties go to the lower id."""
    chosen = np.zeros(len(teacher), bool)
    chosen[np.argsort(-teacher, kind="stable")[:k]] = True
    return chosen


def kept(teacher: Array, k: int) -> Array:
    return np.where(top(teacher, k), teacher, 0.0)


def ghost(teacher: Array, logits: Array, k: int) -> Array:
    """(1 - sum_K t) log of the ratio of what both models leave outside K."""
    head = top(teacher, k)
    rest = teacher[~head].sum()
    return rest * np.log(rest / softmax(logits)[..., ~head].sum(-1)) if rest > 0 else np.zeros(logits.shape[:-1])


def powered(probs: Array, exponent: float | complex) -> Array:
    """probs ** exponent, normalised; a probability of zero stays zero."""
    powers = np.where(probs > 0, np.where(probs > 0, probs, 1.0) ** exponent, 0.0)
    return powers / powers.sum(-1, keepdims=True)
