"""Every class of every axis: the runs in which it is rehearsed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from replication.experiment import recipe as known
from replication.experiment.identity import plain
from tests.cases import EXAMPLES, example
from tests.rehearsal_stage import Stage

Numbers = dict[str, Any]

SAMPLING = {"name": "RandomSampling", "draws": 50}
TOP = {"name": "TopK", "k": 6}
CLASSES = 288  # of the stage's tokenizer
MIXED = {"name": "Constant", "kd_weight": 0.8, "ce_weight": 0.3}

# name -> what a recipe says, more than once where the class has several ways; one that is not listed is rehearsed as
# `cases.example` makes it
TARGETS: dict[str, list[dict[str, Any]]] = {
    "OneHot": [{}],
    "Full": [{}, {"exponent": 0.7}],
    "TopK": [{"k": 6}],
    "TopP": [{"p": 0.8, "cap": 12, "exponent": 0.9}],
    "SmoothedTopK": [{"k": 6}],
    "NaiveFix": [{"k": 6}],
    "RandomSampling": [{"draws": 50}, {"draws": 12, "exponent": 0.8}],
    "Stratified": [{"draws": 50}],
    "Systematic": [{"draws": 50}],
    "HeadAndSampledTail": [{"k": 4, "draws": 8}],
    "WaterFilling": [{"classes": 12}],
    "AdaptiveWaterFilling": [{"level": 0.05}],
    "WithoutReplacement": [{"classes": 12}],
}
OF_DIVERGENCE: dict[str, list[dict[str, Any]]] = {
    "ForwardKL": [{"target": "Full"}, {"target": {"name": "SmoothedTopK", "k": 3}}],
    "ReverseKL": [{"target": "Full"}],
    "ForwardReverseKL": [{"target": "Full"}],
    "L1": [{"target": "Full"}, {"target": TOP}],
    "MSE": [{"target": "Full"}, {"target": TOP}],
    "GhostToken": [{"target": TOP}],
    "TailAware": [{"target": "Full", "schedule": {"name": "Constant", "ce_weight": 1.0}}],
}
OF_POSITIONS: dict[str, dict[str, Any]] = {
    "AllPositions": {"target": TOP, "schedule": MIXED},
    "TopFraction": {"target": "Full"},
    "HardTokens": {"target": SAMPLING, "schedule": MIXED},
    "Responses": {"target": TOP},
}
OF_SAMPLES: dict[str, dict[str, Any]] = {
    "AllSamples": {},
    "RandomSamples": {"keep": 0.5},
    "DifferenceSamples": {"reference": "narrow", "reference_tokens": "short"},
    "ChallengingSamples": {"until": 0.3, "early": 0.05},
    "EasySamples": {"until": 0.1, "early": 0.05, "pool": "320"},
}
OTHER_SCORES = ("ce_ratio", "mean_ce_ratio", "kl")  # of TopSamples, beside its default
OF_SCHEDULE: dict[str, dict[str, Any]] = {
    "Constant": {"kd_weight": 0.8, "ce_weight": 0.3},
    "TwoStage": {"until": 0.6},
    "LetGo": {"every": 2, "looks": 2, "margin": 9.0},
    "LinearDecay": {"start": 0.3, "until": 0.7},
    "LinearRatioDecay": {"start": 0.3, "until": 0.7},
    "WarmupStableDecay": {"warmup": 0.3, "decay": 0.4},
}
OF_ALIGNMENT: dict[str, dict[str, Any]] = {"Same": {}, "Different": {"teacher_length": "1024"}}
# what a recipe says: "shallow" is as wide as the teacher, "narrow" half as wide
OF_INITIAL: dict[str, dict[str, dict[str, Any]]] = {
    "Fresh": {"shallow": {}},
    "FromTeacherLayers": {
        "shallow": {},
        "narrow": {"student": "narrow"},
        "frozen": {"initial": {"name": "FromTeacherLayers", "embeddings": "frozen"}},
    },
    "Pretrained": {
        "shallow": {},
        "own text": {
            "initial": {"name": "Pretrained", "text": "student's"},
            "background": "OtherText",
            "vocabulary": "own",
        },
    },
    "Continued": {
        "another text": {
            "initial": {"name": "Continued", "text": "other", "tokens": "short"},
            "background": "OtherText",
            "tokens": "short",
        },
    },
}
# a turn of rollouts, four steps, is under way when the run is killed
OF_WRITING: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "Text": ({}, {"target": TOP}),
    "OnPolicy": ({"most": 6}, {"divergence": "ReverseKL", "positions": "TopFraction"}),
    "SeqKD": ({}, {"target": "OneHot"}),
    "MiniLLM": ({"batches": 2, "epochs": 2}, {}),
}
OF_BACKGROUND = ("SameText", "OtherText", "Adapted")
OF_TUNING: dict[str, dict[str, Any]] = {"Untuned": {}, "Instructed": {}, "FineTuned": {"text": "sums:400"}}


def targets(name: str, stage: Stage) -> Numbers:
    """In every way that the class has: from a cache where it can be, and online."""
    found = {}
    for number, said in enumerate(TARGETS.get(name, [fields_of("target", name)]), 1):
        for delivery in deliveries(name):
            found[f"run {number} {delivery}"] = stage.perform(target={"name": name, **said}, delivery=delivery)
    return found


def deliveries(name: str) -> tuple[str, ...]:
    """ "auto" is a cache where there may be one; no codec stores some of the draws."""
    stored = EXAMPLES[name].stored
    if stored is None:
        return ("auto",)
    return ("online",) if stored.storage(CLASSES) is None else ("auto", "online")


def fields_of(axis: str, name: str) -> dict[str, Any]:
    """Of a small instance."""
    return {key: value for key, value in plain(example(known.AXES[axis][name])).items() if key != "name"}


def divergences(name: str, stage: Stage) -> Numbers:
    return {
        f"run {n}": stage.perform(divergence=name, **said) for n, said in enumerate(OF_DIVERGENCE.get(name, [{}]), 1)
    }


def positions(name: str, stage: Stage) -> Numbers:
    said = {"name": name, **fields_of("positions", name)} if name not in OF_POSITIONS else name
    return stage.perform(positions=said, **OF_POSITIONS.get(name, {"target": "Full"}))


def samples(name: str, stage: Stage) -> Numbers:
    said = {"name": name, **OF_SAMPLES.get(name, fields_of("samples", name))}
    found = stage.perform(samples=said, target=SAMPLING)
    for signal in OTHER_SCORES if name == "TopSamples" else ():
        found[f"by {signal}"] = stage.perform(samples={**said, "signal": signal}, target=SAMPLING)
    return found


def schedules(name: str, stage: Stage) -> Numbers:
    target = "Full" if name == "LetGo" else TOP  # which compares with the teacher itself
    return stage.perform(schedule={"name": name, **OF_SCHEDULE.get(name, fields_of("schedule", name))}, target=target)


def alignments(name: str, stage: Stage) -> Numbers:
    return stage.perform(
        alignment={"name": name, **OF_ALIGNMENT.get(name, fields_of("alignment", name))}, target=SAMPLING
    )


def objectives(name: str, stage: Stage) -> Numbers:
    said = {"name": name, **fields_of("objective", name)}
    return {
        policy: stage.perform(objective=said, target=TOP, positions=policy, schedule=MIXED)
        for policy in ("AllPositions", "TopFraction", "HardTokens")
    }


def hidden(name: str, stage: Stage) -> Numbers:
    """The student is as wide as its teacher; SALT's second stage, which asks no teacher, is on the way."""
    said = {"name": name, **fields_of("hidden", name)}
    shared = {"student": "shallow", "schedule": {"name": "TwoStage", "until": 0.6}}
    found = stage.perform(hidden=said, **shared)
    if name == "Cosine":
        found["every layer"] = stage.perform(hidden={**said, "layers": "every"}, **shared)
    return found


def initials(name: str, stage: Stage) -> Numbers:
    shared = {"initial": name, "student": "shallow", "target": TOP}
    return {way: stage.perform(**{**shared, **said}) for way, said in OF_INITIAL[name].items()}


def backgrounds(name: str, stage: Stage) -> Numbers:
    return stage.perform(background=name, target=TOP)


def tunings(name: str, stage: Stage) -> Numbers:
    return stage.perform(tuning={"name": name, **OF_TUNING[name]}, target=TOP)


def stops(name: str, stage: Stage) -> Numbers:
    return stage.perform(stop={"name": name, **fields_of("stop", name)}, target=TOP)


def writings(name: str, stage: Stage) -> Numbers:
    said, others = OF_WRITING[name]
    return stage.perform(writing={"name": name, **said}, **others)


AXES: dict[str, Callable[[str, Stage], Numbers]] = {
    "objective": objectives,
    "target": targets,
    "divergence": divergences,
    "positions": positions,
    "samples": samples,
    "schedule": schedules,
    "alignment": alignments,
    "hidden": hidden,
    "initial": initials,
    "background": backgrounds,
    "tuning": tunings,
    "stop": stops,
    "writing": writings,
}
