"""SALT Section 3.2 and App. C on a source whose law is known: xi_t and V_t, and what Eq. 66 sees of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor
from tqdm import tqdm

from replication.axes.targets.base import Target, at_least_one
from replication.axes.targets.kept import Full
from replication.experiment.recipe import one_of
from replication.seeds import generator
from toy.deviation import Deviation, deviation
from toy.source import Source, distilled, hidden, losses, model, share, uniforms

PREFIXES = (1, 5, 10, 30, 100, 300, 640)  # SALT Tables 6 to 9
CHUNK = 64  # sequences whose completions are drawn at a time
COUPLINGS = ("independent", "common")
HALF_NORMAL = math.sqrt(2 / math.pi)  # the mean size of a standard normal number

Metrics = dict[str, float]
Curves = dict[str, dict[str, list[float]]]


@dataclass(frozen=True)
class Setting:
    """A student that reads one token, on a source of topics; SALT's length and number of completions by default."""

    length: int = 1280
    completions: int = 64  # n_com of Eq. 66, for each of its two means
    sequences: int = 2048  # the paper takes about 200,000 and has no exact value beside any
    memory: float = 0.998  # chance that a topic goes on at the next token
    topics: int = 8
    vocabulary: int = 64
    distinct: float = 0.5  # chance that a token is of its topic's own law
    student_error: float = 0.5
    teacher_error: float = 0.2
    omega: float = 0.0  # the paper's BASELINE models have no teacher
    target: Target = field(default_factory=Full)
    coupling: str = "independent"  # of completions behind t - 1 and t tokens; "common": from the same random numbers

    def __post_init__(self) -> None:
        for name in ("length", "sequences", "topics"):
            at_least_one(name, getattr(self, name))
        for name in ("completions", "vocabulary"):
            if getattr(self, name) < 2:
                raise ValueError(f"{name} is {getattr(self, name)!r}; give a whole number of at least 2.")
        for name in ("memory", "distinct", "omega"):
            share(name, getattr(self, name))
        one_of("coupling", self.coupling, COUPLINGS)

    @property
    def prefixes(self) -> list[int]:
        return [t for t in PREFIXES if t <= self.length]

    def law(self, seed: int) -> tuple[Source, Tensor]:
        """The source, and the loss of class v behind context c, [C, V]."""
        of = [generator(seed, "martingale", purpose) for purpose in ("source", "student", "teacher")]
        source = hidden(self.topics, self.vocabulary, self.memory, self.distinct, of[0])
        student_CV = model(source.table_CV, self.student_error, of[1])
        target_CV = distilled(model(source.table_CV, self.teacher_error, of[2]), self.target)
        return source, losses(student_CV, target_CV, self.omega)


@dataclass(frozen=True)
class Plugin:
    """Eq. 66 at P prefixes of N sequences, [P, N]: the estimate, and its variance as its completions show it."""

    xi_PN: Tensor
    noise_PN: Tensor


def run(setting: Setting, seed: int) -> tuple[Metrics, Curves]:
    """xi_t and V_t in nats per token, exact and estimated, over the prefixes of SALT's Tables 6 to 9.

    Metrics, means over prefixes and sequences: `xi_exact`, `xi_plugin`, `xi_debiased` of |xi_t|, `xi_predicted`, what
    the plug-in should show; `v_exact` (E[xi_t ** 2 | before]), `v_plugin` (squares of Eq. 66), `v_debiased`;
    `noise_measured`, the root mean square error of Eq. 66, `noise_predicted` from the law, `noise_estimated` from the
    completions alone, and `noise_ratio`, measured over predicted where every xi_t counts in units of its own noise.
    `xi_bias` and `v_bias`: plug-in less exact at the same sequences; `xi_ratio`: `xi_plugin` over `xi_predicted`;
    `v_left`: the share of `v_bias` that debiasing leaves. What rests on a prediction is of independent completions
    only. By prefix `xi_exact_t1`, `xi_plugin_t1`, ...; the last over the first, `xi_exact_fall`, `xi_plugin_fall`;
    exact over plug-in at the last, `xi_real`. For Assumption 3.3, over all t: `largest`, T times the largest |xi_t|,
    and `total`, T times the sum over t of V_t. Identities: `mean_error`, the largest |E[xi_t | before]|, and
    `sum_error`, of the sum over t from mean loss minus loss.
    Curves: `prefixes` (`t`, `xi_*`, `v_*` and their floors: what noise alone would show) and `course` (`t`, `xi`, `v`),
    exact, at about forty t. Raises ValueError for settings that make no sense.
    """
    source, loss_CV = setting.law(seed)
    tokens_NT = source.sample(setting.sequences, setting.length, generator(seed, "martingale", "sequences"))
    draws = generator(seed, "martingale", "completions")
    exact, plugins = [], []
    parts = tokens_NT.split(CHUNK)
    for part_NT in tqdm(parts, desc="completions", unit="part", leave=False, disable=len(parts) < 4):
        exact.append(deviation(source, loss_CV, part_NT))
        plugins.append(plugin(source, loss_CV, part_NT, exact[-1], setting, draws))
    return measured(setting, exact, plugins)


def plugin(
    source: Source, loss_CV: Tensor, tokens_NT: Tensor, known: Deviation, setting: Setting, draws: Generator
) -> Plugin:
    """The mean loss of so many completions of x_{<t}, less the same for x_{<=t}.

    With common random numbers both sides draw token t's topic, and all that follows, from the same uniform numbers.
    """
    (n, length), prefixes, sides = tokens_NT.shape, setting.prefixes, 1 if setting.coupling == "common" else 2
    many = (n, setting.completions)
    shape = (len(prefixes), 2, *many)  # side 0 completes x_{<t}, side 1 x_{<=t}
    topics, rows = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    totals = torch.zeros(shape, dtype=torch.float64)
    for t in range(1, length + 1):
        begun = sum(prefix < t for prefix in prefixes)
        if begun:
            topics[:begun], word = source.step(topics[:begun], uniforms((begun, sides, *many), draws))
            totals[:begun] += torch.take(loss_CV, rows[:begun] * source.classes + word)
            rows[:begun] = word + 1
        if t in prefixes:
            before_NH, token_N = known.before_NTH[:, t - 1], tokens_NT[:, t - 1]
            beliefs_2NH = torch.stack([before_NH, source.after(before_NH, token_N)])
            topics[begun] = drawn_topics(beliefs_2NH, uniforms((sides, *many), draws))
            word = source.word(topics[begun, 0], uniforms(many, draws))
            row_N = 1 + tokens_NT[:, t - 2] if t > 1 else torch.zeros(n, dtype=torch.long)
            totals[begun, 0] = known.past_NT[:, t - 1, None] + loss_CV[row_N[:, None], word]
            totals[begun, 1] = known.past_NT[:, t, None]
            rows[begun, 0], rows[begun, 1] = 1 + word, 1 + token_N[:, None]
    totals /= length
    difference = totals[:, 0] - totals[:, 1]
    spread_PN = difference.var(2) if sides == 1 else totals.var(3).sum(1)
    return Plugin(difference.mean(2), spread_PN / setting.completions)


def drawn_topics(beliefs_2NH: Tensor, uniform: Tensor) -> Tensor:
    """Topics by inversion, [2, N, n], from uniform numbers [1 or 2, N, n]."""
    edges_2NH = beliefs_2NH.cumsum(2)[..., :-1].contiguous()
    return torch.searchsorted(edges_2NH, uniform.expand(2, -1, -1).contiguous(), right=True)


def measured(setting: Setting, exact: list[Deviation], plugins: list[Plugin]) -> tuple[Metrics, Curves]:
    at = torch.tensor(setting.prefixes)
    xi_NT, v_NT = torch.cat([part.xi_NT for part in exact]), torch.cat([part.v_NT for part in exact])
    spread_NT = torch.cat([part.spread_NT for part in exact])
    true_PN, v_P = xi_NT[:, at - 1].T, v_NT[:, at - 1].mean(0)
    noise_PN = ((spread_NT[:, at - 1] + spread_NT[:, at]) / setting.completions).T  # of independent completions
    shown_PN = torch.cat([part.xi_PN for part in plugins], 1)
    seen_PN = torch.cat([part.noise_PN for part in plugins], 1)
    error_PN = shown_PN - true_PN
    columns = {
        "t": at.double(),
        "xi_exact": true_PN.abs().mean(1),
        "xi_plugin": shown_PN.abs().mean(1),
        "xi_debiased": debiased(shown_PN, seen_PN),
        "v_exact": v_P,
        "v_plugin": (shown_PN**2).mean(1),
        "v_debiased": (shown_PN**2 - seen_PN).mean(1),
    }
    metrics = {name: float(values.mean()) for name, values in columns.items() if name != "t"}
    metrics |= {
        "xi_bias": float((shown_PN.abs() - true_PN.abs()).mean()),
        "v_bias": float((shown_PN**2 - true_PN**2).mean()),
        "xi_real": float(columns["xi_exact"][-1] / columns["xi_plugin"][-1]),
        "noise_measured": float((error_PN**2).mean().sqrt()),
        "noise_estimated": float(seen_PN.mean().sqrt()),
        "largest": setting.length * float(xi_NT.abs().max()),
        "total": setting.length * float(v_NT.mean(0).sum()),
        "mean_error": max(float(part.drift_NT.abs().max()) for part in exact),
        "sum_error": max(float((part.xi_NT.sum(1) - (part.expected - part.loss_N)).abs().max()) for part in exact),
    }
    for name in ("xi_exact", "xi_plugin", "v_exact", "v_plugin"):
        metrics |= {f"{name}_t{t}": float(value) for t, value in zip(setting.prefixes, columns[name], strict=True)}
        metrics[f"{name}_fall"] = float(columns[name][-1] / columns[name][0])
    if setting.coupling == "independent":
        metrics["xi_predicted"] = float(mean_size(true_PN, noise_PN).mean())
        left_PN, bias_PN = shown_PN**2 - seen_PN - true_PN**2, shown_PN**2 - true_PN**2
        metrics["v_left"] = float(left_PN.mean() / bias_PN.mean())
        metrics["xi_ratio"] = metrics["xi_plugin"] / metrics["xi_predicted"]
        metrics["noise_predicted"] = float(noise_PN.mean().sqrt())
        metrics["noise_ratio"] = float((error_PN**2 / noise_PN).mean().sqrt())
        columns |= {"xi_floor": HALF_NORMAL * noise_PN.sqrt().mean(1), "v_floor": noise_PN.mean(1)}
    else:
        # of completions that share their random numbers the law gives no closed form: what they show themselves
        columns |= {"xi_floor": HALF_NORMAL * seen_PN.sqrt().mean(1), "v_floor": seen_PN.mean(1)}
    course = torch.logspace(0, math.log10(setting.length), 40).round().long().unique()
    curves = {
        "prefixes": columns,
        "course": {
            "t": course.double(), "xi": xi_NT[:, course - 1].abs().mean(0), "v": v_NT[:, course - 1].mean(0),
        },
    }  # fmt: skip
    return metrics, {name: {key: values.tolist() for key, values in one.items()} for name, one in curves.items()}


def debiased(shown_PN: Tensor, noise_PN: Tensor) -> Tensor:
    """Mean |xi_t| from noisy ones, [P]: scaled so that their second moment is what is left of it without the noise.

    The second moment less the noise is unbiased; the mean size is then right where sizes with and without noise have
    the same shape, and 0 where the noise is all there is.
    """
    square_P = (shown_PN**2).mean(1)
    left_P = ((square_P - noise_PN.mean(1)) / square_P).clamp_min(0)
    return shown_PN.abs().mean(1) * left_P.sqrt()


def mean_size(mean: Tensor, variance: Tensor) -> Tensor:
    """E|x| of a normal x (a folded normal's mean)."""
    deviation = variance.sqrt()
    z = mean / deviation.clamp_min(torch.finfo(torch.float64).tiny)
    return HALF_NORMAL * deviation * (-(z**2) / 2).exp() + mean * torch.erf(z / math.sqrt(2))
