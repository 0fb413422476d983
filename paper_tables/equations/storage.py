"""RS-KD Section 5.5, App. D.1, the poster, and SE-KD Section 7.1: what a cached class costs and what rounding loses."""

from __future__ import annotations

import numpy as np

from paper_tables.equations.draws import expectation
from paper_tables.equations.equation import Array, Equation

LEVELS = 2**7
TERA, GIGA = 1e12, 1e9
PROBABILITY_BITS = 7

# sorted, as stored; the last: every probability below half a level
SORTED = tuple(
    {"probs": probs}
    for probs in (
        (0.5, 0.25, 0.125, 0.0625, 0.03125),
        (0.9, 0.05, 0.02, 0.01, 0.005),
        (0.21, 0.2, 0.2, 0.2, 0.19),
        (0.003, 0.002, 0.001, 0.0005, 0.0001),
    )
)


def id_bits(vocabulary: int) -> int:
    """The fewest bits that tell this many classes apart."""
    bits = 0
    while 2**bits < vocabulary:
        bits += 1
    return bits


def class_bytes(vocabulary: int) -> float:
    return (id_bits(vocabulary) + PROBABILITY_BITS) / 8


def level(value: Array) -> Array:
    """The middle of that one of 128 equal intervals of 0..1 which holds the value."""
    return (np.minimum(np.floor(value * LEVELS), LEVELS - 1) + 0.5) / LEVELS


def interval_error(probs: Array) -> float:
    return float(abs(level(probs) - probs).sum())


def ratio_error(probs: Array) -> float:
    """Each probability as a ratio to the decoded one before it, so that errors do not add up."""
    error, before = 0.0, 1.0
    for probability in probs:
        decoded = before * float(level(np.minimum(probability / before, 1.0)))
        error, before = error + abs(decoded - probability), decoded
    return error


def in_seven_bits(number: Array) -> Array:
    return number & (LEVELS - 1)


def unique(teacher: Array, draws: int) -> float:
    return float(expectation(lambda drawn: len(set(drawn)), teacher, draws))


EQUATIONS = (
    Equation(
        "rskd",
        "appD1-bits",
        "App. D.1; Section 5.5",
        "an id among 100,000 classes takes log2(V) = 17 bits",
        lambda vocabulary: 17,
        id_bits,
        ({"vocabulary": 100_000}, {"vocabulary": 128_000}),
    ),
    Equation(
        "rskd",
        "appD1-counts",
        "App. D.1",
        "with 50 draws the numerator of x / 50 fits into 7 bits exactly",
        lambda draws: in_seven_bits(np.arange(1, draws + 1)) / draws,
        lambda draws: np.arange(1, draws + 1) / draws,
        ({"draws": 50},),
    ),
    Equation(
        "rskd",
        "appD1-128",
        "App. D.1",
        "numerators fit into 7 bits as long as there are no more than 128 draws",
        lambda draws: in_seven_bits(np.arange(1, draws + 1)),
        lambda draws: np.arange(1, draws + 1),
        tuple({"draws": draws} for draws in (50, 127, 128)),
        meant="127 draws, or store the numerator less one: 128 of 128 draws has no place among 0 to 127",
        mended=lambda draws: in_seven_bits(np.arange(1, draws + 1) - 1) + 1,
    ),
    Equation(
        "rskd",
        "appD1-ratio",
        "App. D.1",
        "7-bit ratios of sorted probabilities lose no more than 128 equal intervals of 0..1",
        interval_error,
        ratio_error,
        SORTED,
        relation="at most",
    ),
    Equation(
        "rskd",
        "sec5.5-storage",
        "Section 5.5, Table 5",
        "100B tokens take 0.3 TB for each class at 17 + 7 bits: 90 TB for 300 classes, 3.6 TB for 12",
        lambda vocabulary, tokens: np.array([0.3, 90.0, 3.6]),
        lambda vocabulary, tokens: np.array([1, 300, 12]) * tokens * class_bytes(vocabulary) / TERA,
        ({"vocabulary": 100_000, "tokens": 1e11},),
    ),
    Equation(
        "rskd",
        "poster-storage",
        "Poster, panel 5",
        "12 classes for each of 1B tokens take 36 GB",
        lambda vocabulary, tokens: 36.0,
        lambda vocabulary, tokens: 12 * tokens * class_bytes(vocabulary) / GIGA,
        ({"vocabulary": 100_000, "tokens": 1e9},),
    ),
    Equation(
        "sekd",
        "sec7.1-bytes",
        "Section 7.1, Table 6",
        "3 U bytes a position, and the share l of them: 19.2 and 3.84 TB for 100B tokens at U = 64, 3.6 and 0.72 at 12",
        lambda vocabulary, tokens: np.array([19.2, 3.84, 3.6, 0.72]),
        lambda vocabulary, tokens: np.outer([64, 12], [1, 0.2]).ravel() * tokens * class_bytes(vocabulary) / TERA,
        ({"vocabulary": 100_000, "tokens": 1e11},),
    ),
    Equation(
        "sekd",
        "sec7.1-full",
        "Section 7.1, Table 6",
        "full logits at 2 bytes a class, 200 kB a position, take 10,000 TB for 100B tokens",
        lambda vocabulary, tokens: 10_000.0,
        lambda vocabulary, tokens: 2 * vocabulary * tokens / TERA,
        ({"vocabulary": 100_000, "tokens": 1e11},),
        meant="1 byte a class, as in RS-KD Table 5; at 2 bytes it is 20,000 TB and the saving twice as large",
    ),
    Equation(
        "sekd",
        "sec7.1-id-bits",
        "Section 7.1, for the models of Section 5",
        "a class takes 17 bits for its id and 7 for its probability, 3 bytes",
        lambda vocabulary: 17,
        id_bits,
        ({"vocabulary": 100_000}, {"vocabulary": 151_936}),
        meant="at V = 100,000; the Qwen3 models that are trained have 151,936 classes, which takes 18 bits",
    ),
    Equation(
        "sekd",
        "sec7.1-unique",
        "Table 1 (U indices drawn with repetition, C_t the different ones) with Section 7.1 (U = |C_t|)",
        "U draws with repetition give U different classes to store",
        lambda teacher, draws: float(draws),
        unique,
        tuple({"teacher": (0.6, 0.3, 0.1), "draws": draws} for draws in (1, 2, 4)),
        meant="at most U: U is the number of draws in Table 1 and of stored classes in Section 7.1",
    ),
)
