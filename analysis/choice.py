"""Which records may stand in one table: those that give the same value to every fact that both state."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass

from analysis.matching import by_cell
from analysis.records import Record
from paper_tables.spec import Exhibit

Fact = tuple[str, str]  # its kind, and what it is of: ("numerics", "loss"), ("teacher", "3B ...")
Facts = dict[Fact, str]
COMMON = ("scale", "corpus", "products", "shared numerics")  # kinds that a whole table has in common
OWN = ("numerics", "teacher", "tokenizer", "meaning")  # kinds in which one row may differ from the next, in this order
# of a recipe: the scale says what they mean
WORDS = ("student", "teacher", "tokens", "teacher_tokens", "background", "tuning", "probe")
# what a record of another such fact is said to be of
KINDS = {
    "another numerics": ("shared numerics", "numerics"),
    "another teacher": ("teacher",),
    "another tokenizer": ("tokenizer",),
    "another precision": ("products",),
    "another corpus": ("corpus",),
    "another scale": ("scale",),
    "other sizes behind the scale's words": ("meaning",),
}
OF_TEACHER = ("teacher", "teacher_tokens", "teacher_read", "adapted_for")  # of the settings


@dataclass(frozen=True)
class Left:
    """A record that may not stand beside the others."""

    record: Record
    why: str  # "another numerics of loss (0 instead of 1), another teacher"
    briefly: str  # "another numerics and another teacher"


@dataclass(frozen=True)
class Choice:
    """An exhibit's records that may stand in one table, and why each other one may not, in words."""

    kept: list[Record]
    left: list[Left]

    @property
    def notes(self) -> list[str]:
        counts = Counter(each.why for each in self.left)
        return [f"{counts[why]} records left out, never averaged with the others: {why}." for why in sorted(counts)]


def choose(exhibit: Exhibit, records: list[Record]) -> Choice:
    """The group of records that fills most cells, and of it those that agree with the majority in all else."""
    filled: Counter[int] = Counter()
    place = {id(record): at for at, record in enumerate(records)}
    for cell in by_cell(exhibit, records).values():
        filled.update(place[id(record)] for record in cell)
    of = {at: facts(records[at]) for at in sorted(filled, key=lambda at: records[at].run_id)}
    kept = most_filled(of, filled)
    for kind in OWN:
        kept = majority(kept, of, kind)
    union = {fact: value for at in kept for fact, value in of[at].items()}
    left = [leave(records[at], of[at], union) for at in of if at not in kept]
    return Choice([records[at] for at in kept], left)


def facts(record: Record) -> Facts:
    """All that decides what a record may be averaged with. `packing` is none of it: it differs by seed."""
    config = record.config
    found: Facts = {("scale", ""): config.scale, ("corpus", ""): config.corpus.fingerprint}
    if config.precision is not None:
        found["products", ""] = config.precision.products
    for part, number in config.numerics.items():
        found["numerics" if "." in part else "shared numerics", part] = str(number)
    words = [config.recipe.get(key) for key in WORDS]
    found["meaning", json.dumps(words)] = json.dumps(config.settings, sort_keys=True)
    # by what a recipe calls them, since exhibits compare students of several teachers on purpose
    called = [config.recipe.get(key) for key in ("teacher", "background", "text")]
    teacher = [*called, *(config.settings.get(key) for key in OF_TEACHER)]
    tokenizer = [config.recipe.get("text"), config.settings.get("tokenizer")]
    for name, said in (("teacher", teacher), ("tokenizer", tokenizer)):
        if name in config.inputs:
            found[name, json.dumps(said)] = config.inputs[name]
    return found


def most_filled(of: dict[int, Facts], filled: Counter[int]) -> list[int]:
    """The records of the groups that agree in what a table has in common and together fill most cells."""
    members: dict[tuple[tuple[Fact, str], ...], list[int]] = defaultdict(list)
    for at, stated in of.items():
        members[tuple(sorted((fact, value) for fact, value in stated.items() if fact[0] in COMMON))].append(at)
    sizes = {group: sum(filled[at] for at in all_of_it) for group, all_of_it in members.items()}
    ordered = sorted(members, key=lambda group: (-sizes[group], group))
    best: list[tuple[tuple[Fact, str], ...]] = []
    for first in ordered:
        together, joined = dict(first), [first]
        for other in ordered:
            if other != first and agree(dict(other), together):
                together |= dict(other)
                joined.append(other)
        if sum(sizes[group] for group in joined) > sum(sizes[group] for group in best):
            best = joined
    chosen = {at for group in best for at in members[group]}
    return [at for at in of if at in chosen]


def agree(one: Facts, other: Facts) -> bool:
    return all(other.get(fact, value) == value for fact, value in one.items())


def majority(kept: list[int], of: dict[int, Facts], kind: str) -> list[int]:
    """Without the records that state of a fact of this kind what fewer records state."""
    counts: dict[Fact, Counter[str]] = defaultdict(Counter)
    for at in kept:
        for fact, value in of[at].items():
            if fact[0] == kind:
                counts[fact][value] += 1
    common = {fact: max(sorted(values), key=values.__getitem__) for fact, values in counts.items()}
    return [at for at in kept if agree(common, of[at])]


def leave(record: Record, stated: Facts, kept: Facts) -> Left:
    """The record with what sets it apart from those that were kept."""
    other = {fact: (value, kept[fact]) for fact, value in stated.items() if kept.get(fact, value) != value}
    found = {kind for kind, _ in other}
    kinds = [word for word, of in KINDS.items() if found & set(of)]
    return Left(record, apart(other), listed(kinds))


def apart(other: dict[Fact, tuple[str, str]]) -> str:
    """Facts with their value and that of the others, in words: 'another numerics of loss (0 instead of 1)'."""
    numerics: dict[tuple[str, str], list[str]] = defaultdict(list)
    told = []
    for (kind, part), (value, instead) in sorted(other.items()):
        if kind in ("numerics", "shared numerics"):
            numerics[value, instead].append(part)
        elif kind in ("scale", "corpus"):
            told.append(f"{kind} {value} instead of {instead}")
        elif kind == "products":
            told.append(f"products {in_words(value)} where theirs are {in_words(instead)}")
        else:
            told.append(next(word for word, of in KINDS.items() if kind in of))
    parts = [f"another numerics of {listed(sorted(p))} ({v} instead of {i})" for (v, i), p in sorted(numerics.items())]
    return ", ".join([*parts, *dict.fromkeys(told)])


def in_words(products: str) -> str:
    return "of unrecorded precision" if products == "unrecorded" else f"in {products}"


def listed(parts: list[str]) -> str:
    *most, last = parts
    return f"{', '.join(most)} and {last}" if most else last
