"""Promote a machine's own records to logged ones, which are committed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from replication.record import ROOT


def promote(run_ids: Iterable[str], scale: str, local: Path, logged: Path = ROOT / "results") -> list[Path]:
    """Copy the records of these runs from `local`/<scale> to `logged`/<scale>.

    All or nothing: ValueError if one is missing or unfinished, or if they come from several versions of the code or
    several corpora.
    """
    sources = {run_id: local / scale / run_id for run_id in run_ids}
    unfinished = [name for name, folder in sources.items() if not (folder / "summary.json").exists()]
    if unfinished:
        raise ValueError(
            f"{len(unfinished)} of {len(sources)} records are not complete on this machine, first {unfinished[0]}. "
            "Run the exhibit (make replicate-...) to the end, then record it."
        )
    configs = {name: json.loads((folder / "config.json").read_text()) for name, folder in sources.items()}
    methods: dict[str, dict[str, str]] = {}
    for run_id, config in configs.items():
        for method, digest in config.get("methods", {}).items():  # absent from the first records
            methods.setdefault(method, {})[run_id] = digest
    for what, values in (
        ("versions of the code", {name: config["code"] for name, config in configs.items()}),
        ("corpora", {name: config["corpus"]["fingerprint"] for name, config in configs.items()}),
        *((f"versions of {method}", digests) for method, digests in methods.items()),
    ):
        if len(set(values.values())) > 1:
            first, second = sorted(set(values.values()))[:2]
            example = [next(name for name, value in values.items() if value == wanted) for wanted in (first, second)]
            raise ValueError(
                f"These records come from several {what} ({example[0]}: {first}, {example[1]}: {second}). "
                f"Delete the older ones under {local / scale} and run the exhibit again."
            )
    written = []
    for name, folder in sources.items():
        draft, place = logged / scale / f".{name}", logged / scale / name
        shutil.rmtree(draft, ignore_errors=True)
        shutil.copytree(folder, draft)
        shutil.rmtree(place, ignore_errors=True)
        draft.rename(place)
        written.append(place)
    return written
