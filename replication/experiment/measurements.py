"""The words for what a run may measure: which probes there are, and what each of them needs."""

from __future__ import annotations

import os

from replication.experiment.suites import SUITES

OF_STUDENTS = ("martingale", "speculative", *SUITES, "answers", "judged")  # probes of a trained student
DOWNLOADED = (*SUITES, "answers")  # whose questions are a download
UNTAUGHT = ("throughput", "cost")  # probes of what a step takes, which the teacher's weights do not change
PROBES = (
    *("train", "gradients", "frontier", "storage", "draws", "martingale", "throughput", "cost", "speculative"),
    *SUITES,
    *("answers", "judged"),
)
OF_DISTILLATION = ("gradients", "storage", "draws", "throughput", "cost")  # probes that no tuning changes


def named_judge() -> str:
    """ValueError, one line, if none is named."""
    model = os.environ.get("JUDGE_MODEL", "")
    if not model or not os.environ.get("JUDGE_URL"):
        raise ValueError(
            "A judge is any server of OpenAI's protocol: JUDGE_URL=<its address, as in http://127.0.0.1:8000/v1> and "
            "JUDGE_MODEL=<a model there>; its key, if it wants one, goes into OPENAI_API_KEY."
        )
    return model
