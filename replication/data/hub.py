"""Rows of a Hugging Face data set, pinned to the commit that a branch or a tag stands for today."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from replication.data.text_files import COLUMN, checked_text, first_line
from replication.machine.hub import unanswered

HUB_SPEC = re.compile(r"(?P<name>[^:#@]+)(:(?P<config>[^#@]+))?(#(?P<column>[^@]+))?(@(?P<revision>.+))?")


def hub_documents(rest: str) -> tuple[str, Iterable[str | None]]:
    """(name with the resolved revision, texts). The name is itself a spec: it opens the same documents again."""
    recorded, rows, column = hub_rows(rest)
    name = rest.partition("@")[0].partition("#")[0].partition(":")[0]
    if column not in rows.column_names:
        raise ValueError(
            f"Data set {name!r} has no column {column!r}, but {', '.join(rows.column_names)}. Name one, as in "
            f"'hub:{name}#column'."
        )
    texts = (checked_text(row[column], column, f"{name}, row {index}") for index, row in enumerate(rows, start=1))
    return recorded, texts


def hub_rows(rest: str) -> tuple[str, Any, str]:
    """(name with the resolved revision, a `datasets.Dataset`, the column that is named).

    The data set is downloaded and stored once by `datasets`; a stream shuffled or resumed there would lose rows. All
    its text then lies in memory: name a config of a size that fits.
    """
    found = HUB_SPEC.fullmatch(rest)
    if found is None:
        raise ValueError(f"Cannot read 'hub:{rest}'. Write 'hub:<name>[:config][#column][@revision]'.")
    name, config, revision = found["name"], found["config"], found["revision"]
    column = found["column"] or COLUMN
    name = os.path.expanduser(name)
    local = Path(name).is_dir()
    import datasets
    import huggingface_hub

    try:
        if not local and (why := unanswered()):
            raise ConnectionError(f"{huggingface_hub.constants.ENDPOINT} does not answer ({why})")
        if not local:  # a branch or a tag is pinned to the commit it stands for today
            revision = huggingface_hub.HfApi().dataset_info(name, revision=revision).sha
        rows = datasets.load_dataset(name, config, split="train", revision=None if local else revision)
    except Exception as error:  # the two libraries raise many kinds; each is the user's to repair
        raise ValueError(
            f"Cannot load data set {name!r} from the hub: {first_line(error)}. Check its name, config, revision and "
            f"your connection, or use 'path:' with files of your own."
        ) from None
    recorded = f"hub:{Path(name).resolve().name if local else name}" + (f":{config}" if config else "")
    recorded += (f"#{column}" if column != COLUMN else "") + (f"@{revision}" if revision else "")
    return recorded, rows, column
