"""What a method takes in all: steps, passes that choose samples, text that models write (TAD Table 3).

Each model is counted where the suite lets it run. A model that others train, a teacher or a reference, is not.
"""

from __future__ import annotations

from replication.axes.writing import MiniLLM, OnPolicy, SeqKD
from replication.cost.flops import Cost
from replication.cost.shape import Shape, shape_of

PROMPT = 0.5  # of a row: it ends somewhere in the row's middle half (`training/prompts.py`)


def petaflops_per_million(cost: Cost) -> float:
    """PetaFLOPs for a million tokens of rows, as the run's `tokens` counts them."""
    return (steps(cost) + choosing(cost) + writing(cost)) / cost.tokens * 1e6 / 1e15


def steps(cost: Cost) -> float:
    """Of student and teacher, forward and backward. MiniLLM's step reads as many rows of text beside the written ones,
    and shows both to both models."""
    twice = isinstance(cost.run.recipe.writing, MiniLLM)
    return cost.training.flops * (2 if twice else 1)


def choosing(cost: Cost) -> float:
    """Every model that a selection reads goes forward over all of its pool."""
    run, samples = cost.run, cost.run.recipe.samples
    pool = run.scale.budget(samples.pool) if samples.pool else (run.scale.corpus_tokens or cost.tokens)
    found = 0.0
    for reader in samples.readers:
        shapes = {"student": cost.student, "teacher": cost.teacher, "early": cost.teacher}
        shape = shapes.get(reader.what) or shape_of(reader.name, run.scale, run.tokenizer)
        found += pool * shape.forward(run.length)
    return found


def writing(cost: Cost) -> float:
    """Of the models that write, with their keys and values kept; no text ends before its row, or `most`, does."""
    run, how, length = cost.run, cost.run.recipe.writing, cost.run.length
    rows, begin = run.steps * cost.sequences, round(PROMPT * length)
    if not how.written or cost.teacher is None:
        return 0.0
    if isinstance(how, SeqKD):
        return rows * row_written(cost.teacher, length, begin)
    if isinstance(how, OnPolicy):
        end = min(length, begin + how.most) if how.most else length
        return rows * row_written(cost.student, end, begin)
    assert isinstance(how, MiniLLM)
    # written once, and read by both once more, for as many steps as the texts are gone through
    both = (cost.student, cost.teacher)
    once = sum(row_written(shape, length, begin) + length * shape.forward(length) for shape in both)
    return rows / how.epochs * once


def row_written(shape: Shape, length: int, begin: int) -> float:
    """FLOPs of a row of which the first `begin` tokens are read at once and each other by itself, up to `length`.

    A token attends to those before it and to no masked ones; the head is asked for the tokens that are written alone.
    """
    inside = 2 * (shape.matrices - shape.head) * length
    seen = begin**2 + sum(range(begin + 1, length + 1))
    return inside + 4 * shape.layers * shape.attention * seen + 2 * shape.head * (length + 1 - begin)
