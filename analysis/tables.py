"""A sheet as Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

from analysis.sheet import OURS, VOICES, Sheet
from paper_tables.spec import file_stem

CSV_FIELDS = [
    "row",
    "column",
    "unit",
    "voice",
    "value",
    "low",
    "high",
    "seeds",
    "seeds_expected",
    "diverged",
    "corpus",
    "scale",
]
LATEX = {
    "\u00a0": "~",
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "±": r"$\pm$", "∞": r"$\infty$", "↓": r"$\downarrow$", "↑": r"$\uparrow$", "→": r"$\rightarrow$", "−": r"$-$",
    "×": r"$\times$", "°": r"$^\circ$", "α": r"$\alpha$", "τ": r"$\tau$", "ρ": r"$\rho$", "ω": r"$\omega$",
    "Δ": r"$\Delta$", "≤": r"$\leq$", "≥": r"$\geq$", "–": "--", "’": "'", "‘": "`",
}  # fmt: skip


def write(sheet: Sheet, build: Path) -> list[Path]:
    """Write <build>/<paper>/<stem>.{md,csv,tex} and return the paths."""
    exhibit = sheet.exhibit
    folder = build / exhibit.paper
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for suffix, form in (("md", markdown), ("csv", tidy), ("tex", latex)):
        path = folder / f"{file_stem(exhibit.kind, exhibit.number)}.{suffix}"
        path.write_text(form(sheet), encoding="utf-8")
        written.append(path)
    return written


def markdown(sheet: Sheet) -> str:
    exhibit = sheet.exhibit
    titles = [f"{sheet.title(column)}<br>{voice}" for column in exhibit.columns for voice in VOICES]
    lines = [f"# {sheet.exhibit.heading}", "", *[f"{line}  " for line in sheet.header], ""]
    lines.append(line_of([exhibit.row_header, *titles]))
    lines.append("|" + "---|" * (1 + len(titles)))
    for row in exhibit.rows:
        cells = [sheet.text(row, column, voice) for column in exhibit.columns for voice in VOICES]
        lines.append(line_of([row.label, *cells]))
    lines += ["", "Ours: mean ± half-width of the 95 % interval (seeds)."]
    if sheet.verdicts:
        lines += ["", "## Claims", ""]
        lines += [
            f"- **{verdict.state}** ({voice}) {claim.text} *{claim.where}* {verdict.numbers}."
            for voice, claim, verdict in sheet.verdicts
        ]
    if sheet.notes:
        lines += ["", "## Notes", "", *[f"- {note}" for note in sheet.notes]]
    return "\n".join(lines) + "\n"


def line_of(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|").replace("*", r"\*") for cell in cells) + " |"


def tidy(sheet: Sheet) -> str:
    """One line per cell and voice, in the column's unit: an empty field is unknown, inf a diverged run."""
    out = io.StringIO()
    writer = csv.DictWriter(out, CSV_FIELDS, lineterminator="\n", restval="")
    writer.writeheader()
    for row in sheet.exhibit.rows:
        for column in sheet.exhibit.columns:
            here = {"row": row.label, "column": column.key, "unit": column.unit}
            value = row.published.get(column.key)
            if value is not None:
                writer.writerow({**here, "voice": "published", "value": getattr(value, "text", value)})
            for voice in OURS:
                cell = sheet.cells[voice].get((row.label, column.key))
                if cell is None:
                    continue
                found = cell.estimate
                bounds = {"low": f"{found.low:.10g}", "high": f"{found.high:.10g}"} if math.isfinite(found.low) else {}
                numbers = {"value": f"{found.value:.10g}", **bounds, "seeds": found.n, "diverged": cell.diverged}
                corpus = sheet.frames[voice]["corpus"].iloc[0]
                expected = {"seeds_expected": len(sheet.seeds[voice]), "corpus": corpus, "scale": sheet.scale}
                writer.writerow({**here, "voice": voice, **numbers, **expected})
    return out.getvalue()


def latex(sheet: Sheet) -> str:
    r"""A floating table for \usepackage{booktabs}; verdicts and notes stand below it in small print."""
    exhibit = sheet.exhibit
    n = len(VOICES)
    groups = [rf"\multicolumn{{{n}}}{{c}}{{{escape(sheet.title(column))}}}" for column in exhibit.columns]
    rules = [rf"\cmidrule(lr){{{2 + n * i}-{1 + n * (i + 1)}}}" for i in range(len(exhibit.columns))]
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape(sheet.exhibit.heading)}}}",
        rf"\label{{tab:{exhibit.paper}-{file_stem(exhibit.kind, exhibit.number)}}}",
        rf"\begin{{tabular}}{{l{'r' * n * len(exhibit.columns)}}}",
        r"\toprule",
        " & ".join(["", *groups]) + r" \\",
        " ".join(rules),
        " & ".join([escape(exhibit.row_header), *VOICES * len(exhibit.columns)]) + r" \\",
        r"\midrule",
    ]
    for row in exhibit.rows:
        cells = [sheet.text(row, column, voice) for column in exhibit.columns for voice in VOICES]
        lines.append(" & ".join(escape(cell) for cell in [row.label, *cells]) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}", r"\par\smallskip\raggedright\footnotesize"]
    small = [*sheet.header, *sheet.verdict_lines(), *sheet.notes]
    lines += [escape(" ".join(line.split())) + r"\par" for line in small]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def escape(text: str) -> str:
    return "".join(LATEX.get(letter, letter) for letter in text)
