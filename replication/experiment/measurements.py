"""The words for what a run may measure: an entry for each probe says what it needs and what it goes through.

A new probe is an entry here and its module in `replication/probes` (`probes/module.py` says what that has to hold).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from replication.experiment.scale import Scale
from replication.experiment.suites import INSTRUCTION_SETS, SUITES


def nothing(scale: Scale) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Measurement:
    """A probe: what a run does that trains nothing. What stands here is all that others ask of it."""

    module: str  # of `replication/probes`, which holds its deed
    numerics: tuple[str, ...]  # the shared parts that it goes through (`records/numerics.SHARED`)
    # whose trained weights it reads: of the student that its recipe trains, of FullKD's under the same seed, or of the
    # recipe's at each of BUDGETS and at BEYOND
    student: Literal["none", "own", "FullKD", "budgets"] = "none"
    taught: bool = True  # whether it reads what the teacher learnt
    cache: bool = False  # whether it reads the run's cache, where there is one
    tuned: bool = True  # whether tuning the student changes what it finds
    computed: bool = False  # from the recipe and the scale alone: nothing is read, nothing is run
    timed: bool = False  # numbers that no second run gives
    outside: Literal["", "TASK_DATA", "JUDGE_URL"] = ""  # the variable that says where what it needs is to be had
    settings: Callable[[Scale], dict[str, Any]] = nothing  # what its own words stand for; ValueError where one is none


def completions(scale: Scale) -> dict[str, Any]:
    return {"lengths": scale.lengths, "completed_sequences": scale.completed_sequences}


# TAD Table 5: what a law is fitted to, and what it has to foretell
BUDGETS, BEYOND = ("0.125B", "0.25B", "0.5B", "1B", "2B"), "4B"


def budgets(scale: Scale) -> dict[str, Any]:
    return {"budgets": [scale.budget(word) for word in BUDGETS], "foretold": scale.budget(BEYOND)}


def instructions(scale: Scale) -> dict[str, Any]:
    limit = "all questions" if scale.task_rows is None else f"at most {scale.task_rows:,} of each set"
    return {"tasks": f"{', '.join(INSTRUCTION_SETS)}; {limit}"}


def rated_instructions(scale: Scale) -> dict[str, Any]:
    return {**instructions(scale), "judge": named_judge()}


def named_judge() -> str:
    """ValueError, one line, if none is named."""
    model = os.environ.get("JUDGE_MODEL", "")
    if not model or not os.environ.get("JUDGE_URL"):
        raise ValueError(
            "A judge is any server of OpenAI's protocol: JUDGE_URL=<its address, as in http://127.0.0.1:8000/v1> and "
            "JUDGE_MODEL=<a model there>; its key, if it wants one, goes into OPENAI_API_KEY."
        )
    return model


READING = ("data", "model")  # the shared parts of what only lets trained models read and write
PROBES = {
    "gradients": Measurement("gradients", ("data", "model", "loss", "delivery"), student="FullKD", tuned=False),
    "selection": Measurement("selection", ("data", "model", "loss", "delivery"), student="FullKD", tuned=False),
    "frontier": Measurement("frontier", ("data", "model", "delivery")),
    "storage": Measurement("storage", ("data", "delivery"), cache=True, tuned=False),
    "draws": Measurement("draws", ("data", "model", "delivery"), tuned=False),
    "martingale": Measurement("martingale", READING, student="own", settings=completions),
    "throughput": Measurement(
        "throughput", ("model", "loss", "optimiser", "delivery"), taught=False, tuned=False, timed=True
    ),
    "overlap": Measurement("overlap", READING, tuned=False),
    "selection_time": Measurement(
        "selection_time", ("data", "model", "loss", "optimiser", "delivery"), taught=False, tuned=False, timed=True
    ),
    "output_layers": Measurement("output_layers", ("model", "loss"), taught=False, tuned=False, timed=True),
    "cost": Measurement("cost", (), taught=False, tuned=False, computed=True),
    "scaling": Measurement("scaling", ("data", "model", "evaluate"), student="budgets", tuned=False, settings=budgets),
    "speculative": Measurement("speculative", READING, student="own"),
    "tail": Measurement("tail", READING, tuned=False),
    **{
        name: Measurement("zero_shot", READING, student="own", outside="TASK_DATA", settings=suite.settings)
        for name, suite in SUITES.items()
    },
    "answers": Measurement("answers", READING, student="own", outside="TASK_DATA", settings=instructions),
    "judged": Measurement("judged", READING, student="own", outside="JUDGE_URL", settings=rated_instructions),
}
