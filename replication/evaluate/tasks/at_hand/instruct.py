"""Instruct: write the next line as a comment asks for it, which a program checks (after IFEval, Zhou et al. 2023)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

from replication.evaluate.tasks.at_hand.held_out import Document
from replication.evaluate.tasks.at_hand.item import Item
from replication.evaluate.tasks.at_hand.names import names_in

CONTEXT = 120  # characters, without the instruction
SHORT = 6  # words
LAST = ":,)]}."

# kind -> whether a line is what was asked for; an empty one never is
CHECKS: dict[str, Callable[[str, str], bool]] = {
    "start": lambda line, word: line.startswith(word),
    "format": lambda line, letter: line.endswith(letter),
    "length": lambda line, words: 0 < len(line.split()) <= int(words),
    "forbidden": lambda line, word: bool(line) and word not in line,
}
ASKED = {
    "start": "begins with {}",
    "format": "ends with {}",
    "length": "has at most {} words",
    "forbidden": "does not contain {}",
}


def instruct(document: Document) -> Iterator[Item]:
    """The true next line does what is asked; of it one item of each kind that fits it."""
    for last, line in pairwise(document.lines):
        words = document.words(line)
        if not line.new or "\n" not in document.text[last.end : line.start]:
            continue
        margin, before = words[: len(words) - len(words.lstrip())], document.before(last.end, CONTEXT)
        for kind, argument in fitting(document.words(last), words.strip()).items():
            asked = f"{margin}# The next line {ASKED[kind].format(argument)}."
            # a blank before a word is the word's own
            yield Item(f"{before}\n{asked}\n{margin[:-1]}", (argument,), kind=kind)


def fitting(last: str, line: str) -> dict[str, str]:
    """Kind -> what is asked of this line."""
    found = {}
    own, others = names_in(line), names_in(last)
    if own and line.startswith(own[0]) and own[0] not in others:
        found["start"] = own[0]
    if line[-1] in LAST and not last.endswith(line[-1]):
        found["format"] = line[-1]
    if len(line.split()) <= SHORT < len(last.split()):
        found["length"] = str(SHORT)
    if others and others[0] not in line:
        found["forbidden"] = others[0]
    return found


def obeyed(kind: str, argument: str, written: str) -> bool:
    return CHECKS[kind](written.strip(), argument)
