"""python -m toy rskd/figure02a: run an exhibit's toy studies and leave their records."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from paper_tables import spec
from replication.recipe import identified, made, method, named, plain, plain_words, seeds, without_defaults
from replication.record import ROOT, Record, provenance
from replication.scale import load_scale
from toy import zipf


@dataclass(frozen=True)
class Run:
    setting: zipf.Setting
    scale: str  # a toy has one size: the name only says which records it stands beside
    seed: int

    @property
    def recipe(self) -> dict[str, Any]:
        """Every field, the target as {name, fields...}."""
        return {"toy": "zipf", **asdict(self.setting), "target": plain(self.setting.target)}

    @property
    def changed(self) -> dict[str, Any]:
        """What differs from the defaults, and always toy and target: what the id depends on."""
        own = {key: value for key, value in self.recipe.items() if key not in ("toy", "target")}
        return {"toy": "zipf", **without_defaults(own, zipf.Setting), "target": self.target}

    @property
    def target(self) -> dict[str, Any]:
        return without_defaults(plain(self.setting.target), type(self.setting.target))

    @property
    def id(self) -> str:
        return identified(f"zipf-{plain_words(named(self.target))}", self.changed, self.scale, self.seed)


def main(arguments: list[str] | None = None) -> int:
    """0 when every run is finished; 2 with one line on stderr for bad input."""
    given = parser().parse_args(arguments)
    try:
        replicate(given.exhibit, load_scale(given.scale).name, seeds(given.seeds), given.results)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def parser() -> argparse.ArgumentParser:
    results = Path(os.environ.get("RESULTS", ROOT / "results" / "local"))
    top = argparse.ArgumentParser(prog="python -m toy", description=__doc__)
    top.add_argument("exhibit", help="for example rskd/figure02a")
    top.add_argument("--seeds", default="0", help="separated by commas (default: 0)")
    top.add_argument("--scale", default="laptop", help="whose records these stand beside (default: laptop)")
    top.add_argument("--results", type=Path, default=results, help="where records go (default: results/local)")
    return top


def replicate(exhibit: str, scale: str, seeds: list[int], results: Path) -> list[Record]:
    """The records of the exhibit's toy rows, one per seed; those that are finished are not run again.

    Raises ValueError naming exhibit and row for a recipe that does not make sense.
    """
    found = {run.id: (label, run) for label, run in runs(exhibit, scale, seeds)}
    records = {run_id: Record(results / scale / run_id) for run_id in found}
    waiting = [run_id for run_id, record in records.items() if not record.done]
    code = provenance() if waiting else {}
    for run_id in (progress := tqdm(waiting, desc="toy", unit="run", disable=not waiting)):
        progress.set_description(run_id)
        label, run = found[run_id]
        try:
            execute(run, results, code)
        except ValueError as error:
            raise ValueError(f"{exhibit}.toml, row {label!r}: {error}") from None
    print(f"{exhibit}: {len(found)} runs in {results / scale}, {len(found) - len(waiting)} of them done before.")
    return list(records.values())


def runs(exhibit: str, scale: str, seeds: list[int]) -> list[tuple[str, Run]]:
    """Row label and run, of every row that states toy = "zipf"."""
    loaded = spec.load(exhibit)
    found = []
    for seed in seeds:
        for row in loaded.rows:
            stated = loaded.recipe_of(row) or {}
            if stated.get("toy") == "zipf":
                try:
                    found.append((row.label, Run(setting(stated), scale, seed)))
                except ValueError as error:
                    raise ValueError(f"{exhibit}.toml, row {row.label!r}: {error}") from None
    if not found:
        raise ValueError(f'{exhibit} has no row with toy = "zipf". rskd/figure02a has.')
    return found


def execute(run: Run, results: Path, code: dict[str, Any]) -> None:
    # opened when there is something to write: a toy that is cut off leaves nothing behind
    record = Record(results / run.scale / run.id)
    metrics, curves = zipf.run(run.setting, run.seed)
    none = {"name": "none", "fingerprint": "none"}
    stated = {"recipe": run.recipe, "changed": run.changed, "scale": run.scale, "seed": run.seed}
    record.open({**code, "run_id": run.id, **stated, "settings": {}, "corpus": none, "packing": "none"})
    record.finish(metrics, curves)


def setting(stated: dict[str, Any]) -> zipf.Setting:
    """The setting that a row states. Raises ValueError, one line, for unknown words or numbers that do not fit."""
    values = {key: value for key, value in stated.items() if key != "toy"}
    if "target" in values:
        values["target"] = method("target", values["target"])
    return made(zipf.Setting, values)


if __name__ == "__main__":
    sys.exit(main())
