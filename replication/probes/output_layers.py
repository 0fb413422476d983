"""What selective output layers save of a distillation step: time and memory, flow by flow (SE-KD App. H, Table 16).

Nothing is learnt, so nothing needs to have been: text and models are stand-ins. The models have the shapes of scale
`paper`; on a CPU an eighth of their width, heads and classes, and all of their layers. Both bodies do the same in every
flow. They are timed once a turn, and after them each flow's heads and loss, so that a step is the sum of the two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel

from replication.cost.flops import Cost, Work
from replication.experiment.run import Run
from replication.experiment.scale import Role, load_scale
from replication.machine.device import Machine
from replication.machine.memory import peak_growth, resident_memory
from replication.model.output_head import head_of, hidden_of
from replication.probes.stand_in import random_text, untrained
from replication.probes.throughput import in_batches_of, median, seconds_of
from replication.training.output_flows import FLOWS, OURS, Given, given_of, loss
from replication.training.run_data import Data

TURNS = 5
SHARE = {"cpu": 8, "cuda": 1}  # of the papers' widths, heads and classes, one part in so many
SEQUENCES, LENGTH = 2, 512  # of a step (App. H)
BLOCKS = {"1m": 10**6, "5m": 5 * 10**6, "80m": 80 * 10**6}  # tokens of the table's blocks
PLAIN = "full_default"
MOMENTS = 2  # of Adam, beside every weight


def output_layers(run: Run, data: Data, machine: Machine) -> tuple[dict[str, float], dict[str, Any]]:
    """By flow (`output_flows.py`): `speedup` over the plain flow, of a step and of `heads` alone; minutes; gigabytes.

    Medians over the turns, with the 95 % interval of the median. The student's peak: its weights and moments, and with
    them either what its body leaves for backward and its side of the heads take, or its backward pass. The teacher's:
    its weights, and its body or its logits. Ours makes those on the student's side. No peaks where no system tells.
    """
    bodies = Bodies.of(run, data, machine)
    metrics = peaks(bodies)
    taken: dict[str, list[float]] = {"bodies": [], **{name: [] for name in (*FLOWS, *OURS)}}
    orders = np.random.default_rng(0)
    for turn in tqdm(range(TURNS + 1), desc=run.id, unit="turn", mininterval=2.0):
        given = bodies.given()
        steps: dict[str, Callable[[], float]] = {
            "bodies": bodies.step,
            **{name: partial(bodies.heads, name, given) for name in (*FLOWS, *OURS)},
        }
        for name in orders.permutation(list(steps)):
            seconds = seconds_of(steps[name])
            if turn:  # the first is to warm up
                taken[name].append(seconds)
    repetitions = {name: [round(value, 6) for value in values] for name, values in taken.items()}
    return metrics | times({name: np.array(values) for name, values in taken.items()}), {"repetitions": repetitions}


def material(run: Run, machine: Machine) -> tuple[Run, Data]:
    """The run at the papers' shapes, or a share of them, and random text."""
    fitted = at_share(run, SHARE[machine.device.type])
    return fitted, random_text(fitted, SEQUENCES)


def work(cost: Cost) -> Work:
    """Of every flow's heads, about half a step; counted as on a CPU."""
    return Cost(at_share(cost.run, SHARE["cpu"])).step * (1 + len(FLOWS) / 4) * (TURNS + 1)


def at_share(run: Run, share: int) -> Run:
    """The run with both roles as scale `paper` has them, but for one part in `share` of what is wide."""
    paper = load_scale("paper")
    roles = {name: narrowed(paper.role(name), share) for name in (run.recipe.student, run.recipe.teacher)}
    classes = {name: paper.role(name).vocabulary or paper.classes for name in roles}
    sizes: dict[str, Any] = {
        "roles": {**run.scale.roles, **roles},
        "lengths": {**run.scale.lengths, **{role.length: LENGTH for role in roles.values()}},
        "vocabulary": max(classes.values()) // share,
    }
    return in_batches_of(SEQUENCES, replace(run, scale=run.scale.model_copy(update=sizes)))


def narrowed(role: Role, share: int) -> Role:
    """Heads are as wide as before."""
    parts = {name: max(1, getattr(role, name) // share) for name in ("width", "ffn", "heads", "kv_heads")}
    return role.model_copy(update={**parts, "head_width": role.of_head, "vocabulary": None, "ready_made": False})


@dataclass(frozen=True)
class Bodies:
    """Both models, and the batch that they read."""

    student: PreTrainedModel
    teacher: PreTrainedModel
    optimiser: torch.optim.Optimizer
    rows_BX: Tensor
    vocabulary: int
    machine: Machine

    @classmethod
    def of(cls, run: Run, data: Data, machine: Machine) -> Bodies:
        student, teacher = (untrained(name, run, machine) for name in (run.recipe.student, run.recipe.teacher))
        rows_BX = torch.from_numpy(data.train.rows(np.arange(SEQUENCES))).to(machine.device)
        optimiser = torch.optim.AdamW(student.parameters(), fused=True)
        return cls(student, teacher, optimiser, rows_BX, run.scale.classes, machine)

    def states(self, model: PreTrainedModel) -> Tensor:
        with self.machine.precision():
            return hidden_of(model, self.rows_BX[:, :-1])

    @torch.no_grad()
    def of_teacher(self) -> Tensor:
        return self.states(self.teacher)

    def given(self) -> Given:
        """What the heads are given; gradients end there."""
        states_BLD = self.states(self.student).detach().requires_grad_()
        student, teacher = (head_of(model, self.vocabulary) for model in (self.student, self.teacher))
        return given_of(states_BLD, student, self.rows_BX[:, 1:], self.of_teacher(), teacher)

    def backward(self) -> None:
        """The student's body forward, and backward from some gradient."""
        states_BLD = self.states(self.student)
        states_BLD.backward(torch.full_like(states_BLD, 1e-6))

    def step(self) -> float:
        """All of a step but heads and loss."""
        self.of_teacher()
        self.backward()
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return float(self.student.get_output_embeddings().weight.detach()[0, 0])  # waits for a GPU

    def heads(self, name: str, given: Given, teacher_MV: Tensor | None = None) -> float:
        """Heads and loss, forward and backward; where the teacher's logits are at hand, the student's side of it."""
        given.states_BLD.grad = given.head.weight_VD.grad = None
        with self.machine.precision():
            value = loss(name, given, None if teacher_MV is None else lambda rows: teacher_MV)
        value.backward()
        assert given.states_BLD.grad is not None
        return float(given.states_BLD.grad[0, 0, 0])  # waits for a GPU


def peaks(bodies: Bodies) -> dict[str, float]:
    """Gigabytes, by flow."""
    if (before := resident_memory()) is None:
        return {}
    saved_BLD = bodies.states(bodies.student)
    saved = (resident_memory() or before) - before
    del saved_BLD
    backward, read = peak_growth(bodies.backward) or 0, peak_growth(bodies.of_teacher) or 0
    bodies.optimiser.zero_grad(set_to_none=True)
    learnt, known = (
        sum(part.numel() * part.itemsize for part in model.parameters()) for model in (bodies.student, bodies.teacher)
    )
    given = bodies.given()
    found: dict[str, float] = {}
    for name in (*FLOWS, *OURS):
        teacher_MV, made = None, 0
        if flow := FLOWS.get(name):
            rows = flow.chosen(given, None)
            made = peak_growth(partial(flow.of_teacher, given, rows)) or 0
            teacher_MV = flow.of_teacher(given, rows)
        heads = peak_growth(partial(bodies.heads, name, given, teacher_MV)) or 0
        student, teacher = (1 + MOMENTS) * learnt + max(saved + heads, backward), known + max(read, made)
        found |= {f"{name}_student_gigabytes": student / 1e9, f"{name}_teacher_gigabytes": teacher / 1e9}
        found |= {f"{name}_gigabytes": (student + teacher) / 1e9, f"{name}_heads_gigabytes": (heads + made) / 1e9}
    return found


def times(taken: dict[str, np.ndarray]) -> dict[str, float]:
    found: dict[str, float] = {"bodies_seconds": float(np.median(taken["bodies"]))}
    bodies_R, plain_R = taken["bodies"], taken[PLAIN]
    for name in (*FLOWS, *OURS):
        step_R = bodies_R + taken[name]
        found |= median(f"{name}_speedup", (bodies_R + plain_R) / step_R)
        found |= median(f"{name}_heads_speedup", plain_R / taken[name])
        found[f"{name}_seconds"] = float(np.median(step_R))
        found[f"{name}_heads_seconds"] = float(np.median(taken[name]))
        for block, tokens in BLOCKS.items():
            found[f"{name}_minutes_{block}"] = float(np.median(step_R)) * tokens / (SEQUENCES * LENGTH) / 60
    return found
