"""The probe of positions: what a policy does to the gradient, by chance and by bias."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.rehearsal_stage import Stage, of_default

Measure = Callable[..., dict[str, float]]


@pytest.fixture(scope="module")
def measure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Measure]:
    folder: Path = tmp_path_factory.mktemp("selection")
    with of_default(torch.float64):
        stage = Stage(folder / "stage")

        def found(positions: Any, **stated: Any) -> dict[str, float]:
            metrics: dict[str, float] = stage.perform(probe="selection", positions=positions, **stated)["metrics"]
            return metrics

        yield found


def test_all_positions_are_full_distillation(measure: Measure) -> None:
    found = measure("AllPositions")
    for when in ("", "_before"):
        assert found[f"angle{when}"] == pytest.approx(0, abs=1e-5)
        assert found[f"relative_error{when}"] == pytest.approx(0, abs=1e-9)
        assert found[f"unique_positions{when}"] == found[f"coverage{when}"] == found[f"overlap{when}"] == 1
        assert found[f"share{when}"] == pytest.approx(1) and found[f"noise{when}"] == 0


def test_a_draw_that_corrects_has_an_error_and_no_bias(measure: Measure) -> None:
    top, drawn, corrected, anywhere = (
        measure(policy) for policy in ("TopFraction", "PositionSampling", "UnbiasedPositionSampling", "RandomFraction")
    )
    for when in ("", "_before"):
        assert (
            top[f"bias{when}"] == top[f"relative_error{when}"] > 0.05 and top[f"noise{when}"] == 0
        )  # nothing is drawn
        assert 0 < top[f"overlap{when}"] < 1 and 0 < top[f"share{when}"] < 1
        for unbiased in (corrected, anywhere):
            assert unbiased[f"bias{when}"] < 1e-9
            assert (
                unbiased[f"noise{when}"] == pytest.approx(unbiased[f"relative_error{when}"])
                and unbiased["noise"] > 0.05
            )
        assert 1e-6 < drawn[f"bias{when}"] < drawn[f"relative_error{when}"]
        assert top[f"coverage{when}"] == 1 and drawn[f"coverage{when}"] < 1
        # a fifth of sixteen, rounded up; draws may repeat
        assert top[f"unique_positions{when}"] == 4 / 16 > drawn[f"unique_positions{when}"]


def test_of_a_trained_beginning_the_student_before_is_that_model(measure: Measure) -> None:
    fresh, pretrained = (measure("TopFraction", initial=initial) for initial in ("Fresh", "Pretrained"))
    assert fresh["angle_before"] != pretrained["angle_before"]


def test_a_divergence_of_two_parts_is_compared_with_kl(measure: Measure) -> None:
    found = measure("AllPositions", divergence="AdaptiveTeaching")
    assert found["bias"] == found["relative_error"] > 0.05 and found["coverage"] == 1
