"""How much of a product's detail is there, and is it PAN's? Measures of sharpness, with and without a truth.

Images are (B, H, W), any real type; PAN is (1, H, W). Fine is what lies above a Gaussian of `FINE` pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfiin.runtime.quality.degradation import degrade
from sfiin.runtime.quality.filters import correlate

Image = NDArray[np.float64]

FINE = 0.9
"""Sigma, PAN pixels, of the Gaussian above which contrast is fine."""

MIDDLE = (1.5, 4.0)
"""Sigmas between which contrast is of the middle scales, to which fine contrast is related."""

SIGMAS = (0.0, 0.25, 0.35, 0.45, 0.55, 0.65, 0.8, 1.0, 1.3)
"""Blurs that are tried, to know which makes an image how sharp."""


def fine_detail(fused: NDArray[Any], pan: NDArray[Any]) -> float:
    """A product's fine contrast beside PAN's, each in units of the image's whole contrast: 1 is as sharp as
    PAN.

    The mean over bands. ValueError where an image has no contrast at all.
    """
    return float(np.mean(_relative(fused)) / _relative(pan)[0])


def detail_correlation(fused: NDArray[Any], pan: NDArray[Any]) -> float:
    """Correlation of a product's fine detail with PAN's, -1 to 1: the mean over bands; 0 for a band without
    any."""
    sharp = fine(pan)[0]
    norm = np.sqrt((sharp**2).sum())
    found = []
    for band in fine(fused):
        energy = np.sqrt((band**2).sum()) * norm
        found.append(float((band * sharp).sum() / energy) if energy else 0.0)
    return float(np.mean(found))


def inconsistency(fused: NDArray[Any], ms: NDArray[Any], gains: float | Sequence[float]) -> float:
    """How far a product, seen through the MS sensor's MTF, is from MS: root mean square, per cent of each
    band's standard deviation, the mean over bands; 0 is best. ValueError where a band has no contrast."""
    ratio = fused.shape[-1] // ms.shape[-1]
    error = degrade(np.asarray(fused, np.float64), ratio, gains) - ms
    spread = np.asarray(ms, np.float64).std((1, 2))
    if not spread.all():
        raise ValueError("consistency: a band without contrast")
    return float(100 * (np.sqrt((error**2).mean((1, 2))) / spread).mean())


def fine(image: NDArray[Any]) -> Image:
    """What lies above a Gaussian of `FINE` pixels."""
    return np.asarray(np.asarray(image, np.float64) - gaussian(image, FINE))


def crispness(image: NDArray[Any]) -> float:
    """Fine contrast over that of the middle scales, the mean over bands (C, H, W); of another gain the
    same."""
    fine = np.asarray(image, np.float64) - gaussian(image, FINE)
    middle = gaussian(image, MIDDLE[0]) - gaussian(image, MIDDLE[1])
    energies = [(part**2).mean((1, 2)) for part in (fine, middle)]
    return float(np.sqrt(energies[0] / np.maximum(energies[1], 1e-12)).mean())


def matched(pan: NDArray[Any], truth: NDArray[Any]) -> tuple[Image, Image]:
    """PAN and truth with one crispness: whichever is crisper is blurred by a Gaussian."""
    wanted = crispness(pan) > crispness(truth)
    sharp, soft = (pan, truth) if wanted else (truth, pan)
    low, high = 0.0, 3.0
    for _ in range(14):
        middle = (low + high) / 2
        low, high = (middle, high) if crispness(gaussian(sharp, middle)) > crispness(soft) else (low, middle)
    blurred = gaussian(sharp, low)
    return (blurred, np.asarray(truth, np.float64)) if wanted else (np.asarray(pan, np.float64), blurred)


def gaussian(image: NDArray[Any], sigma: float) -> NDArray[np.float64]:
    """Blur (C, H, W) by a Gaussian of sigma pixels; edges are replicated."""
    if sigma < 0.05:
        return np.asarray(image, np.float64)
    reach = max(1, int(np.ceil(4 * sigma)))
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return correlate(correlate(image, taps / taps.sum(), 1), taps / taps.sum(), 2)


def _relative(image: NDArray[Any]) -> Image:
    """Each band's fine contrast in units of its whole contrast."""
    whole = np.asarray(image, np.float64).std((1, 2))
    if not whole.all():
        raise ValueError("fine detail: a band without contrast")
    return np.asarray(np.sqrt((fine(image) ** 2).mean((1, 2))) / whole)
