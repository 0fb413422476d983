"""Recipe: one value on each axis and the sizes in the paper's words."""

from __future__ import annotations

import os
import tomllib
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from replication.axes.divergences import DIVERGENCES, Divergence, ForwardKL
from replication.axes.hidden import HIDDEN, Hidden, NoHidden
from replication.axes.objectives import OBJECTIVES, NextToken, Objective
from replication.axes.positions import POSITIONS, AllPositions, Positions, Responses
from replication.axes.samples import SAMPLES, AllSamples, Samples
from replication.axes.schedules import SCHEDULES, Constant, LetGo, Schedule
from replication.axes.signals import NEEDS_WHOLE, ask_whole
from replication.axes.targets.base import Target
from replication.axes.targets.kept import SAMPLED, TARGETS, Full, OneHot
from replication.axes.writing import WRITINGS, MiniLLM, Text, Writing
from replication.experiment.lineage import (
    BACKGROUNDS,
    INITIALS,
    STOPS,
    TUNINGS,
    Adapted,
    AtItsEnd,
    Background,
    Continued,
    Fresh,
    Initial,
    Instructed,
    SameText,
    Stop,
    Tuning,
    Untuned,
)
from replication.experiment.measurements import PROBES, Measurement
from replication.experiment.suggestion import one_of, suggestion


@dataclass(frozen=True)
class Same:
    """The student sees every token behind the same context as the teacher did."""


@dataclass(frozen=True)
class Different:
    """Targets from a teacher that read the documents in another order, `teacher_length` tokens at a time.

    RS-KD App. D.3 and Table 16: a mistake made on purpose, to measure what it costs.
    """

    teacher_length: str


ALIGNMENTS = {cls.__name__: cls for cls in (Same, Different)}
DELIVERIES = ("auto", "cache", "online", "fresh")
MODELS = ("student", "teacher")  # which may be paths
BEGINNINGS = ("none", "rows", "documents", "auto")
READINGS = ("text", "tokens")
KINDS: dict[str, Any] = {"int": int, "float": (int, float), "str": str}


@dataclass(frozen=True)
class Recipe:
    """What is trained or measured. Everything that decides the numbers, nothing about the machine."""

    student: str = "300M"  # a role of the scale, or a checkpoint to continue from
    teacher: str = "3B"  # a role, a Hugging Face name or path, or "none"
    tokens: str = "10B"  # the budget in the paper's words
    text: str = ""  # a corpus; "" is the scale's
    objective: Objective = field(default_factory=NextToken)
    target: Target = field(default_factory=Full)
    divergence: Divergence = field(default_factory=ForwardKL)
    hidden: Hidden = field(default_factory=NoHidden)
    positions: Positions = field(default_factory=AllPositions)
    samples: Samples = field(default_factory=AllSamples)
    schedule: Schedule = field(default_factory=Constant)
    # "cache", "online", "fresh": online and drawn anew each epoch; auto: sparse targets from a cache, dense ones online
    delivery: str = "auto"
    alignment: Same | Different = field(default_factory=Same)
    writing: Writing = field(default_factory=Text)
    initial: Initial = field(default_factory=Fresh)
    background: Background = field(default_factory=SameText)
    tuning: Tuning = field(default_factory=Untuned)
    stop: Stop = field(default_factory=AtItsEnd)
    probe: str = "train"
    # where the token stands that a tokenizer puts before a text: before "rows" or "documents", or "none"; "auto" is
    # before rows if the tokenizer puts one before a text
    begin: str = "none"
    special: str = "text"  # "tokens": a special token that a document spells out is that token, no text
    teacher_tokens: str = "teacher"  # the budget of a role as teacher; SALT's is its student's
    vocabulary: str = ""  # the text of which all models' tokenizer is made; "" is what the teacher read first

    def __post_init__(self) -> None:
        one_of("delivery", self.delivery, DELIVERIES)
        one_of("probe", self.probe, ("train", *PROBES))
        one_of("begin", self.begin, BEGINNINGS)
        one_of("special", self.special, READINGS)
        if self.delivery == "cache" and self.target.stored is None:
            raise ValueError(
                f"Target {type(self.target).__name__} cannot be cached: it is not sparse. Use delivery 'online'."
            )
        if self.delivery == "fresh" and type(self.target) not in SAMPLED:
            raise ValueError(
                f"Delivery 'fresh' draws anew each epoch, and {type(self.target).__name__} draws nothing. "
                f"Targets that do: {', '.join(sorted(cls.__name__ for cls in SAMPLED))}."
            )
        if self.teacher == "none" and not isinstance(self.target, OneHot):
            raise ValueError(f"Target {type(self.target).__name__} needs a teacher, and teacher is 'none'.")
        if (unknown := ask_whole(self.positions.signals)) and not isinstance(self.target, Full):
            raise ValueError(NEEDS_WHOLE.format(unknown[0]))
        if self.teacher == "none" and any(reader.what != "student" for reader in self.samples.readers):
            raise ValueError(f"Samples {type(self.samples).__name__} are chosen by a teacher, and teacher is 'none'.")
        if not isinstance(self.hidden, NoHidden) and not isinstance(self.target, Full):
            raise ValueError(
                f"Hidden {type(self.hidden).__name__} needs the teacher's hidden states, which come with target Full "
                f"only, online: {type(self.target).__name__} keeps none. Use target 'Full', or leave hidden out."
            )
        if isinstance(self.schedule, LetGo) and not isinstance(self.target, Full):
            raise ValueError(
                f"Schedule LetGo compares student and teacher on the labels, which {type(self.target).__name__} does "
                "not keep: use target 'Full', or schedule 'TwoStage'."
            )
        if not isinstance(self.initial, Fresh) and self.teacher == "none":
            raise ValueError(f"Initial {type(self.initial).__name__} needs a teacher, and teacher is 'none'.")
        if isinstance(self.initial, Continued) and (isinstance(self.background, SameText) or self.vocabulary == "own"):
            raise ValueError(
                "Initial Continued reads two texts with the tokenizer of a third: name that one as background, as in "
                "{ name = 'OtherText', text = ... }, and leave vocabulary out."
            )
        if isinstance(self.alignment, Different) and not self.cached:
            raise ValueError(
                "Alignment Different looks targets up in a cache: use a sparse target and delivery 'cache'."
            )
        if isinstance(self.alignment, Different) and self.objective.rewrites:
            raise ValueError(
                f"Alignment Different finds a token by its place in the text, and objective "
                f"{type(self.objective).__name__} rewrites rows: use objective 'NextToken' or 'PrefixLM'."
            )
        if self.teacher_tokens != "teacher" and (self.teacher == "none" or isinstance(self.background, Adapted)):
            why = "has no teacher" if self.teacher == "none" else "says by background how long its teacher was adapted"
            raise ValueError(
                f"teacher_tokens is {self.teacher_tokens!r}, and the recipe {why}: leave teacher_tokens out."
            )
        if isinstance(self.alignment, Different) and self.begin in ("rows", "auto"):
            raise ValueError(
                f"Alignment Different finds a token by its place in the text, and begin {self.begin!r} puts one before "
                "each row that has none: use begin 'documents' or 'none'."
            )
        if self.writing.written:
            refuse_writing(self)
        if isinstance(self.tuning, Instructed) and self.measurement and not self.measurement.tuned:
            raise ValueError(f"Probe {self.probe!r} measures distillation, which tuning does not change: leave it out.")

    @property
    def cached(self) -> bool:
        return self.target.stored is not None and self.delivery in ("auto", "cache") and not self.writing.written

    @property
    def uses_teacher(self) -> bool:
        """Whether training itself, not only evaluation, needs the teacher's distribution."""
        return not isinstance(self.target, OneHot)

    @property
    def training_recipe(self) -> Recipe:
        """The recipe of the training steps themselves: this one or, of a tuned student, that of its tuning."""
        if isinstance(self.tuning, Untuned):
            return self
        text, tokens = self.tuning.text, self.tuning.tokens
        return Recipe(self.student, "none", tokens, text, target=OneHot(), positions=Responses())

    @property
    def measurement(self) -> Measurement | None:
        """What is known of its probe; None of a training."""
        return PROBES.get(self.probe)

    @property
    def reads_cache(self) -> bool:
        """Whether the run itself does, not one that it builds on."""
        return self.training_recipe.cached and (self.measurement is None or self.measurement.cache)


AXES: dict[str, dict[str, Any]] = {
    "objective": OBJECTIVES,
    "target": TARGETS,
    "divergence": DIVERGENCES,
    "hidden": HIDDEN,
    "positions": POSITIONS,
    "samples": SAMPLES,
    "schedule": SCHEDULES,
    "alignment": ALIGNMENTS,
    "writing": WRITINGS,
    "initial": INITIALS,
    "background": BACKGROUNDS,
    "tuning": TUNINGS,
    "stop": STOPS,
}


def parse(stated: dict[str, Any]) -> Recipe:
    """A recipe from what a TOML table states; the rest are defaults. Raises ValueError, one line, for unknown words."""
    known = {item.name for item in fields(Recipe)}
    values: dict[str, Any] = {}
    for key, value in stated.items():
        if key not in known:
            raise ValueError(
                f"Unknown recipe field {key!r}{suggestion(key, known)}. Known: {', '.join(sorted(known))}."
            )
        values[key] = method(key, value) if key in AXES else text(key, value)
        if key in MODELS:
            values[key] = os.path.expanduser(values[key])  # "~", as a shell has it
    return Recipe(**values)


def method(axis: str, stated: Any) -> Any:
    """The axis value that "TopK" or {name = "TopK", k = 12} names."""
    stated = {"name": stated} if isinstance(stated, str) else dict(stated)
    name, known = stated.pop("name", None), AXES[axis]
    if name not in known:
        raise ValueError(f"Unknown {axis} {name!r}{suggestion(str(name), known)}. Known: {', '.join(sorted(known))}.")
    return made(known[name], stated)


def made(cls: Any, stated: dict[str, Any]) -> Any:
    """The dataclass with these fields. ValueError, one line, for unknown, missing or ill-typed ones."""
    wanted = {item.name: item for item in fields(cls)}
    values = dict(stated)
    for key, value in stated.items():
        if key not in wanted:
            raise ValueError(f"{cls.__name__} has no field {key!r}. Its fields: {', '.join(wanted) or 'none'}.")
        kind = str(wanted[key].type)
        if kind in KINDS and (isinstance(value, bool) or not isinstance(value, KINDS[kind])):
            raise ValueError(f"{cls.__name__}.{key} is {value!r}; a {kind} is wanted.")
        values[key] = float(value) if kind == "float" else value  # 2 and 2.0 are one recipe
    for key, item in wanted.items():
        if item.default is MISSING and key not in stated:
            raise ValueError(f"{cls.__name__} needs {key!r}: write {{ name = {cls.__name__!r}, {key} = ... }}.")
    return cls(**values)


def text(key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"Recipe field {key!r} is {value!r}; text is wanted, in quotes.")
    return value


def refuse_writing(recipe: Recipe) -> None:
    """ValueError, one line, where what a model writes goes with another axis badly."""
    name = type(recipe.writing).__name__
    if recipe.teacher == "none":
        raise ValueError(f"Writing {name} needs a teacher, and teacher is 'none'.")
    if not isinstance(recipe.objective, NextToken):
        raise ValueError(
            f"Writing {name} says itself which tokens are predicted: use objective 'NextToken', not "
            f"{type(recipe.objective).__name__!r}."
        )
    if recipe.delivery not in ("auto", "online"):
        raise ValueError(
            f"Writing {name} asks the teacher about tokens that no cache has: use delivery 'auto' or 'online', not "
            f"{recipe.delivery!r}."
        )
    if recipe.writing.anew and not recipe.uses_teacher:
        raise ValueError(
            f"Writing {name} asks the teacher about what its student wrote, and OneHot keeps nothing of the teacher: "
            "use another target, such as 'Full'."
        )
    if recipe.writing.anew and recipe.schedule(0.0)[1] > 0:
        raise ValueError(
            f"Writing {name} with cross-entropy teaches the student its own words: use a schedule of ce_weight 0."
        )
    plain = Recipe(recipe.student, recipe.teacher)
    decided = ("target", "divergence", "hidden", "positions", "schedule")
    if isinstance(recipe.writing, MiniLLM) and any(getattr(recipe, axis) != getattr(plain, axis) for axis in decided):
        raise ValueError(f"Writing MiniLLM is a loss of its own: leave {', '.join(decided)} out.")


def seeds(given: str | list[str]) -> list[int]:
    """Seeds as "0,1,2", or as several such words."""
    words = " ".join([given] if isinstance(given, str) else given).replace(",", " ").split()
    if not words or not all(word.isdecimal() for word in words):
        raise ValueError(f"Seeds are {given!r}; give whole numbers, such as 0,1,2.")
    return sorted({int(word) for word in words})


def read(path: Path) -> dict[str, Any]:
    """The tables of a recipe file. Raises ValueError naming the file for anything that is not a readable TOML file."""
    try:
        return tomllib.loads(path.expanduser().read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"Cannot read the recipe {path}: {error}.") from None
