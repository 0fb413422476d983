"""The notebooks: every exhibit is in one, nothing measured stands in their prose, and they run in a fresh kernel."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from markupsafe import escape
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from analysis import notebook
from paper_tables.spec import load
from tools import run_notebooks, write_notebooks
from tools.write_notebooks import FOLDER, SETUP, exhibits, papers, shown

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted(FOLDER.glob("*.ipynb"))
DECIMAL = re.compile(r"\d[.,]\d")


def opened(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def code(given: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in given.cells if cell.cell_type == "code"]


@pytest.mark.parametrize("paper", papers())
def test_a_papers_notebook_shows_each_of_its_exhibits_once(paper: str) -> None:
    path = FOLDER / f"{paper}.ipynb"
    assert path.exists(), f"{path.name} is missing: `python -m tools.write_notebooks` begins it."
    found = shown(opened(path))
    lacking = [name for name in exhibits(paper) if name not in found]
    assert not lacking, f"{path.name} does not show {lacking}: `python -m tools.write_notebooks` adds the cells."
    assert sorted(found) == sorted(exhibits(paper))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_sources_hold_no_outputs(path: Path) -> None:
    given = opened(path)
    nbformat.validate(given)
    assert [cell.id for cell in code(given) if cell.outputs or cell.execution_count is not None] == []
    assert given.metadata.kernelspec.name == "python3"
    assert len({cell.id for cell in given.cells}) == len(given.cells)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_prose_holds_no_measured_number(path: Path) -> None:
    prose = [cell.source for cell in opened(path).cells if cell.cell_type == "markdown"]
    assert prose and [text for text in prose if DECIMAL.search(text)] == []
    assert DECIMAL.search("a loss of 2.75 nats") and not DECIMAL.search("Tables 1, 2 and 3. See Figure 2a.")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_a_cell_is_one_call(path: Path) -> None:
    setup, *calls = code(opened(path))
    assert setup.source.startswith(SETUP.partition("from analysis")[0])
    for cell in calls:
        (statement,) = ast.parse(cell.source).body
        assert isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call), cell.source


@pytest.fixture(scope="module")
def executed() -> dict[str, NotebookNode]:
    return {path.stem: made for path, made in run_notebooks.execute(SOURCES).items()}


def test_they_run_and_every_call_shows_html(executed: dict[str, NotebookNode]) -> None:
    assert list(executed) == [path.stem for path in SOURCES]
    for given in executed.values():
        _, *calls = code(given)
        for cell in calls:
            (output,) = cell.outputs  # a warning would be a second one
            assert output.output_type == "execute_result" and '<div class="replication">' in output.data["text/html"]
            for exhibit in map(load, shown(new_notebook(cells=[cell]))):
                assert escape(exhibit.title) in output.data["text/html"]
                # the other kinds draw recorded curves, which may not be there yet
                plotted = exhibit.plot.get("columns") or [column.key for column in exhibit.columns]
                printed = any(key in row.published for row in exhibit.rows for key in plotted)
                if exhibit.plot.get("kind") == "dots" and printed:
                    assert output.data["text/html"].count("<svg") == 1, exhibit.name


def test_the_setup_finds_the_root_from_any_folder_of_the_checkout() -> None:
    print_root = "import analysis; print(analysis.__file__)"
    source = f"{SETUP.partition('from analysis')[0]}\n{print_root}"
    for folder in (ROOT, ROOT / "results", FOLDER):
        ran = subprocess.run([sys.executable, "-c", source], cwd=folder, capture_output=True, text=True)
        assert ran.stdout.strip() == str(ROOT / "analysis" / "__init__.py"), ran.stderr


def test_a_failure_names_notebook_and_cell(tmp_path: Path) -> None:
    broken = new_notebook(cells=[new_markdown_cell("# Broken"), new_code_cell("x = 1\nprint(x / 0)")])
    nbformat.write(broken, tmp_path / "broken.ipynb")
    with pytest.raises(
        ValueError, match=r"^broken\.ipynb, cell 2 \(print\(x / 0\)\): ZeroDivisionError: division by zero$"
    ):
        run_notebooks.execute([tmp_path / "broken.ipynb"])


def test_missing_exhibits_go_after_their_predecessor_and_hand_written_cells_stay() -> None:
    first, second, third, *_ = exhibits("rskd")
    by_hand = [
        new_markdown_cell("Mine."),
        new_code_cell(f'show("{first}")'),
        new_code_cell(f"show('{third}', 'smoke')"),
    ]
    given = new_notebook(cells=list(by_hand))
    write_notebooks.complete(given, "rskd")
    assert (
        given.cells[:2] == by_hand[:2] and given.cells[2].source == f'show("{second}")' and given.cells[3] == by_hand[2]
    )
    assert shown(given) == exhibits("rskd")
    given = new_notebook(cells=[new_code_cell(f'show("{second}")')])
    write_notebooks.complete(given, "rskd")
    assert shown(given) == exhibits("rskd")
    assert shown(write_notebooks.begun("tad")) == exhibits("tad")


def test_writing_clears_outputs(tmp_path: Path) -> None:
    given = new_notebook(
        cells=[new_code_cell("1", execution_count=3, id="one")], metadata={"language_info": {"name": "x"}}
    )
    write_notebooks.write(given, tmp_path / "a.ipynb")
    text = (tmp_path / "a.ipynb").read_text()
    write_notebooks.write(opened(tmp_path / "a.ipynb"), tmp_path / "a.ipynb")
    assert (
        text == (tmp_path / "a.ipynb").read_text() and '"execution_count": null' in text and "language_info" not in text
    )


def test_show_sets_the_voices_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # whatever this machine has run itself
    (tmp_path / "laptop").symlink_to(notebook.RESULTS / "laptop")
    monkeypatch.setattr(notebook, "RESULTS", tmp_path)
    html = notebook.show("rskd/table06").html
    assert all(f'class="{voice}"' in html for voice in ("published", "logged")) and 'class="yours"' not in html
    assert html.count("<svg") == 1 and "Claims" in html and "holds" in html and "notes</summary>" in html
    assert "95 % interval" in html and "Runs" not in html.partition("<svg")[0]


def test_show_says_what_is_only_published() -> None:
    html = notebook.show("salt/table10").html
    assert "Published numbers only" in html and 'class="logged"' not in html and "Ours: mean" not in html


def test_unknown_names_list_the_known() -> None:
    with pytest.raises(ValueError, match="Known: rskd/table01"):
        notebook.show("rskd/table99")
    with pytest.raises(ValueError, match="Scales with records: .*laptop"):
        notebook.show("rskd/table06", scale="huge")
    with pytest.raises(ValueError, match="Known: rskd, tad"):
        notebook.audit("bert")
    with pytest.raises(ValueError, match="Known: rskd, tad"):
        notebook.claims("bert")
