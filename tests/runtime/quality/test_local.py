"""Statistics of neighbourhoods: against loops over windows, and what local methods owe to physics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sfiin.data.simulate import simulate
from sfiin.runtime.quality import local
from sfiin.runtime.quality.bicubic import bicubic
from sfiin.runtime.quality.classical import METHODS, local_gsa, local_regression
from sfiin.runtime.quality.degradation import block_mean, degrade
from sfiin.runtime.quality.metrics import psnr

RATIO = 4


@pytest.fixture(scope="module")
def scene() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    simulated = simulate(128, 128, 5)
    return (
        simulated.ms.astype(np.float64),
        simulated.pan.astype(np.float64),
        simulated.truth.astype(np.float64),
    )


def windows(image: np.ndarray, window: int) -> np.ndarray:
    """Every pixel's window, edges replicated, by hand."""
    reach = window // 2
    rows, cols = (
        np.clip(np.arange(side)[:, None] + np.arange(-reach, reach + 1), 0, side - 1)
        for side in image.shape[1:]
    )
    return image[:, rows[:, None, :, None], cols[None, :, None, :]].reshape(*image.shape, -1)


def test_box_is_the_windows_mean(scene: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    ms = scene[0]
    for window in (1, 3, 5):
        np.testing.assert_allclose(local.box(ms, window), windows(ms, window).mean(-1), rtol=1e-12)


@pytest.mark.parametrize("ratio", [2, 3, 4])
def test_linear_reproduces_planes_and_stays_between(ratio: int) -> None:
    y, x = np.mgrid[:7, :9] + 0.5
    v, u = (np.mgrid[: 7 * ratio, : 9 * ratio] + 0.5) / ratio
    inner = np.s_[ratio:-ratio, ratio:-ratio]
    np.testing.assert_allclose(
        local.linear((3 * x - y)[None], ratio)[0][inner], (3 * u - v)[inner], atol=1e-12
    )
    spike = np.zeros((1, 5, 5))
    spike[0, 2, 2] = 1
    assert local.linear(spike, ratio).min() >= 0
    assert local.linear(spike, ratio).max() <= 1


def test_moments_are_those_of_the_windows(scene: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    ms, pan, _ = scene
    found = local.look(ms, pan, RATIO, 2047)
    smooth = degrade(pan[None], RATIO, local.GAIN)
    low = smooth + found.mix * (block_mean(pan[None], RATIO) - smooth)
    off, off_low = (image - windows(image, local.WINDOW).mean(-1) for image in (ms, low))
    floor = (local.CONTRAST * 2047) ** 2
    fine = block_mean((pan[None] - bicubic(low, RATIO)) ** 2, RATIO)
    spread = np.sqrt(windows(off**2, local.WINDOW).mean(-1) + floor)
    pan_spread = np.sqrt(windows(off_low**2 + local.FINE * fine, local.WINDOW).mean(-1) + floor)
    related = windows(off * off_low, local.WINDOW).mean(-1) / (spread * pan_spread)
    np.testing.assert_allclose(found.spreads, spread, rtol=1e-9)
    np.testing.assert_allclose(found.correlations, related, atol=1e-9)
    assert np.abs(found.correlations).max() <= 1


def test_the_blur_of_ms_is_found_from_the_image(scene: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """MS of each blur, made from the truth, is told apart, and so is what lies beyond the usual."""
    _, pan, truth = scene
    found = [local.look(degrade(truth, RATIO, gain), pan, RATIO).mix for gain in (0.15, 0.3, 0.4)]
    assert sorted(found) == found
    assert max(map(abs, found)) <= local.TRUST * local.MTF
    assert local.look(block_mean(truth, RATIO), pan, RATIO).mix > 0.6


def test_what_is_kept_of_the_mix_is_continuous_and_rises() -> None:
    mixes = np.linspace(*local.MIX, 500)
    kept = np.array([local.decided(mix) for mix in mixes])
    assert (np.diff(kept) >= 0).all()
    assert np.diff(kept).max() < 0.02
    assert local.decided(0) == 0
    assert local.decided(1.0) == local.MEANS


def test_without_contrast_the_blur_is_the_default() -> None:
    assert local.look(np.full((2, 8, 8), 300.0), np.full((32, 32), 500.0), RATIO).mix == 0


def test_a_band_that_is_pan_becomes_pan() -> None:
    """Its gain is 1, so that what resampling lost comes back."""
    pan = simulate(128, 128, 6).pan.astype(np.float64)
    ms = degrade(pan[None], RATIO, local.GAIN)
    for method in (local_regression, local_gsa):
        error = method(ms, pan, RATIO)[0] - pan
        lost = bicubic(ms, RATIO)[0] - pan
        assert np.sqrt((error**2).mean()) < 0.2 * np.sqrt((lost**2).mean())


def test_gains_follow_their_neighbourhood() -> None:
    """Where PAN's contrast is turned over in one half, so is what is added; a global gain cannot do that."""
    pan = np.random.default_rng(0).normal(500, 60, (128, 128))
    sign = np.where(np.arange(128) < 64, 1.0, -1.0)
    truth = (500 + sign * (pan - 500))[None]
    fused = local_regression(degrade(truth, RATIO, 0.3), pan, RATIO)
    for half in (np.s_[0, :, 8:48], np.s_[0, :, 80:120]):
        assert np.corrcoef(fused[half].ravel(), truth[half].ravel())[0, 1] > 0.8


def test_pan_that_explains_nothing_adds_little(scene: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """Noise in place of PAN: detail stays a fraction of the bands' own contrast."""
    ms, pan, _ = scene
    noise = np.random.default_rng(1).normal(pan.mean(), pan.std(), pan.shape)
    added = local_regression(ms, noise, RATIO) - bicubic(ms, RATIO)
    assert added.std() < 0.6 * ms.std()


@pytest.mark.parametrize("blur", ["mtf", "blocks"])
def test_local_methods_lead_on_real_pairs(imagery: Path, blur: str) -> None:
    """On QuickBird, however MS was reduced, ahead of every global method on the mean."""
    scores: dict[str, list[float]] = {}
    for path in sorted((imagery / "check").glob("QBRR_*.npz"))[:4]:
        with np.load(path) as pair:
            pan, truth = pair["pan"].astype(float), pair["gt"].astype(float)
        gains = (0.34, 0.32, 0.30, 0.22)
        ms = degrade(truth, RATIO, gains) if blur == "mtf" else block_mean(truth, RATIO)
        for name, method in METHODS.items():
            scores.setdefault(name, []).append(psnr(method(ms, pan, RATIO), truth, 2047))
    means = {name: np.mean(values) for name, values in scores.items()}
    best = max(value for name, value in means.items() if not name.startswith("local"))
    assert means["local_regression"] > best + 0.5
    assert means["local_gsa"] > best
