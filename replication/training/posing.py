"""Posing: rows of text as the run's objective puts them to a student, and to the teacher that fills a cache for it."""

from __future__ import annotations

import numpy as np
import torch

from replication.axes.objectives import Posed
from replication.axes.targets.drawing import Streams
from replication.data.packed_conversations import Conversations
from replication.data.packing import Packing
from replication.data.tokenizer import Tokenizer
from replication.experiment.run import Run
from replication.seeds import generator


def posed(
    run: Run,
    text: Packing | Conversations,
    tokenizer: Tokenizer,
    rows_B: np.ndarray,
    epochs_B: np.ndarray,
    device: torch.device,
) -> Posed:
    """Rows of the text; an objective that draws does so for each visit to a row, on the CPU: every device poses alike.

    Where rows are rewritten a cache holds what the teacher said of their first pose, so later visits repeat that one.
    """
    recipe = run.recipe.training_recipe
    objective, rows_BX = recipe.objective, torch.from_numpy(text.rows(rows_B))
    streams = sentinels_S = None
    if objective.draws:
        visits_B = np.zeros_like(epochs_B) if objective.rewrites and recipe.cached else epochs_B
        each = zip(rows_B.tolist(), visits_B.tolist(), strict=True)
        streams = Streams(tuple(generator(run.seed, "objective", row, visit) for row, visit in each))
    if objective.rewrites:
        sentinels_S = torch.tensor(tokenizer.sentinels)
    found = objective(rows_BX, streams, sentinels_S)
    mask_BL = None if found.mask_BL is None else found.mask_BL.to(device)
    return Posed(found.tokens_BL.to(device), found.labels_BL.to(device), mask_BL)
