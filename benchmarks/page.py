"""A result as a page: the bars, then each part with its plots and its numbers."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from benchmarks import figures, table, words
from benchmarks.bars import Verdict
from benchmarks.result import Result

HERE = Path(__file__).parent
TITLES = {
    "loss": "Head and loss, forward and backward",
    "draws": "Draws from logits",
    "cache": "Sparse targets on disk",
    "training": "Training and caching",
    "writing": "Text that a model writes",
}


def write(result: Result, verdicts: list[Verdict], path: Path) -> Path:
    templates = Environment(
        loader=FileSystemLoader(HERE), undefined=StrictUndefined, autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    parts = []
    for part in result.parts:
        groups = [group for group in result.groups if group.part == part]
        pictures = [(title, Markup(svg)) for title, svg in figures.of_part(groups)]
        parts.append({"title": TITLES[part], "groups": groups, "pictures": pictures})
    text = templates.get_template("page.html.jinja").render(
        result=result, verdicts=verdicts, parts=parts, about=table.about(result), lines=table.lines, words=words
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path
