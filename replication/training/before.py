"""Before: what can be known of a run's models, tokenizer and text before any work is done, and what would stop it.

A check looks at one thing and gives one line that says what came, what is possible and what to do; or None. A new one
is a function more in CHECKS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from transformers import PretrainedConfig

from replication.axes.hidden import NoHidden
from replication.data import pretrained
from replication.data.conversations import open_conversations
from replication.data.corpus import at_hand
from replication.data.tokenizer import Tokenizer, given_tokenizer
from replication.experiment.lineage import FromTeacherLayers, Instructed
from replication.experiment.recipe import Different
from replication.experiment.run import Run
from replication.experiment.scale import CHECKPOINT
from replication.experiment.suggestion import suggestion
from replication.model.decoder import configured, fingerprint, load
from replication.model.initialise import refuse_misfit
from replication.model.outline import Outline, outline
from replication.model.trainable import trainable


@dataclass(frozen=True)
class Seen:
    """A run's models and tokenizer as they are found. Asking for one that cannot be had is a ValueError."""

    run: Run

    @cached_property
    def teacher(self) -> Outline | None:
        """None where there is none, or the suite trains it."""
        return self.from_elsewhere(self.run.recipe.teacher)

    @cached_property
    def student(self) -> Outline | None:
        """None where it begins with random weights."""
        return self.from_elsewhere(self.run.recipe.student)

    def from_elsewhere(self, name: str) -> Outline | None:
        return None if name in ("none", *self.run.scale.roles) else outline(name)

    @property
    def models(self) -> dict[str, Outline]:
        """Those from elsewhere."""
        found = {"teacher": self.teacher, "student": self.student}
        scorers = {what: name for what, name in self.run.scorers.items() if isinstance(name, str)}
        found |= {what: self.from_elsewhere(name) for what, name in scorers.items() if what != "teacher"}
        return {what: model for what, model in found.items() if model is not None}

    @cached_property
    def tokenizer(self) -> Tokenizer | None:
        """None where it is made of the text."""
        return None if self.run.tokenizer.startswith("bpe:") else given_tokenizer(self.run.tokenizer)

    def settings_of(self, name: str) -> PretrainedConfig:
        """The configuration of a model from elsewhere, or of a role as it would be built."""
        if name not in self.run.scale.roles:
            return outline(name).config
        classes = 1 if self.teacher is None else self.teacher.classes  # none of which matters between two roles
        return configured(self.run.scale.role(name), classes, self.run.length, 0)


Check = Callable[[Seen], str | None]


def named(seen: Seen) -> str | None:
    """A teacher that is nearly a role is meant as one: as a Hugging Face name it would not be found."""
    name, roles = seen.run.recipe.teacher, seen.run.scale.roles
    if name in ("none", *roles) or "/" in name or Path(name).exists():
        return None
    near = suggestion(name, roles)
    return near and (
        f"Teacher {name!r} is no role of scale {seen.run.scale.name!r}{near}. Known: {', '.join(roles)}; {CHECKPOINT}."
    )


def readable(seen: Seen) -> str | None:
    """Its models are there, and of a kind that can be read, and so is the tokenizer that they bring."""
    _ = seen.models and seen.tokenizer
    return None


def long_enough(seen: Seen) -> str | None:
    """Every row that a model reads is one that it can read."""
    run, alignment = seen.run, seen.run.recipe.alignment
    if run.recipe.measurement and run.recipe.measurement.computed:
        return None
    known = {what: (model.name, model.family, model.reach) for what, model in seen.models.items()}
    if (role := run.scale.roles.get(run.recipe.teacher)) is not None:  # which is trained at its own length
        known["teacher"] = run.recipe.teacher, role.family, run.scale.length(role.length)
    for what, (name, family, reach) in known.items():
        also = [alignment.teacher_length] if what == "teacher" and isinstance(alignment, Different) else []
        word = max([run.role.length, *also], key=run.scale.length)
        rows = run.scale.length(word)
        if reach is not None and reach < rows:
            return (
                f"The {what} {name!r} ({family}) reads at most {reach:,} tokens, and rows of scale "
                f"{run.scale.name!r} have {rows:,}. Give a model that reads as many, or shorter rows: a copy of "
                f"the scale's file (replication/experiment/scales) with {word!r} = {reach} under "
                "[lengths], for --scale."
            )
    return None


def wide_enough(seen: Seen) -> str | None:
    """Every token is a class of each model, but for tokens added beside it, of which only the text can tell."""
    for what, model in seen.models.items():
        if seen.tokenizer is not None and (lacking := seen.tokenizer.beyond(model.classes)):
            return (
                f"The {what} {model.name!r} has {model.classes:,} output classes, and tokenizer {seen.run.tokenizer!r} "
                f"{seen.tokenizer.vocabulary:,} tokens: it cannot predict {len(lacking):,} of them, the first "
                f"{lacking[0]!r}. " + narrower(what, seen)
            )
    return None


def narrower(what: str, seen: Seen) -> str:
    if what == "student" and seen.teacher is not None:
        return "Give a student of the teacher's tokenizer, or a role of the scale, which is made as wide as needed."
    return (
        "Give its folder the tokenizer that it was trained with, or widen the model (resize_token_embeddings, then "
        "save_pretrained)."
    )


def begins(seen: Seen) -> str | None:
    """A student that begins with its teacher's layers has room for them."""
    recipe = seen.run.recipe
    if isinstance(recipe.initial, FromTeacherLayers):
        if seen.student is not None:
            return (
                f"Initial FromTeacherLayers and student {recipe.student!r}, a checkpoint, both say where the student "
                "begins: give a role of the scale as student, or leave initial out."
            )
        refuse_misfit(seen.settings_of(recipe.student), seen.settings_of(recipe.teacher))
    return None


def as_wide(seen: Seen) -> str | None:
    """Hidden states are compared between models of one width."""
    recipe = seen.run.recipe
    if isinstance(recipe.hidden, NoHidden):
        return None
    names = recipe.student, recipe.teacher
    widths = [seen.settings_of(name).get_text_config(decoder=True).hidden_size for name in names]
    if widths[0] == widths[1]:
        return None
    return (
        f"Hidden {type(recipe.hidden).__name__} compares states of one width: the student's is {widths[0]}, its "
        f"teacher's {widths[1]}. Use a student as wide as its teacher, or leave hidden out."
    )


def sentinels(seen: Seen) -> str | None:
    """An objective that takes tokens out of a row has tokens by which to mark their places."""
    if seen.run.recipe.training_recipe.objective.rewrites:
        _ = seen.tokenizer and seen.tokenizer.sentinels
    return None


def text_at_hand(seen: Seen) -> str | None:
    """Files of text are there. Conversations, which a run reads last, are read."""
    recipe, scale = seen.run.recipe, seen.run.scale
    at_hand(scale.corpus_of(recipe.text))
    if isinstance(recipe.tuning, Instructed) and (spec := scale.corpus_of(recipe.tuning.text)).startswith("path:"):
        open_conversations(spec)
    return None


CHECKS: tuple[Check, ...] = (named, readable, long_enough, wide_enough, begins, as_wide, sentinels, text_at_hand)


def refusals(run: Run, checks: tuple[Check, ...] = CHECKS) -> Iterator[str]:
    """A line for each thing that would stop the run."""
    seen, said = Seen(run), set[str]()
    for check in checks:
        try:
            line = check(seen)
        except ValueError as error:
            line = str(error)
        if line and line not in said:  # a model that cannot be read fails more checks than one
            said.add(line)
            yield line


def open_models(run: Run) -> None:
    """Reads the weights of models from elsewhere. ValueError now for what would be found when a cache is built."""
    seen = Seen(run)
    if seen.student is not None and run.start is None:
        tokens = seen.tokenizer
        trainable(load(run.recipe.student), seen.student.classes if tokens is None else tokens.vocabulary)
    if seen.teacher is not None:
        load(run.recipe.teacher)


def fingerprint_at(name: str) -> str:
    """Reads all weights."""
    return fingerprint(load(name))


def specials_at(name: str) -> str:
    """A model's special tokens, in words."""
    return pretrained.specials(pretrained.loaded(name))
