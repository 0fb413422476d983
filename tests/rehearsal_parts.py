"""The parts that every run shares, and the probes: what they make of given text, weights and numbers."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from replication.axes import loss
from replication.axes.divergences import DIVERGENCES, Divergence
from replication.axes.positions import POSITIONS
from replication.axes.targets.base import AnyTarget
from replication.axes.targets.kept import Full, SmoothedTopK, TopK
from replication.axes.targets.sampled import RandomSampling
from replication.cache.reader import Reader
from replication.data.corpus import collect, open_corpus
from replication.data.packing import positions_in
from replication.data.tokenizer import open_tokenizer
from replication.evaluate.judged.judge import ORDERS, Pair, rating, totals, verdict
from replication.evaluate.language_model import Tally, evaluate
from replication.evaluate.tasks.at_hand.answering import answered, asked
from replication.experiment.suites import SUITES, Suite
from replication.fused import loss as fused
from replication.fused.head import Head, TeacherStates
from replication.model.checkpoint import publish
from replication.model.decoder import build, logits_of
from replication.probes import speculative
from replication.seeds import generator
from replication.training.needs import Need
from replication.training.optimiser import learning_rate
from replication.training.run_data import data_for, order_of
from replication.training.training import Training
from replication.training.weights import starting_point, teacher_for
from tests.rehearsal_stage import Stage, programs

Numbers = dict[str, Any]

SAMPLING = {"name": "RandomSampling", "draws": 50}
TOP = {"name": "TopK", "k": 6}
NEED_ALL_CLASSES = ("ReverseKL", "ForwardReverseKL", "TailAware", "Tempered", "Decoupled", "AdaptiveTeaching")


def data(stage: Stage) -> Numbers:
    """Tokens, packing, order, the rows that a cache holds, and the streams of random numbers."""
    run = stage.run(target=SAMPLING)
    text = data_for(run, stage.machine.artifacts)
    few = stage.run(target=SAMPLING, tokens="short", samples={"name": "RandomSamples", "keep": 0.7})
    other = stage.run(target=SAMPLING, tokens="short", alignment={"name": "Different", "teacher_length": "1024"})
    packing, rows_S = Need(other).rows(text)
    tuned = data_for(stage.run(tuning="Instructed"), stage.machine.artifacts).conversations
    assert tuned is not None
    purposes = ("init", "samples", "draw", "another order", "decoding")
    return {
        "corpus": text.corpus,
        "tokenizer": text.tokenizer.fingerprint,
        "packing": [text.train.fingerprint, text.validation.fingerprint, packing.fingerprint],
        "rows": [hashed(part.rows(np.arange(len(part)))) for part in (text.train, text.validation, packing, tuned)],
        "first row": text.train.rows([0])[0].tolist(),
        "order": order_of(few, text).tolist(),
        "cached rows": Need(few).rows(text)[1].tolist(),
        "cached rows of another order": rows_S.tolist(),
        "places in another order": positions_in(packing, text.train, np.arange(2))[:, :4].tolist(),
        "responses": hashed(tuned.responses(np.arange(len(tuned)))),
        "first numbers": {name: torch.rand(2, generator=generator(0, name)).tolist() for name in purposes},
    }


def model(stage: Stage) -> Numbers:
    """Fresh weights of every shape, and what they predict."""
    found = {}
    for role in ("300M", "3B", "tied"):
        run = stage.run(student=role, teacher="none", target="OneHot")
        text = data_for(run, stage.machine.artifacts)
        fresh = starting_point(run, text, stage.machine).eval()
        with torch.no_grad():
            logits_BLV = logits_of(fresh, torch.from_numpy(text.train.rows([0, 1]))[:, :-1], text.tokenizer.vocabulary)
        found[role] = {
            "weights": {name: float(weight.detach().norm()) for name, weight in fresh.named_parameters()},
            "logits": logits_BLV[:, -1, :8].tolist(),
        }
    return found


def losses(_: Stage) -> Numbers:
    """Both losses and their gradients, of every divergence with every position policy: `axes/loss.py` and
    `fused/loss.py`."""
    random = torch.Generator().manual_seed(0)
    states_BLD, teacher_ND = (torch.randn(*shape, generator=random) for shape in ((2, 8, 6), (16, 6)))
    weight_VD, other_VD = 2 * torch.randn(2, 24, 6, generator=random)
    labels_BL = torch.randint(24, (2, 8), generator=random)
    logits_NV = teacher_ND @ other_VD.T
    found = {}
    for name, cls in DIVERGENCES.items():
        divergence = cls(k=4) if name == "TailAware" else cls()
        for kind, target in kinds_of(name, logits_NV, TeacherStates(teacher_ND, Head(other_VD), sequences=2)).items():
            for policy, positions in POSITIONS.items():
                given = states_BLD, weight_VD, labels_BL, target, divergence, positions()
                found[f"{name} of {kind}, {policy}"] = {"loss.py": by_logits(*given), "fused.py": by_states(*given)}
    return found


def kinds_of(divergence: str, logits_NV: Tensor, states: TeacherStates) -> dict[str, AnyTarget | TeacherStates]:
    """The targets that a divergence takes."""
    labels_N, random = torch.zeros(len(logits_NV), dtype=torch.long), torch.Generator().manual_seed(1)
    sparse = {cls: cls(logits_NV, labels_N, random) for cls in (TopK(4), RandomSampling(9), SmoothedTopK(4))}
    found = {type(cls).__name__: target for cls, target in sparse.items()}
    if divergence == "GhostToken":
        found.pop("SmoothedTopK")
        return found
    dense: dict[str, AnyTarget | TeacherStates] = {"Full": Full()(logits_NV, labels_N, random), "states": states}
    return dense if divergence in NEED_ALL_CLASSES else {**dense, **found}


def chances() -> torch.Generator:
    """For a policy that draws: the same ones each time."""
    return torch.Generator().manual_seed(2)


def by_logits(
    states_BLD: Tensor, weight_VD: Tensor, labels_BL: Tensor, target: Any, divergence: Divergence, positions: Any
) -> list[float]:
    states_BLD, weight_VD = (part.clone().requires_grad_() for part in (states_BLD, weight_VD))
    whole = target.whole() if isinstance(target, TeacherStates) else target
    found = loss.distillation_loss(
        states_BLD @ weight_VD.T, labels_BL, whole, divergence, positions, 0.8, 0.3, 0.0, chances()
    )
    return [float(found), *(float(part.norm()) for part in torch.autograd.grad(found, (states_BLD, weight_VD)))]


def by_states(
    states_BLD: Tensor, weight_VD: Tensor, labels_BL: Tensor, target: Any, divergence: Divergence, positions: Any
) -> list[float]:
    states_BLD, weight_VD = (part.clone().requires_grad_() for part in (states_BLD, weight_VD))
    found = fused.fused_loss(
        states_BLD, Head(weight_VD), labels_BL, target, divergence, positions, 0.8, 0.3, 0.0, chances()
    )
    return [float(found), *(float(part.norm()) for part in torch.autograd.grad(found, (states_BLD, weight_VD)))]


def optimiser(stage: Stage) -> Numbers:
    """Twelve steps on text without an interruption: rates, and what the weights have become after each."""
    run = stage.run(student="tied", teacher="none", target="OneHot")
    training = Training(run, data_for(run, stage.machine.artifacts), None, stage.machine)
    found: dict[str, list[float]] = {"loss": [], "gradient_norm": [], "learning_rate": [], "weights": []}
    while training.step < run.steps:
        found["loss"].append(0.0)
        found["loss"][-1], norm, rate = training.advance()
        found["gradient_norm"].append(norm)
        found["learning_rate"].append(rate)
        found["weights"].append(float(torch.cat([part.flatten() for part in training.student.parameters()]).norm()))
    longer = [learning_rate(step, 40, run.role.optimiser) for step in range(40)]
    return {**found, "learning_rate of 40 steps": longer}


def delivery(stage: Stage) -> Numbers:
    """What a cache holds of the first rows, and a run whose targets are drawn anew in every epoch."""
    found: Numbers = {"fresh": stage.perform(target=SAMPLING, delivery="fresh")}
    for target in (SAMPLING, TOP, {"name": "WaterFilling", "classes": 12}):
        stage.perform(target=target)
        run = stage.run(target=target)
        need, text = Need(run), data_for(run, stage.machine.artifacts)
        teacher = teacher_for(run, stage.machine)
        reader = Reader(need.folder(stage.machine), need.expected(text, teacher))
        ids_BLK, weights_BLK = reader.batches([np.arange(4)])[0]
        order_BLK = np.argsort(ids_BLK, axis=-1, kind="stable")
        found[str(target["name"])] = {
            "ids": hashed(np.take_along_axis(ids_BLK, order_BLK, -1)),
            "weights": np.take_along_axis(weights_BLK, order_BLK, -1)[0, :2].astype(float).tolist(),
        }
    return found


def evaluation(stage: Stage) -> Numbers:
    """A teacher as its own student, and sharp predictions of random numbers."""
    run = stage.run()
    stage.perform()
    text, teacher = data_for(run, stage.machine.artifacts), teacher_for(run, stage.machine)
    metrics, curves = evaluate(teacher, teacher, text.validation, 6, text.tokenizer.vocabulary, stage.machine)
    random, tally = torch.Generator().manual_seed(0), Tally(4, 2)
    student_NV, teacher_NV = 3 * torch.randn(2, 64, 12, generator=random)
    labels_N, place_N = torch.randint(12, (64,), generator=random), torch.arange(64)
    tally.add(student_NV, labels_N, teacher_NV, place_N // 16, place_N % 2)
    sharp = {"metrics": tally.metrics(), "intervals": tally.intervals(), "reliability": tally.top.curve()}
    return {"teacher": {"metrics": metrics, "curves": curves}, "sharp": sharp}


def tasks(stage: Stage) -> Numbers:
    """The items of texts that look like code and of sums, and what random weights answer."""
    library = collect("programs", programs(0, 40))
    tokenizer = open_tokenizer("bpe:320", library, stage.folder / "programs")
    role = stage.run(student="300M").role
    student = build(role, tokenizer.vocabulary, 96, tokenizer.end_of_text, 5)
    with torch.no_grad():
        student.lm_head.weight.mul_(20)
    place = stage.folder / "student"
    publish(student, tokenizer, place)
    backend = PreTrainedTokenizerFast.from_pretrained(place)
    found = {}
    for corpus in (library, open_corpus("sums:1600")):
        asked_of = asked(corpus, 24, stage.machine.artifacts)
        found[corpus.name] = {
            "first item": {each.task: each.items[0].row() for each in asked_of},
            "answers": answered(student, backend, asked_of, stage.machine.artifacts, False),
        }
    return found


SHARED: dict[str, Callable[[Stage], Numbers]] = {
    "data": data,
    "model": model,
    "loss": losses,
    "optimiser": optimiser,
    "delivery": delivery,
    "evaluate": evaluation,
    "tasks": tasks,
}
OF_PROBE: dict[str, list[dict[str, Any]]] = {
    "gradients": [{"target": TOP}, {"target": SAMPLING}],
    "selection": [
        {"positions": "TopFraction"},
        {"positions": {"name": "UnbiasedPositionSampling", "signal": "kl", "certain": 0.3}, "initial": "Pretrained"},
    ],
    "frontier": [{"target": TOP}, {"target": SAMPLING}, {"target": {"name": "WaterFilling", "classes": 12}}],
    "storage": [{"target": SAMPLING}, {"target": "Full"}, {"target": "OneHot"}],
    "draws": [{"target": SAMPLING}],
    "martingale": [{"target": "Full"}],
    "speculative": [{"target": "Full"}],
    "overlap": [{"samples": {"name": "TopSamples", "keep": 0.3, "pool": "320"}}],
    "cost": [{"target": "Full"}, {"target": SAMPLING, "delivery": "online", "schedule": "TwoStage"}],
    "zero_shot": [{"target": "Full"}],
    "answers": [{"target": "Full"}],
}


def probe(name: str, stage: Stage) -> Numbers:
    if name == "judged":
        return ratings()
    few = Suite(("arc_easy", "lambada_openai"))
    with (
        patch.dict(os.environ, {"TASK_DATA": str(stage.folder / "tasks")}),
        patch.dict(SUITES, {"zero_shot": few}),
        patch.object(speculative, "DRAFTS", 12),
    ):
        runs = {f"run {n}": stage.perform(probe=name, **said) for n, said in enumerate(OF_PROBE[name], 1)}
    for run in runs.values():
        run["metrics"].pop("speed_up", None)  # a time
    return runs


def ratings() -> Numbers:
    """A judge whose every reply follows from the prompt; a server stands in tests/test_judge.py."""
    rated, replies = [], []
    for number in range(12):
        pair = Pair("dolly", number % 2, number // 2, f"Ask {number}.", "yes", f"no {number}")
        scores = {}
        for order in ORDERS:
            digest = hashlib.sha256(pair.prompt(order).encode()).digest()
            replies.append(f"{1 + digest[0] % 12} {1 + digest[1] % 10}")
            scores[order] = rating(replies[-1])
        given = {order: both for order, both in scores.items() if both is not None}
        if len(given) == len(ORDERS):
            rated.append((pair, verdict(given)))
    return {"metrics": totals(rated), "replies": replies, "rated": len(rated)}


def hashed(numbers: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(numbers).astype(np.int64).tobytes()).hexdigest()[:16]
