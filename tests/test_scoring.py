"""What a sequence is worth: every score beside the oracle, on logits with ties, and by hand."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import oracle
import pytest
import torch

from replication.axes.samples import SCORES, ChallengingSamples, DifferenceSamples, EasySamples
from replication.axes.scoring import NOTHING_LEARNABLE, Score, among_first

B, L, V = 4, 5, 6
CUTS = (0, 3, 11, B * L)  # chunks of positions, which know nothing of sequences


def models(*names: str) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Logits in steps of a half, so that many are equal; and labels."""
    random = np.random.default_rng(1)
    logits = {name: torch.from_numpy(random.integers(-4, 5, (B, L, V)) / 2) for name in names}
    return logits, torch.from_numpy(random.integers(0, V, (B, L)))


def scored(score: Score, logits: dict[str, torch.Tensor], labels_BL: torch.Tensor) -> list[float]:
    """As `training/scores.py` does it: told in chunks, then made one score a sequence."""
    told = [
        score.told({what: each.flatten(0, 1)[a:b] for what, each in logits.items()}, labels_BL.flatten()[a:b])
        for a, b in pairwise(CUTS)
    ]
    return score.of(torch.cat(told).view(*labels_BL.shape, -1)).tolist()


@pytest.mark.parametrize("name", SCORES)
def test_top_samples_rank_by_what_the_papers_say(name: str) -> None:
    logits, labels_BL = models("student", "teacher")
    meant = [
        oracle.SAMPLE_SCORES[name](logits["student"][b].numpy(), logits["teacher"][b].numpy(), labels_BL[b].tolist())
        for b in range(B)
    ]
    assert scored(SCORES[name], logits, labels_BL) == pytest.approx(meant, rel=1e-12)
    alone = name == "student_entropy"
    assert [reader.what for reader in SCORES[name].readers] == (["student"] if alone else ["student", "teacher"])


def test_the_ratio_of_losses_is_not_the_mean_of_ratios_which_a_token_the_teacher_is_sure_of_decides() -> None:
    """SE-KD's code takes the latter; its paper, after He et al., the former."""
    told_BLM = torch.tensor([[[0.5, 1e-4], [2, 2.5]], [[2, 1], [2, 1]]])  # losses of student and teacher, nats
    paper, code = (SCORES[name].of(told_BLM).tolist() for name in ("ce_ratio", "mean_ce_ratio"))
    assert paper[0] < 1 < paper[1] == 2 and code[0] > 1000 * code[1]


def test_difference_samples_rank_by_the_teacher_s_lead_over_the_reference() -> None:
    logits, labels_BL = models("teacher", "reference")
    meant = [
        oracle.difference_score(logits["teacher"][b].numpy(), logits["reference"][b].numpy(), labels_BL[b].tolist())
        for b in range(B)
    ]
    assert scored(DifferenceSamples().score, logits, labels_BL) == pytest.approx(meant, rel=1e-12)


@pytest.mark.parametrize("k", [1, 2, 3, 6])
@pytest.mark.parametrize("outside", ["removed", "zeros"])
def test_challenging_samples_rank_by_the_median_of_what_can_be_learnt(k: int, outside: str) -> None:
    logits, labels_BL = models("early")
    score = oracle.salt_score if outside == "removed" else oracle.salt_score_as_printed
    meant = []
    for early_LV, labels_L in zip(logits["early"], labels_BL.tolist(), strict=True):
        probs = [oracle.softmax(each) for each in early_LV.numpy()]
        nothing = not any(oracle.top_accuracy([each], [label], k) for each, label in zip(probs, labels_L, strict=True))
        meant.append(NOTHING_LEARNABLE if nothing and outside == "removed" else score(probs, labels_L, k))
    assert scored(ChallengingSamples(k, outside=outside).score, logits, labels_BL) == pytest.approx(meant, rel=1e-12)


def test_the_formula_and_the_text_of_salt_s_eq_10_rank_otherwise() -> None:
    """By hand, of losses in nats: a sequence with two tokens of three beyond the first k, and one with none."""
    told_BLM = torch.tensor([[[3.0, 1], [9, 0], [8, 0]], [[1, 1], [2, 1], [0.5, 1]]])
    removed, zeros = (ChallengingSamples(outside=each).score.of(told_BLM).tolist() for each in ("removed", "zeros"))
    assert removed == [3.0, 1.0] and zeros == [0.0, 1.0]
    even = torch.tensor([[[1.0, 1], [2, 1], [4, 1], [9, 0], [8, 1]], [[1, 0], [1, 0], [1, 0], [1, 0], [1, 0]]])
    assert ChallengingSamples().score.of(even).tolist() == [3.0, NOTHING_LEARNABLE]


@pytest.mark.parametrize("k", [1, 3, 6])
def test_easy_samples_rank_by_top_k_accuracy(k: int) -> None:
    logits, labels_BL = models("early")
    meant = [oracle.top_accuracy(logits["early"][b].numpy(), labels_BL[b].tolist(), k) for b in range(B)]
    assert scored(EasySamples(k).score, logits, labels_BL) == pytest.approx(meant, rel=1e-12)


def test_of_equally_probable_classes_the_first_are_the_k_first() -> None:
    labels_R = torch.arange(4)
    assert among_first(2, torch.zeros(4, 4), labels_R).tolist() == [True, True, False, False]
    assert among_first(2, torch.tensor([[0.0, 1, 0, 0]]).expand(4, 4), labels_R).tolist() == [True, True, False, False]
