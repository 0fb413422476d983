"""python -m tools.run_notebooks: execute the notebooks of analysis/notebooks/, and keep them with their outputs.

The executed copies go to build/notebooks/; an error names the notebook and the cell.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError
from nbformat import NotebookNode
from nbformat.sign import NotebookNotary
from tqdm import tqdm
from traitlets.config import Config

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "analysis" / "notebooks"
AT_ONCE = 2  # kernels; more only wait for each other on two cores
SECONDS = 300  # for one cell


def main() -> int:
    build = ROOT / "build" / "notebooks"
    paths = sorted(SOURCES.glob("*.ipynb"))
    cells = sum(len(nbformat.read(path, as_version=4).cells) for path in paths)
    started = time.monotonic()
    try:
        with tqdm(total=cells, unit="cell", disable=None) as bar:
            executed = execute(paths, bar.update)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    build.mkdir(parents=True, exist_ok=True)
    for path, notebook in executed.items():
        NotebookNotary().sign(notebook)  # what was run here is trusted here: JupyterLab shows its HTML without asking
        (build / path.name).write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
    print(
        f"{len(paths)} notebooks in {time.monotonic() - started:.0f} s, with their outputs: {build.relative_to(ROOT)}/"
    )
    return 0


def execute(paths: list[Path], ran: Callable[[], object] = lambda: None) -> dict[Path, NotebookNode]:
    """Each notebook with its outputs, run in a fresh kernel in its own folder; `ran` is called after each cell.

    Raises ValueError, one line for each notebook that fails, naming it and its first cell that does.
    """
    return asyncio.run(all_of(paths, ran))


async def all_of(paths: list[Path], ran: Callable[[], object]) -> dict[Path, NotebookNode]:
    free = asyncio.Semaphore(AT_ONCE)
    made = await asyncio.gather(*(one(path, free, ran) for path in paths), return_exceptions=True)
    executed: dict[Path, NotebookNode] = {}
    failed = []
    for path, notebook in zip(paths, made, strict=True):
        if isinstance(notebook, ValueError):
            failed.append(str(notebook))
        elif isinstance(notebook, BaseException):
            raise notebook
        else:
            executed[path] = notebook
    if failed:
        raise ValueError("\n".join(failed))
    return executed


async def one(path: Path, free: asyncio.Semaphore, ran: Callable[[], object]) -> NotebookNode:
    notebook = nbformat.read(path, as_version=4)
    current = [0]

    def begins(cell: NotebookNode, cell_index: int) -> None:
        current[0] = cell_index

    async with free:
        with TemporaryDirectory() as sockets:
            client = NotebookClient(
                notebook,
                timeout=SECONDS,
                startup_timeout=SECONDS,
                kernel_name="python3",
                resources={"metadata": {"path": str(path.parent)}},
                config=connection(sockets),
                on_cell_start=begins,
                on_cell_complete=lambda cell, cell_index: ran(),
            )
            try:
                await client.async_execute()
            except CellExecutionError as error:
                raise ValueError(f"{where(path, notebook, current[0])}: {error.ename}: {error.evalue}") from error
            except (CellTimeoutError, RuntimeError) as error:  # too slow; no kernel, or a dead one
                raise ValueError(f"{where(path, notebook, current[0])}: {str(error).splitlines()[0]}") from error
    return notebook


def connection(folder: str) -> Config:
    """Sockets in this user's folder, where there are such: nobody else on the machine can talk to the kernel."""
    return (
        Config() if sys.platform == "win32" else Config(ConnectionFileMixin={"transport": "ipc", "ip": f"{folder}/k"})
    )


def where(path: Path, notebook: NotebookNode, index: int) -> str:
    """'rskd.ipynb, cell 7 (show("rskd/table06"))'."""
    lines = notebook.cells[index].source.strip().splitlines() or [""]
    return f"{path.name}, cell {index + 1} ({lines[-1]})"


if __name__ == "__main__":
    sys.exit(main())
