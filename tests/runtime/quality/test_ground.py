"""Home ground: figures of known images, and what a scene outside of it is told."""

from __future__ import annotations

import numpy as np
import pytest

from sfiin.data.simulate import simulate
from sfiin.runtime.quality import ground


def scene(seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    scene = simulate(128, 128, seed)
    return scene.ms.astype(float), scene.pan[None].astype(float)


def test_figures_are_of_any_gain_but_brightness() -> None:
    ms, pan = scene()
    first, second = ground.measure(ms, pan, 2047), ground.measure(3 * ms, 2 * pan, 2047)
    assert first is not None
    assert second is not None
    for name in ("correlation", "contrast", "crispness"):
        assert first[name] == pytest.approx(second[name])
    assert second["brightness"] == pytest.approx(2 * first["brightness"])
    assert first["brightness"] == pytest.approx(pan.mean() / 2047)


def test_a_band_that_is_pan_correlates_wholly() -> None:
    _, pan = scene()
    ms = pan.reshape(1, 32, 4, 32, 4).mean((2, 4))
    figures = ground.measure(ms, pan, 2047)
    assert figures is not None
    assert figures["correlation"] == pytest.approx(1)
    assert figures["contrast"] == pytest.approx(1)


@pytest.mark.parametrize("fill", [0.0, 300.0])
def test_nothing_is_measured_without_contrast(fill: float) -> None:
    assert ground.measure(np.full((2, 8, 8), fill), np.full((1, 32, 32), fill), 2047) is None


def test_home_is_the_range_of_what_was_seen_and_what_lies_outside_is_told() -> None:
    found = [figures for seed in range(6) if (figures := ground.measure(*scene(seed), 2047))]
    home = ground.home(found)
    assert set(home) == set(ground.NAMES)
    assert ground.outside(found, home) == []
    middle = {name: sum(bounds) / 2 for name, bounds in home.items()}
    notes = ground.outside([middle | {"correlation": -0.5, "crispness": 99.0}], home)
    assert len(notes) == 2
    assert "correlation of PAN" in notes[0]
    assert "-0.5, trained on" in notes[0]


def test_without_a_record_or_a_measurement_nothing_is_said() -> None:
    assert ground.home([]) == {}
    assert ground.outside([], {"correlation": (0.9, 1.0)}) == []
    assert ground.outside([{"correlation": 0.1, "contrast": 1, "crispness": 1, "brightness": 0.1}], {}) == []
