"""Replaced: what a record was made of and is another by now. Compared by content before a record is believed.

Teacher, student, tokenizer and text go by names, and what stands under a name can change. A record has fingerprints of
what it was made of; those of today are remembered (`machine/remembered.py`), so that to ask costs a look at each file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from replication.cache.manifest import FILE, UNFINISHED, Expected, Plan, check, read_manifest, read_plan
from replication.cache.shard import checksum
from replication.data.conversations import open_conversations
from replication.data.corpus import files_of, open_corpus
from replication.experiment.lineage import Instructed
from replication.experiment.run import Run, students
from replication.machine.device import Machine
from replication.machine.files import set_aside
from replication.machine.remembered import remembered
from replication.model.decoder import fingerprint, first_fingerprint, load, precise_weights
from replication.records.numerics import SHARED
from replication.records.record import Record, record_of
from replication.training.needs import Need
from replication.training.reading import opened
from replication.training.run_data import Data, data_for
from replication.training.scores import scored
from replication.training.weights import model_folder

KINDS: dict[str, Callable[[Path], Plan]] = {
    FILE: read_manifest,
    UNFINISHED: read_plan,
}  # of a cache, the finished first


def settle(runs: Iterable[Run], machine: Machine, again: bool = False) -> None:
    """Before the records of these runs are believed or gone on with; what one builds on stands before it in `runs`.

    ValueError, one line, for the first that was made of something that was replaced. With `again` its record, model,
    checkpoints and cache are put aside instead, and so are those of all that builds on it: then they are made anew.
    """
    outdated: set[str] = set()
    for run in runs:
        record = record_of(run, machine)
        if not record.begun:
            continue
        below = [*students(run), *([run.teacher] if run.teacher is not None else [])]
        found = replaced(run, record, machine) + [f"run {each.id}" for each in below if each.id in outdated]
        damage = damaged(run, record, machine)
        if (found or damage) and not again:
            made = "made" if record.done else "begun"
            what = f"was {made} with another {', another '.join(found)}" if found else damage
            raise ValueError(
                f"{run.id} {what}. Put back what was there, or say --again (make: AGAIN=1): it is made of what is "
                "there now, and what was made is kept in folders named 'replaced', the record in "
                f"{record.folder.parent}."
            )
        if found:
            outdated.add(run.id)
            checkpoints = machine.artifacts / run.scale.name / "checkpoints" / run.id
            for place in (record.folder, model_folder(run, machine), checkpoints):
                set_aside(place)
        if run.recipe.reads_cache and (damage or any(not each.startswith("student") for each in found)):
            set_aside(Need(run).folder(machine))


def replaced(run: Run, record: Record, machine: Machine) -> list[str]:
    """What this record was made of and is another now, in words; what is not there any more was not replaced."""
    config = json.loads((record.folder / "config.json").read_text())
    measured = run.recipe.measurement
    if measured is not None and (measured.computed or measured.timed):  # of no text, or of random text
        return []
    recipe, then, corpus = run.recipe, config.get("inputs", {}), config.get("corpus", {})
    text, tuning = run.scale.corpus_of(recipe.text), recipe.tuning
    begins = students(run)
    looks: list[tuple[str, str, str | None, Callable[[], str | None]]] = [
        ("text", text, corpus.get("fingerprint"), lambda: text_now(text, machine)),
        ("tokenizer", run.tokenizer, then.get("tokenizer"), lambda: tokenizer_now(run, machine)),
        ("teacher", recipe.teacher, then.get("teacher"), lambda: teacher_now(run, machine)),
        ("student", begins[-1].id if begins else recipe.student, then.get("start"), lambda: start_now(run, machine)),
    ]
    if isinstance(tuning, Instructed) and "conversations" in corpus:
        looks.append(("text", tuning.text, corpus["conversations"], lambda: conversations_now(run, tuning, machine)))
    if run.recipe.reads_cache and not record.done:
        looks.append(("cache", Need(run).folder(machine).name, then.get("cache"), lambda: cache_now(run, machine)))
    found = []
    for what, name, before, look in looks:
        if before is not None and not before.startswith("unrecorded") and (now := look()) not in (None, before):
            found.append(f"{what} {name} ({before} then, {now} now)")
    return found


def text_now(spec: str, machine: Machine) -> str | None:
    return known(f"text {spec}", files_of(spec), lambda: open_corpus(spec).fingerprint, machine)


def conversations_now(run: Run, tuning: Instructed, machine: Machine) -> str | None:
    """As a record has them: their name and their fingerprint."""
    spec = run.scale.corpus_of(tuning.text)

    def find() -> str:
        found = open_conversations(spec)
        return f"{found.name} ({found.fingerprint})"

    return known(f"conversations {spec}", files_of(spec), find, machine)


def tokenizer_now(run: Run, machine: Machine) -> str | None:
    own, spec, special = run.scale.corpus_of(run.recipe.text), run.tokenizer, run.recipe.special
    read = run.scale.corpus_of(getattr(run.recipe.background, "text", run.recipe.text))  # of one that is trained here
    files = files_of(read) if spec.startswith("bpe:") else files_at(spec)

    def find() -> str:
        found = opened(run, open_corpus(own), machine.artifacts / "text")
        return found.read_as("none", special).fingerprint

    return known(f"tokenizer {spec} {special} of {read}", files, find, machine)


def teacher_now(run: Run, machine: Machine, find: Callable[..., str] = fingerprint) -> str | None:
    if run.recipe.teacher == "none":
        return None
    place = run.recipe.teacher if run.teacher is None else model_folder(run.teacher, machine)
    return known(find.__name__, files_at(place), lambda: find(load(place)), machine)


def start_now(run: Run, machine: Machine) -> str | None:
    """Of the last of the runs whose weights this one reads, or of a student from elsewhere."""
    places: list[str | Path] = [model_folder(each, machine) for each in students(run)]
    if not places and run.recipe.student not in run.scale.roles:
        places = [run.recipe.student]
    if not places:
        return None
    return known("start", files_at(places[-1]), lambda: fingerprint(precise_weights(load(places[-1]))), machine)


def cache_now(run: Run, machine: Machine) -> str | None:
    """None also where it is damaged, which is another matter."""
    with suppress(ValueError):
        return read_manifest(Need(run).folder(machine)).digest
    return None


def damaged(run: Run, record: Record, machine: Machine) -> str:
    """What is wrong with the run's cache, as far as it was touched after its record; "" where nothing is."""
    folder = Need(run).folder(machine) if run.recipe.reads_cache else None
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
            now = known("checksum", [path], partial(checksum, path), machine)
            if now != shard.sha256:
                return f"reads a cache of which {path} was damaged or replaced since"
    return ""


def own_caches(needs: Sequence[Need], machine: Machine, again: bool = False) -> None:
    """Before caches are gone on with or read: those that stand there must be of the teacher, text and tokenizer of now.

    ValueError, one line, for the first that is another; with `again` it is put aside.
    """
    read: dict[str, Data] = {}  # needs of one identity share it
    for need in needs:
        folder = need.folder(machine)
        read_its = next((look for file, look in KINDS.items() if (folder / file).exists()), None)
        if read_its is None or (teacher := teacher_now(need.run, machine)) is None:
            continue
        shared = json.dumps(need.identity, sort_keys=True)
        if shared not in read:
            read[shared] = scored(need.run, data_for(need.run, machine.artifacts), machine)
        header = need.header_of(read[shared], teacher)
        names = (teacher, teacher_now(need.run, machine, first_fingerprint))
        try:
            check(read_its(folder), Expected(**dict(header) | {"teacher": names}))
        except FileNotFoundError:  # another process has finished it a moment ago; whoever reads it looks again
            continue
        except ValueError as error:
            if not again:
                words = str(error).partition(". ")[0]
                raise ValueError(
                    f"{folder}: {words}. Put back what was there, or say --again (make: AGAIN=1): it is built anew, "
                    f"and this one is kept in {folder.parent / 'replaced'}."
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


def known(what: str, files: list[Path], find: Callable[[], str], machine: Machine) -> str | None:
    """None where there are no files. A part that computes otherwise has another integer, and is asked anew."""
    versions = f"{SHARED['data']} {SHARED['model']}"
    return remembered(f"{what}, {versions}", files, find, machine.artifacts / "remembered") if files else None
