"""Records with planted numbers, in the format of results/README.md, and a small exhibit that they fill."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from paper_tables.spec import Claim, Column, Exhibit, Row

DEFAULTS: dict[str, Any] = {
    "student": "300M",
    "teacher": "3B",
    "tokens": "10B",
    "target": {"name": "Full"},
    "divergence": {"name": "ForwardKL"},
    "schedule": {"name": "Constant", "kd_weight": 1.0, "ce_weight": 0.0},
    "probe": "train",
}
SETTINGS = {
    "student": "300M: llama, 4 layers, width 128",
    "teacher": "3B: llama, 6 layers, width 256",
    "tokens": 819200,
}


def plant(
    folder: Path,
    run_id: str,
    changed: dict[str, Any],
    seed: int,
    metrics: dict[str, float | None],
    *,
    corpus: str = "c0ffee",
    numerics: dict[str, int] | None = None,
    teacher: str = "7eac4e",
    products: str = "float32",
    scale: str = "laptop",
    diverged: bool = False,
    curves: dict[str, Any] | None = None,
    settings: dict[str, Any] = SETTINGS,
    recipe: dict[str, Any] | None = None,
) -> Path:
    """Write one finished run and return its folder."""
    run_id = f"{run_id}-s{seed}"
    path = folder / run_id
    path.mkdir(parents=True)
    config = {
        "format": 2,
        "run_id": run_id,
        "recipe": recipe or {**DEFAULTS, **changed},
        "changed": changed,
        "scale": scale,
        "settings": settings,
        "seed": seed,
        "corpus": {"name": "stdlib", "fingerprint": corpus},
        "numerics": {"data": 1, "model": 1, "loss": 1, "delivery": 1, **(numerics or {})},
        "inputs": {"tokenizer": "70cce4", "packing": f"p{seed}", "teacher": teacher},
        "precision": {"products": products, "processes": 1, "at_once": 4, "compiled": False},
        "source": {"code": "abc", "commit": ""},
        "versions": {},
        "hardware": {"machine": "x86_64", "cores": 2, "gpu": None},
    }
    summary = {"run_id": run_id, "metrics": metrics, "curves": curves or {}, "diverged": diverged, "machine": {}}
    (path / "config.json").write_text(json.dumps(config))
    (path / "summary.json").write_text(json.dumps(summary))
    return path


def top_k(k: int) -> dict[str, Any]:
    return {"target": {"name": "TopK", "k": k}}


GAP = {"function": "gap_closed", "of": "lm_loss", "start": "CE", "end": "FullKD"}


def exhibit(claims: list[Claim] | None = None, plot: dict[str, Any] | None = None, **fields: Any) -> Exhibit:
    """CE, Top-K 12 and FullKD with a loss, the share of the gap, a percentage and a column that stays empty."""
    given: dict[str, Any] = {
        "paper": "rskd",
        "number": "1",
        "title": "Top-K & 100 % planted_numbers",
        "where": "Table 1",
        "status": "replicated",
        "columns": [
            Column(key="lm_loss", label="LM loss", unit="nats", better="lower"),
            Column(key="gap_closed", label="% CE to FullKD", unit="%", better="higher", decimals=0, derive=GAP),
            Column(key="ece", label="ECE %", unit="%", better="lower", decimals=1),
            Column(key="zero_shot", label="0-shot score", better="higher", why="comes with a later issue"),
        ],
        "rows": [
            Row(label="CE", recipe={"target": "OneHot"}, published={"lm_loss": 2.81, "gap_closed": 0, "ece": 1.2}),
            Row(label="Top-K 12", recipe=top_k(12), published={"lm_loss": 2.87, "gap_closed": -99, "ece": "inf"}),
            Row(label="FullKD", recipe={}, published={"lm_loss": 2.75, "gap_closed": 100, "zero_shot": 42.1}),
        ],
        "claims": claims or [],
        "plot": plot or {},
    }
    return Exhibit(**{**given, **fields})


LOSSES = {"CE": (3.82, 3.84, 3.80), "Top-K 12": (4.10, 4.13, 4.05), "FullKD": (3.46, 3.47, 3.45)}
CHANGED: dict[str, dict[str, Any]] = {"CE": {"target": {"name": "OneHot"}}, "Top-K 12": top_k(12), "FullKD": {}}


def plant_all(folder: Path, losses: dict[str, tuple[float, ...]] = LOSSES, **fields: Any) -> None:
    for label, values in losses.items():
        for seed, loss in enumerate(values):
            slug = label.lower().replace(" ", "-")
            plant(folder, slug, CHANGED[label], seed, {"lm_loss": loss, "ece": loss / 100}, **fields)


def plant_exhibit(folder: Path, given: Exhibit, seeds: int = 3) -> None:
    """A run of every recipe that the exhibit states, with plausible numbers and curves of every kind."""
    stated: dict[str, dict[str, Any]] = {}
    for row in given.rows:
        for column in given.columns:
            recipe = given.recipe_of_cell(row, column)
            if recipe is not None:
                stated.setdefault(json.dumps(recipe, sort_keys=True), recipe)
    keys = {column.metric or column.key for column in given.columns if column.derive is None and not column.why}
    keys |= {column.derive["of"] for column in given.columns if column.derive}
    keys |= {metric for row in given.rows for metric in row.metrics.values()}
    for place, recipe in enumerate(stated.values()):
        for seed in range(seeds):
            metrics: dict[str, float | None] = dict.fromkeys(keys, 1 + 0.1 * place + 0.01 * seed * (-1) ** place)
            plant(folder, f"run{place}", recipe, seed, metrics, recipe=recipe, curves=all_curves(place, seed))


PREFIXES = [1, 30, 300]
XI = [f"{name}_{kind}" for name in ("xi", "v") for kind in ("exact", "plugin", "debiased", "floor")]


def all_curves(place: int, seed: int) -> dict[str, Any]:
    bins = [(bin + 0.5) / 15 for bin in range(15)]
    bent = [0.9**place * confidence for confidence in bins]
    tokens = [1024 * 2**step for step in range(6)]
    falling = [60 / (1 + place) / (step + 1) + seed for step in range(6)]
    teacher = [1 / (rank + 1) for rank in range(60)]
    return {
        "reliability": {"confidence": bins, "accuracy": bent, "count": [100 + seed] * 15},
        "by_step": {
            "step": [tokens_seen // 1024 for tokens_seen in tokens],
            "tokens": tokens,
            "lm_loss": [3 + 4 / (step + 1 + place) + seed / 10 for step in range(6)],
            "accuracy": [step / (20 + place) for step in range(6)],
            "ece": [0.05 / (step + 1) + place / 100 for step in range(6)],
            "kl": [2 / (step + 1 + place) + seed / 100 for step in range(6)],
        },
        "by_tokens": {"tokens": tokens, "angle": falling, "relative_error": [angle / 57 for angle in falling]},
        "targets": {
            "class": list(range(1, 61)),
            "teacher": teacher,
            "mean_target": [value * (rank < 20 * place) for rank, value in enumerate(teacher)],
        },
        "prefixes": {"t": PREFIXES, **{name: [1 / t for t in PREFIXES] for name in XI}},
        "course": {"t": PREFIXES, "xi": [1 / t for t in PREFIXES], "v": [1 / t**2 for t in PREFIXES]},
        "omega": {
            "omega": [step / 10 for step in range(11)],
            **{
                name: [abs(step - place) / 10 for step in range(11)] for name in ("bias", "bound", "excess", "variance")
            },
            **{name: [1 - step / 10 for step in range(11)] for name in ("v_last", "v_last_printed")},
        },
    }
