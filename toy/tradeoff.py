"""SALT Theorems 3.2 and 3.4 beside what they bound, over omega and the number of sequences: where the bounds are least,
and where what is trained is best.

Teachers, students and training sets are those of `toy/risk.py`. Beside its finite class, which the theorems are about,
stands training as it is done: the table of all chances behind each token that minimises the loss.

Axis letters: R training sets, O values of omega, K students, C contexts, V classes, N sequences, T tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from replication.seeds import generator
from toy.risk import OMEGAS, Class, Curves, Metrics, Setting, best, bounds, contexts, shares, students
from toy.source import FLOOR, Source, distilled, model, shown

HALF = len(OMEGAS) // 2  # where omega is 0.5
PER_STUDENT = 10  # of M(N) in Theorem B.3: ten times a cover, which has no more elements than the class has students


@dataclass(frozen=True)
class Known:
    """All that the source gives: its tables and the teacher's, [C, V], how often each context comes, [C], and Theta."""

    law_CV: Tensor
    target_CV: Tensor
    weight_C: Tensor
    theta: Class

    @property
    def largest(self) -> float:
        """M of Assumption 3.1."""
        return float(self.theta.log_KCV.abs().max())

    @property
    def mixed_OCV(self) -> Tensor:
        """(1 - omega) truth + omega teacher."""
        return mixed(self.law_CV, self.target_CV)


def run(setting: Setting, seed: int) -> tuple[Metrics, Curves]:
    """Curve `omega`, 21 values: the bounds of Theorems 3.2 (mean over training sets) and 3.4, `bound32`, `bound34`;
    what they bound, `excess` (nats a token, as all risks); the same of trained tables, `trained`, and its parts
    `trained_bias`, which endless data would leave, and `trained_variance`, the rest.

    Metrics: `div`, DIV(zeta, 1); `best_` (omega of the least: the largest of several), `_none` (at omega = 0),
    `_least` and `_full` (at 1) of `bound32`, `bound34`, `excess` and `trained`; `looser`, how many times the
    bound of 3.4 that of 3.2 is at omega = 0; `alone`, the share of the trained tables' excess risk that the teacher
    alone takes away, without a label; `failures32` and `failures34`, the
    share of training sets whose excess risk lies above the bound at any omega; `variance_half` and `bias_half`, what
    is left of the trained tables' variance at omega = 0.5 of that at 0, and of their bias of that at 1; `rule`, the
    omega at which a variance that falls with (1 - omega) ** 2 and a bias that grows with omega ** 2 are least
    together, and `rule_costs`, by which share the risk there is above the least one. ValueError for settings that make
    no sense.
    """
    if setting.sequences < 2:
        raise ValueError(f"sequences is {setting.sequences}; give at least 2: Theorem 3.2 takes their variance.")
    source = shown(setting.topics, setting.vocabulary, setting.memory)
    known = of(setting, source, seed)
    draws = generator(seed, "risk", "training")
    tokens_NT = source.sample(setting.rounds * setting.sequences, setting.length, draws)
    sets = tokens_NT.split(setting.sequences)
    bound34_O = theorem_34(setting, source, known)
    pairs = [of_class(setting, known, part_NT) for part_NT in sets]
    excess_RO, bound32_RO = (torch.stack(each) for each in zip(*pairs, strict=True))
    trained_RO = torch.stack([trained(known, shares(part_NT, source.classes)) for part_NT in sets])
    columns = {
        "omega": OMEGAS,
        "bound32": bound32_RO.mean(0),
        "bound34": bound34_O,
        "excess": excess_RO.mean(0),
        "trained": trained_RO.mean(0),
        "trained_bias": excess_of(known, known.mixed_OCV),
    }
    columns["trained_variance"] = columns["trained"] - columns["trained_bias"]
    rule = float(columns["trained"][0] / (columns["trained"][0] + columns["trained_bias"][-1]))
    at_rule = int((OMEGAS - rule).abs().argmin())
    metrics = {
        "div": setting.length * distance(known),
        "failures32": float((excess_RO > bound32_RO).any(1).double().mean()),
        "failures34": float((excess_RO > bound34_O).any(1).double().mean()),
        "variance_half": float(columns["trained_variance"][HALF] / columns["trained_variance"][0]),
        "bias_half": float(columns["trained_bias"][HALF] / columns["trained_bias"][-1]),
        "rule": rule,
        "rule_costs": float(columns["trained"][at_rule] / columns["trained"].min()) - 1,
    }
    metrics["looser"] = float(columns["bound32"][0] / columns["bound34"][0])
    metrics["alone"] = 1 - float(columns["trained"][-1] / columns["trained"][0])
    for name in ("bound32", "bound34", "excess", "trained"):
        values_O = columns[name]
        metrics[f"best_{name}"] = best(values_O)
        for word, place in (("none", 0), ("full", -1), ("least", int(values_O.argmin()))):
            metrics[f"{name}_{word}"] = float(values_O[place])
    return metrics, {"omega": {name: values_O.tolist() for name, values_O in columns.items()}}


def of(setting: Setting, source: Source, seed: int) -> Known:
    teacher_CV = model(source.table_CV, setting.teacher_error, generator(seed, "risk", "teacher"))
    target_CV = distilled(teacher_CV, setting.target)
    theta = students(setting, source, target_CV, seed)
    return Known(source.table_CV, target_CV, contexts(source, setting.length), theta)


def distance(known: Known) -> float:
    """The mean total variation of teacher and truth at a position."""
    return float(known.weight_C @ (known.target_CV - known.law_CV).abs().sum(1)) / 2


def bias(known: Known) -> Tensor:
    """The first term of both theorems, [O]."""
    return 4 * known.largest * OMEGAS * distance(known)


def theorem_34(setting: Setting, source: Source, known: Known) -> Tensor:
    found = bounds(source, known.theta, setting.length)
    logs = math.log(2 * setting.students / setting.delta), math.log(2 / setting.delta)
    extremes_O = 2 * found.largest_O / (3 * setting.sequences) * sum(logs)
    variance_O = (2 * found.v_TO.sum(0) / setting.sequences).sqrt() * sum(map(math.sqrt, logs))
    return bias(known) + extremes_O + variance_O


def of_class(setting: Setting, known: Known, tokens_NT: Tensor) -> tuple[Tensor, Tensor]:
    """R(theta-hat) - R(theta*) over the finite class and Theorem 3.2's bound of it, both [O], on one training set."""
    theta = known.theta
    risk_K, _ = theta.risks(known.weight_C[:, None] * known.law_CV)
    hard_K, soft_K = theta.risks(shares(tokens_NT, known.law_CV.shape[1]))
    keep_O1, give_O1 = (1 - OMEGAS)[:, None], OMEGAS[:, None]
    chosen_O = (keep_O1 * hard_K + give_O1 * soft_K).argmin(1)
    n, largest, truth = setting.sequences, known.largest, risk_K.argmin()
    cover, rest = math.log(2 * PER_STUDENT * setting.students / setting.delta), math.log(4 / setting.delta)
    ends_O = 15 * largest * cover / (n - 1) + 7 * largest * rest / (3 * (n - 1))
    own_O, best_O = spread(theta, tokens_NT, chosen_O), spread(theta, tokens_NT, truth.expand(len(OMEGAS)))
    bound_O = bias(known) + (18 * own_O * cover / n).sqrt() + (2 * best_O * rest / n).sqrt() + ends_O
    return risk_K[chosen_O] - risk_K[truth], bound_O


def spread(theta: Class, tokens_NT: Tensor, student_O: Tensor) -> Tensor:
    """U_N of Eq. 24, the sample variance of the sequences' losses, of one student at each omega, [O]."""
    row_NT = torch.cat([torch.zeros_like(tokens_NT[:, :1]), 1 + tokens_NT[:, :-1]], 1)
    of_student = {
        int(k): [each[k][row_NT, tokens_NT].mean(1) for each in (theta.hard_KCV, theta.soft_KCV)]
        for k in student_O.unique()
    }
    losses = [of_student[int(k)] for k in student_O]
    mixed = [(1 - omega) * hard_N + omega * soft_N for omega, (hard_N, soft_N) in zip(OMEGAS, losses, strict=True)]
    return torch.stack(mixed).var(1)


def trained(known: Known, shares_CV: Tensor) -> Tensor:
    """The excess risk of the table that minimises the loss on a training set, [O].

    Behind each context that loss is the cross-entropy to (1 - omega) shares of the labels + omega teacher; a context
    that never came is learnt from neither, and stays uniform.
    """
    seen_C1 = shares_CV.sum(1, keepdim=True)
    uniform_CV = torch.full_like(shares_CV, 1 / shares_CV.shape[1])
    given_CV = torch.where(seen_C1 > 0, shares_CV / seen_C1.clamp_min(torch.finfo(torch.float64).tiny), uniform_CV)
    target_CV = torch.where(seen_C1 > 0, known.target_CV, uniform_CV)
    return excess_of(known, mixed(given_CV, target_CV))


def mixed(one_CV: Tensor, other_CV: Tensor) -> Tensor:
    return (1 - OMEGAS)[:, None, None] * one_CV + OMEGAS[:, None, None] * other_CV


def excess_of(known: Known, wanted_OCV: Tensor) -> Tensor:
    """R of the tables nearest to these over that of the table nearest to the truth, [O]."""
    law_CV, weight_C1 = known.law_CV, known.weight_C[:, None]
    ahead_OCV = nearest(law_CV).log() - nearest(wanted_OCV).log()
    return (weight_C1 * law_CV * ahead_OCV).sum((1, 2))


def nearest(wanted_CV: Tensor) -> Tensor:
    """The chances of least cross-entropy to those that are wanted, [..., V], of all that spread FLOOR over all classes:
    each in proportion, or as small as it may be."""
    classes = wanted_CV.shape[-1]
    least = FLOOR / classes
    ordered_CV = wanted_CV.sort(-1, descending=True).values
    kept_V = torch.arange(1, classes + 1, dtype=torch.float64)
    ratio_CV = ordered_CV.cumsum(-1) / (1 - (classes - kept_V) * least)  # if so many are above the least
    above_C1 = (ordered_CV >= least * ratio_CV).sum(-1, keepdim=True)
    return (wanted_CV / ratio_CV.gather(-1, above_C1 - 1)).clamp_min(least)
