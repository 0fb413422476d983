"""SALT Section 3.3 and App. D on a source whose law is known: what distillation at weight omega costs and saves."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from replication.axes.targets.base import Target, at_least_one
from replication.axes.targets.kept import Full
from replication.seeds import generator
from toy.deviation import deviation
from toy.source import Source, distilled, losses, model, share, shown

OMEGAS = torch.linspace(0, 1, 21, dtype=torch.float64)
HELD = (0.0, 0.25, 0.5, 0.75, 1.0)  # omegas at which Eq. 68 and 69 are held against the definitions
ALONG = 16  # sequences of that

Metrics = dict[str, float]
Curves = dict[str, dict[str, list[float]]]


@dataclass(frozen=True)
class Setting:
    """A finite class of students that read one token, on a chain of tokens. SALT evaluates no bound: sizes are ours."""

    teacher_error: float
    target: Target = field(default_factory=Full)
    length: int = 64
    sequences: int = 64  # N, in training
    memory: float = 0.9  # chance that a topic goes on at the next token
    topics: int = 4
    vocabulary: int = 24
    students: int = 64  # |Theta|
    student_error: float = 0.3  # of the worst; the others' lie evenly between 0 and that
    delta: float = 0.05  # the bound may fail with this chance
    rounds: int = 400  # training sets

    def __post_init__(self) -> None:
        for name in ("sequences", "topics"):
            at_least_one(name, getattr(self, name))
        for name in ("length", "students", "rounds"):
            if getattr(self, name) < 2:
                raise ValueError(f"{name} is {getattr(self, name)!r}; give a whole number of at least 2.")
        if not 0 < self.delta < 1:
            raise ValueError(f"delta is {self.delta!r}; give a number between 0 and 1.")
        share("memory", self.memory)


@dataclass(frozen=True)
class Class:
    """Theta, K students: log-chances, and losses of class v behind context c against labels and target, [K, C, V]."""

    log_KCV: Tensor
    hard_KCV: Tensor
    soft_KCV: Tensor

    def risks(self, weight_CV: Tensor) -> tuple[Tensor, Tensor]:
        """Mean losses against labels and target, [K] each, of tokens that occur with these weights."""
        return (weight_CV * self.hard_KCV).sum((1, 2)), (weight_CV * self.soft_KCV).sum((1, 2))


@dataclass(frozen=True)
class Bounds:
    """The least C and V_1 ... V_T that Eq. 9 allows over all sequences and all of Theta, at O values of omega."""

    largest_O: Tensor
    v_TO: Tensor


def run(setting: Setting, seed: int) -> tuple[Metrics, Curves]:
    """The bound of Theorem 3.4 along omega, and the excess risk that it bounds.

    Curve `omega`, 21 values: `v_last` (V_T), `v_last_printed` (V_T at omega = 0 times 1 - omega, as Eq. 69 prints),
    the bound's terms `bias`, `variance` and `extremes` (in C) and their sum `bound`; `excess`, R(theta-hat) - R(theta*)
    averaged over training sets, and `excess_unlimited`, that of the minimiser of R^omega. Metrics: `distance`, the mean
    total variation of teacher and truth; the terms at omega = 0 and 1, `bias_full`, `variance_none`, `variance_full`,
    `bound_none`, `bound_least`, `excess_none`, `excess_least`, `excess_full`, `excess_unlimited_full`; where the least
    stand, `best_omega` and `best_omega_bound`; the least step of the bias and the largest of the variance and of V_T
    from one omega to the next, `bias_step`, `variance_step`, `last_step`; `saved_share`, how much of the variance term
    omega = 1 takes away; `gained`, how much of the excess risk an omega that is chosen on half of the training sets
    takes away on the others; `failures`, the share of sets whose excess risk lies above the bound at any omega.
    `eq68_error`, `eq69_error` and `eq69_printed_error`: the largest differences from the definitions, divided by the
    largest size of xi_T or V_T. Raises ValueError for settings that make no sense.
    """
    source = shown(setting.topics, setting.vocabulary, setting.memory)
    target_CV = distilled(
        model(source.table_CV, setting.teacher_error, generator(seed, "risk", "teacher")), setting.target
    )
    theta = students(setting, source, target_CV, seed)
    found = bounds(source, theta, setting.length)
    weight_C = contexts(source, setting.length)
    distance = float(weight_C @ (target_CV - source.table_CV).abs().sum(1)) / 2
    logs = math.log(2 * setting.students / setting.delta), math.log(2 / setting.delta)
    terms = {
        "bias": 4 * float(theta.log_KCV.abs().max()) * OMEGAS * distance,
        "variance": (2 * found.v_TO.sum(0) / setting.sequences).sqrt() * (math.sqrt(logs[0]) + math.sqrt(logs[1])),
        "extremes": 2 * found.largest_O / (3 * setting.sequences) * (logs[0] + logs[1]),
    }
    columns = {
        "omega": OMEGAS,
        "v_last": found.v_TO[-1],
        "v_last_printed": (1 - OMEGAS) * found.v_TO[-1, 0],
        **terms,
        "bound": terms["bias"] + terms["variance"] + terms["extremes"],
    }
    excess_RO, columns["excess_unlimited"] = excesses(setting, source, theta, seed)
    columns["excess"] = excess_RO.mean(0)
    metrics = {
        "distance": distance,
        "bias_step": float(columns["bias"].diff().min()),
        "variance_step": float(columns["variance"].diff().max()),
        "last_step": float(columns["v_last"].diff().max()),
        "saved_share": 1 - float(columns["variance"][-1] / columns["variance"][0]),
        "best_omega": best(columns["excess"]),
        "gained": gained(excess_RO),
        "best_omega_bound": best(columns["bound"]),
        "failures": float((excess_RO > columns["bound"]).any(1).double().mean()),
        **{f"{name}_full": float(columns[name][-1]) for name in ("bias", "variance", "excess", "excess_unlimited")},
        **{f"{name}_none": float(columns[name][0]) for name in ("variance", "bound", "excess")},
        **{f"{name}_least": float(columns[name].min()) for name in ("bound", "excess")},
        **last_token(setting, source, theta, target_CV, seed),
    }
    return metrics, {"omega": {name: values.tolist() for name, values in columns.items()}}


def best(values_O: Tensor) -> float:
    """The omega of the least value; the largest of several."""
    return float(OMEGAS[values_O == values_O.min()][-1])


def gained(excess_RO: Tensor) -> float:
    """By an omega of half of the sets on the other half: the least of many noisy means would flatter itself."""
    chosen = excess_RO[::2].mean(0).argmin()
    tried_O = excess_RO[1::2].mean(0)
    return 1 - float(tried_O[chosen] / tried_O[0])


def students(setting: Setting, source: Source, target_CV: Tensor, seed: int) -> Class:
    errors = torch.linspace(0, setting.student_error, setting.students, dtype=torch.float64).tolist()
    models = [model(source.table_CV, e, generator(seed, "risk", "student", k)) for k, e in enumerate(errors)]
    hard, soft = ([losses(each, target_CV, omega) for each in models] for omega in (0.0, 1.0))
    log_KCV = torch.stack(models)
    return Class(log_KCV, torch.stack(hard), torch.stack([each.expand_as(log_KCV[0]) for each in soft]))


def contexts(source: Source, length: int) -> Tensor:
    """How often each row of a table is used, over the positions of a sequence, [C]."""
    return torch.cat([torch.ones(1, dtype=torch.float64), (length - 1) * source.first_V]) / length


def bounds(source: Source, theta: Class, length: int) -> Bounds:
    """By dynamic programming: behind each token the expected loss to come, whose mean over tokens is what moves.

    xi_t is linear in omega, so V_t is quadratic in it at each context and for each student; the largest counts.
    """
    law_CV, possible_CV = source.table_CV, source.table_CV > 0
    hard_K1V, soft_K1V = torch.zeros(2, len(theta.log_KCV), 1, source.classes, dtype=torch.float64)
    largest_O, v_TO = torch.zeros_like(OMEGAS), torch.zeros(length, len(OMEGAS), dtype=torch.float64)
    keep, give = (1 - OMEGAS).view(-1, 1, 1), OMEGAS.view(-1, 1, 1)
    for t in range(length, 0, -1):
        rows = slice(0, 1) if t == 1 else slice(1, None)
        hard, soft = theta.hard_KCV[:, rows] + hard_K1V, theta.soft_KCV[:, rows] + soft_K1V
        hard_mean, soft_mean = (law_CV[rows] * hard).sum(2), (law_CV[rows] * soft).sum(2)
        hard, soft = hard - hard_mean[..., None], soft - soft_mean[..., None]
        moments = ((law_CV[rows] * product).sum(2) for product in (hard**2, hard * soft, soft**2))
        hh, hs, ss = moments
        v_TO[t - 1] = (keep**2 * hh + 2 * keep * give * hs + give**2 * ss).amax((1, 2))
        each = (keep * hard[:, possible_CV[rows]] + give * soft[:, possible_CV[rows]]).abs()
        largest_O = torch.maximum(largest_O, each.amax((1, 2)))
        hard_K1V, soft_K1V = hard_mean[:, None], soft_mean[:, None]
    return Bounds(largest_O / length, v_TO / length**2)


def excesses(setting: Setting, source: Source, theta: Class, seed: int) -> tuple[Tensor, Tensor]:
    """R(theta-hat) - R(theta*) of each training set, [rounds, O], and without end of data, [O]; SALT Eq. 5 to 7."""
    law_CV = contexts(source, setting.length)[:, None] * source.table_CV
    risk_K, soft_K = theta.risks(law_CV)
    excess_K = risk_K - risk_K.min()
    draws = generator(seed, "risk", "training")
    tokens_NT = source.sample(setting.rounds * setting.sequences, setting.length, draws)
    training = [shares(part_NT, source.classes) for part_NT in tokens_NT.split(setting.sequences)]
    hard_RK, soft_RK = (torch.stack(both) for both in zip(*map(theta.risks, training), strict=True))
    chosen = [((1 - omega) * hard_RK + omega * soft_RK).argmin(1) for omega in OMEGAS]
    unlimited = [((1 - omega) * risk_K + omega * soft_K).argmin() for omega in OMEGAS]
    return torch.stack([excess_K[each] for each in chosen], 1), torch.stack([excess_K[each] for each in unlimited])


def shares(tokens_NT: Tensor, classes: int) -> Tensor:
    """How often each class stands behind each context, [C, V], summing to one."""
    rows_NT = torch.cat([torch.zeros_like(tokens_NT[:, :1]), 1 + tokens_NT[:, :-1]], 1)
    counts = torch.bincount((rows_NT * classes + tokens_NT).flatten(), minlength=(classes + 1) * classes)
    return counts.double().view(classes + 1, classes) / tokens_NT.numel()


def last_token(setting: Setting, source: Source, theta: Class, target_CV: Tensor, seed: int) -> Metrics:
    """Eq. 68 and 69 of the worst student along sequences, against xi_T and E[xi_T ** 2 | before] as defined."""
    tokens_NT = source.sample(ALONG, setting.length, generator(seed, "risk", "along"))
    log_CV, law_CV = theta.log_KCV[-1], source.table_CV
    mean_C = (law_CV * log_CV).sum(1)
    variance_C = (law_CV * (log_CV - mean_C[:, None]) ** 2).sum(1) / setting.length**2
    row_N, last_N = 1 + tokens_NT[:, -2], tokens_NT[:, -1]
    xi_N = (log_CV[row_N, last_N] - mean_C[row_N]) / setting.length  # Eq. 68 at omega = 0
    off = {"eq68_error": 0.0, "eq69_error": 0.0, "eq69_printed_error": 0.0}
    for omega in HELD:
        truth = deviation(source, losses(log_CV, target_CV, omega), tokens_NT)
        given = {"eq68_error": (1 - omega) * xi_N, "eq69_error": (1 - omega) ** 2 * variance_C[row_N]}
        given["eq69_printed_error"] = (1 - omega) * variance_C[row_N]
        for name, values_N in given.items():
            meant_N, size_N = (truth.xi_NT[:, -1], xi_N) if name == "eq68_error" else (truth.v_NT[:, -1], variance_C)
            off[name] = max(off[name], float((values_N - meant_N).abs().max() / size_N.abs().max()))
    return off
