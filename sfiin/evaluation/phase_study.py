"""Does PAN know the truth's phase better than MS does? The amplitude and phase spectra that SFIIN is built
upon.

The spectrum of an image (H, W) is its unnormalised two-dimensional Fourier transform, in float64, without a
window, as the network sees it. Its mean (DC) is removed. The imaginary part at self-conjugate bins (rows 0
and H/2, columns 0 and W/2), there but for rounding, is set to zero, so their phase is 0 or pi. A bin counts
in a comparison if it lies above rounding noise, `FLOOR` times the largest amplitude, in both images. All bins
count, each of a conjugate pair once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float64]
Mask = NDArray[np.bool_]

FLOOR = 1e-10
"""Relative amplitude under which a bin is rounding noise, whose phase means nothing."""


@dataclass(frozen=True)
class Spectrum:
    """Amplitude, and phase in [-pi, pi] radians; (H, W) float64 in the order of numpy.fft.fft2, 0 at DC."""

    amplitude: Plane
    phase: Plane


@dataclass(frozen=True)
class Difference:
    """How far an image's spectrum is from the truth's, mean over bins.

    `log_amplitude`: |ln A - ln A_truth|; `gain_free`: the same after the mean of ln A - ln A_truth was taken
    off, so that a factor between both images does not count; `phase`: |phase - phase_truth| around the
    circle, radians, in 0..pi, pi/2 for phases that have nothing to do with one another.
    """

    log_amplitude: float
    gain_free: float
    phase: float


def spectrum(image: NDArray[Any]) -> Spectrum:
    """Amplitude and phase of an image (H, W) of any real type. Raises ValueError for another shape or NaN."""
    pixels = np.asarray(image, np.float64)
    if pixels.ndim != 2 or not np.isfinite(pixels).all():
        raise ValueError(f"image: expected finite (height, width), found {pixels.shape}")
    bins = np.fft.fft2(pixels - pixels.mean())
    height, width = pixels.shape
    own_mirror = np.ix_(*((2 * np.arange(side)) % side == 0 for side in (height, width)))
    bins[own_mirror] = bins[own_mirror].real
    bins[0, 0] = 0
    return Spectrum(np.abs(bins), np.arctan2(bins.imag, bins.real))


def planes(image: Spectrum, truth: Spectrum) -> tuple[Plane, Plane, Mask]:
    """ln A - ln A_truth, the wrapped phase difference (-pi..pi), and where both mean something; (H, W) each.

    Elsewhere both differences are 0. Raises ValueError for spectra of different shapes.
    """
    if image.amplitude.shape != truth.amplitude.shape:
        raise ValueError(f"spectra: of {image.amplitude.shape} and {truth.amplitude.shape}, not of one shape")
    usable = _lit(image) & _lit(truth)
    ratio = np.where(usable, image.amplitude, 1.0) / np.where(usable, truth.amplitude, 1.0)
    turn = image.phase - truth.phase
    return np.log(ratio), np.where(usable, np.arctan2(np.sin(turn), np.cos(turn)), 0.0), usable


def compare(
    image: Spectrum, truth: Spectrum, chosen: Mask | None = None, *, weighted: bool = False
) -> Difference:
    """The mean difference over the `chosen` bins, (H, W) boolean (default: all), `weighted` by the truth's
    amplitude.

    Raises ValueError for spectra of different shapes, and where no bin is left.
    """
    log_amplitude, phase, usable = planes(image, truth)
    counts = usable if chosen is None else usable & chosen
    if not counts.any():
        raise ValueError("spectra: no bin above the noise is left to compare")
    weights = truth.amplitude[counts] if weighted else np.ones(int(counts.sum()))
    weights = _conjugate_pairs_once(counts) * weights
    logs = log_amplitude[counts]
    offset = np.average(logs, weights=weights)
    means = [np.average(np.abs(values), weights=weights) for values in (logs, logs - offset, phase[counts])]
    return Difference(*map(float, means))


def beyond_nyquist(height: int, width: int, ratio: int) -> Mask:
    """The frequencies that an MS grid `ratio` times coarser cannot carry: beyond 1 / (2 ratio) in either
    direction.

    Boolean (height, width), in the order of numpy.fft.fft2.
    """
    rows, cols = (np.abs(np.fft.fftfreq(side)) > 0.5 / ratio for side in (height, width))
    return np.asarray(rows[:, None] | cols[None, :])


def _lit(found: Spectrum) -> Mask:
    return np.asarray(found.amplitude > FLOOR * found.amplitude.max())


def _conjugate_pairs_once(counts: Mask) -> Plane:
    """A bin and its mirror say the same: half each, and one for a bin that is its own mirror."""
    own = np.zeros(counts.shape, np.bool_)
    own[np.ix_(*((2 * np.arange(side)) % side == 0 for side in counts.shape))] = True
    return np.where(own, 1.0, 0.5)[counts]
