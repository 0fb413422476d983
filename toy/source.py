"""A source whose law is known: topics that last and Zipf words; tables of chances for teachers and students of it.

A hidden Markov chain. Each token belongs to a topic; the topic stays with chance `memory` and is drawn anew otherwise,
all topics equally likely. A model (teacher, student) reads one token: a table [V + 1, V], row 0 for the first token of
a sequence and row 1 + v for what follows class v. Axes: N sequences, T positions, H topics, V classes, C = V + 1 rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Generator, Tensor

from replication.axes.targets.base import Target
from replication.axes.targets.kept import Full, SmoothedTopK, TopK, TopP

FLOOR = 1e-3  # share of every model that is spread over all classes: SALT's Assumption 3.1 wants bounded losses
GUIDE = 4096  # slots of the table that shortens the search for a class
EPSILON = torch.finfo(torch.float64).eps
SETTLED = (Full, TopK, TopP, SmoothedTopK)  # targets that are the same whenever they are made


@dataclass(frozen=True)
class Source:
    """The law: `words_HV` is each topic's distribution over classes, float64."""

    words_HV: Tensor
    memory: float

    def __post_init__(self) -> None:
        share("memory", self.memory)

    @property
    def topics(self) -> int:
        return len(self.words_HV)

    @property
    def classes(self) -> int:
        return self.words_HV.shape[1]

    @cached_property
    def first_V(self) -> Tensor:
        """The chances of the first token, and of any token of which nothing before is known."""
        return self.words_HV.mean(0)

    @cached_property
    def steps_HH(self) -> Tensor:
        """Chance of each topic after each."""
        anew = torch.full((self.topics, self.topics), (1 - self.memory) / self.topics, dtype=torch.float64)
        return anew + self.memory * torch.eye(self.topics, dtype=torch.float64)

    @cached_property
    def table_CV(self) -> Tensor:
        """The best model that reads one token: P(x_t), P(x_t | x_{t-1}). All that can be known of topics that show."""
        given_VH = (self.words_HV / self.words_HV.sum(0)).T
        return torch.cat([self.first_V[None], given_VH @ self.steps_HH @ self.words_HV])

    def before(self, belief_NH: Tensor) -> Tensor:
        """Chances of the next token's topic, from those of this one's, [N, H]."""
        return self.memory * belief_NH + (1 - self.memory) / self.topics

    def after(self, belief_NH: Tensor, tokens_N: Tensor) -> Tensor:
        """Chances of this token's topic once the token is seen, [N, H]."""
        joint_NH = belief_NH * self.words_HV.T[tokens_N]
        return joint_NH / joint_NH.sum(1, keepdim=True)

    def sample(self, sequences: int, length: int, draws: Generator) -> Tensor:
        """Sequences of the source, [N, T]; a longer sample of the same stream begins with the shorter one."""
        topic_N = (uniforms((sequences,), draws) * self.topics).long()
        tokens = [self.word(topic_N, uniforms((sequences,), draws))]
        for _ in range(length - 1):
            topic_N, token_N = self.step(topic_N, uniforms((sequences,), draws))
            tokens.append(token_N)
        return torch.stack(tokens, 1)

    def step(self, topics: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """The next topics and their tokens, of any shape, from one uniform number each."""
        if self.memory == 1:
            return topics, self.word(topics, uniform)
        # given which part of the unit interval the number fell in, its place within that part is uniform again
        place = (uniform - self.memory) * (self.topics / (1 - self.memory))
        stays = place < 0
        anew = place.clamp(0, self.topics * (1 - EPSILON)).long()
        topics = torch.where(stays, topics, anew)
        return topics, self.word(topics, torch.where(stays, uniform / max(self.memory, EPSILON), place - anew))

    def word(self, topics: Tensor, uniform: Tensor) -> Tensor:
        """Classes by inversion: the first whose cumulative chance exceeds the uniform number."""
        cumulative, guide, steps = self.inversion
        slot = (uniform * GUIDE).long().clamp_(0, GUIDE - 1)
        place = torch.take(guide, topics * GUIDE + slot)
        for _ in range(steps):
            place += uniform >= torch.take(cumulative, place)
        return place - topics * self.classes

    @cached_property
    def inversion(self) -> tuple[Tensor, Tensor, int]:
        """Cumulative chances of all topics in one line, where to begin looking, and the steps that are enough."""
        cumulative_HV = self.words_HV.cumsum(1)
        # classes behind the last possible one are never reached
        cumulative_HV[:, -1] = cumulative_HV.clamp_max(1).max(1).values
        cumulative_HV = torch.where(cumulative_HV >= cumulative_HV[:, -1:], 2.0, cumulative_HV)
        slots = torch.arange(GUIDE + 1, dtype=torch.float64) / GUIDE
        found = torch.searchsorted(cumulative_HV, slots.expand(self.topics, -1).contiguous(), right=True)
        found = found.clamp_max(self.classes - 1)
        first = found[:, :-1] + self.classes * torch.arange(self.topics)[:, None]
        return cumulative_HV.flatten(), first.flatten(), int(found.diff(dim=1).max())


def uniforms(shape: tuple[int, ...], draws: Generator) -> Tensor:
    return torch.rand(shape, generator=draws, dtype=torch.float64)


def hidden(topics: int, vocabulary: int, memory: float, distinct: float, draws: Generator) -> Source:
    """Topics that share their classes: a token is of the common Zipf law, or with chance `distinct` of its topic's own.

    Each topic's own law is Zipf's over an order of its own, from flat (exponent 0.5, hard to predict) to steep (2.5).
    """
    share("distinct", distinct)
    orders = [torch.randperm(vocabulary, generator=draws) for _ in range(topics)]
    own = [zipf(vocabulary, float(e))[order] for e, order in zip(exponents(topics), orders, strict=True)]
    return Source((1 - distinct) * zipf(vocabulary, 1.0) + distinct * torch.stack(own), memory)


def shown(topics: int, vocabulary: int, memory: float) -> Source:
    """Topics that share no class, so that each token shows its topic: a Markov chain of tokens."""
    if vocabulary % topics:
        raise ValueError(f"vocabulary is {vocabulary}; give a multiple of the {topics} topics.")
    words_HV = torch.zeros(topics, vocabulary, dtype=torch.float64)
    for topic, exponent in enumerate(exponents(topics)):
        words_HV[topic, topic::topics] = zipf(vocabulary // topics, float(exponent))
    return Source(words_HV, memory)


def exponents(topics: int) -> Tensor:
    return torch.linspace(0.5, 2.5, topics, dtype=torch.float64)


def zipf(classes: int, exponent: float) -> Tensor:
    return (-exponent * torch.arange(1, classes + 1, dtype=torch.float64).log()).softmax(0)


def model(table_CV: Tensor, error: float, draws: Generator) -> Tensor:
    """Log-chances of a model of that table, [C, V]: its logits are off by `error` times a normal number each."""
    if not 0 <= error < float("inf"):
        raise ValueError(f"An error is {error!r}; give a finite number of at least 0.")
    noise_CV = torch.randn(table_CV.shape, generator=draws, dtype=torch.float64)
    probs_CV = (table_CV.log() + error * noise_CV).softmax(1)
    return ((1 - FLOOR) * probs_CV + FLOOR / table_CV.shape[1]).log()


def distilled(log_teacher_CV: Tensor, target: Target) -> Tensor:
    """What the student is given of the teacher behind each context, [C, V] float64.

    Raises ValueError for a target that is drawn anew each time: xi_t is defined for a loss without draws.
    """
    if not isinstance(target, SETTLED):
        known = ", ".join(cls.__name__ for cls in SETTLED)
        raise ValueError(f"Target {type(target).__name__} depends on draws or labels; give one of {known}.")
    none_C = torch.zeros(len(log_teacher_CV), dtype=torch.long)
    return target(log_teacher_CV, none_C, Generator()).dense(log_teacher_CV.shape[1]).double()


def losses(log_student_CV: Tensor, target_CV: Tensor, omega: float) -> Tensor:
    """(1 - omega) CE(one-hot) + omega CE(target) of each class behind each context, [C, V]; SALT Eq. 1, 3 and 4.

    Cross-entropies as in the paper, not KL: the teacher's entropy differs between contexts and moves xi_t.
    """
    return (omega - 1) * log_student_CV - omega * (target_CV * log_student_CV).sum(1, keepdim=True)


def share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is {value!r}; give a number from 0 to 1.")
