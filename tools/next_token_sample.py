"""python -m tools.next_token_sample: a small sample of a teacher's own next-token distributions, for toy/zipf.py.

One position in the second half of each of the first held-out rows. A distribution is kept as its sorted logarithms:
which token has which probability is not, so the sample holds no text. ARTIFACTS says where the teacher was trained.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

from replication.axes.targets.base import at_least_one
from replication.experiment.recipe import Recipe
from replication.experiment.run import Run
from replication.experiment.scale import load_scale
from replication.machine.device import this_machine
from replication.machine.files import ROOT
from replication.model.decoder import logits_of
from replication.seeds import generator
from replication.training.run_data import data_for
from replication.training.weights import teacher_for


@torch.no_grad()
def sample(run: Run, positions: int) -> np.ndarray:
    """Log-probabilities, most probable first, [positions, V] float16. ValueError where the teacher is not trained."""
    at_least_one("positions", positions)
    machine = this_machine()
    teacher, data = teacher_for(run, machine), data_for(run, machine.artifacts)
    if positions > len(data.validation):
        raise ValueError(f"positions is {positions}, but the held-out text has {len(data.validation)} rows.")
    rows = torch.from_numpy(data.validation.rows(np.arange(positions))).to(machine.device)
    # in float32 whatever the machine would rather: the record must not depend on it
    logits_BLV = logits_of(teacher, rows[:, :-1], data.tokenizer.vocabulary).cpu()
    length = logits_BLV.shape[1]
    place_B = torch.randint(length // 2, length, (positions,), generator=generator(0, "next-token sample"))
    log_probs_BV = logits_BLV[torch.arange(positions), place_B].double().log_softmax(-1)
    return log_probs_BV.sort(-1, descending=True).values.numpy().astype(np.float16)


def main(arguments: list[str] | None = None) -> int:
    """0 when the sample is written; 2 with one line on stderr for bad input."""
    parser = argparse.ArgumentParser(prog="python -m tools.next_token_sample", description=__doc__)
    parser.add_argument("--teacher", default="3B", help="a role of the scale, or a Hugging Face name or path")
    parser.add_argument("--scale", default="laptop")
    parser.add_argument("--positions", type=int, default=64)
    parser.add_argument("--to", type=Path, default=ROOT / "toy" / "data" / "laptop-3b.npz")
    given = parser.parse_args(arguments)
    try:
        found = sample(Run(Recipe(teacher=given.teacher), load_scale(given.scale), seed=0), given.positions)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    np.savez_compressed(given.to, log_probs=found)
    mass_P = np.exp(found.astype(np.float64))
    print(f"{given.to}: {found.shape}, {given.to.stat().st_size / 1000:.0f} kB")
    print(f"most probable class {mass_P[:, 0].mean():.3f}, 20 most probable {mass_P[:, :20].sum(1).mean():.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
