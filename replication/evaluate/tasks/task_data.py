"""Task data: from the Hugging Face hub, or from a directory of the tasks' public releases.

TASK_DATA names the directory. A task's data is read from `<task>/<split>.jsonl` there, with the hub's field names, or
made from the release's own files (releases.py), once, under artifacts. The harness's task is then run on it, nothing
changed but the source of its rows: `tasks/<task>.yaml` says so, in the harness's own language.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from replication.data.text_files import first_line
from replication.evaluate.tasks import releases
from replication.evaluate.tasks.releases import RELEASES
from replication.machine.files import replace_text
from replication.machine.hub import unanswered

TASKS = Path(__file__).parent
HUB = "hub"  # TASK_DATA=hub: the same as no TASK_DATA
WAYS = (
    "Task data comes from the Hugging Face hub, which this machine would have to reach (or HF_HUB_OFFLINE=1, if all of "
    "it is in the hub's cache here), or from a directory: TASK_DATA=<folder>, laid out as "
    "replication/evaluate/tasks/task_data.py says."
)


def directory() -> Path | None:
    """The folder that TASK_DATA names; None for the hub. ValueError if there is no such folder."""
    named = os.environ.get("TASK_DATA", "")
    if named in ("", HUB):
        return None
    folder = Path(named).expanduser()
    if not folder.is_dir():
        raise ValueError(f"TASK_DATA is {named!r}, which is no folder. Name one of task data, or 'hub'.")
    return folder.resolve()


def ready(tasks: Iterable[str]) -> None:
    """ValueError, one line, now, if the data of these tasks will not be had later."""
    folder = directory()
    if folder is None:
        hub()
        return
    for task in tasks:
        check(task, folder)


def hub() -> None:
    """ValueError if the hub does not answer; not asked where HF_HUB_OFFLINE says that all is in its local cache."""
    from huggingface_hub import constants

    if why := unanswered():
        raise ValueError(f"{constants.ENDPOINT} does not answer ({why}). {WAYS}")


@contextmanager
def unreachable(task: str) -> Iterator[None]:
    """What the harness raises where it cannot load a task, in one line."""
    try:
        yield
    except ImportError as error:
        raise ValueError(
            f"Task {task} needs a package: {first_line(error)}. Install it; IFEval's are in 'lm_eval[ifeval]'."
        ) from None
    except OSError as error:
        raise ValueError(f"Task {task} cannot be loaded: {first_line(error)}. {WAYS}") from None


def check(task: str, folder: Path) -> None:
    """ValueError, one line, if the directory lacks data of the task."""
    for split, (_, names) in RELEASES[task].items():
        own = folder / task / f"{split}.jsonl"
        lacking = [name for name in names if not (folder / name).exists()]
        if lacking and not own.exists():
            raise ValueError(
                f"TASK_DATA={folder} has no data of {task}: neither {task}/{split}.jsonl, in the hub's form, nor "
                f"{lacking[0]}. Add one of them, or set TASK_DATA=hub."
            )


def rows_of(task: str, folder: Path, artifacts: Path) -> dict[str, Path]:
    """Split -> a file of JSON lines that the harness's task reads; made where it is not there yet."""
    check(task, folder)
    found: dict[str, Path] = {}
    for split, (make, names) in RELEASES[task].items():
        found[split] = folder / task / f"{split}.jsonl"
        if found[split].exists():
            continue
        contents = [(folder / name).read_bytes() for name in names]
        made_from = hashlib.sha256(b"".join([Path(releases.__file__).read_bytes(), *contents])).hexdigest()[:16]
        found[split] = artifacts / "tasks" / task / f"{split}-{made_from}.jsonl"
        if not found[split].exists():
            texts = [(gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode() for raw in contents]
            replace_text(found[split], "".join(json.dumps(row) + "\n" for row in make(*texts)))
    return found


def specification(task: str, shots: int, folder: Path | None, artifacts: Path) -> Path:
    """The harness's own task with `shots` examples, and with the rows of `folder` where that is not None (the hub).

    `lm_eval run --tasks <this file>` runs the same.
    """
    import lm_eval.tasks
    from lm_eval.tasks._yaml_loader import load_yaml

    harness = Path(lm_eval.tasks.__file__).parent
    ours = load_yaml(TASKS / f"{task}.yaml", resolve_func=False, recursive=False)
    stated = {"include": str(harness / ours["include"]), "num_fewshot": shots}
    if folder is not None:
        files = {split: str(path.resolve()) for split, path in rows_of(task, folder, artifacts).items()}
        arrow = str((artifacts / "tasks" / "arrow").resolve())
        stated = {**ours, **stated, "dataset_kwargs": {"data_files": files, "cache_dir": arrow}}
    text = json.dumps(stated, indent=1) + "\n"  # which is YAML too
    path = artifacts / "tasks" / task / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.yaml"
    if not path.exists():
        replace_text(path, text)
    return path
