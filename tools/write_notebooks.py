"""python -m tools.write_notebooks: put every exhibit on file into its paper's notebook, and clear all outputs.

The notebooks are written by hand. This adds a cell `show("rskd/table06")` where one is missing, after the exhibit's
predecessor, and a notebook where a paper has none; whatever else stands in them stays.
"""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from paper_tables.audit import audit
from paper_tables.spec import PAPERS, names

FOLDER = Path(__file__).resolve().parent.parent / "analysis" / "notebooks"
SHOWS = re.compile(r"""^show\(\s*["']([^"']+)["']""", re.MULTILINE)
KERNEL = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
HEADINGS = {"table": "## Tables", "figure": "## Figures", "poster": "## The poster"}
SETUP = """\
import sys
from pathlib import Path

here = Path.cwd().resolve()  # any folder of the checkout
sys.path.insert(0, str(next(up for up in (here, *here.parents) if (up / "analysis" / "notebook.py").exists())))

from analysis.notebook import audit, claims, overview, show"""


def main() -> None:
    for paper in papers():
        path = FOLDER / f"{paper}.ipynb"
        notebook = nbformat.read(path, as_version=4) if path.exists() else begun(paper)
        complete(notebook, paper)
        write(notebook, path)
    for path in sorted(set(FOLDER.glob("*.ipynb")) - {FOLDER / f"{paper}.ipynb" for paper in papers()}):
        write(nbformat.read(path, as_version=4), path)


def papers() -> list[str]:
    """Those with exhibits on file."""
    return [paper for paper in PAPERS if exhibits(paper)]


def exhibits(paper: str) -> list[str]:
    return [name for name in names() if name.startswith(f"{paper}/")]


def shown(notebook: NotebookNode) -> list[str]:
    """The exhibits that the notebook's code cells show, in order."""
    return [name for cell in notebook.cells if cell.cell_type == "code" for name in SHOWS.findall(cell.source)]


def complete(notebook: NotebookNode, paper: str) -> None:
    """Add the cells of the exhibits that the notebook does not show."""
    order = exhibits(paper)
    for rank, name in enumerate(order):
        if name not in shown(notebook):
            notebook.cells.insert(place_of(notebook, order[:rank], order[rank + 1 :]), show_cell(name))


def place_of(notebook: NotebookNode, before: list[str], after: list[str]) -> int:
    """After the nearest predecessor that is shown, else before the nearest successor, else at the end."""
    at = {name: i for i, cell in enumerate(notebook.cells) for name in SHOWS.findall(cell.source)}
    for name in reversed(before):
        if name in at:
            return at[name] + 1
    return next((at[name] for name in after if name in at), len(notebook.cells))


def show_cell(name: str) -> NotebookNode:
    return new_code_cell(f'show("{name}")', id=name.partition("/")[2])


def begun(paper: str) -> NotebookNode:
    """A paper's notebook, all of its exhibits in it, to be edited by hand."""
    about = (
        f"# {PAPERS[paper]}\n\nEvery table and figure on file, from the records under `results/`. Nothing is trained."
    )
    cells = [
        new_markdown_cell(about, id="about"),
        new_code_cell(SETUP, id="setup"),
        new_markdown_cell("## Claims", id="claims-heading"),
        new_code_cell(f'claims("{paper}")', id="claims"),
    ]
    if audit([paper]):
        cells += [new_markdown_cell("## What the printed numbers say of each other", id="audit-heading")]
        cells += [new_code_cell(f'audit("{paper}")', id="audit")]
    for kind, heading in HEADINGS.items():
        mine = [name for name in exhibits(paper) if name.startswith(f"{paper}/{kind}")]
        cells += [new_markdown_cell(heading, id=f"{kind}s")] if mine else []
        cells += map(show_cell, mine)
    return new_notebook(cells=cells)


def write(notebook: NotebookNode, path: Path) -> None:
    """Without outputs, counts and what an editor left in the metadata: a difference is an edit."""
    notebook.metadata = NotebookNode(KERNEL)
    for cell in notebook.cells:
        cell.metadata = NotebookNode()
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.validate(notebook)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
