"""One tokenizer for all models of a run: opened, compared with those that the models bring, set to read as asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from replication.data.corpus import Corpus, open_corpus
from replication.data.tokenizer import Tokenizer, differences, fitted, open_tokenizer
from replication.experiment.lineage import SameText
from replication.experiment.run import Run
from replication.machine.notes import note
from replication.model.outline import outline

# what a checkpoint's folder has of a tokenizer, one of them at least
FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")


def tokenizer_of(run: Run, corpus: Corpus, folder: Path) -> Tokenizer:
    """Of a run over this corpus, as its recipe has it read; `folder` is where one that is trained here lies.

    ValueError, one line, where it cannot be opened, or where a model of the run brings another one.
    """
    found, student, teacher = opened(run, corpus, folder), run.recipe.student, run.teacher
    if not run.scale.trains(student) and student != run.tokenizer:
        if has_tokenizer(student):
            theirs = open_tokenizer(student, corpus, folder)
            refuse_another("student", student, theirs, run, found, corpus)
            found = replace(found, came=theirs.came)  # what the student's checkpoint came with, it is published with
        else:
            note(f"{student} brings no tokenizer: that its classes are the tokens of {run.tokenizer} is taken on trust")
    for what, scorer in run.scorers.items():
        if isinstance(scorer, str) and what != "teacher" and has_tokenizer(scorer):
            refuse_another(what, scorer, open_tokenizer(scorer, corpus, folder), run, found, corpus)
    if teacher is not None and teacher.tokenizer != run.tokenizer:
        read = teacher.recipe.text
        its = corpus if read == run.recipe.text else open_corpus(run.scale.corpus_of(read))
        refuse_another("teacher", run.recipe.teacher, opened(teacher, its, folder), run, found, corpus)
    for width in widths(run):
        found = fitted(found, width, corpus) if width < found.vocabulary else found
    if found.before and run.recipe.begin == "none":
        first = found.backend.decode(list(found.before), skip_special_tokens=False)
        note(f'{run.tokenizer} puts {first} before every text, and this run does not: begin = "auto" has it do so')
    return found.read_as(run.recipe.begin, run.recipe.special)


def opened(run: Run, corpus: Corpus, folder: Path) -> Tokenizer:
    """`corpus` is the run's own; one trained here was made from what the teacher read first."""
    background = run.recipe.background
    if isinstance(background, SameText) or not run.tokenizer.startswith("bpe:"):
        return open_tokenizer(run.tokenizer, corpus, folder)
    return open_tokenizer(run.tokenizer, open_corpus(run.scale.corpus_of(background.text)), folder)


def has_tokenizer(name: str) -> bool:
    """Whether there is one to compare. Of the hub only loading tells."""
    place = Path(name).expanduser()
    return not place.is_dir() or any((place / file).exists() for file in FILES)


def refuse_another(what: str, name: str, theirs: Tokenizer, run: Run, ours: Tokenizer, corpus: Corpus) -> None:
    """ValueError where an id that may occur in a row is another token there."""
    found = list(differences(ours, theirs, corpus))
    if found:
        more = f"{len(found):,} of {max(len(ours.ids), len(theirs.ids)):,} ids differ"
        raise ValueError(
            f"The {what} {name} has another tokenizer than this run, which reads with that of {run.tokenizer}: "
            f"{found[0]} ({more}). Teacher and student must share one: give a {what} that was "
            f"trained with {run.tokenizer}, or leave both to roles of the scale."
        )


def widths(run: Run) -> list[int]:
    """The classes of the run's models from elsewhere."""
    names = (run.recipe.teacher, run.recipe.student)
    return [outline(name).classes for name in names if name != "none" and not run.scale.trains(name)]
