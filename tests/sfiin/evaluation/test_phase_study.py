"""Spectra and their differences, on closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from sfiin.evaluation.phase_study import Difference, beyond_nyquist, compare, planes, spectrum

Plane = NDArray[np.float64]


def noise(height: int = 24, width: int = 32, seed: int = 0) -> Plane:
    return np.random.default_rng(seed).normal(300, 40, (height, width))


def test_a_cosine_is_two_bins_with_its_phase() -> None:
    rows, cols = np.mgrid[:16, :32]
    found = spectrum(500 + 7 * np.cos(2 * np.pi * (2 * rows / 16 + 3 * cols / 32) + 0.4))
    assert found.amplitude[2, 3] == pytest.approx(7 * 16 * 32 / 2)
    assert found.phase[2, 3] == pytest.approx(0.4)
    assert found.phase[-2, -3] == pytest.approx(-0.4)
    assert found.amplitude[0, 0] == found.phase[0, 0] == 0
    assert (found.amplitude > 1e-6).sum() == 2


@pytest.mark.parametrize("size", [(24, 32), (23, 31), (24, 31)])
def test_self_conjugate_bins_are_real(size: tuple[int, int]) -> None:
    found = spectrum(noise(*size))
    for row in {0, size[0] // 2} if size[0] % 2 == 0 else {0}:
        for col in {0, size[1] // 2} if size[1] % 2 == 0 else {0}:
            assert found.phase[row, col] in (0.0, math.pi)


def test_an_image_does_not_differ_from_itself() -> None:
    image = spectrum(noise())
    for weighted in (False, True):
        assert compare(image, image, weighted=weighted) == Difference(0.0, 0.0, 0.0)


@pytest.mark.parametrize("size", [(24, 32), (23, 31)])
@pytest.mark.parametrize("shift", [(1, 0), (3, -5)])
def test_a_shifted_copy_has_a_linear_phase(size: tuple[int, int], shift: tuple[int, int]) -> None:
    image = noise(*size)
    amplitude, phase, usable = planes(spectrum(np.roll(image, shift, (0, 1))), spectrum(image))
    turn = np.fft.fftfreq(size[0])[:, None] * shift[0] + np.fft.fftfreq(size[1]) * shift[1]
    assert usable.sum() == image.size - 1
    assert not usable[0, 0]
    np.testing.assert_allclose(amplitude, 0, atol=1e-9)
    # Compared on the circle: at half a turn pi and -pi are the same.
    np.testing.assert_allclose(np.exp(1j * phase), np.exp(-2j * np.pi * turn), atol=1e-9)


def test_a_scaled_copy_differs_in_amplitude_only() -> None:
    image = noise()
    found = compare(spectrum(3 * image + 11), spectrum(image))
    assert found.log_amplitude == pytest.approx(math.log(3))
    assert found.gain_free == pytest.approx(0, abs=1e-9)
    assert found.phase == pytest.approx(0, abs=1e-9)


def test_a_negative_is_half_a_turn_away() -> None:
    image = noise()
    found = compare(spectrum(-image), spectrum(image), weighted=True)
    assert (found.log_amplitude, found.phase) == pytest.approx((0, math.pi), abs=1e-9)


def test_phases_that_have_nothing_in_common_are_a_quarter_turn_apart() -> None:
    found = compare(spectrum(noise(128, 128, 1)), spectrum(noise(128, 128, 2)))
    assert found.phase == pytest.approx(math.pi / 2, abs=0.03)


def test_the_mean_is_over_one_side_of_the_plane_and_weights_are_the_truths_amplitudes() -> None:
    a, b = noise(10, 12, 3), noise(10, 12, 4)
    first, second = (np.fft.rfft2(image - image.mean()) for image in (a, b))
    ours = [(r, c) for r in range(10) for c in range(7) if (r, c) != (0, 0) and not (c in (0, 6) and r > 5)]
    logs = np.array([math.log(abs(first[bin_]) / abs(second[bin_])) for bin_ in ours])
    turns = np.array([abs(np.angle(first[bin_] * np.conj(second[bin_]))) for bin_ in ours])
    weights = np.array([abs(second[bin_]) for bin_ in ours])
    for weighted, w in ((False, np.ones(len(ours))), (True, weights)):
        found = compare(spectrum(a), spectrum(b), weighted=weighted)
        offset = (logs * w).sum() / w.sum()
        assert found.log_amplitude == pytest.approx((abs(logs) * w).sum() / w.sum())
        assert found.gain_free == pytest.approx((abs(logs - offset) * w).sum() / w.sum())
        assert found.phase == pytest.approx((turns * w).sum() / w.sum())


def test_beyond_nyquist_is_what_a_coarser_grid_cannot_carry() -> None:
    beyond = beyond_nyquist(16, 24, 4)
    within = [(r, c) for r in range(16) for c in range(24) if min(r, 16 - r) <= 2 and min(c, 24 - c) <= 3]
    assert sorted(zip(*np.nonzero(~beyond), strict=True)) == within


def test_what_cannot_be_compared_is_said() -> None:
    with pytest.raises(ValueError, match="height, width"):
        spectrum(np.zeros((2, 3, 4)))
    with pytest.raises(ValueError, match="one shape"):
        planes(spectrum(noise()), spectrum(noise(16, 16)))
    with pytest.raises(ValueError, match="no bin"):
        compare(spectrum(noise()), spectrum(np.full((24, 32), 5.0)))
    with pytest.raises(ValueError, match="finite"):
        spectrum(np.full((4, 4), np.nan))
