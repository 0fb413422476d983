"""Theorem 3.2's bound term by term, and what training comes to, against loops and descent."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from replication.seeds import generator
from toy import risk, tradeoff
from toy.source import FLOOR, shown

SETTING = risk.Setting(
    0.5, length=5, sequences=6, memory=0.7, topics=2, vocabulary=4, students=5, student_error=0.8, rounds=30
)
SOURCE = shown(SETTING.topics, SETTING.vocabulary, SETTING.memory)
KNOWN = tradeoff.of(SETTING, SOURCE, 0)
TOKENS = SOURCE.sample(SETTING.sequences, SETTING.length, generator(3, "z"))


def sequence_losses(k: int, omega: float) -> list[float]:
    """The mean over tokens of (1 - omega) CE to the label + omega CE to the teacher, of each sequence, by loops."""
    found = []
    for sequence in TOKENS.tolist():
        total = 0.0
        for row, label in zip([0, *(1 + token for token in sequence[:-1])], sequence, strict=True):
            logs, teacher = KNOWN.theta.log_KCV[k][row], KNOWN.target_CV[row]
            soft = -sum(float(t) * float(s) for t, s in zip(teacher, logs, strict=True))
            total += (1 - omega) * -float(logs[label]) + omega * soft
        found.append(total / len(sequence))
    return found


def variance_of_pairs(values: list[float]) -> float:
    """Eq. 24 as printed."""
    n = len(values)
    return sum((a - b) ** 2 for a, b in itertools.combinations(values, 2)) / (n * (n - 1))


def test_theorem_32_term_by_term() -> None:
    excess_O, bound_O = tradeoff.of_class(SETTING, KNOWN, TOKENS)
    law = KNOWN.weight_C[:, None] * KNOWN.law_CV
    risks = [float((law * KNOWN.theta.hard_KCV[k]).sum()) for k in range(SETTING.students)]
    truth, n = int(np.argmin(risks)), SETTING.sequences
    largest = float(KNOWN.theta.log_KCV.abs().max())
    apart = float((KNOWN.weight_C[:, None] * (KNOWN.target_CV - KNOWN.law_CV).abs()).sum()) / 2
    for o in (0, 8, 20):
        omega = float(risk.OMEGAS[o])
        losses = [sequence_losses(k, omega) for k in range(SETTING.students)]
        chosen = int(np.argmin([sum(each) for each in losses]))
        cover, rest = math.log(2 * 10 * SETTING.students / SETTING.delta), math.log(4 / SETTING.delta)
        roots = math.sqrt(18 * variance_of_pairs(losses[chosen]) * cover / n)
        roots += math.sqrt(2 * variance_of_pairs(losses[truth]) * rest / n)
        ends = 15 * largest * cover / (n - 1) + 7 * largest * rest / (3 * (n - 1))
        assert float(bound_O[o]) == pytest.approx(4 * largest * omega * apart + roots + ends)
        assert float(excess_O[o]) == pytest.approx(risks[chosen] - risks[truth], abs=1e-12)


def test_theorem_34_is_that_of_the_study_of_its_terms() -> None:
    _, curves = tradeoff.run(SETTING, 0)
    assert curves["omega"]["bound34"] == pytest.approx(risk.run(SETTING, 0)[1]["omega"]["bound"])


def test_the_nearest_table_is_where_descent_ends() -> None:
    wanted_CV = torch.tensor(
        [[0.7, 0.3, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0]], dtype=torch.float64
    )
    logits_CV = torch.zeros_like(wanted_CV, requires_grad=True)
    descent = torch.optim.LBFGS([logits_CV], max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-16, lr=0.5)

    def table() -> torch.Tensor:
        return (1 - FLOOR) * logits_CV.softmax(-1) + FLOOR / 4

    def loss() -> torch.Tensor:
        descent.zero_grad()
        found = -(wanted_CV * table().log()).sum()
        found.backward()
        return found

    for _ in range(4):
        descent.step(loss)
    found_CV = tradeoff.nearest(wanted_CV)
    assert found_CV.sum(-1).tolist() == pytest.approx([1.0] * 3) and float(found_CV.min()) >= FLOOR / 4
    assert torch.allclose(found_CV, table().detach(), atol=1e-5)
    assert float(-(wanted_CV * found_CV.log()).sum()) <= float(loss().detach()) + 1e-12


def test_training_learns_of_labels_what_they_show_and_of_the_teacher_what_it_says() -> None:
    law_CV, weight_C1 = KNOWN.law_CV, KNOWN.weight_C[:, None]
    counts = torch.zeros_like(law_CV)
    for sequence in TOKENS.tolist():
        for row, label in zip([0, *(1 + token for token in sequence[:-1])], sequence, strict=True):
            counts[row, label] += 1
    excess_O = tradeoff.trained(KNOWN, risk.shares(TOKENS, SOURCE.classes))
    best_CV = tradeoff.nearest(law_CV)
    for o in (0, 10, 20):
        omega, total = float(risk.OMEGAS[o]), 0.0
        for row in range(len(law_CV)):
            seen = counts[row].sum()
            wanted = (1 - omega) * counts[row] / seen + omega * KNOWN.target_CV[row] if seen else torch.full((4,), 0.25)
            own = tradeoff.nearest(wanted.double()[None])[0]
            total += float((weight_C1[row] * law_CV[row] * (best_CV[row] / own).log()).sum())
        assert float(excess_O[o]) == pytest.approx(total, abs=1e-12)
    assert (excess_O >= 0).all()


def test_a_weak_teacher_helps_while_there_are_few_sequences() -> None:
    few, many = (tradeoff.run(replace(SETTING, sequences=n), 0)[0] for n in (3, 300))
    assert few["best_trained"] > many["best_trained"] > 0
    for found in (few, many):
        assert found["trained_least"] <= min(found["trained_none"], found["trained_full"])
        assert found["failures32"] == found["failures34"] == 0 and 0 <= found["rule_costs"]
    assert 0.2 < few["bias_half"] < 0.3
    assert few["alone"] == pytest.approx(1 - few["trained_full"] / few["trained_none"])
