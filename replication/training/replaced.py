"""Replaced: what a record was made of and is another by now. Compared by content before a record is believed.

Teacher, student, tokenizer and text go by names, and what stands under a name can change. A record has fingerprints of
what it was made of; those of today are remembered (`machine/remembered.py`), so that to ask costs a look at each file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from replication.cache.manifest import FILE, UNFINISHED, Expected, Plan, check, read_manifest, read_plan
from replication.cache.shard import BUILD, checksum
from replication.data.conversations import open_conversations
from replication.data.corpus import files_of, open_corpus
from replication.experiment.lineage import Instructed
from replication.experiment.run import Run, students
from replication.machine.device import Machine
from replication.machine.files import set_aside
from replication.machine.notes import note
from replication.machine.remembered import remembered
from replication.model.decoder import fingerprint, first_fingerprint, load
from replication.model.trainable import trainable
from replication.records.numerics import SHARED
from replication.records.record import Record, record_of
from replication.training.needs import Need
from replication.training.reading import opened, tokenizer_of
from replication.training.run_data import Data, data_for
from replication.training.scores import scored
from replication.training.weights import model_folder

# what a cache says of itself, a finished one first
KINDS: dict[str, Callable[[Path], Plan]] = {FILE: read_manifest, UNFINISHED: read_plan}


@dataclass(frozen=True)
class Look:
    """At what stands under the names of runs now; at each once."""

    machine: Machine
    seen: dict[str, str | None] = field(default_factory=dict)

    def known(self, what: str, files: Callable[[], list[Path]], find: Callable[[], str]) -> str | None:
        """None where there are no files. A part that computes otherwise has another integer, and is asked anew."""
        if what not in self.seen:
            present, asked = files(), f"{what}, {SHARED['data']} {SHARED['model']}"
            folder = self.machine.artifacts / "remembered"
            self.seen[what] = remembered(asked, present, find, folder) if present else None
        return self.seen[what]


def settle(runs: Iterable[Run], machine: Machine, again: bool = False) -> None:
    """Before the records of these runs are believed or gone on with; what one builds on stands before it in `runs`.

    ValueError, one line, for the first that was made of something that was replaced. With `again` its record, model,
    checkpoints and cache are put aside instead, and so are those of all that builds on it: then they are made anew.
    """
    runs, outdated, look = list(runs), set[str](), Look(machine)
    make_lost_weights_again(runs, machine)
    for run in runs:
        record = record_of(run, machine)
        if not record.begun:
            continue
        found = replaced(run, record, look) + [f"run {each.id}" for each in below(run) if each.id in outdated]
        damage = damaged(run, record, look)
        if (found or damage) and not again:
            raise ValueError(refusal(run, record, found, damage))
        if found:
            outdated.add(run.id)
            checkpoints = machine.artifacts / run.scale.name / "checkpoints" / run.id
            for place in (record.folder, model_folder(run, machine), checkpoints):
                if place.exists():
                    set_aside(place)
        another = damage or any(not each.startswith("student") for each in found)
        if run.recipe.reads_cache and another and (cache := Need(run).folder(machine)).exists():
            set_aside(cache)


def below(run: Run) -> list[Run]:
    """The runs whose weights it reads."""
    read = {each.id: each for each in (*students(run), run.teacher, *run.scorers.values()) if isinstance(each, Run)}
    return list(read.values())


def make_lost_weights_again(runs: Sequence[Run], machine: Machine) -> None:
    """A run is done by its record; where its weights are gone and still wanted, the record is put aside.

    So whoever deletes the artifacts has them made again, and not a refusal.
    """
    for run in reversed(runs):  # a student that is to be made again wants its teacher
        for each in below(run) if not record_of(run, machine).done else []:
            record, folder = record_of(each, machine), model_folder(each, machine)
            if record.done and not (folder / "config.json").exists():
                aside = set_aside(record.folder)
                note(f"{each.id} is made again, since its weights are not in {folder}; its record is kept in {aside}")


def refusal(run: Run, record: Record, found: list[str], damage: str) -> str:
    """One line: what came, and what to do. `found` is what was replaced, `damage` what is wrong with the cache."""
    aside, made = "is kept in folders named 'replaced'", "made" if record.done else "begun"
    if found:
        return (
            f"{run.id} was {made} with another {', another '.join(found)}. Put back what was there, or say "
            "--again (make: AGAIN=1): it is made of what is there now, and what was made "
            f"{aside}, the record in {record.folder.parent}."
        )
    return (
        f"{run.id} reads a cache that was damaged or replaced since: {damage}. Put back what was there, or say --again "
        f"(make: AGAIN=1): where it is still needed it is built again, and this one {aside}."
    )


def replaced(run: Run, record: Record, look: Look) -> list[str]:
    """What this record was made of and is another now, in words; what is not there any more was not replaced."""
    config = record.config
    measured = run.recipe.measurement
    if measured is not None and (measured.computed or measured.timed):  # of no text, or of random text
        return []
    recipe, then, corpus = run.recipe, config.get("inputs", {}), config.get("corpus", {})
    text, tuning = run.scale.corpus_of(recipe.text), recipe.tuning
    begins = students(run)
    looks: list[tuple[str, str, str | None, Callable[[], str | None]]] = [
        ("text", text, corpus.get("fingerprint"), lambda: text_now(text, look)),
        ("tokenizer", run.tokenizer, then.get("tokenizer"), lambda: tokenizer_now(run, look)),
        ("teacher", recipe.teacher, then.get("teacher"), lambda: teacher_now(run, look)),
        ("student", begins[-1].id if begins else recipe.student, then.get("start"), lambda: start_now(run, look)),
        *(
            (what, each if isinstance(each, str) else each.id, then.get(what), partial(model_now, each, look))
            for what, each in run.scorers.items()
            if what != "teacher"
        ),
    ]
    if isinstance(tuning, Instructed) and "conversations" in corpus:
        looks.append(("text", tuning.text, corpus["conversations"], lambda: conversations_now(run, tuning, look)))
    if run.recipe.reads_cache and not record.done:
        looks.append(("cache", Need(run).folder(look.machine).name, then.get("cache"), lambda: cache_now(run, look)))
    found = []
    for what, name, before, ask in looks:
        if before is not None and not before.startswith("unrecorded") and (now := ask()) not in (None, before):
            found.append(f"{what} {name} ({before} then, {now} now)")
    return found


def text_now(spec: str, look: Look) -> str | None:
    return look.known(f"text {spec}", lambda: files_of(spec), lambda: open_corpus(spec).fingerprint)


def conversations_now(run: Run, tuning: Instructed, look: Look) -> str | None:
    """As a record has them: their name and their fingerprint."""
    spec = run.scale.corpus_of(tuning.text)

    def find() -> str:
        found = open_conversations(spec)
        return f"{found.name} ({found.fingerprint})"

    return look.known(f"conversations {spec}", lambda: files_of(spec), find)


def tokenizer_now(run: Run, look: Look) -> str | None:
    own, spec, special = run.scale.corpus_of(run.recipe.text), run.tokenizer, run.recipe.special
    read = run.scale.corpus_of(getattr(run.recipe.background, "text", run.recipe.text))  # of one that is trained here

    def find() -> str:
        found = opened(run, open_corpus(own), look.machine.artifacts / "text")
        return found.read_as("none", special).fingerprint

    files = partial(files_of, read) if spec.startswith("bpe:") else partial(files_at, spec)
    return look.known(f"tokenizer {spec} {special} of {read}", files, find)


def teacher_now(run: Run, look: Look, find: Callable[..., str] = fingerprint) -> str | None:
    if run.recipe.teacher == "none":
        return None
    return model_now(run.recipe.teacher if run.teacher is None else run.teacher, look, find)


def model_now(model: Run | str, look: Look, find: Callable[..., str] = fingerprint) -> str | None:
    place = model if isinstance(model, str) else model_folder(model, look.machine)
    return look.known(f"{find.__name__} {place}", lambda: files_at(place), lambda: find(load(place)))


def start_now(run: Run, look: Look) -> str | None:
    """Of the last of the runs whose weights this one reads, or of a student from elsewhere."""
    places: list[str | Path] = [model_folder(each, look.machine) for each in students(run)]
    if not places and not run.scale.trains(run.recipe.student):
        places = [run.recipe.student]
    if not places:
        return None
    place = places[-1]

    def find() -> str:
        corpus = open_corpus(run.scale.corpus_of(run.recipe.text))
        tokenizer = tokenizer_of(run, corpus, look.machine.artifacts / "text")
        return fingerprint(trainable(load(place), tokenizer.vocabulary))  # as `weights.starting_point` makes it

    with suppress(ValueError):  # of a tokenizer that fits no more, which is said, or of weights that cannot be read
        return look.known(f"start {place} for {run.tokenizer}", lambda: files_at(place), find)
    return None


def cache_now(run: Run, look: Look) -> str | None:
    """None also where it is damaged, which is another matter."""
    with suppress(ValueError):
        return read_manifest(Need(run).folder(look.machine)).digest
    return None


def damaged(run: Run, record: Record, look: Look) -> str:
    """What is wrong with the run's cache, as far as it was touched after its record; "" where nothing is."""
    folder = Need(run).folder(look.machine) if run.recipe.reads_cache else None
    if folder is None or not (folder / FILE).exists():
        return ""
    since = (record.folder / ("summary.json" if record.done else "config.json")).stat().st_mtime
    try:
        shards = read_manifest(folder).shards
    except ValueError as error:
        return f"reads a cache that was damaged: {str(error).rstrip('.')}"
    for shard in shards:
        path = folder / shard.file
        if path.exists() and max(path.stat().st_mtime, path.stat().st_ctime) > since:
            now = look.known(f"checksum {path}", partial(list, [path]), partial(checksum, path))
            if now != shard.sha256:
                return f"{path} has not the checksum that its manifest says"
    return ""


def own_caches(needs: Sequence[Need], machine: Machine, again: bool = False) -> None:
    """Before caches are gone on with or read: those that stand there must be of the teacher, text and tokenizer of now.

    ValueError, one line, for the first that is another; with `again` it is put aside.
    """
    read: dict[str, Data] = {}  # needs of one identity share it
    look = Look(machine)
    for need in needs:
        folder = need.folder(machine)
        read_its = next((reader for file, reader in KINDS.items() if (folder / file).exists()), None)
        if read_its is None or (teacher := teacher_now(need.run, look)) is None:
            continue
        shared = json.dumps(need.identity, sort_keys=True)
        if shared not in read:
            read[shared] = scored(need.run, data_for(need.run, machine.artifacts), machine)
        header = need.header_of(read[shared], teacher)
        try:
            found = read_its(folder)
            older = () if found.header.teacher == teacher else (teacher_now(need.run, look, first_fingerprint),)
            check(found, Expected(**dict(header) | {"teacher": (teacher, *older)}))
            if older:
                note(f"{folder} was written when only weights counted: its teacher's configuration is taken on trust")
        except FileNotFoundError:  # another process has finished it a moment ago; whoever reads it looks again
            continue
        except ValueError as error:
            if not again:
                words = str(error).partition(". ")[0]
                raise ValueError(
                    f"{folder}: {words}. Put back what was there; or build a cache for this run (the other one is kept "
                    f"beside it): {BUILD}, or say --again (make: AGAIN=1)."
                ) from None
            set_aside(folder)


def files_at(name: str | Path) -> list[Path]:
    """Of a tokenizer's file, of a checkpoint's folder, or of a name on the hub that was loaded here before."""
    place = Path(name).expanduser()
    if place.is_file():
        return [place]
    if not place.is_dir():
        import huggingface_hub

        try:
            stored = huggingface_hub.try_to_load_from_cache(str(name), "config.json")
        except ValueError:  # no name of the hub's: a folder that is not there any more
            return []
        if not isinstance(stored, str):
            return []
        place = Path(stored).parent
    return [path for path in place.iterdir() if path.is_file()]
