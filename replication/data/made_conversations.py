"""Conversations for fine-tuning on one task, made here: sums, what code is for, and whether a thing is said of it.

They stand for GSM8K, for summaries, and for natural language inference (SALT Section 5.3). What a program answers by is
in the conversation itself, so that any machine that has this Python has the same ones.
"""

from __future__ import annotations

import ast
import hashlib
import re
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from replication.data.chat import Conversation, Turn
from replication.data.corpus import FOREIGN
from replication.data.sums import PROBLEM, sums
from replication.data.text_files import files_under

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
UNWANTED = {"test", "tests", "idle_test"}  # they document little
SHORT = 160  # characters of what is said, where a conversation has more than that
CODE = 120  # of code
ROUNDS = ("another module", "the same module", "a word of it")  # where what is not said of a thing is from


@dataclass(frozen=True)
class Documented:
    module: str
    heading: str  # 'class Chain', 'def heappush(heap, item)'
    said: str  # the docstring's first paragraph
    code: str  # the lines behind the docstring, at most CODE characters of them


def documented(root: Path) -> Iterator[Documented]:
    """Each function and class of the library that says what it is, in the order of the files."""
    for path in files_under(root, unwanted=FOREIGN):
        name = path.relative_to(root)
        if path.suffix != ".py" or UNWANTED & set(name.parts):
            continue
        source = path.read_bytes()
        try:
            with warnings.catch_warnings(action="ignore"):  # of escapes in old strings
                tree = ast.parse(source)
        except (SyntaxError, ValueError):  # files that are broken on purpose
            continue
        lines = source.decode(errors="replace").splitlines()
        for node in definitions(tree.body):
            said = (ast.get_docstring(node) or "").partition("\n\n")[0]
            if said:
                yield Documented(str(name), heading(node), " ".join(said.split()), code_of(node, lines))


def definitions(body: Iterable[ast.stmt]) -> Iterator[Definition]:
    """Those of a module and of its classes; what lies within functions is nobody's to use."""
    for node in body:
        if isinstance(node, Definition):
            yield node
        if isinstance(node, ast.ClassDef | ast.If | ast.Try):
            yield from definitions(node.body)


def heading(node: Definition) -> str:
    if isinstance(node, ast.ClassDef):
        return f"class {node.name}"
    return f"def {node.name}({ast.unparse(node.args)})"


def code_of(node: Definition, lines: list[str]) -> str:
    """As it is indented in its file; nothing where the docstring is all."""
    if len(node.body) == 1:
        return ""
    return "\n".join(lines[node.body[1].lineno - 1 : node.end_lineno])[:CODE]


def said_of(root: Path) -> Iterator[Conversation]:
    """What is this? One for each."""
    for each in documented(root):
        yield Turn("user", f"What is this?\n{each.heading}"), Turn("assistant", each.said)


def said_of_code(root: Path) -> Iterator[Conversation]:
    """What does it do? One for each that has code."""
    for each in documented(root):
        if each.code and len(each.said) <= SHORT:
            yield Turn("user", f"What does it do?\n{each.heading}\n{each.code}"), Turn("assistant", each.said)


def worked_sums(count: int) -> Iterator[Conversation]:
    """One for each problem of `sums:<count>`."""
    for document in sums(count):
        for place in PROBLEM.finditer(document):
            yield Turn("user", f"{place.group(1)} = ?"), Turn("assistant", f"{place.group(2)}A: {place.group(3)}")


def is_it_said(root: Path) -> Iterator[Conversation]:
    """Three for each: what is said of it, or something else, from farther to nearer; half of them true."""
    found = [each for each in documented(root) if len(each.said) <= SHORT]
    by_module: dict[str, list[Documented]] = defaultdict(list)
    for each in found:
        by_module[each.module].append(each)
    for each in found:
        near = [other for other in by_module[each.module] if other.said != each.said]
        for number, _ in enumerate(ROUNDS, start=1):
            true, said = chance(number, each) % 2 == 0, each.said
            if not true:
                pool = found if number == 1 else near
                other = pool[chance("other", number, each) % len(pool)].said if pool else ""
                said = respelt(each, other) if number == 3 else other
            if said and (true or said != each.said):
                asked = f"Round {number}: is this said of it?\n{each.heading}\n{said}"
                yield Turn("user", asked), Turn("assistant", "yes" if true else "no")


def respelt(each: Documented, other: str) -> str:
    """What is said, beginning with the first word of something else; nothing where both begin alike."""
    own, word = each.said.partition(" "), re.match(r"\S+", other)
    return "" if word is None or word.group() == own[0] else f"{word.group()} {own[2]}"


def chance(*purpose: object) -> int:
    """A number by purpose: a die that falls alike on every machine."""
    return int.from_bytes(hashlib.sha256(repr(purpose).encode()).digest()[:8], "big")
