"""The toy studies, each at sizes that take no time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from tests.rehearsal_stage import Stage, components_of, thinned
from toy.study import stated_run

SAMPLING = {"name": "RandomSampling", "draws": 9}
SHARP = {"name": "Full", "exponent": 1.5}
TOP = {"name": "TopK", "k": 4}
TOYS: dict[str, list[dict[str, Any]]] = {
    "zipf": [
        {"target": SAMPLING, "vocabulary": 60, "rounds": 40},
        {"target": TOP, "vocabulary": 60, "divergence": "GhostToken"},
    ],
    "classification": [
        {
            "target": target,
            "classes": 12,
            "dimensions": 4,
            "teacher": 8,
            "student": 6,
            "batch": 32,
            "evaluation": 2,
            "steps": 12,
            "learning_rate": 0.02,
        }
        for target in (TOP, SAMPLING)
    ],
    "listing": [
        {"listing": name, "vocabulary": 60, "draws": 8, "rounds": 20}
        for name in ("toy as printed", "training as printed", "as meant")
    ],
    "cifar": [
        {
            "target": TOP,
            "teacher_width": 3,
            "student_width": 2,
            "blocks": 1,
            "stem": 4,
            "batch": 20,
            "train_images": 60,
            "test_images": 40,
            "teacher_epochs": 2,
            "epochs": 2,
        }
    ],
    "fields": [
        {"target": {"name": "TopK", "k": 2}, "steps": 40, "starts": 3},
        {"target": "Full", "divergence": {"name": "TailAware", "k": 1}, "steps": 40, "starts": 3},
    ],
    "martingale": [
        {
            "length": 12,
            "completions": 4,
            "sequences": 12,
            "memory": 0.8,
            "topics": 2,
            "vocabulary": 4,
            "omega": 0.4,
            "target": SHARP,
        }
    ],
    "risk": [
        {
            "teacher_error": 0.5,
            "length": 8,
            "sequences": 8,
            "topics": 2,
            "vocabulary": 6,
            "students": 6,
            "rounds": 10,
            "target": SHARP,
        }
    ],
    "tradeoff": [
        {
            "teacher_error": 0.5,
            "length": 8,
            "sequences": 8,
            "topics": 2,
            "vocabulary": 6,
            "students": 6,
            "rounds": 10,
            "target": SHARP,
        }
    ],
}


def study(name: str, stage: Stage) -> dict[str, Any]:
    """Metrics and a few numbers of the curves of every setting, at seed 0."""
    images = stage.folder / "images.npz"
    write_images(images)
    places = {"ARTIFACTS": str(stage.machine.artifacts), "IMAGES": str(images)}
    found = {}
    for number, stated in enumerate(TOYS[name], 1):
        run = stated_run({"toy": name, **stated}, "rehearsal", 0)
        stage.used |= {"loss", *components_of(run.setting)}
        with patch.dict(os.environ, places):
            metrics, curves = run.execute()
        found[f"setting {number}"] = {"metrics": metrics, "curves": thinned(curves)}
    return found


def write_images(path: Path) -> None:
    """A hundred classes of noise, none of which a library's random numbers decide."""
    if path.exists():
        return
    parts = {}
    for seed, (split, count) in enumerate({"train": 60, "test": 40}.items()):
        raw = np.random.PCG64(seed).random_raw(count * 32 * 32 * 3) >> np.uint64(56)
        parts[f"x_{split}"] = raw.astype(np.uint8).reshape(count, 32, 32, 3)
        parts[f"y_{split}"] = np.arange(count) * 7 % 100
    np.savez(path, **parts)
