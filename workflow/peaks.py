"""The most memory that a run takes on a CPU, beside the program and its text: the sizes of `cost/`, put together.

What a step has let go stays with the process, and the next one takes it again only in part: so weights, gradients and
moments count beside what forward leaves for backward. A training is largest in its last steps, or when another model
with its weights is evaluated.
"""

from __future__ import annotations

from replication.cost.flops import Cost
from replication.cost.shape import Shape
from replication.evaluate.language_model import BATCH
from replication.experiment.run import Run
from replication.fused.loss import BLOCK, CHUNK, NARROW

FLOAT, NARROWER, DOUBLE = 4, 2, 8  # bytes of a weight: trained, multiplied, and of a gradient that is compared


def peak(run: Run, processes: int = 1) -> float:
    """Bytes, in the first of the processes over which the student is sharded: there all weights come together, too."""
    cost = Cost(run)
    match run.recipe.probe:
        case "train":
            gathered = weights(cost.student) if processes > 1 else 0
            return beside(cost) + max(step(cost, processes) + gathered, end(cost, processes))
        case "throughput":
            return beside(cost) + step(cost)
        case "gradients":
            return gradients(cost)
    raise ValueError(f"Nothing is known of the memory of probe {run.recipe.probe!r}.")


def beside_the_first(run: Run) -> float:
    """Bytes of the other of two processes, which holds nothing whole but what is in use."""
    return step(Cost(run), 2)


def weights(shape: Shape) -> float:
    return FLOAT * shape.parameters


def copies(shape: Shape) -> float:
    """Of the layers' matrices in bfloat16, which autocast keeps for a step."""
    return NARROWER * (shape.matrices - shape.head)


def step(cost: Cost, processes: int = 1) -> float:
    """Weights, gradients, moments; what forward leaves, and as much again of a layer while it is gone through."""
    passing = cost.sequences / processes * cost.sequence_bytes * (1 + 2 / cost.student.layers)
    logits = CHUNK["cpu"] * NARROW * (2 if cost.asks_teacher else 1) + 2 * BLOCK["cpu"]
    held = 4 * weights(cost.student) / processes + copies(cost.student) + whole(cost.student, processes)
    return held + passing + logits


def whole(shape: Shape, processes: int) -> float:
    """Of embeddings and head, which no layer shards: gathered, their gradient, and what is sent of it."""
    return 3 * FLOAT * (shape.parameters - (shape.matrices - shape.head)) if processes > 1 else 0.0


def end(cost: Cost, processes: int = 1) -> float:
    """The model that is evaluated, narrow copies of all matrices, a chunk of logits; weights gathered of several."""
    models = [shape for shape in (cost.student, cost.teacher) if shape is not None]
    evaluation = sum(NARROWER * shape.matrices + CHUNK["cpu"] for shape in models)
    wholes = 2 if processes > 1 else 1
    return (4 / processes + wholes) * weights(cost.student) + evaluation


def beside(cost: Cost) -> float:
    """A teacher, which is there for the evaluation if for nothing else; online with a narrow copy of its head."""
    if cost.teacher is None:
        return 0.0
    return weights(cost.teacher) + (NARROWER * cost.teacher.matrices if cost.asks_teacher else 0)


def caching(run: Run, sequences: int) -> float:
    """Of the teacher pass: the teacher, narrow copies, all logits of a batch, half of what a layer's forward makes."""
    cost, batch = Cost(run), min(sequences, BATCH)
    assert cost.teacher is not None
    logits = NARROWER * batch * run.length * cost.teacher.classes
    passing = batch * run.length * cost.teacher.saved / cost.teacher.layers / 2
    return weights(cost.teacher) + NARROWER * cost.teacher.matrices + logits + passing


def gradients(cost: Cost) -> float:
    """Both models, two gradients in float64, and beside them one of a batch with its graph, or their difference."""
    assert cost.teacher is not None
    graph = cost.sequence_bytes + 7 * FLOAT * cost.run.length * cost.student.classes
    passing = max(weights(cost.student) + copies(cost.student) + graph, DOUBLE * cost.student.parameters)
    return weights(cost.student) + weights(cost.teacher) + 2 * DOUBLE * cost.student.parameters + passing
