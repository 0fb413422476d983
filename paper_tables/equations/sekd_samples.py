"""SE-KD's selection of samples, where the authors' code (almogtavor/SE-KD3x 08b2763) does otherwise than the paper."""

from __future__ import annotations

import numpy as np

from paper_tables.equations.equation import Array, Equation

# losses of a sequence's tokens, nats; the second one is a token of which the teacher is sure, the whole is easy
LOSSES = ({"student": (2.0, 0.5), "teacher": (2.5, 0.0001)},)


def by_token(student: Array, teacher: Array) -> float:
    return float(np.mean(student / (teacher + 1e-6)))


EQUATIONS = (
    Equation(
        "sekd",
        "code-sample-ratio",
        "Section 2 (CE ratio of a sample) and sample_skipper.py",
        "the mean of the positions' CE ratios exceeds one by as much as the ratio of the losses on the sample does",
        lambda student, teacher: by_token(student, teacher) - 1,
        lambda student, teacher: student.sum() / teacher.sum() - 1,
        LOSSES,
        meant="L_student(x) / L_teacher(x) of the whole sample: the few tokens of which the "
        "teacher is sure decide a mean of ratios",
        mended=lambda student, teacher: student.mean() / teacher.mean() - 1,
    ),
)
