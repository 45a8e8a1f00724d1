from __future__ import annotations

import numpy as np
import pytest

from sfiin.data.simulate import SimulatedScene, simulate
from sfiin.runtime.quality.degradation import degrade


@pytest.fixture(scope="module")
def scene() -> SimulatedScene:
    return simulate(256, 320, seed=7)


@pytest.mark.parametrize(("height", "width", "ratio"), [(16, 16, 4), (64, 96, 2), (48, 36, 3)])
def test_shapes_and_types(height: int, width: int, ratio: int) -> None:
    scene = simulate(height, width, seed=1, ratio=ratio)
    assert scene.pan.shape == (height, width)
    assert scene.truth.shape == (4, height, width)
    assert scene.ms.shape == (4, height // ratio, width // ratio)
    assert {scene.pan.dtype, scene.ms.dtype, scene.truth.dtype} == {np.dtype(np.uint16)}


def test_the_seed_decides(scene: SimulatedScene) -> None:
    again, other = simulate(256, 320, seed=7), simulate(256, 320, seed=8)
    for name in ("pan", "ms", "truth"):
        np.testing.assert_array_equal(getattr(scene, name), getattr(again, name))
        assert (getattr(scene, name) != getattr(other, name)).any()


def test_ms_is_the_truth_seen_by_the_sensor(scene: SimulatedScene) -> None:
    assert np.abs(scene.ms - degrade(scene.truth, 4, 0.3)).max() <= 0.5 + 1e-9


@pytest.mark.parametrize("bits", [8, 10, 11, 12])
def test_digital_numbers_fit_the_bits(bits: int) -> None:
    scene = simulate(128, 128, seed=2, bits=bits)
    for image in (scene.pan, scene.ms, scene.truth):
        assert image.min() >= 1
        assert image.max() < 1 << bits


def test_pan_shares_the_detail_of_the_bands(scene: SimulatedScene) -> None:
    pan, truth = scene.pan.astype(float), scene.truth.mean(axis=0)
    assert np.corrcoef(np.diff(pan).ravel(), np.diff(truth).ravel())[0, 1] > 0.7


@pytest.mark.parametrize(("height", "width"), [(66, 64), (64, 66), (12, 64)])
def test_refusals(height: int, width: int) -> None:
    with pytest.raises(ValueError, match="multiples of the ratio 4 and at least 16"):
        simulate(height, width, seed=0)
