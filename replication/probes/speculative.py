"""What the student is worth as the teacher's draft, decoded in earnest (RS-KD Section 6.1, 'Speculative Accept %')."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from replication.evaluate.speculative import decode
from replication.experiment.run import Run
from replication.machine.device import Machine
from replication.model.decoder import precise_weights
from replication.model.reach import reach_of
from replication.model.trainable import cut_to
from replication.seeds import seed_for
from replication.training.run_data import Data
from replication.training.weights import teacher_for, trained

DRAFTS = 2_000  # that the teacher looks at


def ready(run: Run) -> None:
    """ValueError, one line, for a run without a teacher."""
    if run.recipe.teacher == "none":
        raise ValueError(f"Run {run.id} has no teacher (teacher = 'none'), and it is what accepts drafts: name one.")


def speculative(run: Run, data: Data, machine: Machine) -> tuple[dict[str, float], dict[str, Any]]:
    """`decoded_acceptance`, the share of drafts that the teacher accepted of those it looked at; `decoded_expected`,
    the mean of sum(min(teacher, student)) at the same drafts, and `decoded_error`, half of the 99 % interval around it;
    `decoded_agreement` (top-1), `accepted_per_step`, `tokens_per_step` and `speed_up` over the teacher alone.

    Held-out rows are continued from their first quarter, at temperature 1. In float32. ValueError where teacher or
    student is not trained yet.
    """
    # transformers wants equal classes; those that are no token have no part in the loss, and none here
    teacher = cut_to(precise_weights(teacher_for(run, machine)), data.tokenizer.vocabulary)
    student = trained(run, machine)
    reach = min(run.length, reach_of(teacher.config) or run.length)
    prompt = max(1, reach // 4)
    rows = torch.from_numpy(data.validation.rows(np.arange(min(len(data.validation), DRAFTS))))
    with torch.random.fork_rng():
        torch.manual_seed(seed_for(run.seed, "decoding") % 2**63)  # transformers draws from the global generator only
        found = decode(teacher, student, rows[:, :prompt].to(machine.device), reach - prompt, DRAFTS)
    return found.metrics(), {}
