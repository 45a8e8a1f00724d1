"""Measures of sharpness: of any gain, and right where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from sfiin.data.simulate import simulate
from sfiin.runtime.quality import detail
from sfiin.runtime.quality.bicubic import bicubic
from sfiin.runtime.quality.degradation import degrade


@pytest.fixture(scope="module")
def scene() -> tuple[np.ndarray, np.ndarray]:
    simulated = simulate(128, 128, 2)
    return simulated.truth.astype(float), simulated.pan[None].astype(float)


def test_pan_itself_has_all_its_detail(scene: tuple[np.ndarray, np.ndarray]) -> None:
    _, pan = scene
    product = np.concatenate([2 * pan + 30, 0.5 * pan])
    assert detail.fine_detail(product, pan) == pytest.approx(1)
    assert detail.detail_correlation(product, pan) == pytest.approx(1)
    assert detail.detail_correlation(-pan, pan) == pytest.approx(-1)


def test_blur_takes_detail_away(scene: tuple[np.ndarray, np.ndarray]) -> None:
    truth, pan = scene
    values = [detail.fine_detail(detail.gaussian(truth, sigma), pan) for sigma in (0, 0.5, 1.0)]
    assert values[0] > 1.2 * values[1] > 1.44 * values[2]


def test_a_product_that_ms_is_made_of_is_consistent(scene: tuple[np.ndarray, np.ndarray]) -> None:
    truth, _ = scene
    ms = degrade(truth, 4, 0.3)
    assert detail.inconsistency(truth, ms, 0.3) == pytest.approx(0, abs=1e-9)
    shifted = truth + 0.1 * ms.std((1, 2))[:, None, None]
    assert detail.inconsistency(shifted, ms, 0.3) == pytest.approx(10)


def test_matched_images_are_equally_crisp(scene: tuple[np.ndarray, np.ndarray]) -> None:
    truth, pan = scene
    for first, second in ((pan, detail.gaussian(truth, 0.6)), (detail.gaussian(pan, 0.6), truth)):
        both = detail.matched(first, second)
        assert detail.crispness(both[0]) == pytest.approx(detail.crispness(both[1]), rel=0.01)
        assert sum(np.array_equal(*same) for same in zip(both, (first, second), strict=True)) == 1


def test_images_without_contrast_are_refused(scene: tuple[np.ndarray, np.ndarray]) -> None:
    _, pan = scene
    flat = np.full_like(pan, 7)
    with pytest.raises(ValueError, match="without contrast"):
        detail.fine_detail(flat, pan)
    with pytest.raises(ValueError, match="without contrast"):
        detail.inconsistency(flat, np.ones((1, 32, 32)), 0.3)
    assert detail.detail_correlation(flat, pan) == 0


def test_resampling_alone_is_soft(scene: tuple[np.ndarray, np.ndarray]) -> None:
    truth, pan = scene
    assert detail.fine_detail(bicubic(degrade(truth, 4, 0.3), 4), pan) < 0.4
