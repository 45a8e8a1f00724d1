from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sfiin.runtime.quality.degradation import bicubic_reduce, block_mean, blur, degrade, mtf_taps

REDUCTIONS = [lambda image, ratio: degrade(image, ratio, 0.3), block_mean, bicubic_reduce]
IDS = ["degrade", "block_mean", "bicubic"]


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("ratio", [2, 3, 4])
@pytest.mark.parametrize("gain", [0.15, 0.3])
def test_gain_at_nyquist(gain: float, ratio: int, centred: bool) -> None:
    taps = mtf_taps(gain, ratio, centred)
    assert len(taps) == (41 if centred else 40)
    assert taps.sum() == pytest.approx(1)
    offsets = np.arange(len(taps)) - (len(taps) - 1) / 2
    assert taps @ np.cos(np.pi * offsets / ratio) == pytest.approx(gain, rel=0.02)


@pytest.mark.parametrize("reduce", REDUCTIONS, ids=IDS)
@pytest.mark.parametrize("ratio", [2, 3, 4])
def test_a_ramp_does_not_move(reduce: Callable[..., np.ndarray], ratio: int) -> None:
    size = 24 * ratio
    y, x = np.mgrid[0:size, 0:size].astype(float)
    ramps = np.stack([x, y, 3 * x - 2 * y])
    centres = np.arange(24) * ratio + (ratio - 1) / 2
    v, u = np.meshgrid(centres, centres, indexing="ij")
    inner = np.s_[:, 10:-10, 10:-10]  # the filter reaches 20 pixels, edges are replicated
    np.testing.assert_allclose(reduce(ramps, ratio)[inner], np.stack([u, v, 3 * u - 2 * v])[inner], atol=1e-9)


@pytest.mark.parametrize("reduce", REDUCTIONS, ids=IDS)
@pytest.mark.parametrize("ratio", [2, 3, 4])
def test_constants_stay(reduce: Callable[..., np.ndarray], ratio: int) -> None:
    image = np.full((2, 3 * ratio, 4 * ratio), 7, np.uint16)
    reduced = reduce(image, ratio)
    assert reduced.dtype == np.float64
    np.testing.assert_allclose(reduced, np.full((2, 3, 4), 7.0), atol=1e-12)


@pytest.mark.parametrize("ratio", [2, 3, 4])
def test_degrade_against_the_sum_written_out(ratio: int) -> None:
    image = np.random.default_rng(0).uniform(0, 100, (2, 12 * ratio, 12 * ratio))
    gains = (0.34, 0.2)
    for band, gain in enumerate(gains):
        sigma = ratio * np.sqrt(-2 * np.log(gain)) / np.pi
        pixels = np.arange(-40, 12 * ratio + 40)
        clipped = np.clip(pixels, 0, 12 * ratio - 1)
        weights = np.exp(-0.5 * ((pixels - (5 * ratio + (ratio - 1) / 2)) / sigma) ** 2)
        weights /= weights.sum()
        expected = weights @ image[band][np.ix_(clipped, clipped)] @ weights
        assert degrade(image, ratio, gains)[band, 5, 5] == pytest.approx(expected, rel=1e-9)


def test_blur_keeps_an_image_centred() -> None:
    impulse = np.zeros((1, 61, 61))
    impulse[0, 30, 30] = 1
    seen = blur(impulse, 4, 0.3)
    assert seen.sum() == pytest.approx(1)
    np.testing.assert_allclose(seen, seen[:, ::-1, ::-1], atol=1e-15)
    np.testing.assert_allclose(seen[0, 30], mtf_taps(0.3, 4)[20] * np.pad(mtf_taps(0.3, 4), 10), atol=1e-15)


def test_block_mean_by_hand() -> None:
    assert block_mean(np.arange(16).reshape(1, 4, 4), 2).tolist() == [[[2.5, 4.5], [10.5, 12.5]]]


@given(
    ratio=st.sampled_from([2, 3, 4]),
    rows=st.integers(1, 9),
    cols=st.integers(1, 9),
    bands=st.integers(1, 3),
    seed=st.integers(0, 2**32 - 1),
)
@settings(deadline=None, max_examples=60)
def test_bicubic_reduction_is_that_of_an_image_library(
    ratio: int, rows: int, cols: int, bands: int, seed: int
) -> None:
    image = (
        np.random.default_rng(seed).uniform(0, 2047, (bands, rows * ratio, cols * ratio)).astype(np.float32)
    )
    reduced = bicubic_reduce(image, ratio)
    assert reduced.shape == (bands, rows, cols)
    for band, found in zip(image, reduced, strict=True):
        expected = Image.fromarray(band).resize((cols, rows), Image.Resampling.BICUBIC)
        assert expected.mode == "F"
        np.testing.assert_allclose(found, np.asarray(expected), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("ratio", [2, 3, 4])
def test_bicubic_reduction_does_not_alias(ratio: int) -> None:
    """The finest pattern, one that only plain interpolation would see, is gone but at the edges."""
    image = np.broadcast_to((-1.0) ** np.arange(16 * ratio), (1, 16 * ratio, 16 * ratio))
    assert np.abs(bicubic_reduce(image, ratio)[:, :, 2:-2]).max() < 0.05


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mtf_taps(0, 4), "gain must lie"),
        (lambda: mtf_taps(1, 4), "gain must lie"),
        (lambda: mtf_taps(0.3, 1), "ratio be at least 2"),
        (lambda: degrade(np.ones((1, 8, 9)), 4, 0.3), "no multiples of the ratio 4"),
        (lambda: degrade(np.ones((2, 8, 8)), 4, (0.3, 0.3, 0.3)), "3 gains for 2 bands"),
        (lambda: block_mean(np.ones((1, 9, 8)), 4), "no multiples of the ratio 4"),
        (lambda: bicubic_reduce(np.ones((1, 9, 8)), 4), "no multiples of the ratio 4"),
        (lambda: bicubic_reduce(np.ones((1, 8, 9)), 3), "no multiples of the ratio 3"),
        (lambda: blur(np.ones((2, 8, 8)), 4, (0.3,)), "1 gains for 2 bands"),
    ],
)
def test_refusals(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
