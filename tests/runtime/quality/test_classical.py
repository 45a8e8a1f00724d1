from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sfiin.runtime.quality.bicubic import bicubic, cubic_taps
from sfiin.runtime.quality.classical import METHODS, brovey, gs, gsa, mtf_glp_hpm, sfim
from sfiin.runtime.quality.degradation import degrade
from sfiin.runtime.quality.metrics import ergas

RATIO = 4


@pytest.fixture(scope="module")
def scene() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """MS, PAN and truth of smooth random bands; PAN is a linear mix of the truth."""
    random = np.random.default_rng(3)
    detail = degrade(random.normal(0, 900, (1, 256, 256)), 2, 0.2)
    own = degrade(random.normal(0, 150, (4, 256, 256)), 2, 0.2)
    truth = 400 + np.array([0.7, 1.0, 1.1, 0.8])[:, None, None] * detail + own
    pan = np.tensordot([0.1, 0.3, 0.4, 0.2], truth, 1) + 20
    return degrade(truth, RATIO, 0.3), pan, truth


def keys(distance: float) -> float:
    d = abs(distance)
    if d <= 1:
        return 1.5 * d**3 - 2.5 * d**2 + 1
    return -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2 if d < 2 else 0.0


@pytest.mark.parametrize("ratio", [2, 3, 4, 5])
def test_bicubic_against_the_sum_written_out(ratio: int) -> None:
    ms = np.random.default_rng(0).uniform(0, 2047, (1, 5, 6))
    expected = np.zeros((5 * ratio, 6 * ratio))
    for row, col in np.ndindex(*expected.shape):
        y, x = (row + 0.5) / ratio - 0.5, (col + 0.5) / ratio - 0.5
        for i in range(-2, 7):
            for j in range(-2, 8):
                expected[row, col] += keys(y - i) * keys(x - j) * ms[0, np.clip(i, 0, 4), np.clip(j, 0, 5)]
    np.testing.assert_allclose(bicubic(ms, ratio)[0], expected, rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("ratio", [1, 2, 3, 4, 5])
def test_taps(ratio: int) -> None:
    taps = cubic_taps(ratio)
    assert taps.shape == (ratio, 5)
    assert taps.dtype == np.float64
    np.testing.assert_allclose(taps.sum(axis=1), 1)
    np.testing.assert_allclose(taps, taps[::-1, ::-1], atol=1e-15)


@pytest.mark.parametrize("ratio", [2, 3, 4])
def test_bicubic_reproduces_a_parabola_inside(ratio: int) -> None:
    v, u = np.mgrid[0:10, 0:10] * 1.0
    y, x = (np.mgrid[0 : 10 * ratio, 0 : 10 * ratio] + 0.5) / ratio - 0.5
    inner = np.s_[2 * ratio : -2 * ratio, 2 * ratio : -2 * ratio]
    up = bicubic(np.stack([3 * u - 2 * v + 1, u * u + v]), ratio)
    np.testing.assert_allclose(up[0][inner], (3 * x - 2 * y + 1)[inner], atol=1e-9)
    np.testing.assert_allclose(up[1][inner], (x * x + y)[inner], atol=1e-9)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("ratio", [2, 3, 4])
def test_a_flat_scene_stays(name: str, ratio: int) -> None:
    ms = np.full((3, 4, 5), 7, np.uint16) * np.array([1, 2, 3], np.uint16)[:, None, None]
    fused = METHODS[name](ms, np.full((1, 4 * ratio, 5 * ratio), 9, np.uint16), ratio)
    assert fused.dtype == np.float64
    np.testing.assert_allclose(fused, ms.repeat(ratio, 1).repeat(ratio, 2), atol=1e-9)


@pytest.mark.parametrize("name", METHODS)
def test_darkness_stays_finite(name: str) -> None:
    np.testing.assert_array_equal(METHODS[name](np.zeros((2, 4, 4)), np.zeros((16, 16)), RATIO), 0)


@pytest.mark.parametrize("name", [name for name in METHODS if name != "bicubic"])
def test_sharpening_beats_resampling(name: str, scene: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    ms, pan, truth = scene
    assert ergas(METHODS[name](ms, pan, RATIO), truth, RATIO) < 0.9 * ergas(bicubic(ms, RATIO), truth, RATIO)


@pytest.mark.parametrize("name", METHODS)
def test_a_gain_common_to_all_passes_through(
    name: str, scene: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> None:
    ms, pan, _ = scene
    np.testing.assert_allclose(
        METHODS[name](2 * ms, 2 * pan, RATIO), 2 * METHODS[name](ms, pan, RATIO), rtol=1e-6
    )


def test_brovey_keeps_the_ratios_of_bands(scene: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    ms, pan, _ = scene
    fused, up = brovey(ms, pan, RATIO), bicubic(ms, RATIO)
    np.testing.assert_allclose(fused / fused[0], up / up[0], rtol=1e-9)
    assert np.corrcoef(fused.mean(axis=0).ravel(), pan.ravel())[0, 1] == pytest.approx(1)


def test_gs_puts_pan_in_place_of_the_mean(scene: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    ms, pan, _ = scene
    assert np.corrcoef(gs(ms, pan, RATIO).mean(axis=0).ravel(), pan.ravel())[0, 1] == pytest.approx(1)


def test_gsa_reproduces_pan_and_finds_its_mix(scene: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    ms, _, _ = scene
    mix = np.array([0.1, 0.3, 0.4, 0.2])
    pan = np.tensordot(mix, bicubic(ms, RATIO), 1) + 20
    fused = gsa(ms, pan, RATIO)
    design = np.vstack([ms.reshape(4, -1), np.ones(ms[0].size)]).T
    weights = np.linalg.lstsq(design, degrade(pan[None], RATIO, 0.15).ravel(), rcond=None)[0][:4]
    mixed = np.tensordot(weights, fused, 1)
    np.testing.assert_allclose(mixed - mixed.mean(), pan - pan.mean(), atol=1e-6)


def test_sfim_leaves_ms_where_pan_is_a_ramp(scene: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    ms, pan, _ = scene
    ramp = 500 + np.mgrid[: pan.shape[0], : pan.shape[1]][1] * 2.0
    inner = np.s_[:, 4:-4, 4:-4]
    np.testing.assert_allclose(sfim(ms, ramp, RATIO)[inner], bicubic(ms, RATIO)[inner], rtol=1e-12)


def test_mtf_glp_hpm_takes_a_gain_for_each_band(scene: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    ms, pan, _ = scene
    each = mtf_glp_hpm(ms, pan, RATIO, (0.3, 0.3, 0.2, 0.2))
    np.testing.assert_array_equal(each[:2], mtf_glp_hpm(ms, pan, RATIO, 0.3)[:2])
    np.testing.assert_array_equal(each[2:], mtf_glp_hpm(ms, pan, RATIO, 0.2)[2:])
    with pytest.raises(ValueError, match="2 gains for 4 bands"):
        mtf_glp_hpm(ms, pan, RATIO, (0.3, 0.3))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    ("ms", "pan", "ratio", "message"),
    [
        ((4, 4), (16, 16), 4, "ms: expected"),
        ((1, 4, 4), (4, 4), 1, "ms: expected"),
        ((1, 4, 4), (16, 15), 4, "pan: exp"),
    ],
)
def test_refusals(name: str, ms: tuple[int, ...], pan: tuple[int, ...], ratio: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        METHODS[name](np.ones(ms), np.ones(pan), ratio)


def test_real_pairs_gain_from_gram_schmidt(imagery: Path) -> None:
    gains = []
    for path in sorted((imagery / "check").glob("QBRR_*.npz")):
        with np.load(path) as pair:
            ms, pan, truth = pair["ms"], pair["pan"], pair["gt"]
        gains.append(ergas(bicubic(ms, RATIO), truth, RATIO) - ergas(gs(ms, pan, RATIO), truth, RATIO))
    assert np.mean(gains) > 0
