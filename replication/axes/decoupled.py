"""Divergences that weigh the label and the other classes apart: decoupled distillation and adaptive teaching."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from replication.axes.comparison import AtLabel, Told, dense_only
from replication.axes.targets.base import AnyTarget, precise


class Parts(AtLabel):
    """The two parts of KL(target || student), each times its weight."""

    def compare(self, told: Told, student_logits_NV: Tensor, target: AnyTarget) -> Tensor:
        logits_NV, label_N1 = precise(student_logits_NV), told.labels_N[:, None]
        probs_NV = dense_only(self, target).to(logits_NV)
        others_NV = logits_NV.scatter(1, label_N1, -torch.inf)
        of_label_N, of_others_N = logits_NV.gather(1, label_N1)[:, 0], others_NV.logsumexp(1)
        total_N = torch.logaddexp(of_label_N, of_others_N)
        label_N, rest_NV = probs_NV.gather(1, label_N1)[:, 0], probs_NV.scatter(1, label_N1, 0.0)
        # summed, not one minus the label: where the teacher is sure, that difference is rounding
        rest_N = rest_NV.sum(1)
        first_N = torch.special.xlogy(label_N, label_N) + torch.special.xlogy(rest_N, rest_N)
        first_N = first_N - label_N * (of_label_N - total_N) - rest_N * (of_others_N - total_N)
        share_NV = rest_NV / rest_N.clamp_min(torch.finfo(rest_N.dtype).tiny)[:, None]
        log_student_NV = (others_NV - of_others_N[:, None]).scatter(1, label_N1, 0.0)
        second_N = (torch.special.xlogy(share_NV, share_NV) - share_NV * log_student_NV).sum(1)
        weights_N2 = told.weights_N2.to(logits_NV)
        return weights_N2[:, 0] * first_N + weights_N2[:, 1] * second_N


@dataclass(frozen=True)
class Decoupled(Parts):
    """Label against the rest, and the rest among themselves, with weights of their own ("DKD", Zhao et al. 2022).

    SE-KD Table 1 names it and evaluates it nowhere. The weights are those of its paper's first experiments (alpha 1,
    beta 8); KL itself has one and the teacher's mass of the rest.
    """

    label_weight: float = 1.0
    rest_weight: float = 8.0

    def __post_init__(self) -> None:
        for name, value in (("label_weight", self.label_weight), ("rest_weight", self.rest_weight)):
            if not 0 <= value < math.inf:
                raise ValueError(f"Decoupled.{name} is {value}; give a finite weight of at least 0.")

    def weights(self, confidence_N: Tensor | None, labels_N: Tensor, trained_N: Tensor | None) -> Tensor:
        return torch.tensor([[self.label_weight, self.rest_weight]], device=labels_N.device).expand(len(labels_N), 2)


@dataclass(frozen=True)
class AdaptiveTeaching(Parts):
    """Easy positions learn what is not the label, hard ones the label too ("AT-KD", Zhong et al. 2024).

    Hard is the share of the batch in which the teacher trusts the label least. The loss is easy_weight times the mean
    over easy positions of the second part plus 1 - easy_weight times the mean over hard ones of both; neither is scaled
    by the teacher's mass. SE-KD states no settings: those are of AT-KD's paper.
    """

    easy_weight: float = 0.2
    hard: float = 0.5
    whole_batch = True
    signals = ("confidence",)

    def __post_init__(self) -> None:
        if not 0 <= self.easy_weight <= 1:
            raise ValueError(f"AdaptiveTeaching.easy_weight is {self.easy_weight}; give a share between 0 and 1.")
        if not 0 < self.hard < 1:
            raise ValueError(f"AdaptiveTeaching.hard is {self.hard}; give the share of hard tokens, between 0 and 1.")

    def weights(self, confidence_N: Tensor | None, labels_N: Tensor, trained_N: Tensor | None) -> Tensor:
        assert confidence_N is not None, "AdaptiveTeaching ranks by confidence: give it that signal"
        places_M = torch.arange(len(labels_N), device=labels_N.device)
        if trained_N is not None:
            places_M = places_M[trained_N]
        ranked_M = places_M[confidence_N[places_M].argsort(stable=True)]
        hard = math.ceil(Fraction(str(self.hard)) * len(ranked_M))
        found_N2 = confidence_N.new_zeros(len(labels_N), 2)
        found_N2[ranked_M[:hard]] = (1 - self.easy_weight) * len(ranked_M) / max(1, hard)
        found_N2[ranked_M[hard:], 1] = self.easy_weight * len(ranked_M) / max(1, len(ranked_M) - hard)
        return found_N2
