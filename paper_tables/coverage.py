"""How far the suite has come: what is on file, what runs at which scale, what stays empty and why."""

from __future__ import annotations

from paper_tables.show import aligned, paragraph
from paper_tables.spec import PAPERS, SCALES, Claim, Exhibit, load, names, said


def listing() -> str:
    exhibits = [load(name) for name in names()]
    width = max(len(exhibit.name) for exhibit in exhibits)
    return "\n".join(f"{exhibit.name:{width}}  {exhibit.status:10}  {exhibit.title}" for exhibit in exhibits)


def decidable(exhibit: Exhibit, claim: Claim) -> bool:
    """Whether a run of ours can decide the claim: every row has a recipe and every column is measured."""
    columns = [exhibit.column(key) for key in claim.columns or [claim.column]]
    recipes = all(exhibit.row(label).recipe is not None for label in claim.rows)
    return exhibit.status != "published" and recipes and not any(column.why for column in columns)


def counts() -> list[dict[str, int | str]]:
    """One line per paper, and one for all."""
    lines: list[dict[str, int | str]] = []
    for paper in PAPERS:
        exhibits = [load(name) for name in names() if name.startswith(f"{paper}/")]
        runs = [exhibit for exhibit in exhibits if exhibit.status != "published"]
        claims = [(exhibit, claim) for exhibit in exhibits for claim in exhibit.claims]
        line: dict[str, int | str] = {"Paper": paper}
        for kind in ("table", "figure", "poster"):
            line[f"{kind.capitalize()}s"] = sum(exhibit.kind == kind for exhibit in exhibits)
        line["Cells"] = sum(len(row.published) for exhibit in exhibits for row in exhibit.rows)
        for scale in SCALES:
            line[f"Run at {scale}"] = sum(scale in exhibit.scales for exhibit in runs)
        line["Replicated"] = sum(exhibit.status == "replicated" for exhibit in exhibits)
        line["Claims"] = len(claims) + len(said(paper).claims)
        line["Judged on ours"] = sum(exhibit.status == "replicated" and decidable(exhibit, c) for exhibit, c in claims)
        lines.append(line)
    total = {key: sum(int(line[key]) for line in lines) for key in lines[0] if key != "Paper"}
    return [*lines, {"Paper": "all", **total}]


def coverage() -> str:
    """The counts, then every gap with its reason."""
    lines = counts()
    gaps: list[str] = []
    for exhibit in map(load, names()):
        gaps += [f"{exhibit.name}: {exhibit.why}"] if exhibit.why else []
        if exhibit.status != "published":
            gaps += [f"{exhibit.name}, {column.label}: {column.why}" for column in exhibit.columns if column.why]
    table = [list(lines[0]), *([str(value) for value in line.values()] for line in lines)]
    told = [line for gap in gaps for line in paragraph("- ", gap)]
    about = (
        "Judged on ours: claims whose rows we run and whose column we measure; `python -m analysis verdicts` says how."
    )
    return "\n".join([*aligned(table), "", *paragraph("", about), "", "Not filled yet", *told])
