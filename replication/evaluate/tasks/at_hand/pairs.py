"""Pairs: a line as it stands, and the same line with one thing wrong (after BLiMP, Warstadt et al. 2020, WinoGrande).

What both have in common up to the first difference is context, so that only the difference and what follows is judged.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from replication.evaluate.tasks.at_hand.held_out import Document
from replication.evaluate.tasks.at_hand.item import Item, chance, choice
from replication.evaluate.tasks.at_hand.names import NAME, names_in

CONTEXT = 96  # characters before the line
NEAR = 3  # characters by which one name may be longer than the other
FAR = 16  # characters between a bracket and its counterpart
ARGUMENTS = re.compile(r"\(([A-Za-z_][A-Za-z0-9_.]*), ([A-Za-z_][A-Za-z0-9_.]*)(?=[,)])")
WORDS = re.compile(r"(?<![^ ])([A-Za-z]{2,}) ([A-Za-z]{2,})(?![^ ,.;:])")
PROSE = 5  # words in a row, of a line whose order is asked for
MARK = re.compile(r"[^A-Za-z0-9\s]")
OPENING = {")": "(", "]": "[", "}": "{"}
# each one may stand where another of its group stands
GROUPS = (("and", "or"), ("if", "for", "while"), ("True", "False"), ("return", "raise", "yield"), ("def", "class"),
          ("in", "is"), ("import", "from"), ("except", "finally"), ("break", "continue"), ("elif", "else"))  # fmt: skip
SWAPS = {word: [other for other in group if other != word] for group in GROUPS for word in group}
KEYWORD = re.compile(r"(?<![A-Za-z0-9_.])(?:" + "|".join(sorted(SWAPS)) + r")(?![A-Za-z0-9_])")
LEAVES = re.compile(r" *(?:return|raise|continue|break|pass)\b")
# what follows the lines before up to the difference; the right rest, and the wrong one
Spoilt = tuple[str, str, str] | None


def pairs(document: Document) -> Iterator[Item]:
    """Of a line at most one of each kind: `KINDS`."""
    for last, line in pairwise(document.lines):
        if not line.new:
            continue
        before = document.before(last.end, CONTEXT)
        words = document.words(line)
        for kind, spoil in KINDS.items():
            found = spoil(before, document.text[last.end : line.start], words)
            if found is not None:
                context, right, wrong = found
                yield choice("pairs", before + context, right, [wrong], kind)


def variable(before: str, gap: str, words: str) -> Spoilt:
    """A name of what comes before is another one of it, alike in form."""
    known = names_in(before)
    own = set(names_in(words))
    places = [found for found in NAME.finditer(words) if len(found.group()) > 1 and found.group() in known]
    if not places:
        return None
    place = places[chance("variable", before, words) % len(places)]
    right = place.group()
    others = [
        name
        for name in known
        if name not in own and abs(len(name) - len(right)) <= NEAR and form(before, name) == form(before, right)
    ]
    if not others:
        return None
    other = others[chance("other name", before, words) % len(others)]
    return split(gap, words, place.start(), place.end(), other)


def form(text: str, name: str) -> tuple[bool, bool, bool]:
    """Whether it begins with a capital, comes after a dot, is called."""
    place = text.find(name)
    return name[:1].isupper(), text[place - 1 : place] == ".", text[place + len(name) :][:1] == "("


def arguments(before: str, gap: str, words: str) -> Spoilt:
    """The first two arguments of a call stand in the other order."""
    found = ARGUMENTS.search(words)
    if found is None or found.group(1) == found.group(2):
        return None
    return split(gap, words, found.start(1), found.end(2), f"{found.group(2)}, {found.group(1)}")


def order(before: str, gap: str, words: str) -> Spoilt:
    """Two neighbouring words of prose stand in the other order."""
    found = [place for place in WORDS.finditer(words) if place.group(1).lower() != place.group(2).lower()]
    if len(re.findall(r"(?<![^ ])[A-Za-z]{2,}(?![^ ,.;:])", words)) < PROSE or not found:
        return None
    place = found[chance("order of words", before, words) % len(found)]
    return split(gap, words, place.start(), place.end(), f"{place.group(2)} {place.group(1)}")


def indentation(before: str, gap: str, words: str) -> Spoilt:
    """After a colon that opens a block the line is not indented, or after one that leaves a block it still is."""
    previous = before.rsplit("\n", 1)[-1]
    outer, own = margin(previous), margin(words)
    enters = previous.endswith(":") and own > outer
    leaves = bool(LEAVES.match(previous)) and balanced(previous) and own < outer
    if "\n" not in gap or not (enters or leaves):
        return None
    return "", gap + words, gap + " " * outer + words.strip()


def margin(words: str) -> int:
    return len(words) - len(words.lstrip(" "))


def balanced(words: str) -> bool:
    return all(words.count(one) == words.count(other) for other, one in OPENING.items())


def bracket(before: str, gap: str, words: str) -> Spoilt:
    """A bracket that was opened far away is closed by one of another kind."""
    whole, open_at, found = before + gap + words, [], []
    first = len(before) + len(gap)
    for place, letter in enumerate(whole):
        if letter in "([{":
            open_at.append(place)
        elif letter in OPENING and open_at:
            begin = open_at.pop()
            if place >= first and whole[begin] == OPENING[letter] and place - begin >= FAR:
                found.append(place - first)
    if not found:
        return None
    place = found[chance("bracket", before, words) % len(found)]
    others = [letter for letter in OPENING if letter != words[place]]
    return split(gap, words, place, place + 1, others[chance("other bracket", before, words) % len(others)])


def keyword(before: str, gap: str, words: str) -> Spoilt:
    """A keyword is another one that may stand there."""
    found = list(KEYWORD.finditer(words))
    if not found or not code(words):
        return None
    place = found[chance("keyword", before, words) % len(found)]
    others = SWAPS[place.group()]
    return split(gap, words, place.start(), place.end(), others[chance("other keyword", before, words) % len(others)])


def code(words: str) -> bool:
    """Whether a line has what prose hardly has."""
    return bool(re.search(r"[A-Za-z0-9_](?:\(|\.[a-z_]|\[)| = |:$", words))


def split(gap: str, words: str, start: int, end: int, instead: str) -> tuple[str, str, str]:
    """(up to the difference, right rest, wrong rest). Tokens hold a blank and the word behind it, or several marks in
    a row, so the difference begins with these."""
    cut = start
    if not (words[start] + instead[0]).isalnum():
        while cut and MARK.match(words[cut - 1]):
            cut -= 1
    cut -= words[cut - 1 : cut] == " "
    wrong = words[cut:start] + instead + words[end:]
    if not words[:cut].strip():
        return "", gap + words, gap + words[:cut] + wrong
    return gap + words[:cut], words[cut:], wrong


KINDS = {
    "variable": variable,
    "arguments": arguments,
    "order": order,
    "indentation": indentation,
    "bracket": bracket,
    "keyword": keyword,
}
